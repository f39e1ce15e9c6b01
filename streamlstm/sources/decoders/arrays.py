"""Records whose values are JSON arrays with one item per place. What an item means is said by `decoders/json.py`."""

from typing import Any

from streamlstm.config.schema import Input
from streamlstm.kernels.decode.arrays import decode_arrays
from streamlstm.kernels.decode.times import UNITS
from streamlstm.sources.decoders.cells import UnfitError
from streamlstm.sources.decoders.items import item_number, item_part, item_time, parsed
from streamlstm.sources.decoders.places import Places
from streamlstm.sources.decoders.protocol import Event, OnDeadLetter, bytes_of, finish
from streamlstm.types import EventBatch, RawBlock


class ArrayDecoder:
    """Values that are arrays of exactly as many items as there are columns; see `protocol.Decoder`."""

    def __init__(self, settings: Input, names: tuple[str, ...]) -> None:
        self._places = Places.of(settings, names)
        self._unit = settings.time_unit
        self.columns = self._places.columns
        self.infinities = 0

    def decode(self, block: RawBlock, on_dead_letter: OnDeadLetter) -> EventBatch:
        places, draft = self._places, self._places.draft(block)
        decode_arrays(
            bytes_of(block), block.keys, block.values, block.timestamp, places.codes, UNITS.index(self._unit),
            places.parts, draft.time, draft.x, draft.key_bytes, draft.key_ends, draft.code,
        )  # fmt: skip
        batch, infinities = finish(block, draft, lambda at: self._careful(block, at), on_dead_letter)
        self.infinities += infinities
        return batch

    def _careful(self, block: RawBlock, at: int) -> Event | str:
        try:
            items = self._items(block.value(at))
            return self._places.event(block, at, items, item_number, self._time, item_part)
        except UnfitError as error:
            return str(error)

    def _time(self, name: str, item: Any) -> int:
        return item_time(name, item, self._unit)

    def _items(self, value: bytes | None) -> dict[str, Any]:
        """The items by the names of their places."""
        items = parsed(value)
        if not isinstance(items, list):
            raise UnfitError("is JSON, but not an array with an item per column")
        return self._places.by_name(items, "items")
