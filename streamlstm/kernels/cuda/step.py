"""The step of a recurrent cell on a device: one block of threads per tile of rows, the program of `cells.program`.

A block brings the inputs and the old h of its rows into shared memory, so that no thread reads an h that another one has
written. Then it goes through the units, 32 at a time, one for each thread of a warp: rows of weights come through shared
memory, and a thread keeps the sums of all gates of its unit for `rows` rows in registers. Each sum is the chain of fused
multiply-adds that the CPU's tile has, and no row depends on the rows beside it.

In shared memory value k of row r lies at k * `across` + r: a thread reads its rows four at a time, and the writes of a
warp, each of another k, meet in only eight banks.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import types

from streamlstm.kernels.cells.program import LARGEST_SUM, PROGRAMS, UNITS, VARIANCE_FLOOR, Stage, Units
from streamlstm.kernels.compiling import LANES, intrinsic_with
from streamlstm.kernels.cuda import desk as at
from streamlstm.kernels.cuda.compiling import cuda, device
from streamlstm.kernels.cuda.desk import floats, ints, longs, longs_2
from streamlstm.kernels.cuda.lanes import NUMBERS, Scalar, fma, load, square_root, store
from streamlstm.kernels.layout import HIDDEN, KEPT, MARKS, OWN, STATE_WIDTH, WEIGHTS
from streamlstm.kernels.vector import FLOAT, I64, data

WARP = 32
CHUNK = 16
"""Rows of weights in shared memory at once: 8 KiB of an LSTM's."""
SHARED_BYTES = 48 * 1024
"""Of shared memory that a block gets on every device without asking for more."""
_ZERO = np.float32(0)


class Tile(NamedTuple):
    """Rows of each thread, and warps of a block: a block steps rows * groups rows."""

    rows: int
    groups: int


# Eight rows for each weight read keep the multiply-adds ahead of shared memory; more warps hide more waiting.
TILES = (Tile(8, 8), Tile(8, 4), Tile(8, 2), Tile(8, 1), Tile(4, 1), Tile(2, 1), Tile(1, 1))


def _across(R: int) -> int:
    """float32 values between two values of a row in shared memory."""
    return R + 4 if R >= 8 else R


