"""The units of a recurrent cell on a device: the `finish` of `cells.program`, for one unit and some streams."""

from typing import Any

import numpy as np
from numba.core import types

from streamlstm.kernels.cells.program import PROGRAMS, UNITS, Units
from streamlstm.kernels.compiling import intrinsic_with
from streamlstm.kernels.cuda.lanes import NUMBERS, Scalar
from streamlstm.kernels.vector import I64, data


class _Unit:
    """Where one unit of one stream lies, for `cells.program.Units`; see `finish`. What is written waits for `write`."""

    def __init__(self, e: Scalar, half: bool, old: tuple[Any, Any], state: Any, places: tuple[Any, Any], shared: Any,
                 left: list[Any], weights: Any, further: Any) -> None:  # fmt: skip
        self._e, self._half, self._old, self._state, self._places = e, half, old, state, places
        self._shared, self._left, self._weights, self._further = shared, left, weights, further
        self._new: list[tuple[int, Any]] = []
        self._leaving: list[tuple[int, Any]] = []

    def read_state(self, which: int) -> Any:
        """h (0) or c (1)."""
        return self._old[which]

    def write_state(self, which: int, value: Any) -> None:
        """The reverse of `read_state`."""
        self._new.append((which, value))

    def read_left(self, n: int) -> Any:
        """Vector n of those that the stage before left."""
        return self._e.load(self._shared, self._left[n])

    def write_left(self, n: int, value: Any) -> None:
        """The reverse of `read_left`."""
        self._leaving.append((n, value))

    def vector(self, n: int) -> Any:
        """Further vector n."""
        return self._e.load(self._weights, self._e.builder.add(self._further, I64(n * UNITS)))

    def write(self) -> None:
        """Writes what the cell made."""
        store = self._e.store_half if self._half else self._e.store
        for which, value in self._new:
            store(value, self._state, self._places[which])
        for n, value in self._leaving:
            self._e.store(value, self._shared, self._left[n])


class _InterpretedUnit:
    """The same on NumPy's arrays."""

    def __init__(self, half: int, old: tuple[Any, Any], state: Any, places: Any, shared: Any, left: list[int], weights: Any,
                 further: int) -> None:  # fmt: skip
        self._old, self._state, self._places = old, state.view(np.float16) if half else state, places
        self._shared, self._left, self._weights, self._further = shared, left, weights, further

    def read_state(self, which: int) -> Any:
        """h (0) or c (1)."""
        return self._old[which]

    def write_state(self, which: int, value: Any) -> None:
        """The reverse of `read_state`."""
        self._state[self._places[which]] = value

    def read_left(self, n: int) -> Any:
        """Vector n of those that the stage before left."""
        return self._shared[self._left[n]]

    def write_left(self, n: int, value: Any) -> None:
        """The reverse of `read_left`."""
        self._shared[self._left[n]] = value

    def vector(self, n: int) -> Any:
        """Further vector n."""
        return self._weights[self._further + n * UNITS]


def _slot(builder: Any, slots: Any, row: Any, count: Any) -> tuple[Any, Any, Any]:
    """A row of the wave that may be read, whether it is there and taken, and its slot; 0 in place of one that is not."""
    there = builder.icmp_signed("<", row, count)
    row = builder.select(there, row, I64(0))
    s = builder.sext(builder.load(builder.gep(slots, [row])), I64(0).type)
    there = builder.and_(there, builder.icmp_signed(">=", s, I64(0)))
    return row, there, builder.select(there, s, I64(0))


def _fetched(half, rows, old, taken, row, count, state, lds, c0, unit):
    values = state.view(np.float16) if half else state
    for r in range(rows):
        if row + r < count and taken[row + r] >= 0:
            old[r] = values[(int(taken[row + r]) * lds + c0) * (1 + half) + unit]


