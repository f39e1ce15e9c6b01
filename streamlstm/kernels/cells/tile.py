"""The step of a recurrent cell for many streams: matrix product and activations as one tile of vector code.

The letters and the layout of weights are those of `program`.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

from numba import types
from numba.core import cgutils as numba_cgutils

from streamlstm.kernels.cells import interpreted
from streamlstm.kernels.cells.program import LARGEST_SUM, PROGRAMS, UNITS, VARIANCE_FLOOR, Program, Stage, Units
from streamlstm.kernels.compiling import HAS_AVX512, HAS_FMA, LANES, CFunction, intrinsic_with
from streamlstm.kernels.vector import I64, Emitter

cgutils: Any = numba_cgutils
_FLOATS, _INTS = types.CPointer(types.float32), types.CPointer(types.int32)
STEP = types.void(
    _FLOATS, types.int64, types.int64, _FLOATS, types.int64, _INTS, types.int64, _FLOATS, types.int64, types.int64, types.int64
)  # fmt: skip
"""Of a step: weights, I, H, z, ldz, slots, count, state, lds, h0, c0; see `calls.call_step`."""
_ACCUMULATORS = 24 if HAS_AVX512 else 9 if HAS_FMA else 4
"""Most sums that are made at a time; 9, since a GRU makes three at once for three rows. See also `program.UNITS`."""


@cache
def step_function(program: int, normal: int, half: int) -> CFunction:
    """The step of a program: with layer normalisation or not, on a state of float16 or float32."""

    def step(weights, I, H, z, ldz, slots, count, state, lds, h0, c0):
        _step(program, normal, half, weights, I, H, z, ldz, slots, count, state, lds, h0, c0)

    return CFunction(step, STEP)


class _Tile:
    """Emits the step of one program."""

    def __init__(self, builder: Any, program: Program, normal: bool, half: bool, arguments: Any) -> None:
        self.weights, self.I, self.H, self.z, self.ldz, self.slots, self.count, self.state, self.lds, *self.at = (
            arguments
        )
        self.program, self.normal, self.half = program, normal, half
        self.e, self.b = Emitter(builder, UNITS), builder
        b = builder
        self.width = program.gates * UNITS
        self.rows_behind = b.mul(b.add(self.I, self.H), I64(self.width))
        size = b.add(self.rows_behind, I64(self.width + program.further(normal) * UNITS))
        self.size = size
        self.panels = b.sdiv(b.add(self.H, I64(UNITS - 1)), I64(UNITS))
        self.padded = b.and_(b.add(self.H, I64(LANES - 1)), I64(-LANES))
        self.left = b.add(self.I, self.H)  # of a row of z
        self.sums = b.add(self.left, b.mul(I64(program.left), self.padded))

    def emit(self) -> None:
        """All stages, one after another."""
        for stage in self.program.stages:
            sums = max(len(gates) for gates, _ in stage.reading())
            # One gate of two panels: with one vector of weights a load goes to each multiply-add, and loads are the limit
            # (an RNN at (8, 64) takes .83 of the time so; EPYC, AVX2, November 2026).
            for side, panel, panels in self._parts(self.panels, (2, 1) if sums == 1 else (1,)):
                rows = max(1, min(_ACCUMULATORS // sums, 12) // side)
                with cgutils.for_range(self.b, panels) as loop:
                    of_panel = self.b.add(panel, self.b.mul(loop.index, I64(side)))
                    for height, first, tiles in self._parts(self.count, sorted({rows, min(rows, 2), 1}, reverse=True)):
                        with cgutils.for_range(self.b, tiles) as some:
                            at = self.b.add(first, self.b.mul(some.index, I64(height)))
                            self._rows(stage, height, side, of_panel, at)
            if self.normal:
                self._normalise(stage)

    def _parts(self, count: Any, sizes: Iterable[int]) -> Iterator[tuple[int, Any, Any]]:
        """`count` things in parts of one size after the other: size, first thing and number of parts."""
        first: Any = I64(0)
        for size in sizes:
            parts = self.b.sdiv(self.b.sub(count, first), I64(size))
            yield size, first, parts
            first = self.b.add(first, self.b.mul(parts, I64(size)))

    def _rows(self, stage: Stage, height: int, side: int, panel: Any, first: Any) -> None:
        """Sums of `side` panels for `height` rows; then the cell's units, or with normalisation the sums are kept."""
        e, b = self.e, self.b
        panels = [b.add(panel, I64(s)) for s in range(side)]
        begins = [b.mul(of, self.size) for of in panels]
        normalised = self.program.normalised if self.normal else ()
        bias = {
            (s, gate): e.constant(0.0) if gate in normalised else e.load(self.weights, b.add(begin, I64(gate * UNITS)))
            for s, begin in enumerate(begins)
            for gate in stage.gates
        }
        starts = [b.mul(b.add(first, I64(r)), self.ldz) for r in range(height)]
        sums = [dict(bias) for _ in range(height)]
        everything = b.add(self.I, self.H)
        places = {
            "all": (I64(0), I64(0), everything),
            "x": (I64(0), I64(0), self.I),
            "h": (self.I, self.I, self.H),
            "instead": (self.I, self.left, self.H),
        }
        for gates, what in stage.reading():
            row0, z0, terms = places[what]
            columns = [(s, gate) for s in range(side) for gate in gates]
            behind = b.mul(b.add(row0, I64(1)), I64(self.width))
            at = [b.add(begins[s], b.add(behind, I64(gate * UNITS))) for s, gate in columns]
            added = e.accumulate(
                [[row[column] for column in columns] for row in sums],
                terms,
                lambda v, k, at=at: e.load(self.weights, b.add(at[v], b.mul(k, I64(self.width)))),
                lambda r, k, z0=z0: e.broadcast(self.z, b.add(b.add(starts[r], z0), k)),
            )
            for of_row, new in zip(sums, added, strict=True):
                of_row.update(zip(columns, new, strict=True))
        for r in range(height):
            for s, of_panel in enumerate(panels):
                row = _Row(self, b.add(first, I64(r)), of_panel)
                if self.normal:
                    for gate in stage.gates:
                        e.store(e.clamp(sums[r][s, gate], LARGEST_SUM), self.z, row.sum(gate))
                else:
                    stage.finish(Units(e, [sums[r][s, gate] for gate in stage.gates], row))

    def _normalise(self, stage: Stage) -> None:
        """Brings the kept sums of each gate to mean 0 and variance 1 over the units, then makes the cell's units of them."""
        e, b = self.e, self.b
        normalised = [gate for gate in stage.gates if gate in self.program.normalised]
        with cgutils.for_range(b, self.count) as rows:
            start = b.add(b.mul(rows.index, self.ldz), self.sums)
            for gate in normalised:
                self._standardise(b.add(start, b.mul(I64(gate), self.padded)))
        with cgutils.for_range(b, self.panels) as panels, cgutils.for_range(b, self.count) as rows:
            row = _Row(self, rows.index, panels.index)
            bias = b.mul(panels.index, self.size)
            gates = []
            for gate in stage.gates:
                value = e.load(self.z, row.sum(gate))
                if gate in normalised:
                    gain = row.vector(self.program.vectors + gate)
                    value = e.fma(value, gain, e.load(self.weights, b.add(bias, I64(gate * UNITS))))
                gates.append(value)
            stage.finish(Units(e, gates, row))

    def _standardise(self, start: Any) -> None:
        """Sums of 16 lanes whatever the panels are, so that hosts of a class agree."""
        b, e = self.b, Emitter(self.b)
        units = b.sitofp(self.H, e.constant(0.0).type.element)
        mean = b.fdiv(self._total(e, start, lambda x: x), units)
        centre = e.splat(mean)
        variance = b.fdiv(self._total(e, start, lambda x: e.mul(e.sub(x, centre), e.sub(x, centre))), units)
        scale = e.div(e.constant(1.0), e.sqrt(e.add(e.splat(variance), e.constant(VARIANCE_FLOOR))))
        with cgutils.for_range(b, b.udiv(self.padded, I64(LANES))) as loop:
            at = b.add(start, b.mul(loop.index, I64(LANES)))
            e.store(e.mul(e.sub(e.load(self.z, at), centre), scale), self.z, at)

    def _total(self, e: Emitter, start: Any, term: Callable[[Any], Any]) -> Any:
        """The sum of `term` over the H values from `start` on: 16 chains, then pairs of them."""
        b = self.b
        total = cgutils.alloca_once_value(b, e.constant(0.0))
        with cgutils.for_range(b, b.udiv(self.padded, I64(LANES))) as loop:
            first = b.mul(loop.index, I64(LANES))
            value = term(e.load(self.z, b.add(start, first)))
            inside = e.first_lanes(b.sub(self.H, first))
            b.store(e.add(b.load(total), e.choose(inside, value, e.constant(0.0))), total)
        return e.total(b.load(total))