def shared_floats(program: int, normal: int, inputs: int, H: int, tile: Tile) -> int:
    """float32 values of shared memory that a block needs."""
    of = PROGRAMS[program]
    row = inputs + H + of.room(bool(normal)) * (-(-H // LANES) * LANES)
    return _across(tile.rows * tile.groups) * row + CHUNK * of.gates * WARP


def tile_for(program: int, normal: int, inputs: int, H: int, *, own: bool) -> Tile:
    """The largest tile whose rows fit in shared memory; one row where each stream has weights of its `own`."""
    if own:
        return TILES[-1]
    return next(tile for tile in TILES if 4 * shared_floats(program, normal, inputs, H, tile) <= SHARED_BYTES)


@cache
def step_kernel(program: int, normal: int, half: int, rows: int, groups: int) -> Any:
    """The kernel, not compiled yet: of a program, with layer normalisation or not, on a state of float16 or float32.

    To be launched with WARP x groups threads on as many blocks as `count` rows have tiles. desk, see `desk`; w0, where the
    layer's weights begin; inputs of the layer, which are the h at column `below` of the state, or where that is negative
    the inputs of the network; h0, column of the layer's h.
    """
    of = PROGRAMS[program]
    R = rows * groups
    across = _across(R)
    two_stages = int(len(of.stages) > 1)
    first_stage = _stage(program, 0, normal, half, rows, groups)
    last_stage = _stage(program, len(of.stages) - 1, normal, half, rows, groups)
    room = of.room(bool(normal))

    def step(desk, count, w0, inputs, below, h0):
        sizes = longs(desk[at.SIZES], desk[at.LENGTH_OF_SIZES])
        taken = ints(desk[at.TAKEN], desk[at.WIDEST])
        lds = sizes[STATE_WIDTH]
        state = floats(desk[at.STATE], desk[at.STREAMS] * lds)
        weights = floats(desk[at.WEIGHTS], desk[at.LENGTH_OF_WEIGHTS])
        x = floats(desk[at.INPUTS], desk[at.WIDEST] * inputs)
        H, kept = sizes[HIDDEN], sizes[KEPT]
        padded = (H + LANES - 1) // LANES * LANES
        shared = cuda.shared.array(0, types.float32)
        row0 = np.int64(cuda.blockIdx.x) * R
        if R == 1 and sizes[WEIGHTS] > 0:
            marks = longs_2(desk[at.MARKS], desk[at.STREAMS], MARKS)
            w0 += marks[max(taken[row0], 0), OWN] * sizes[WEIGHTS]
        for r in range(cuda.threadIdx.y, R, groups):
            s = np.int64(load(taken, row0 + r)) if row0 + r < count else np.int64(-1)
            for k in range(cuda.threadIdx.x, inputs, WARP):
                value = _ZERO
                if s >= 0:
                    value = (
                        load(x, (row0 + r) * inputs + k) if below < 0 else read_value(half, state, s * lds + below, k)
                    )
                store(shared, k * across + r, value)
            for k in range(cuda.threadIdx.x, H, WARP):
                value = read_value(half, state, s * lds + h0, k) if s >= 0 else _ZERO
                store(shared, (inputs + k) * across + r, value)
        chunk = across * (inputs + H + room * padded)
        first_stage(taken, row0, count, state, lds, h0, h0 + kept, weights, w0, inputs, H, padded, shared, chunk)
        if two_stages:
            last_stage(taken, row0, count, state, lds, h0, h0 + kept, weights, w0, inputs, H, padded, shared, chunk)

    return step


@cache
def _stage(program: int, number: int, normal: int, half: int, rows: int, groups: int) -> Any:
    """The device function of one stage for all units: sums, then the cell's units; see `step_kernel`."""
    of = PROGRAMS[program]
    stage = of.stages[number]
    N, R, threads, width = len(stage.gates), rows * groups, WARP * groups, of.gates * UNITS
    across, held = _across(R), rows * N
    further, own_vectors = of.further(bool(normal)) * UNITS, of.vectors
    gates = stage.gates
    normalised = tuple(int(bool(normal) and gate in of.normalised) for gate in gates)
    sums = [_sums(stage, read, what, width, rows, groups) for read, what in stage.reading()]
    first_sum, second_sum, third_sum = (sums + 3 * [_no_sum])[:3]
    instead_wide = int(len(of.stages) > 1)

    def run(taken, row0, count, state, lds, h0, c0, weights, w0, inputs, H, padded, shared, chunk):
        panels = (H + UNITS - 1) // UNITS
        size = (1 + inputs + H) * width + further
        kept_sums = inputs + H + instead_wide * padded
        acc = cuda.local.array(held, types.float32)
        first_row = np.int64(cuda.threadIdx.y) * rows
        for u0 in range(0, H, WARP):
            u = u0 + np.int64(cuda.threadIdx.x)
            inside = u < panels * UNITS
            begin = w0 + u // UNITS * size + u % UNITS
            for n in range(N):
                bias = load(weights, begin + gates[n] * UNITS) if inside and normalised[n] == 0 else _ZERO
                for r in range(rows):
                    acc[r * N + n] = bias
            first_sum(acc, weights, begin + width, inside, inputs, H, shared, chunk)
            second_sum(acc, weights, begin + width, inside, inputs, H, shared, chunk)
            third_sum(acc, weights, begin + width, inside, inputs, H, shared, chunk)
            if inside:
                behind = begin + (1 + inputs + H) * width
                for r in range(rows):
                    row = first_row + r
                    if normal:
                        for n in range(N):
                            store(shared, (kept_sums + gates[n] * padded + u) * across + row, _clamp(acc[r * N + n]))
                    elif row0 + row < count and load(taken, row0 + row) >= 0:
                        s = np.int64(load(taken, row0 + row)) * lds
                        _finish(program, number, half, acc, r * N, state, s + h0, s + c0, u, shared,
                                (inputs + H + u) * across + row, weights, behind)  # fmt: skip
        if normal:
            cuda.syncthreads()
            for e in range(cuda.threadIdx.y * WARP + cuda.threadIdx.x, R * N, threads):
                n = e // R
                if normalised[n] == 1:
                    _standardise(shared, (kept_sums + gates[n] * padded) * across + e % R, across, H)
            cuda.syncthreads()
            for u in range(cuda.threadIdx.x, panels * UNITS, WARP):
                begin = w0 + u // UNITS * size + u % UNITS
                behind = begin + (1 + inputs + H) * width
                for r in range(rows):
                    row = first_row + r
                    if row0 + row < count and load(taken, row0 + row) >= 0:
                        for n in range(N):
                            value = load(shared, (kept_sums + gates[n] * padded + u) * across + row)
                            if normalised[n] == 1:
                                gain = load(weights, behind + (own_vectors + gates[n]) * UNITS)
                                value = fma(value, gain, load(weights, begin + gates[n] * UNITS))
                            acc[n] = value
                        s = np.int64(load(taken, row0 + row)) * lds
                        _finish(program, number, half, acc, 0, state, s + h0, s + c0, u, shared,
                                (inputs + H + u) * across + row, weights, behind)  # fmt: skip
        cuda.syncthreads()

    return device(run, inline=True)


def _nothing(acc, weights, matrix, inside, inputs, H, shared, chunk):
    """Of a stage that reads fewer things."""


_no_sum = device(_nothing, inline=True)


@cache
def _sums(stage: Stage, gates: tuple[int, ...], what: str, width: int, rows: int, groups: int) -> Any:
    """The device function that adds to the sums of `gates` what they read of one kind, CHUNK values at a time."""
    N, all_gates, across = len(gates), len(stage.gates), _across(rows * groups)
    first_place = tuple(stage.gates.index(gate) for gate in gates)
    reads_inputs, reads_all, reads_instead = int(what == "x"), int(what == "all"), int(what == "instead")

    def add(acc, weights, matrix, inside, inputs, H, shared, chunk):
        row0 = np.int64(0) if reads_inputs or reads_all else inputs
        z0 = inputs + H if reads_instead else row0
        terms = inputs + H if reads_all else (inputs if reads_inputs else H)
        unit, row = np.int64(cuda.threadIdx.x), np.int64(cuda.threadIdx.y) * rows
        for k0 in range(0, terms, CHUNK):
            here = min(CHUNK, terms - k0)
            cuda.syncthreads()
            if inside:
                for e in range(cuda.threadIdx.y, here * N, groups):
                    place = matrix + (row0 + k0 + e // N) * width + gates[e % N] * UNITS
                    store(shared, chunk + e * WARP + unit, load(weights, place))
            cuda.syncthreads()
            _chain(rows, N, all_gates, first_place, acc, shared, (z0 + k0) * across + row, across, chunk + unit, here)

    return device(add, inline=True)


def _chained(rows, N, all_gates, places, acc, shared, z, across, w, count):
    for k in range(count):
        for n in range(N):
            for r in range(rows):
                of = r * all_gates + places[n]
                acc[of] = NUMBERS.fma(shared[z + k * across + r], shared[w + (k * N + n) * WARP], acc[of])


@intrinsic_with(_chained)
def _chain(typing_context, rows, N, all_gates, places, acc, shared, z, across, w, count):
    """Adds `count` >= 1 products to the sums acc[r * all_gates + places[n]]: of z[k * across + r] and w[(k * N + n) * WARP].

    The rows are read in vectors; z and across are multiples of what a vector holds.
    """
    literals = rows, N, all_gates, across
    if not all(isinstance(of, types.IntegerLiteral) for of in literals):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        R, gates, all_of, step = (of.literal_value for of in literals)
        _, _, _, place, acc, shared, z, _, w, count = arguments
        e, kinds = Scalar(builder), signature.args
        sums, memory = data(context, builder, kinds[4], acc), data(context, builder, kinds[5], shared)
        at_sum = [
            [builder.add(I64(r * all_of), builder.extract_value(place, n)) for n in range(gates)] for r in range(R)
        ]
        wide = min(R, 4)
        found: dict[int, Any] = {}

        def rows_of(r: int, k: Any) -> Any:
            if r % wide == 0:
                first = builder.gep(memory, [builder.add(builder.add(z, I64(r)), builder.mul(k, I64(step)))])
                if wide == 1:
                    found[r] = builder.load(first)
                else:
                    vector = builder.load(builder.bitcast(first, ir.VectorType(FLOAT, wide).as_pointer()))
                    vector.align = 4 * wide
                    found.update((r + j, builder.extract_element(vector, ir.IntType(32)(j))) for j in range(wide))
            return found[r]

        def weights_of(n: int, k: Any) -> Any:
            return e.load(memory, builder.add(builder.add(w, I64(n * WARP)), builder.mul(k, I64(gates * WARP))))

        totals = e.accumulate([[e.load(sums, of) for of in row] for row in at_sum], count, weights_of, rows_of)
        for places_of, values in zip(at_sum, totals, strict=True):
            for of, value in zip(places_of, values, strict=True):
                e.store(value, sums, of)
        return context.get_dummy_value()

    n = types.int64
    return types.void(rows, N, all_gates, places, acc, shared, n, across, n, n), generate


_LARGEST = np.float32(LARGEST_SUM)
_FLOOR, _ONE = np.float32(VARIANCE_FLOOR), np.float32(1)


def _clamp(x):
    """x within what squares of sums can take; NaN stays NaN."""
    x = -_LARGEST if x < -_LARGEST else x
    return _LARGEST if x > _LARGEST else x


def _standardise(shared, start, stride, H):
    """Brings H values to mean 0 and variance 1; sums of 16 chains, then pairs of them, as on the CPU."""
    chains = cuda.local.array(LANES, types.float32)
    units, padded = np.float32(H), (H + LANES - 1) // LANES * LANES
    centre = _ZERO
    for again in range(2):
        for lane in range(LANES):
            chains[lane] = _ZERO
        for k in range(padded):
            value = _ZERO
            if k < H:
                value = load(shared, start + k * stride)
                if again == 1:
                    value = (value - centre) * (value - centre)
            chains[k % LANES] += value
        half = LANES // 2
        while half > 0:
            for lane in range(half):
                chains[lane] += chains[lane + half]
            half //= 2
        if again == 0:
            centre = chains[0] / units
    scale = _ONE / square_root(chains[0] / units + _FLOOR)
    for k in range(padded):
        store(shared, start + k * stride, (load(shared, start + k * stride) - centre) * scale)


_clamp, _standardise = device(_clamp, inline=True), device(_standardise)


class _Unit:
    """Where one unit of one stream lies, for `cells.program.Units`; see `_finish`."""

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

    def read_state(self, which: int) -> Any:
        """h (0) or c (1)."""
        return (self._e.load_half if self._half else self._e.load)(self._state, self._at(which))

    def write_state(self, which: int, value: Any) -> None:
        """The reverse of `read_state`."""
        (self._e.store_half if self._half else self._e.store)(value, self._state, self._at(which))

    def write_instead(self, value: Any) -> None:
        """What the next stage reads in place of h."""
        self._e.store(value, self._shared, self._instead)

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


def _finished(program, number, half, acc, first, state, h, c, unit, shared, instead, weights, further):
    stage = PROGRAMS[program].stages[number]
    gates = [np.float32(acc[first + n]) for n in range(len(stage.gates))]
    stage.finish(Units(NUMBERS, gates, _InterpretedUnit(half, state, (h, c), unit, shared, instead, weights, further)))


@intrinsic_with(_finished)
def _finish(typing_context, program, number, half, acc, first, state, h, c, unit, shared, instead, weights, further):
    """What a stage makes of the sums of one unit, acc[first : first + its gates], for one stream.

    Its h and c begin at columns h and c of the flat `state`; shared[instead] is what the next stage reads in place of h;
    the unit's further vectors lie at weights[further], UNITS apart.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        of = PROGRAMS[program.literal_value].stages[number.literal_value]
        e = Scalar(builder)
        _, _, _, acc, first, state, h, c, unit, shared, instead, weights, further = arguments
        kinds = signature.args
        sums = data(context, builder, kinds[3], acc)
        gates = [e.load(sums, builder.add(first, I64(n))) for n in range(len(of.gates))]
        states, spare, matrix = (
            data(context, builder, kinds[n], array) for n, array in ((5, state), (9, shared), (11, weights))
        )
        of.finish(
            Units(e, gates, _Unit(e, bool(half.literal_value), states, (h, c), unit, spare, instead, matrix, further))
        )
        return context.get_dummy_value()

    n = types.int64
    literals = program, number, half
    if not all(isinstance(of, types.IntegerLiteral) for of in literals):
        return None
    return types.void(*literals, acc, n, state, n, n, n, shared, n, weights, n), generate


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
