"""Streams of one feature: 16 rows of their state as the fields of a block, and back, turned in registers.

Float by float, as `read_fields` and `write_fields` would do it, a record takes 5 % longer (H = 32, EPYC, November 2026).
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from streamlstm.kernels.block import RING, STATE_FIELDS, Block
from streamlstm.kernels.compiling import LANES, intrinsic_with, jit
from streamlstm.kernels.vector import I32, I64, Emitter, data
from streamlstm.types import Float32, Int32

WRITTEN = (RING + LANES - 1) // LANES * LANES
"""Fields that `write_columns` writes: whole vectors, so part of the ring as well, which is as it was."""
assert WRITTEN <= STATE_FIELDS


def transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Sixteen vectors; lane r of the k-th is lane k of rows[r]."""

    def mixed(a: Any, b: Any, lanes: list[int]) -> Any:
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))

    for distance in 1, 2:  # within each four lanes: the lower or the upper two of a pair of rows, in turns
        turns = [
            [
                n * LANES + four + at + k
                for four in range(0, LANES, 4)
                for at in half
                for n in (0, 1)
                for k in range(distance)
            ]
            for half in (range(0, 2, distance), range(2, 4, distance))
        ]
        rows = [mixed(rows[r & ~distance], rows[r | distance], turns[r // distance % 2]) for r in range(LANES)]
    out = []
    for k in range(LANES):
        first = k // 4 * 4
        four = [*range(first, first + 4), *range(LANES + first, LANES + first + 4)]
        of = (0, 2, 1, 3)[k % 4]  # the row, of each four neighbours, where column k of all of them now lies
        low, high = mixed(rows[of], rows[4 + of], four), mixed(rows[8 + of], rows[12 + of], four)
        out.append(mixed(low, high, list(range(LANES))))
    return out


def _starts(context: Any, builder: Any, kinds: Any, arguments: Any) -> tuple[Any, Any, Any, list[Any]]:
    """Where the block's values begin, its stride, where the state begins, and its column at each seat.

    A seat that no record takes is another one of the first.
    """
    block, state, slots, column = arguments
    records = builder.extract_value(block, 3)
    width = builder.extract_value(context.make_array(kinds[1])(context, builder, state).shape, 1)
    seats = data(context, builder, kinds[2], slots)
    starts = []
    for r in range(LANES):
        seat = builder.select(builder.icmp_signed("<", I64(r), records), I64(r), I64(0))
        slot = builder.sext(builder.load(builder.gep(seats, [seat])), I64)
        starts.append(builder.add(builder.mul(slot, width), column))
    values = data(context, builder, kinds[0][0], builder.extract_value(block, 0))
    return values, builder.extract_value(block, 1), data(context, builder, kinds[1], state), starts


def _places(block: Block, fields: int) -> Any:
    return np.arange(fields) * block.stride + np.arange(block.records)[:, None]


def _read(block: Block, state: Float32, slots: Int32, column: int) -> None:
    block.values[_places(block, STATE_FIELDS)] = state[slots[: block.records], column : column + STATE_FIELDS]


def _write(block: Block, state: Float32, slots: Int32, column: int) -> None:
    state[slots[: block.records], column : column + WRITTEN] = block.values[_places(block, WRITTEN)]


@intrinsic_with(_read)
def read_columns(typing_context, block, state, slots, column):
    """Copies the state's fields of all records of a block from rows `slots` of the state, where they begin at `column`.

    state (S, W) float32, of which 16 columns behind the fields must be there; slots int32 (16).
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, stride, rows, starts = _starts(context, builder, signature.args, arguments)
        e = Emitter(builder)
        for first in range(0, STATE_FIELDS, LANES):
            lanes = transposed(builder, [e.load(rows, builder.add(at, I64(first))) for at in starts])
            for field in range(first, min(first + LANES, STATE_FIELDS)):
                e.store(lanes[field - first], values, builder.mul(I64(field), stride))
        return context.get_dummy_value()

    return types.void(block, state, slots, types.int64), generate


@intrinsic_with(_write)
def write_columns(typing_context, block, state, slots, column):
    """The reverse of `read_columns` for the first WRITTEN fields."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, stride, rows, starts = _starts(context, builder, signature.args, arguments)
        e = Emitter(builder)
        for first in range(0, WRITTEN, LANES):
            fields = [e.load(values, builder.mul(I64(first + k), stride)) for k in range(LANES)]
            lanes = transposed(builder, fields)
            for r in reversed(range(LANES)):  # the first record last: what is not there was written in its place
                e.store(lanes[r], rows, builder.add(starts[r], I64(first)))
        return context.get_dummy_value()

    return types.void(block, state, slots, types.int64), generate


@jit(inline=True)
def turned(D):
    """Whether records of D features are copied so; where a vector holds one value there is nothing to turn."""
    return D == 1 and LANES > 1