@intrinsic_with(_fetched)
def fetch_cells(typing_context, half, rows, old, taken, row, count, state, lds, c0, unit):
    """Writes the old c of one unit for so many rows from `row` on to the local array `old`.

    Before the sums: their barriers keep the loads there, which then wait for memory while the sums are made.
    """
    if not all(isinstance(of, types.IntegerLiteral) for of in (half, rows)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e, kinds = Scalar(builder), signature.args
        _, _, old, taken, row, count, state, lds, c0, unit = arguments
        kept, slots, states = (data(context, builder, kinds[n], of) for n, of in ((2, old), (3, taken), (6, state)))
        for r in range(rows.literal_value):
            _, _, s = _slot(builder, slots, builder.add(row, I64(r)), count)
            place = _place(builder, half, builder.add(builder.mul(s, lds), c0), unit)
            e.store((e.load_half if half.literal_value else e.load)(states, place), kept, I64(r))
        return context.get_dummy_value()

    n = types.int64
    return types.void(half, rows, old, taken, n, n, state, n, n, n), generate


def _place(builder: Any, half: Any, column: Any, unit: Any) -> Any:
    """Of a unit among the values of a layer that begin at a column, in float16 where `half` says so."""
    return builder.add(builder.mul(column, I64(2)) if half.literal_value else column, unit)


def _finished(
    program, number, half, rows, acc, old, taken, row, count, state, lds, h0, c0, unit, shared, h, left, apart, weights,
    further,
):  # fmt: skip
    stage = PROGRAMS[program].stages[number]
    for r in range(rows):
        if row + r < count and taken[row + r] >= 0:
            gates = [np.float32(acc[r * len(stage.gates) + n]) for n in range(len(stage.gates))]
            places = [(int(taken[row + r]) * lds + column) * (1 + half) + unit for column in (h0, c0)]
            before = np.float32(shared[h + r]), np.float32(old[r])
            lefts = [left + n * apart + r for n in range(PROGRAMS[program].left)]
            of = _InterpretedUnit(half, before, state, places, shared, lefts, weights, further)
            stage.finish(Units(NUMBERS, gates, of))


@intrinsic_with(_finished)
def finish(
    typing_context, program, number, half, rows, acc, old, taken, row, count, state, lds, h0, c0, unit, shared, h, left,
    apart, weights, further,
):  # fmt: skip
    """What a stage makes of the sums of one unit, acc[r * gates + n], for so many rows from `row` on.

    Rows beyond `count` and those that are not taken stay as they are. The old c is old[r] and the old h is shared[h + r];
    the new ones go to columns c0 and h0 of the stream's row of `state`, lds values wide, and vector n of what is left to the
    next stage to shared[left + n * apart + r]. The unit's further vectors lie at weights[further], UNITS apart.
    """
    literals = program, number, half, rows
    if not all(isinstance(of, types.IntegerLiteral) for of in literals):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        cell = PROGRAMS[program.literal_value]
        stage = cell.stages[number.literal_value]
        e, kinds = Scalar(builder), signature.args
        acc, old, taken, row, count, state, lds, h0, c0, unit, shared, h, left, apart, weights, further = arguments[4:]
        sums, kept, slots, states, spare, matrix = (
            data(context, builder, kinds[n], of)
            for n, of in ((4, acc), (5, old), (6, taken), (9, state), (14, shared), (18, weights))
        )
        found = []
        for r in range(rows.literal_value):
            _, there, s = _slot(builder, slots, builder.add(row, I64(r)), count)
            begin = builder.mul(s, lds)
            places = (
                _place(builder, half, builder.add(begin, h0), unit), _place(builder, half, builder.add(begin, c0), unit)
            )  # fmt: skip
            before = e.load(spare, builder.add(h, I64(r))), e.load(kept, I64(r))
            lefts = [builder.add(left, builder.add(builder.mul(apart, I64(n)), I64(r))) for n in range(cell.left)]
            of = _Unit(e, bool(half.literal_value), before, states, places, spare, lefts, matrix, further)
            gates = [e.load(sums, I64(r * len(stage.gates) + n)) for n in range(len(stage.gates))]
            stage.finish(Units(e, gates, of))
            found.append((there, of))
        for there, of in found:
            with builder.if_then(there):
                of.write()
        return context.get_dummy_value()

    n = types.int64
    return types.void(*literals, acc, old, taken, n, n, state, n, n, n, n, shared, n, n, n, weights, n), generate


def _brought(half, rows, groups, by_slot, array, wide, taken, row, count, column, k, shared, place):
    values = array.view(np.float16) if half else array
    for n in range(rows):
        r = row + n * groups
        there = r < count and taken[r] >= 0
        first = (int(taken[r]) if by_slot else r) * wide + column if there else 0
        shared[place + n * groups] = np.float32(values[first * (1 + half) + k]) if there else np.float32(0)


@intrinsic_with(_brought)
def bring(typing_context, half, rows, groups, by_slot, array, wide, taken, row, count, column, k, shared, place):
    """Writes value k of so many rows, `groups` apart from `row` on, to shared[place], shared[place + groups] and so on.

    The values begin at `column` of a flat array's row, that of the stream's slot or of the wave, `wide` values each, kept as
    float32 or as float16; 0 where a row is not there or not taken. All loads come before the stores: they wait together.
    """
    literals = half, rows, groups, by_slot
    if not all(isinstance(of, types.IntegerLiteral) for of in literals):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e, kinds = Scalar(builder), signature.args
        _, _, _, _, array, wide, taken, row, count, column, k, shared, place = arguments
        base, slots, memory = (data(context, builder, kinds[n], of) for n, of in ((4, array), (6, taken), (11, shared)))
        values = []
        for n in range(rows.literal_value):
            of_wave, there, s = _slot(builder, slots, builder.add(row, I64(n * groups.literal_value)), count)
            first = builder.add(builder.mul(s if by_slot.literal_value else of_wave, wide), column)
            value = (e.load_half if half.literal_value else e.load)(base, _place(builder, half, first, k))
            values.append(builder.select(there, value, e.constant(0.0)))
        for n, value in enumerate(values):
            e.store(value, memory, builder.add(place, I64(n * groups.literal_value)))
        return context.get_dummy_value()

    n = types.int64
    return types.void(*literals, array, n, taken, n, n, n, n, shared, n), generate


@intrinsic_with(
    lambda half, state, place, k: np.float32((state.view(np.float16) if half else state)[place * (1 + half) + k])
)
def read_value(typing_context, half, state, place, k):
    """Value k of those that begin at column `place` of the flat `state`, kept as float32 or as float16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e, (_, array, place, k) = Scalar(builder), arguments
        base = data(context, builder, signature.args[1], array)
        return (e.load_half if half.literal_value else e.load)(base, _place(builder, half, place, k))

    if not isinstance(half, types.IntegerLiteral):
        return None
    return types.float32(half, state, types.int64, types.int64), generate
