"""What is wrong with a stack of layers, one line each: unknown keys, and values that the schema refuses."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from streamlstm.config.layers import KeyPath, Layer
from streamlstm.config.words import complaint, item_complaint, sections, show


def key_problems(layer: Layer) -> list[str]:
    """Sections and keys of the layer that the schema does not know, each with the nearest right one."""
    found = []
    for section, content in layer.values.items():
        if section not in sections():
            found.append(f"{layer.where((section,))}: {_unknown_section(layer, section, content)}")
        elif isinstance(content, Mapping):
            found += [
                f"{layer.where((section, key))}: unknown key; {_nearest_key(layer, section, key)}"
                for key in content
                if key not in sections()[section]
            ]
        elif content is not None:
            keys = ", ".join(sections()[section])
            found.append(f"{layer.where((section,))}: must be a section with keys of: {keys}; got {show(content)}")
    return found


def value_problems(
    error: ValidationError, merged: Mapping[str, Mapping[str, Any]], layers: Sequence[Layer]
) -> list[str]:
    """Pydantic's complaints in plain words, one per key, each with the place that set the value."""
    kinds: dict[KeyPath, list[str]] = {}
    own_words: dict[KeyPath, str] = {}
    for entry in error.errors(include_url=False):
        # Below section, key and item, pydantic names the branch of a union that failed: no place in a file.
        path = entry["loc"][:3] if len(entry["loc"]) > 2 and isinstance(entry["loc"][2], int) else entry["loc"][:2]
        kinds.setdefault(path, []).append(entry["type"])
        if entry["type"] == "value_error":
            own_words[path] = str(entry["ctx"]["error"])
    return [f"{_place(path, layers)}: {own_words.get(path) or _words(path, merged, of)}" for path, of in kinds.items()]


def truth_problems(merged: Mapping[str, Mapping[str, Any]], layers: Sequence[Layer]) -> list[str]:
    """Values that are true or false where the schema wants a number: pydantic alone would take them for 1 and 0."""
    return [
        f"{_place((section, key), layers)}: {complaint(section, key, value, ['bool'])}"
        for section, content in merged.items()
        for key, value in content.items()
        if isinstance(value, bool) and sections()[section][key].get("type") != "boolean"
    ]


def _words(path: KeyPath, merged: Mapping[str, Mapping[str, Any]], kinds: list[str]) -> str:
    section, key = str(path[0]), str(path[1])
    value = merged[section][key]
    if len(path) > 2:
        return item_complaint(section, key, list(value)[int(path[2])])
    return complaint(section, key, value, kinds)


def _place(path: KeyPath, layers: Sequence[Layer]) -> str:
    """Words for the layer that had the last say on `path`."""
    return next(layer.where(path) for layer in reversed(layers) if layer.sets(path))


def _unknown_section(layer: Layer, section: str, content: Any) -> str:
    homes = [name for name, keys in sections().items() if section in keys]
    if homes:  # a key that lost its section
        return f"unknown section; did you mean {layer.spell(homes[0], section)}?"
    near = get_close_matches(section, sections(), n=1)
    if not near:
        return f"unknown section; the sections are: {', '.join(sections())}"
    key = ""
    if layer.spelling != "nested" and isinstance(content, Mapping):
        close = get_close_matches(next(iter(content)), sections()[near[0]], n=1)
        key = close[0] if close else ""
    return f"unknown section; did you mean {layer.spell(near[0], key)}?"


def _nearest_key(layer: Layer, section: str, key: str) -> str:
    near = get_close_matches(key, sections()[section], n=1)
    if near:
        nested = layer.spelling == "nested"
        return f"did you mean {repr(near[0]) if nested else layer.spell(section, near[0])}?"
    homes = [name for name, keys in sections().items() if key in keys]
    if homes:
        return f"did you mean {layer.spell(homes[0], key)}?"
    return f"the keys of {section} are: {', '.join(sections()[section])}"
