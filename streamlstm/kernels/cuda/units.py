"""The units of a recurrent cell on a device: the `finish` of `cells.program`, for one unit and some streams."""

from typing import Any

import numpy as np
from numba.core import types

from streamlstm.kernels.cells.program import PROGRAMS, UNITS, Units
from streamlstm.kernels.compiling import intrinsic_with
from streamlstm.kernels.cuda.lanes import NUMBERS, Scalar
from streamlstm.kernels.vector import I64, data


class _Unit:
    """Where one unit of one stream lies, for `cells.program.Units`; see `finish`."""

    def __init__(self, e: Scalar, half: bool, state: Any, places: Any, unit: Any, shared: Any, instead: Any,
                 weights: Any, further: Any) -> None:  # fmt: skip
        self._e, self._half, self._state, self._unit = e, half, state, unit
        self._places, self._shared, self._instead, self._weights, self._further = (
            places,
            shared,
            instead,
            weights,
            further,
        )

    def _at(self, which: int) -> Any:
        b, place = self._e.builder, self._places[which]
        return b.add(b.mul(place, I64(2)) if self._half else place, self._unit)

    def fetch(self) -> None:
        """Loads h and c; what the cell does not read, the compiler drops."""
        load = self._e.load_half if self._half else self._e.load
        self._old = [load(self._state, self._at(which)) for which in range(2)]
        self._new: list[tuple[int, Any]] = []

    def write(self) -> None:
        """Writes what the cell made."""
        store = self._e.store_half if self._half else self._e.store
        for which, value in self._new:
            if which < 0:
                self._e.store(value, self._shared, self._instead)
            else:
                store(value, self._state, self._at(which))

    def read_state(self, which: int) -> Any:
        """h (0) or c (1)."""
        return self._old[which]

    def write_state(self, which: int, value: Any) -> None:
        """The reverse of `read_state`."""
        self._new.append((which, value))

    def write_instead(self, value: Any) -> None:
        """What the next stage reads in place of h."""
        self._new.append((-1, value))

    def vector(self, n: int) -> Any:
        """Further vector n."""
        return self._e.load(self._weights, self._e.builder.add(self._further, I64(n * UNITS)))


class _InterpretedUnit:
    """The same on NumPy's arrays."""

    def __init__(self, half: int, state: Any, places: Any, unit: int, shared: Any, instead: int, weights: Any,
                 further: int) -> None:  # fmt: skip
        self._state = state.view(np.float16) if half else state
        self._places = [(2 * place if half else place) + unit for place in places]
        self._shared, self._instead, self._weights, self._further = shared, instead, weights, further

    def read_state(self, which: int) -> Any:
        """h (0) or c (1)."""
        return np.float32(self._state[self._places[which]])

    def write_state(self, which: int, value: Any) -> None:
        """The reverse of `read_state`."""
        self._state[self._places[which]] = value

    def write_instead(self, value: Any) -> None:
        """What the next stage reads in place of h."""
        self._shared[self._instead] = value

    def vector(self, n: int) -> Any:
        """Further vector n."""
        return self._weights[self._further + n * UNITS]


def _finished(
    program, number, half, rows, acc, taken, row, count, state, lds, h0, c0, unit, shared, instead, weights, further
):
    stage = PROGRAMS[program].stages[number]
    for r in range(rows):
        if row + r < count and taken[row + r] >= 0:
            gates = [np.float32(acc[r * len(stage.gates) + n]) for n in range(len(stage.gates))]
            places = [int(taken[row + r]) * lds + column for column in (h0, c0)]
            of = _InterpretedUnit(half, state, places, unit, shared, instead + r, weights, further)
            stage.finish(Units(NUMBERS, gates, of))


@intrinsic_with(_finished)
def finish(
    typing_context, program, number, half, rows, acc, taken, row, count, state, lds, h0, c0, unit, shared, instead,
    weights, further,
):  # fmt: skip
    """What a stage makes of the sums of one unit, acc[r * gates + n], for so many rows from `row` on.

    Rows beyond `count` and those that are not taken stay as they are. The h and c of a stream begin at columns h0 and c0 of
    its row of `state`, lds values wide; shared[instead + r] is what the next stage reads in place of h; the unit's further
    vectors lie at weights[further], UNITS apart.
    """
    literals = program, number, half, rows
    if not all(isinstance(of, types.IntegerLiteral) for of in literals):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        stage = PROGRAMS[program.literal_value].stages[number.literal_value]
        e, kinds = Scalar(builder), signature.args
        _, _, _, _, acc, taken, row, count, state, lds, h0, c0, unit, shared, instead, weights, further = arguments
        sums, slots, states, spare, matrix = (
            data(context, builder, kinds[n], of)
            for n, of in ((4, acc), (5, taken), (8, state), (13, shared), (15, weights))
        )
        found = []
        for r in range(rows.literal_value):  # all loads before any arithmetic, so that they wait together
            of_row = builder.add(row, I64(r))
            there = builder.icmp_signed("<", of_row, count)
            s = builder.sext(builder.load(builder.gep(slots, [builder.select(there, of_row, I64(0))])), I64(0).type)
            there = builder.and_(there, builder.icmp_signed(">=", s, I64(0)))
            begin = builder.mul(builder.select(there, s, I64(0)), lds)
            places = builder.add(begin, h0), builder.add(begin, c0)
            found.append((there, _Unit(e, bool(half.literal_value), states, places, unit, spare,
                                       builder.add(instead, I64(r)), matrix, further)))  # fmt: skip
        for _, of in found:
            of.fetch()
        for r, (_, of) in enumerate(found):
            gates = [e.load(sums, I64(r * len(stage.gates) + n)) for n in range(len(stage.gates))]
            stage.finish(Units(e, gates, of))
        for there, of in found:
            with builder.if_then(there):
                of.write()
        return context.get_dummy_value()

    n = types.int64
    return types.void(*literals, acc, taken, n, n, state, n, n, n, n, shared, n, weights, n), generate


@intrinsic_with(
    lambda half, state, place, k: np.float32((state.view(np.float16) if half else state)[place * (1 + half) + k])
)
def read_value(typing_context, half, state, place, k):
    """Value k of those that begin at column `place` of the flat `state`, kept as float32 or as float16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e, of_half = Scalar(builder), bool(half.literal_value)
        _, array, place, k = arguments
        base = data(context, builder, signature.args[1], array)
        if of_half:
            return e.load_half(base, builder.add(builder.mul(place, I64(2)), k))
        return e.load(base, builder.add(place, k))

    if not isinstance(half, types.IntegerLiteral):
        return None
    return types.float32(half, state, types.int64, types.int64), generate
