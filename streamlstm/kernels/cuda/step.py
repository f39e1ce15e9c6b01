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
from numba.core import types

from streamlstm.kernels.cells.program import PROGRAMS, UNITS, VARIANCE_FLOOR, Stage
from streamlstm.kernels.compiling import LANES
from streamlstm.kernels.cuda import desk as at
from streamlstm.kernels.cuda.compiling import cuda, device
from streamlstm.kernels.cuda.desk import floats, ints, longs, longs_2
from streamlstm.kernels.cuda.lanes import fma, load, square_root, store
from streamlstm.kernels.cuda.sums import CHUNK, WARP, add_products, begin_sums, bring_weights, keep_sums
from streamlstm.kernels.cuda.units import bring, fetch_cells, finish
from streamlstm.kernels.layout import HIDDEN, KEPT, MARKS, OWN, STATE_WIDTH, WEIGHTS

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

    def step(address, count, w0, inputs, below, h0):
        desk = longs(address, at.LENGTH)
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
        ty, row = np.int64(cuda.threadIdx.y), row0 + cuda.threadIdx.y
        for k in range(cuda.threadIdx.x, inputs, WARP):
            if below < 0:
                bring(0, rows, groups, 0, x, inputs, taken, row, count, 0, k, shared, k * across + ty)
            else:
                bring(half, rows, groups, 1, state, lds, taken, row, count, below, k, shared, k * across + ty)
        for k in range(cuda.threadIdx.x, H, WARP):
            bring(half, rows, groups, 1, state, lds, taken, row, count, h0, k, shared, (inputs + k) * across + ty)
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
    N, R, threads, width, left = len(stage.gates), rows * groups, WARP * groups, of.gates * UNITS, of.left
    across, held = _across(R), rows * N
    further, own_vectors = of.further(bool(normal)) * UNITS, of.vectors
    gates = stage.gates
    normalised = tuple(int(bool(normal) and gate in of.normalised) for gate in gates)
    sums = [_sums(stage, read, what, width, rows, groups) for read, what in stage.reading()]
    first_sum, second_sum, third_sum = (sums + 3 * [_no_sum])[:3]

    def run(taken, row0, count, state, lds, h0, c0, weights, w0, inputs, H, padded, shared, chunk):
        size = (1 + inputs + H) * width + further
        kept_sums = inputs + H + left * padded
        acc, old = cuda.local.array(held, types.float32), cuda.local.array(rows, types.float32)
        values = cuda.local.array(N, types.float32)
        first_row = np.int64(cuda.threadIdx.y) * rows
        for u0 in range(0, H, WARP):
            u = u0 + np.int64(cuda.threadIdx.x)
            inside = u < H  # those beyond stay zero
            begin = w0 + u // UNITS * size + u % UNITS
            if normal == 0:
                fetch_cells(half, rows, old, taken, row0 + first_row, count, state, lds, c0, u if inside else 0)
            begin_sums(rows, N, acc, gates, normalised, weights, begin, inside)
            first_sum(acc, weights, begin + width, inside, inputs, H, shared, chunk)
            second_sum(acc, weights, begin + width, inside, inputs, H, shared, chunk)
            third_sum(acc, weights, begin + width, inside, inputs, H, shared, chunk)
            if inside:
                behind = begin + (1 + inputs + H) * width
                place = (inputs + H + u) * across + first_row
                if normal:
                    keep_sums(rows, N, acc, gates, shared, (kept_sums + u) * across + first_row, padded * across)
                else:
                    finish(program, number, half, rows, acc, old, taken, row0 + first_row, count, state, lds, h0, c0, u,
                           shared, (inputs + u) * across + first_row, place, padded * across, weights, behind)  # fmt: skip
        if normal:
            cuda.syncthreads()
            for e in range(cuda.threadIdx.y * WARP + cuda.threadIdx.x, R * N, threads):
                n = e // R
                if normalised[n] == 1:
                    _standardise(shared, (kept_sums + gates[n] * padded) * across + e % R, across, H)
            cuda.syncthreads()
            for u in range(cuda.threadIdx.x, H, WARP):
                begin = w0 + u // UNITS * size + u % UNITS
                behind = begin + (1 + inputs + H) * width
                for r in range(rows):
                    row = first_row + r
                    for n in range(N):
                        value = load(shared, (kept_sums + gates[n] * padded + u) * across + row)
                        if normalised[n] == 1:
                            gain = load(weights, behind + (own_vectors + gates[n]) * UNITS)
                            value = fma(value, gain, load(weights, begin + gates[n] * UNITS))
                        values[n] = value
                    fetch_cells(half, 1, old, taken, row0 + row, count, state, lds, c0, u)
                    finish(program, number, half, 1, values, old, taken, row0 + row, count, state, lds, h0, c0, u, shared,
                           (inputs + u) * across + row, (inputs + H + u) * across + row, padded * across, weights,
                           behind)  # fmt: skip
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
            bring_weights(N, groups, gates, weights, matrix + (row0 + k0) * width, width, inside, here, shared,
                          chunk + unit, np.int64(cuda.threadIdx.y))  # fmt: skip
            cuda.syncthreads()
            add_products(
                rows, N, all_gates, first_place, acc, shared, (z0 + k0) * across + row, across, chunk + unit, here
            )

    return device(add, inline=True)


_FLOOR, _ONE = np.float32(VARIANCE_FLOOR), np.float32(1)


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


_standardise = device(_standardise)
