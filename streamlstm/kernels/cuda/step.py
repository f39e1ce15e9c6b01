"""The step of a recurrent cell on a device: one block of threads per tile of rows, the program of `cells.program`.

A block brings the inputs and the old h of its rows into shared memory, so that no thread reads an h that another one has
written. Then it goes through the units, 32 at a time, one for each thread of a warp: rows of weights come through shared
memory, and a thread keeps the sums of all gates of its unit for `rows` rows in registers. Each sum is the chain of fused
multiply-adds that the CPU's tile has, and no row depends on the rows beside it.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba.core import types

from streamlstm.kernels.cells.program import LARGEST_SUM, PROGRAMS, UNITS, VARIANCE_FLOOR, Stage, Units
from streamlstm.kernels.compiling import LANES, intrinsic_with
from streamlstm.kernels.cuda import desk as at
from streamlstm.kernels.cuda.compiling import cuda, device
from streamlstm.kernels.cuda.desk import floats, ints, longs, longs_2
from streamlstm.kernels.cuda.lanes import NUMBERS, Scalar, _sqrt, fma
from streamlstm.kernels.layout import HIDDEN, KEPT, MARKS, OWN, STATE_WIDTH, WEIGHTS
from streamlstm.kernels.vector import I64, data

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


def shared_floats(program: int, normal: int, inputs: int, H: int, tile: Tile) -> int:
    """float32 values of shared memory that a block needs."""
    of = PROGRAMS[program]
    row = inputs + H + of.room(bool(normal)) * (-(-H // LANES) * LANES)
    return tile.rows * tile.groups * row + CHUNK * of.gates * WARP


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
        ldz = inputs + H + room * padded
        row0 = cuda.blockIdx.x * R
        if R == 1 and sizes[WEIGHTS] > 0:
            marks = longs_2(desk[at.MARKS], desk[at.STREAMS], MARKS)
            w0 += marks[max(taken[row0], 0), OWN] * sizes[WEIGHTS]
        for r in range(cuda.threadIdx.y, R, groups):
            s = taken[row0 + r] if row0 + r < count else -1
            for k in range(cuda.threadIdx.x, inputs, WARP):
                value = _ZERO
                if s >= 0:
                    value = x[(row0 + r) * inputs + k] if below < 0 else read_value(half, state, s * lds + below, k)
                shared[r * ldz + k] = value
            for k in range(cuda.threadIdx.x, H, WARP):
                shared[r * ldz + inputs + k] = read_value(half, state, s * lds + h0, k) if s >= 0 else _ZERO
        first_stage(taken, row0, count, state, lds, h0, h0 + kept, weights, w0, inputs, H, padded, shared, ldz)
        if two_stages:
            last_stage(taken, row0, count, state, lds, h0, h0 + kept, weights, w0, inputs, H, padded, shared, ldz)

    return step


@cache
def _stage(program: int, number: int, normal: int, half: int, rows: int, groups: int) -> Any:
    """The device function of one stage for all units: sums, then the cell's units; see `step_kernel`."""
    of = PROGRAMS[program]
    stage = of.stages[number]
    G, N, R, threads, width = of.gates, len(stage.gates), rows * groups, WARP * groups, of.gates * UNITS
    further, own_vectors, held = of.further(bool(normal)) * UNITS, of.vectors, rows * len(stage.gates)
    gates = stage.gates
    normalised = tuple(int(bool(normal) and gate in of.normalised) for gate in gates)
    sums = tuple(_sums(stage, gates_read, what, G, rows, groups) for gates_read, what in stage.reading())
    reads = tuple({"all": 0, "x": 1, "h": 2, "instead": 3}[what] for _, what in stage.reading())
    first_sum, second_sum, third_sum = (list(sums) + 3 * [_no_sum])[:3]
    first_read, second_read, third_read = (list(reads) + 3 * [-1])[:3]
    instead_wide = int(len(of.stages) > 1)

    def run(taken, row0, count, state, lds, h0, c0, weights, w0, inputs, H, padded, shared, ldz):
        panels = (H + UNITS - 1) // UNITS
        size = (1 + inputs + H) * width + further
        chunk, z_sums = R * ldz, inputs + H + instead_wide * padded
        acc = cuda.local.array(held, types.float32)
        first_row = cuda.threadIdx.y * rows
        for u0 in range(0, H, WARP):
            u = u0 + cuda.threadIdx.x
            inside = u < panels * UNITS
            begin = w0 + u // UNITS * size + u % UNITS
            for n in range(N):
                bias = weights[begin + gates[n] * UNITS] if inside and normalised[n] == 0 else _ZERO
                for r in range(rows):
                    acc[r * N + n] = bias
            matrix = w0 + width
            first_sum(acc, first_read, weights, matrix, size, panels, u0, inputs, H, shared, chunk, ldz)
            if second_read >= 0:
                second_sum(acc, second_read, weights, matrix, size, panels, u0, inputs, H, shared, chunk, ldz)
            if third_read >= 0:
                third_sum(acc, third_read, weights, matrix, size, panels, u0, inputs, H, shared, chunk, ldz)
            if inside:
                behind = begin + (1 + inputs + H) * width
                for r in range(rows):
                    row = first_row + r
                    z = row * ldz
                    if normal:
                        for n in range(N):
                            shared[z + z_sums + gates[n] * padded + u] = _clamped(acc[r * N + n])
                    elif row0 + row < count and taken[row0 + row] >= 0:
                        s = taken[row0 + row] * lds
                        _finish(program, number, half, acc, r * N, state, s + h0, s + c0, u, shared, z + inputs + H + u,
                                weights, behind)  # fmt: skip
        if normal:
            cuda.syncthreads()
            for e in range(cuda.threadIdx.y * WARP + cuda.threadIdx.x, R * N, threads):
                if normalised[e % N] == 1:
                    _standardise(shared, e // N * ldz + z_sums + gates[e % N] * padded, H)
            cuda.syncthreads()
            for u in range(cuda.threadIdx.x, panels * UNITS, WARP):
                begin = w0 + u // UNITS * size + u % UNITS
                behind = begin + (1 + inputs + H) * width
                for r in range(rows):
                    row = first_row + r
                    z = row * ldz
                    if row0 + row < count and taken[row0 + row] >= 0:
                        for n in range(N):
                            value = shared[z + z_sums + gates[n] * padded + u]
                            if normalised[n] == 1:
                                gain = weights[behind + (own_vectors + gates[n]) * UNITS]
                                value = fma(value, gain, weights[begin + gates[n] * UNITS])
                            acc[n] = value
                        s = taken[row0 + row] * lds
                        _finish(program, number, half, acc, 0, state, s + h0, s + c0, u, shared, z + inputs + H + u,
                                weights, behind)  # fmt: skip
        cuda.syncthreads()

    return device(run, inline=True)


def _no_sum(acc, read, weights, matrix, size, panels, u0, inputs, H, shared, chunk, ldz):
    """Of a stage that reads fewer things."""


@cache
def _sums(stage: Stage, gates: tuple[int, ...], what: str, G: int, rows: int, groups: int) -> Any:
    """The device function that adds to the sums of `gates` what they read of one kind."""
    N, all_gates, threads, width = len(gates), len(stage.gates), WARP * groups, G * UNITS
    places = tuple(stage.gates.index(gate) for gate in gates)

    def add(acc, read, weights, matrix, size, panels, u0, inputs, H, shared, chunk, ldz):
        row0 = inputs if read >= 2 else 0
        z0 = inputs + H if read == 3 else row0
        terms = inputs + H if read == 0 else (inputs if read == 1 else H)
        thread, unit = cuda.threadIdx.y * WARP + cuda.threadIdx.x, cuda.threadIdx.x
        z = cuda.threadIdx.y * rows * ldz + z0
        for k0 in range(0, terms, CHUNK):
            here = min(CHUNK, terms - k0)
            cuda.syncthreads()
            for e in range(thread, here * N * WARP, threads):
                k, n, u = e // (N * WARP), e // WARP % N, u0 + e % WARP
                value = _ZERO
                if u < panels * UNITS:
                    value = weights[matrix + u // UNITS * size + (row0 + k0 + k) * width + gates[n] * UNITS + u % UNITS]
                shared[chunk + e] = value
            cuda.syncthreads()
            for k in range(here):
                for n in range(N):
                    w = shared[chunk + (k * N + n) * WARP + unit]
                    for r in range(rows):
                        at_sum = r * all_gates + places[n]
                        acc[at_sum] = fma(shared[z + r * ldz + k0 + k], w, acc[at_sum])

    return device(add, inline=True)


def _clamp_sum(x):
    low, high = -_LARGEST, _LARGEST
    x = low if x < low else x
    return high if high < x else x


_LARGEST = np.float32(LARGEST_SUM)
_FLOOR, _ONE = np.float32(VARIANCE_FLOOR), np.float32(1)
_clamped = device(_clamp_sum, inline=True)


def _standardise_row(shared, start, H):
    """Brings H values to mean 0 and variance 1; sums of 16 chains, then pairs of them, as on the CPU."""
    chains = cuda.local.array(LANES, types.float32)
    units = np.float32(H)
    centre = _ZERO
    for again in range(2):
        for lane in range(LANES):
            chains[lane] = _ZERO
        for k in range((H + LANES - 1) // LANES * LANES):
            value = _ZERO
            if k < H:
                value = shared[start + k]
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
    scale = _ONE / _sqrt(chains[0] / units + _FLOOR)
    for k in range((H + LANES - 1) // LANES * LANES):
        shared[start + k] = (shared[start + k] - centre) * scale


_standardise = device(_standardise_row)


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
