"""The face of a decoder, and what all decoders share: a draft that a kernel fills, finished into a batch.

A kernel decodes the records that it is certain of and gives every other one a code. Those go one by one through the
decoder's careful reading in Python, which decodes the record or says why it is a dead letter. So a kernel that declines
costs time and never changes a result.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from streamlstm.types import Columns, DeadLetter, EventBatch, Float64, Int32, Int64, RawBlock, UInt8

OnDeadLetter = Callable[[DeadLetter], None]


class Decoder(Protocol):
    """Columns from the values (and keys) of Kafka records."""

    columns: Columns
    infinities: int
    """Infinite values so far that became missing."""

    def decode(self, block: RawBlock, on_dead_letter: OnDeadLetter) -> EventBatch:
        """The good records of `block` in their order, possibly none; each other one becomes a dead letter."""
        ...


class Event(NamedTuple):
    """One record as the careful reading gives it: nanoseconds or NO_TIME, I values, the key as UTF-8."""

    time: int
    x: tuple[float, ...]
    key: bytes


@dataclass(frozen=True, slots=True)
class Draft:
    """The columns of B records while they are decoded; the arrays are the outputs of a kernel.

    time      int64 (B)
    x         float64 (B, I)
    key_bytes uint8, the keys one after another
    key_ends  int32 (B + 1), key b is key_bytes[key_ends[b] : key_ends[b + 1]]; empty where the record is declined
    code      int32 (B), 0 where the kernel has decoded the record; else it has declined it
    """

    time: Int64
    x: Float64
    key_bytes: UInt8
    key_ends: Int32
    code: Int32

    @classmethod
    def of(cls, block: RawBlock, inputs: int, key_fields: int) -> "Draft":
        """A draft for a block, with room for any key that `write_key` makes of so many fields, or for the records' keys."""
        spans = block.values if key_fields else block.keys
        space = int((spans[:, 1] - spans[:, 0]).sum())
        if key_fields:  # %2F takes three bytes for one, and a stroke stands between two parts
            space = 3 * space + key_fields * len(block)
        return cls.empty(len(block), inputs, space)

    @classmethod
    def empty(cls, records: int, inputs: int, key_space: int) -> "Draft":
        """A draft of uninitialised arrays with room for `key_space` bytes of keys."""
        return cls(
            np.empty(records, np.int64),
            np.empty((records, inputs), np.float64),
            np.empty(key_space, np.uint8),
            np.zeros(records + 1, np.int32),
            np.empty(records, np.int32),
        )


def finish(
    block: RawBlock, draft: Draft, careful: Callable[[int], Event | str], on_dead_letter: OnDeadLetter
) -> tuple[EventBatch, int]:
    """The batch of a filled draft, and how many infinite values became missing in it.

    `careful` takes the position of a record that the kernel declined and returns it decoded, or why it is a dead letter.
    The batch owns the draft's arrays from now on.
    """
    time, x, row = draft.time, draft.x, block.offset
    keys: dict[int, bytes] = {}
    bad = []
    for at in map(int, np.flatnonzero(draft.code)):
        event = careful(at)
        if isinstance(event, str):
            bad.append(at)
            on_dead_letter(dead_letter(block, at, event))
        else:
            time[at], x[at], keys[at] = event
    key_bytes, key_ends = (
        _with_keys(draft.key_bytes, draft.key_ends, keys) if keys else (draft.key_bytes, draft.key_ends)
    )
    if bad:  # their keys are empty, so the bytes of the others stay where they are
        keep = np.ones(len(block), np.bool_)
        keep[bad] = False
        time, x, row = time[keep], x[keep], row[keep]
        key_ends = np.concatenate([key_ends[:1], key_ends[1:][keep]])
    infinite = np.isinf(x)
    infinities = int(np.count_nonzero(infinite))
    if infinities:
        x[infinite] = np.nan
    strings = pa.StringArray.from_buffers(len(row), pa.py_buffer(key_ends), pa.py_buffer(key_bytes))
    return EventBatch(strings, time, x, row, block.source), infinities


def bytes_of(block: RawBlock) -> UInt8:
    """The bytes of a block as kernels take them: read-only, for one type of array means one compilation."""
    data = block.data.view()
    data.flags.writeable = False
    return data


def dead_letter(block: RawBlock, at: int, reason: str) -> DeadLetter:
    """The record at a position of `block` as a dead letter."""
    value = block.value(at)
    text = "" if value is None else value.decode("utf-8", errors="replace")
    return DeadLetter(block.source, int(block.offset[at]), reason, text, block.key(at), value)


def _with_keys(key_bytes: UInt8, key_ends: Int32, keys: Mapping[int, bytes]) -> tuple[UInt8, Int32]:
    """The keys with some of the empty ones, by ascending position, replaced."""
    lengths = np.diff(key_ends)
    pieces, begin = [], 0
    for at, key in keys.items():
        end = int(key_ends[at])
        pieces += [key_bytes[begin:end], np.frombuffer(key, np.uint8)]
        lengths[at], begin = len(key), end
    pieces.append(key_bytes[begin : key_ends[-1]])
    return np.concatenate(pieces), np.concatenate([key_ends[:1], np.cumsum(lengths, dtype=np.int32)])
