"""Records whose values are JSON objects. The kernel decodes the plain ones, `json.loads` decides on all others."""

from typing import Any

import numpy as np

from streamlstm.config.schema import Input
from streamlstm.kernels.decode.json import Names, decode_json, name_hash, prefix_of
from streamlstm.kernels.decode.times import UNITS
from streamlstm.sources.decoders.cells import UnfitError, joined_key, key_names, key_of_record, time_of_record
from streamlstm.sources.decoders.items import item_number, item_part, item_time, parsed
from streamlstm.sources.decoders.protocol import Draft, Event, OnDeadLetter, bytes_of, finish
from streamlstm.types import Columns, EventBatch, RawBlock, UInt8


class JsonDecoder:
    """Values that are objects of fields; see `protocol.Decoder`.

    A wanted name with a dot means, unless a field has just that name, a field of an object in the record: a.b is field b
    of object a. Of fields with the same name the last one counts.
    """

    def __init__(self, settings: Input) -> None:
        self._key = key_names(settings)
        self.columns = Columns(settings.time, "/".join(self._key) or None, settings.features, settings.exogenous)
        self.infinities = 0
        self._unit = settings.time_unit
        self._inputs = (*settings.features, *settings.exogenous)
        self._names = _names((*self._inputs, settings.time, *self._key))
        width = len(self._inputs) + 1 + len(self._key)
        self._seen = np.empty(width, np.int64)
        self._visited = np.empty(int(self._names.child.max()) + 2, np.int64)
        longest = int(np.diff(self._names.ends).max())
        self._scratch: UInt8 = np.zeros(6 * longest, np.uint8)  # \u00e9 takes six bytes for a character
        self._parts = np.zeros((len(self._key), 3), np.int64)

    def decode(self, block: RawBlock, on_dead_letter: OnDeadLetter) -> EventBatch:
        draft = Draft.of(block, len(self._inputs), len(self._key))
        decode_json(
            bytes_of(block), block.values, block.keys, block.timestamp, self._names, len(self._inputs),
            -1 if self.columns.time is None else UNITS.index(self._unit),
            self._seen, self._visited, self._scratch, self._parts,
            draft.time, draft.x, draft.key_bytes, draft.key_ends, draft.code,
        )  # fmt: skip
        batch, infinities = finish(block, draft, lambda at: self._careful(block, at), on_dead_letter)
        self.infinities += infinities
        return batch

    def _careful(self, block: RawBlock, at: int) -> Event | str:
        try:
            record = parsed(block.value(at))
            if not isinstance(record, dict):
                raise UnfitError("is JSON, but not an object with a field per column")
            if self.columns.time is None:
                time = time_of_record(block, at)
            else:
                time = item_time(self.columns.time, _field(record, self.columns.time), self._unit)
            if self._key:
                key = joined_key(self._key, [item_part(_field(record, name)) for name in self._key])
            else:
                key = key_of_record(block, at)
            return Event(time, tuple(item_number(name, _field(record, name)) for name in self._inputs), key)
        except UnfitError as error:
            return str(error)


def _field(record: dict[str, Any], name: str) -> Any:
    if name in record:
        return record[name]
    parent, dot, child = name.partition(".")
    inner = record.get(parent) if dot else None
    if inner is None:
        return None
    if not isinstance(inner, dict):
        raise UnfitError(f"column {name!r}: the field {parent!r} is not an object")
    return inner.get(child)


def _names(columns: tuple[str | None, ...]) -> Names:
    """What the kernel looks for; `columns` are the names of its columns, None for one that is not read."""
    wanted: dict[tuple[int, bytes], list[int]] = {}  # (group, name) -> [column, child]
    groups = 0
    for column, name in enumerate(columns):
        if name is None:
            continue
        wanted.setdefault((0, name.encode("utf-8")), [-1, -1])[0] = column
        parent, dot, child = name.partition(".")
        if dot:
            holder = wanted.setdefault((0, parent.encode("utf-8")), [-1, -1])
            if holder[1] < 0:
                groups += 1
                holder[1] = groups
            wanted.setdefault((holder[1], child.encode("utf-8")), [-1, -1])[0] = column
    texts = [np.frombuffer(name, np.uint8) for _, name in wanted]
    ends = np.cumsum([0, *map(len, texts)], dtype=np.int32)
    table = np.full(1 << (2 * len(texts)).bit_length(), -1, np.int32)
    for e, ((group, _), text) in enumerate(zip(wanted, texts, strict=True)):
        at = int(name_hash(text, 0, len(text), group)) & (len(table) - 1)
        while table[at] >= 0:
            at = (at + 1) & (len(table) - 1)
        table[at] = e
    meanings = np.array(list(wanted.values()), np.int32)
    return Names(
        table,
        np.array([prefix_of(text, 0, len(text), len(text)) for text in texts], np.uint64),
        np.concatenate(texts),
        ends,
        np.array([group for group, _ in wanted], np.int32),
        meanings[:, 0].copy(),
        meanings[:, 1].copy(),
    )
