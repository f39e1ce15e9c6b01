"""A configuration from YAML, environment and overrides, later ones before earlier ones."""

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from streamlstm.config.layers import Layer, of_environment, of_overrides
from streamlstm.config.presets import find, presets
from streamlstm.config.problems import key_problems, truth_problems, value_problems
from streamlstm.config.schema import Config
from streamlstm.config.words import sections, show
from streamlstm.config.yaml_files import read_yaml
from streamlstm.errors import ConfigError

_EXTENDS = "extends"
_NONE: Mapping[str, Any] = MappingProxyType({})


def load(
    source: str | Path | dict[str, Any] | Config | None = None,
    *,
    overrides: Mapping[str, Any] = _NONE,
    environ: Mapping[str, str] = os.environ,
    base: Mapping[str, Any] = _NONE,
) -> Config:
    """The configuration that `base`, `source`, `environ`, then `overrides` say; the last one to set a key decides.

    source    a YAML file, the bare name of a preset, a dict, a `Config`, or None for the defaults
    overrides by dotted key: {"threshold.kind": "sigma"}
    environ   read are its variables STREAMLSTM__SECTION__KEY; not for a `Config`, which is finished and may hold
              overrides that the environment must not undo
    base      by section and key, below everything else: the settings that a model was fitted with

    Raises `ConfigError` with one line per problem.
    """
    below = [Layer("the model's configuration", dict(base))]
    return _build([*below, *_layers(source, environ), *of_overrides(overrides)])


def model_file(
    source: str | Path | dict[str, Any] | Config | None,
    *,
    overrides: Mapping[str, Any] = _NONE,
    environ: Mapping[str, str] = os.environ,
) -> str | None:
    """`model.file` as these layers set it, None where they do not; nothing else is checked.

    For whoever needs the model before the configuration, since the model's own settings lie below it.
    """
    layers = [*_layers(source, environ), *of_overrides(overrides)]
    named = next((layer.values["model"]["file"] for layer in reversed(layers) if layer.sets(("model", "file"))), None)
    return named if isinstance(named, str) else None  # `load` says what is wrong with it


def _layers(source: str | Path | dict[str, Any] | Config | None, environ: Mapping[str, str]) -> list[Layer]:
    if isinstance(source, Config):
        return [Layer("configuration", source.model_dump())]
    return [*_of_source(source), *of_environment(environ)]


def _of_source(source: str | Path | dict[str, Any] | None) -> list[Layer]:
    if source is None:
        return []
    if isinstance(source, Mapping):
        values = {str(section): content for section, content in source.items()}
        return _with_base(Layer("configuration", values), Path(), ())
    path = find(str(source), Path())
    if not path.exists():
        raise ConfigError(f"{source}: no such file or preset; {_offer(str(source))}")
    return _of_file(path, ())


def _of_file(path: Path, chain: tuple[Path, ...]) -> list[Layer]:
    return _with_base(read_yaml(path, str(path)), path.parent, (*chain, path))


def _with_base(layer: Layer, folder: Path, chain: tuple[Path, ...]) -> list[Layer]:
    """The layers that `layer` extends, the farthest first, then the layer itself; `chain` are the files so far."""
    if _EXTENDS not in layer.values:
        return [layer]
    name = layer.values.pop(_EXTENDS)
    place = layer.where((_EXTENDS,))
    if not isinstance(name, str):
        raise ConfigError(f"{place}: must be the name of a preset or a path, got {show(name)}; {_offer('')}")
    base = find(name, folder)
    if not base.exists():
        raise ConfigError(f"{place}: no such file or preset '{name}'; {_offer(name)}")
    if any(base.resolve() == known.resolve() for known in chain):
        circle = " -> ".join(str(known) for known in (*chain, base))
        raise ConfigError(f"{place}: goes in a circle: {circle}; remove one of these")
    return [*_of_file(base, chain), layer]


def _offer(name: str) -> str:
    near = get_close_matches(Path(name).stem, presets(), n=1)
    meant = f"did you mean '{near[0]}'? " if near else ""
    return f"{meant}the presets are: {', '.join(presets())}"


def _build(layers: Sequence[Layer]) -> Config:
    """The configuration of the layers, or every problem of all of them at once."""
    problems = [problem for layer in layers for problem in key_problems(layer)]
    merged: dict[str, dict[str, Any]] = {section: {} for section in sections()}
    for layer in layers:
        for section, content in layer.values.items():
            if section in merged and isinstance(content, Mapping):
                merged[section] |= {key: value for key, value in content.items() if key in sections()[section]}
    truths = truth_problems(merged, layers)
    problems += truths
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        problems += [line for line in value_problems(error, merged, layers) if line not in truths]
    if problems:
        raise ConfigError("\n".join(problems))
    return config