class _Row:
    """Places of one stream's units of a panel."""

    def __init__(self, tile: _Tile, row: Any, panel: Any) -> None:
        self._tile, b = tile, tile.b
        self._unit = b.mul(panel, I64(UNITS))
        self._z = b.mul(row, tile.ldz)
        slot = b.sext(b.load(b.gep(tile.slots, [row])), I64(0).type)
        self._state = b.mul(slot, tile.lds)
        self._further = b.add(b.mul(panel, tile.size), b.add(tile.rows_behind, I64(tile.width)))

    def sum(self, gate: int) -> Any:
        """Place in z of a gate's kept sums."""
        return self._behind(self._tile.sums, gate)

    def _behind(self, first: Any, n: int) -> Any:
        tile, b = self._tile, self._tile.b
        return b.add(b.add(b.add(self._z, first), b.mul(I64(n), tile.padded)), self._unit)

    def vector(self, n: int) -> Any:
        """Further vector n."""
        return self._tile.e.load(self._tile.weights, self._tile.b.add(self._further, I64(n * UNITS)))

    def read_left(self, n: int) -> Any:
        """Vector n of those that the stage before left."""
        return self._tile.e.load(self._tile.z, self._behind(self._tile.left, n))

    def write_left(self, n: int, value: Any) -> None:
        """The reverse of `read_left`."""
        self._tile.e.store(value, self._tile.z, self._behind(self._tile.left, n))

    def _at(self, which: int) -> Any:
        tile, b = self._tile, self._tile.b
        place = b.add(self._state, tile.at[which])
        return b.add(b.mul(place, I64(2)) if tile.half else place, self._unit)

    def read_state(self, which: int) -> Any:
        """h (0) or c (1)."""
        tile = self._tile
        return (tile.e.load_half if tile.half else tile.e.load)(tile.state, self._at(which))

    def write_state(self, which: int, value: Any) -> None:
        """The reverse of `read_state`."""
        tile = self._tile
        (tile.e.store_half if tile.half else tile.e.store)(value, tile.state, self._at(which))


@intrinsic_with(lambda program, *rest: interpreted.step(PROGRAMS[program], *rest))
def _step(
    typing_context: Any, program: Any, normal: Any, half: Any, weights: Any, I: Any, H: Any, z: Any, ldz: Any,
    slots: Any, count: Any, state: Any, lds: Any, h0: Any, c0: Any,
) -> Any:  # fmt: skip
    """One step of `count` rows of slots, arguments as in STEP. Every row's bits are independent of the other rows."""
    which = program, normal, half
    if not all(isinstance(of, types.IntegerLiteral) for of in which):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, normal, half = (of.literal_value for of in which)
        _Tile(builder, PROGRAMS[number], bool(normal), bool(half), arguments[3:]).emit()
        return context.get_dummy_value()

    return types.void(*which, weights, I, H, z, ldz, slots, count, state, lds, h0, c0), generate
