"""Layers of a configuration: what one file, one environment variable or one `--set` says, and where it says so."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from streamlstm.errors import ConfigError

KeyPath = tuple[str | int, ...]
PREFIX = "STREAMLSTM__"


@dataclass(frozen=True, slots=True)
class Layer:
    """Values by section and key, and the words by which a message points at each of them.

    names    key path -> how the origin calls it, such as `my.yaml:12: model.hidden_size`
    spelling how the origin writes keys: for the proposal of a better one
    """

    origin: str
    values: dict[str, Any]
    names: dict[KeyPath, str] = field(default_factory=dict)
    spelling: Literal["nested", "dotted", "environment"] = "nested"

    def sets(self, path: KeyPath) -> bool:
        """Whether this layer has a value at `path`."""
        value: Any = self.values
        for key in path[:2]:
            if not isinstance(value, Mapping) or key not in value:
                return False
            value = value[key]
        return True

    def where(self, path: KeyPath) -> str:
        """Words that point at `path`: its own name, else its parent's, else that of the last thing inside it."""
        for cut in range(len(path), 0, -1):
            if path[:cut] in self.names:
                rest = dotted(path[cut:])
                return self.names[path[:cut]] + (f".{rest}" if rest and not rest.startswith("[") else rest)
        inside = [name for known, name in self.names.items() if known[: len(path)] == path]
        return inside[-1] if inside else f"{self.origin}: {dotted(path)}"

    def spell(self, section: str, key: str) -> str:
        """The key as this origin would have to write it."""
        if self.spelling == "environment":
            return f"{PREFIX}{section}__{key}".upper() if key else f"{PREFIX}{section}__...".upper()
        return f"'{section}.{key}'" if key else f"'{section}'"


def dotted(path: KeyPath) -> str:
    """`input.features[1]` for ("input", "features", 1)."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def of_environment(environ: Mapping[str, str]) -> list[Layer]:
    """One layer per variable `STREAMLSTM__SECTION__KEY`, sorted by name; the value is read as YAML."""
    layers = []
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        section, _, key = variable.removeprefix(PREFIX).lower().partition("__")
        name = f"environment {variable}"
        layers.append(_single(name, section, key, parse_value(environ[variable], name), "environment"))
    return layers


def of_overrides(overrides: Mapping[str, Any]) -> list[Layer]:
    """One layer per dotted key, in the order given."""
    layers = []
    for dotted_key, value in overrides.items():
        section, _, key = dotted_key.partition(".")
        layers.append(_single(f"--set {dotted_key}", section, key, value, "dotted"))
    return layers


def _single(name: str, section: str, key: str, value: Any, spelling: Literal["dotted", "environment"]) -> Layer:
    values = {section: {key: value} if key else value}
    path: KeyPath = (section, key) if key else (section,)
    return Layer(name, values, {path: name}, spelling)


def parse_setting(text: str) -> tuple[str, Any]:
    """Dotted key and value of `threshold.kind=sigma`, the value read as YAML: an entry of `load`'s `overrides`."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text}: must read SECTION.KEY=VALUE, as in threshold.kind=sigma")
    return key.strip(), parse_value(value, f"--set {key.strip()}")


def parse_value(text: str, name: str) -> Any:
    """`text` read as YAML; `name` is what a message calls it."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        what = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{name}: {text!r} is no YAML value ({what}); put text in quotes") from error
