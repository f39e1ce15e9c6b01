"""One YAML file as a layer that knows the line of every key."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from streamlstm.config.layers import KeyPath, Layer, dotted
from streamlstm.errors import ConfigError

_MERGE = "tag:yaml.org,2002:merge"
_DEEPEST = 3  # section, key, item; what lies below is wrong by its value and needs no line


def read_yaml(path: Path, shown: str) -> Layer:
    """The layer that the file says; `shown` is what messages call the file. An empty file is an empty layer."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read: {error.strerror}") from error
    loader: yaml.SafeLoader | None = None
    try:
        loader = yaml.SafeLoader(data)  # checks the encoding, so it may raise as well
        root = loader.get_single_node()
        if root is None:
            return Layer(shown, {})
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(
                f"{shown}:{_line(root)}: must be a mapping of sections, as in 'model: {{hidden_size: 32}}', "
                f"but holds {'a list' if isinstance(root, yaml.SequenceNode) else 'a single value'}"
            )
        names = {keys: f"{shown}:{line}: {dotted(keys)}" for keys, line in _lines(root, (), shown)}
        values = loader.construct_document(root)
    except yaml.YAMLError as error:
        raise ConfigError(_what_is_wrong(error, shown)) from error
    except RecursionError as error:
        raise ConfigError(f"{shown}: is nested too deeply; a configuration has sections and keys, no more") from error
    except ValueError as error:  # PyYAML lets those of int() and date() through
        raise ConfigError(f"{shown}: holds a value that YAML cannot read ({error}); put text in quotes") from error
    finally:
        if loader is not None:
            loader.dispose()
    return Layer(shown, _with_text_keys(values), names)


def _lines(node: yaml.Node, path: KeyPath, shown: str) -> Iterator[tuple[KeyPath, int]]:
    """Key paths under `node` with their 1-based lines; a key that stands twice is an error."""
    if len(path) >= _DEEPEST:
        return
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, index), _line(item)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            if key.tag == _MERGE or not isinstance(key, yaml.ScalarNode):
                continue
            here = (*path, key.value)
            if key.value in seen:
                raise ConfigError(
                    f"{shown}:{_line(key)}: {dotted(here)}: stands twice, first on line {seen[key.value]}; keep one"
                )
            seen[key.value] = _line(key)
            yield here, _line(key)
            yield from _lines(value, here, shown)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _with_text_keys(values: dict[Any, Any]) -> dict[str, Any]:
    """Sections and keys as text: YAML reads `on:` and `1:` as other things, and messages want to name them."""
    return {
        str(section): {str(key): value for key, value in content.items()} if isinstance(content, dict) else content
        for section, content in values.items()
    }


def _what_is_wrong(error: yaml.YAMLError, shown: str) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        problem = getattr(error, "problem", None) or getattr(error, "context", None)
        return f"{shown}:{mark.line + 1}: is no valid YAML: {problem} (column {mark.column + 1})"
    return f"{shown}: is no valid YAML: {' '.join(str(error).split())}"
