"""A block: records of different streams, scored side by side in vectors of 16 values.

Many streams of one feature fill a vector as well as one stream of many features, so a block holds 16 / D records, at
least one. Its scratch has two parts; an element is a feature of a record, an entry one of a record's PARTS:

| part | index | holds |
|---|---|---|
| fields | field * stride + r * D + d | the middle of the streams' state in its own order, then what one record needs |
| entries | name * ENTRIES + r * PARTS + part | the parts' state, and what one record needs |

Rows are copied 16 floats at a time, in ascending order; what a copy writes too much the next one overwrites.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types

from streamlstm.kernels import interpreted
from streamlstm.kernels.compiling import LANES, intrinsic_with, jit
from streamlstm.kernels.lanes import LANES_TYPE, copy_lanes, fill_lanes, load, move, store
from streamlstm.kernels.layout import HEADS, LAGS, PARTS, RECENT_ROWS, SPANS
from streamlstm.kernels.vector import I64, Emitter, data
from streamlstm.types import Float32

# ---- fields of the state, D columns each, from its column AT_REGRESSORS on: see `layout`
LAG, AVERAGE, CLIPPED_AVERAGE = 0, LAGS, LAGS + len(SPANS)
ERRORS_NOW = CLIPPED_AVERAGE + len(SPANS)
UNREST, SHARE = ERRORS_NOW + HEADS, ERRORS_NOW + HEADS + 1
USUAL = SHARE + 1
"""Fields before it change with every record, those from it on while a stream learns what is usual for it."""
VARIABILITY_MEAN, VARIABILITY_VARIANCE, LOW, HIGH = range(USUAL + HEADS, USUAL + HEADS + 4)
RING = HIGH + 1
"""The ring is written in the state itself, before the block is read."""
STATE_FIELDS = RING + RECENT_ROWS
# ---- fields of the records alone
Z, THERE, FULL, UNREST_NOW, LEARN_WEIGHT = range(STATE_FIELDS, STATE_FIELDS + 5)
PREDICTED = LEARN_WEIGHT + 1
ERROR = PREDICTED + HEADS
SIZE = ERROR + HEADS
SHARING = SIZE + PARTS
FIELDS = SHARING + PARTS

# ---- names of entries: the first three are those of the state, from its column AT_SMOOTH on
(SMOOTH, PART_MEAN, PART_VARIANCE, TOTAL, COUNT, MOST, GAIN, IS_ROOT, PART_WEIGHT, VALUE, SCORE_NOW, SHARE_WEIGHT,
 PART_LEARN, NAMES) = range(14)  # fmt: skip
ENTRIES = (PARTS + 1) * LANES
"""Floats of each name, with room for what a copy writes too much."""


class Block(NamedTuple):
    """Scratch (flat) of a block, the floats of a field, where entries begin, its records, its elements and entries."""

    values: Float32
    stride: int
    at_entries: int
    records: int
    elements: int
    entries: int


@jit(inline=True)
def records_of(D):
    """Records of a full block."""
    return max(1, LANES // D)


@jit(inline=True)
def stride_of(D):
    """Floats of a field, with room for what a copy writes too much."""
    return (records_of(D) * D + 2 * LANES - 2) // LANES * LANES


@jit(inline=True)
def block_size(D):
    """Floats of a block's scratch."""
    return FIELDS * stride_of(D) + NAMES * ENTRIES


@jit(inline=True)
def make_block(values, D, records):
    """A block of so many records of D features in scratch `values`."""
    stride = np.int64(stride_of(D))
    return Block(values, stride, FIELDS * stride, records, records * D, records * PARTS)


@jit(inline=True)
def filled(block, D, records):
    """The block with so many records of D features; to make it anew takes divisions."""
    return Block(block.values, block.stride, block.at_entries, records, records * D, records * PARTS)


def _place(context: Any, builder: Any, kind: Any, of_entries: bool, block: Any, name: Any, at: Any) -> tuple[Any, Any]:
    values, stride, at_entries = (builder.extract_value(block, n) for n in range(3))
    begin = builder.add(at_entries, builder.mul(name, I64(ENTRIES))) if of_entries else builder.mul(name, stride)
    return data(context, builder, kind[0], values), builder.add(begin, at)


def _place_in(block: Block, of_entries: bool, name: int, at: int) -> int:
    return (block.at_entries + name * ENTRIES if of_entries else name * block.stride) + at


