"""A block: records of different streams, scored side by side in vectors of 16 values.

Many streams of one feature fill a vector as well as one stream of many features, so a block holds 16 / D records, at
least one. Its scratch has two parts; an element is a feature of a record, an entry one of a record's PARTS:

| part | index | holds |
|---|---|---|
| fields | field * stride + r * D + d | the middle of the streams' state in its own order, then what one record needs |
| entries | name * ENTRIES + r * PARTS + part | the parts' state, and what one record needs |

Rows are copied 16 floats at a time, in ascending order; what a copy writes too much the next one overwrites.
"""

from typing import NamedTuple

import numpy as np

from streamlstm.kernels.compiling import LANES, jit
from streamlstm.kernels.lanes import copy_lanes, fill_lanes, load, move, splat, store
from streamlstm.kernels.layout import HEADS, LAGS, PARTS, RECENT_ROWS, SPANS
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
def get(block, field, e):
    """Elements e to e + 16 of a field."""
    return load(block.values, field * block.stride + e)


@jit(inline=True)
def put(block, field, e, value):
    """Writes elements e to e + 16 of a field."""
    store(block.values, field * block.stride + e, value)


@jit(inline=True)
def fill(block, field, e, count, value):
    """Writes the float32 `value` to elements e to e + count, and up to 15 times more."""
    fill_lanes(block.values, field * block.stride + e, count, value)


@jit(inline=True)
def element(block, field, e):
    """Element e of a field."""
    return block.values[field * block.stride + e]


@jit(inline=True)
def set_element(block, field, e, value):
    """Writes element e of a field."""
    block.values[field * block.stride + e] = value


@jit(inline=True)
def entries(block, name, e):
    """Entries e to e + 16."""
    return load(block.values, block.at_entries + name * ENTRIES + e)


@jit(inline=True)
def set_entries(block, name, e, value):
    """Writes entries e to e + 16."""
    store(block.values, block.at_entries + name * ENTRIES + e, value)


@jit(inline=True)
def fill_entries(block, name, r, value):
    """Writes the float32 `value` to all entries of record r, and 11 times more."""
    store(block.values, block.at_entries + name * ENTRIES + r * PARTS, splat(value))


@jit(inline=True)
def entry(block, name, r, part):
    """The entry of one part of record r."""
    return block.values[block.at_entries + name * ENTRIES + r * PARTS + part]


@jit(inline=True)
def set_entry(block, name, r, part, value):
    """Writes the entry of one part of record r."""
    block.values[block.at_entries + name * ENTRIES + r * PARTS + part] = value


@jit(inline=True)
def read_fields(block, r, D, fields, row, column):
    """Copies the first `fields` fields of record r from a stream's row, where they begin at `column`."""
    if D == 1:
        for field in range(fields):
            move(row, column + field, block.values, field * block.stride + r)
        return
    for field in range(fields):
        copy_lanes(row, column + field * D, block.values, field * block.stride + r * D, D)


@jit(inline=True)
def write_fields(block, r, D, fields, row, column):
    """The reverse of `read_fields`; 16 floats behind the fields must be the row's own."""
    if D == 1:
        for field in range(fields):
            move(block.values, field * block.stride + r, row, column + field)
        return
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
