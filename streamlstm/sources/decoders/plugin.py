"""Records that a function of the user's decodes."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from streamlstm.config.schema import Input
from streamlstm.errors import ConfigError
from streamlstm.sources.decoders.cells import UnfitError
from streamlstm.sources.decoders.objects import ObjectReading
from streamlstm.sources.decoders.protocol import OnDeadLetter
from streamlstm.types import EventBatch, RawBlock

Function = Callable[[bytes | None, bytes | None], Mapping[str, Any]]
"""Takes a record's key and value; returns its values by name, None or absent where missing; ValueError says what is wrong."""


class PluginDecoder:
    """Values in any format at all, one Python call each; see `protocol.Decoder`.

    Whatever the function raises makes a dead letter: the text of a ValueError, of any other error its type too.
    """

    def __init__(self, settings: Input, path: str) -> None:
        self._function = load(path)
        self._path = path
        self._reading = ObjectReading(settings)
        self._unit = settings.time_unit
        self.columns = self._reading.columns
        self.infinities = 0

    def decode(self, block: RawBlock, on_dead_letter: OnDeadLetter) -> EventBatch:
        batch, infinities = self._reading.batch(
            block, lambda at: self._values(block.key(at), block.value(at)), self._unit, on_dead_letter
        )
        self.infinities += infinities
        return batch

    def _values(self, key: bytes | None, value: bytes | None) -> Mapping[str, Any]:
        try:
            values = self._function(key, value)
        except Exception as error:
            kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
            raise UnfitError(f"{kind}{error}") from error
        if not isinstance(values, Mapping):
            raise UnfitError(f"{self._path} returned a {type(values).__name__}, not a mapping of names to values")
        return values


def load(path: str) -> Function:
    """The function at `package.module:name`; ConfigError where there is none."""
    place = f"config: messages.decoder: {path!r}"
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise ConfigError(f"{place}: must be package.module:function")
    try:
        function = getattr(import_module(module_name), name, None)
    except Exception as error:  # the module runs when it is imported
        raise ConfigError(
            f"{place}: module {module_name} cannot be imported ({type(error).__name__}: {error}); "
            "it must be installed or lie in a folder of PYTHONPATH"
        ) from error
    if not callable(function):
        raise ConfigError(f"{place}: module {module_name} has no function {name}")
    found: Function = function
    return found