def _reader(of_entries: bool, result: Any) -> Any:
    """An intrinsic, since a compiled function would be compiled for each name that it is called with (10 of 80 s)."""

    def twin(block, name, at):
        place = _place_in(block, of_entries, name, at)
        return interpreted.load(block.values, place) if result is LANES_TYPE else block.values[place]

    @intrinsic_with(twin)
    def read(typing_context, block, name, at):
        def generate(context: Any, builder: Any, kinds: Any, arguments: Any) -> Any:
            base, place = _place(context, builder, kinds.args[0], of_entries, *arguments)
            return (
                Emitter(builder).load(base, place) if result is LANES_TYPE else builder.load(builder.gep(base, [place]))
            )

        return result(block, types.int64, types.int64), generate

    return read


def _writer(of_entries: bool, kind: Any) -> Any:
    def twin(block, name, at, value):
        place = _place_in(block, of_entries, name, at)
        block.values[place : place + (LANES if kind is LANES_TYPE else 1)] = value

    @intrinsic_with(twin)
    def write(typing_context, block, name, at, value):
        def generate(context: Any, builder: Any, kinds: Any, arguments: Any) -> Any:
            *place, value = arguments
            base, place = _place(context, builder, kinds.args[0], of_entries, *place)
            if kind is LANES_TYPE:
                Emitter(builder).store(value, base, place)
            else:
                builder.store(value, builder.gep(base, [place]))
            return context.get_dummy_value()

        return types.void(block, types.int64, types.int64, kind), generate

    return write


get = _reader(False, LANES_TYPE)
"""get(block, field, e): elements e to e + 16 of a field."""
element = _reader(False, types.float32)
"""element(block, field, e): element e of a field."""
entries = _reader(True, LANES_TYPE)
"""entries(block, name, e): entries e to e + 16; those of record r begin at r * PARTS."""
entry = _reader(True, types.float32)
"""entry(block, name, e): entry e."""
put = _writer(False, LANES_TYPE)
"""put(block, field, e, value): the reverse of `get`."""
set_element = _writer(False, types.float32)
"""set_element(block, field, e, value): the reverse of `element`."""
set_entries = _writer(True, LANES_TYPE)
"""set_entries(block, name, e, value): the reverse of `entries`."""
set_entry = _writer(True, types.float32)
"""set_entry(block, name, e, value): the reverse of `entry`."""


@jit(inline=True)
def fill(block, field, e, count, value):
    """Writes the float32 `value` to elements e to e + count, and up to 15 times more."""
    if count == 1:
        set_element(block, field, e, value)
        return
    fill_lanes(block.values, field * block.stride + e, count, value)


@jit(inline=True)
def fill_parts(block, name, r, value):
    """Writes the float32 `value` to the entries of record r, one for each of its parts, and up to 11 times more."""
    fill_lanes(block.values, block.at_entries + name * ENTRIES + r * PARTS, PARTS, value)


@jit(inline=True)
def read_fields(block, r, D, first, fields, row, column):
    """Copies so many fields of record r, from field `first` on, from a row, where they begin at `column`."""
    at = first * block.stride + r * D
    if D == 1:
        for field in range(fields):
            move(row, column + field, block.values, at + field * block.stride)
        return
    for field in range(fields):
        copy_lanes(row, column + field * D, block.values, at + field * block.stride, D)


@jit(inline=True)
def write_fields(block, r, D, fields, row, column):
    """The reverse of `read_fields` for the first `fields` ones; 16 floats behind them must be the row's own."""
    behind = column + fields * D
    after = load(row, behind)
    for field in range(fields):
        copy_lanes(block.values, field * block.stride + r * D, row, column + field * D, D)
    store(row, behind, after)


@jit(inline=True)
def read_entries(block, r, row, column):
    """Copies the smoothed parts of record r, their means and variances from a stream's row."""
    for name in range(3):
        copy_lanes(row, column + name * PARTS, block.values, block.at_entries + name * ENTRIES + r * PARTS, PARTS)


@jit(inline=True)
def write_entries(block, r, row, column):
    """The reverse of `read_entries`; the 11 floats behind are written next."""
    for name in range(3):
        copy_lanes(block.values, block.at_entries + name * ENTRIES + r * PARTS, row, column + name * PARTS, PARTS)
