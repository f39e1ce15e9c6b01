"""A wave: records of different streams through network and score, tile after tile.

It is the largest piece of machine code here, and called by its address: each of the functions around it would
otherwise optimise all of it anew (a first call took 107 instead of 80 s; EPYC, November 2026).
"""

import numpy as np

from streamlstm.kernels.block import filled, make_block, records_of
from streamlstm.kernels.calls import call_step, score_wave_for
from streamlstm.kernels.cells.program import UNITS
from streamlstm.kernels.compiling import LANES, CFunction, jit
from streamlstm.kernels.lanes import copy_halves, copy_lanes, prefetch
from streamlstm.kernels.layout import *
from streamlstm.kernels.matrix import HALF, multiply
from streamlstm.kernels.parts import begin_parts
from streamlstm.kernels.score import enter_row, prepare_row, score_block
from streamlstm.kernels.sizes import ONE_FROZEN
from streamlstm.types import Int64

_ZERO, _ONE = np.int64(0), np.int64(1)


@jit
def panels_size(sizes, inputs):
    """float32 weights of one recurrent layer, see `cells.program`."""
    units = (sizes[HIDDEN] + UNITS - 1) // UNITS * UNITS
    return units * ((1 + inputs + sizes[HIDDEN]) * sizes[GATES] + sizes[VECTORS])


@jit
def step_network(slots, first, count, setup, state, scratch, z0, r0, n0, p0, w0):
    """One step of all layers and the readout for `count` rows of `slots` from `first` on.

    scratch (flat float32): the first layer's inputs lie at z0, the regressors (behind room for h) at r0. Writes h and c
    in `state`, the whole prediction at p0 and, for online learning, the LSTM's part of it at n0, OUTPUTS values a row. The
    weights begin at w0.
    """
    sizes, weights = setup.sizes, setup.weights
    H, Hp, kept, O = sizes[HIDDEN], sizes[PADDED], sizes[KEPT], sizes[OUTPUTS]
    ldz, ldr, inputs = sizes[LDZ], sizes[LDR], sizes[N_FEATURES] + sizes[N_KNOWN]
    h0 = sizes[AT_LAYERS]
    for layer in range(sizes[LAYERS]):
        for r in range(count):
            row, at = state[slots[first + r]], z0 + r * ldz
            if layer > 0:
                copy_h(row, h0 - 2 * kept, scratch, at, sizes)
            copy_h(row, h0, scratch, at + inputs, sizes)
        call_step(sizes[STEP], weights, w0, inputs, H, scratch, z0, ldz, slots, first, count, state, _ZERO,
                  state.shape[1], h0, h0 + kept)  # fmt: skip
        w0 += panels_size(sizes, inputs)
        h0 += 2 * kept
        inputs = H
    for r in range(count):
        row, at = state[slots[first + r]], r0 + r * ldr
        copy_h(row, h0 - 2 * kept, scratch, at, sizes)
    P, raw, D, C = sizes[N_REGRESSORS], w0 + (1 + H) * O, sizes[N_FEATURES], sizes[N_CALENDAR]
    (_, wide), (cut, cut_wide), (bare, bare_wide) = skip_lanes(D, RAW), skip_lanes(D, CLIPPED), skip_lanes(D, BARE)
    if O == LANES and Hp == H and sizes[ONLINE] == 0:  # one row of regressors by one matrix
        columns = O if HEADS * D > HALF else HALF
        multiply(scratch, r0, ldr, _ONE, count, H + 2 * P, weights, w0 + O, O, columns,
                 weights, w0, _ZERO, scratch, p0, O)  # fmt: skip
    else:
        multiply(scratch, r0, ldr, _ONE, count, H, weights, w0 + O, O, O, weights, w0, _ZERO, scratch, n0, O)
        copy_lanes(scratch, n0, scratch, p0, count * O)
        multiply(scratch, r0 + Hp, ldr, _ONE, count, P, weights, raw, wide, wide,
                 scratch, p0, O, scratch, p0, O)  # fmt: skip
        multiply(scratch, r0 + Hp + P, ldr, _ONE, count, P, weights, raw + P * wide, cut_wide, cut_wide,
                 scratch, p0 + cut, O, scratch, p0 + cut, O)  # fmt: skip
    if C > 0:
        multiply(scratch, r0 + Hp + 2 * P - C, ldr, _ONE, count, C, weights, raw + P * (wide + cut_wide), bare_wide,
                 bare_wide, scratch, p0 + bare, O, scratch, p0 + bare, O)  # fmt: skip


@jit(inline=True)
def copy_h(row, h0, scratch, at, sizes):
    """Copies a layer's h as float32 from a stream's row, where it is kept as such or as float16."""
    if sizes[KEPT] == sizes[PADDED]:
        copy_lanes(row, h0, scratch, at, sizes[HIDDEN])
    else:
        copy_halves(row, h0, scratch, at, sizes[HIDDEN])


@jit(inline=True)
def skip_lanes(D, head):
    """First column of the outputs that the head's skip writes, and how many.

    Whole vectors around columns head * D .. (head + 1) * D; the weights of the others among them are zero.
    """
    first = head * D // LANES * LANES
    return first, ((head + 1) * D + LANES - 1) // LANES * LANES - first


@jit(inline=True)
def fetch_row(b, s, pool, records):
    """Asks for the memory of record b and its stream, so that it is there when the tile before is done.

    Without it a record of 8192 streams took 1.6 times as long as one of 512 (EPYC, November 2026).
    """
    prefetch(pool.state[s])
    prefetch(pool.stats[s])
    prefetch(pool.marks[s, :OPENED_SOURCE])
    prefetch(records.x[b])
    prefetch(records.time[b : b + 1])
    prefetch(records.row[b : b + 1])


def score_wave(rows, slots, count, known, fetched, setup, pool, records, tap, out, scratch, seats):
    """Scores `count` records of different streams: rows (batch positions) and slots int32, in slot order.

    Rows and slots name `known` records, a tile at most behind those of the wave, which are fetched for the next one; of
    this wave's the one before has fetched the first `fetched`. seats int32 (SEATS) is scratch.
    """
    sizes = setup.sizes
    ldz, ldr, O, D = sizes[LDZ], sizes[LDR], sizes[OUTPUTS], sizes[N_FEATURES]
    z0 = _ZERO
    r0 = z0 + TILE * ldz
    n0 = r0 + TILE * ldr
    p0 = n0 + TILE * O
    prediction, network, rest = scratch[p0:], scratch[n0:], scratch[p0 + TILE * O :]
    most = min(records_of(D), count)
    block = make_block(rest, D, most)
    begin_parts(block, setup.params)
    seat_rows, seat_slots, places = seats[:LANES], seats[LANES : 2 * LANES], seats[2 * LANES : 3 * LANES]
    broken, present = seats[3 * LANES : 4 * LANES], seats[4 * LANES :]
    for r in range(fetched, min(TILE, known)):
        fetch_row(rows[r], slots[r], pool, records)
    for first in range(0, count, TILE):
        n = min(TILE, count - first)
        for r in range(n):
            b, s = rows[first + r], slots[first + r]
            prepare_row(b, s, setup, pool, records, tap, scratch, z0 + r * ldz, scratch, r0 + r * ldr)
        together = 1 if sizes[WEIGHTS] > 0 else n  # rows of equal weights
        for r in range(0, n, together):
            w0 = pool.marks[slots[first + r], OWN] * sizes[WEIGHTS]
            step_network(slots, np.int64(first + r), np.int64(together), setup, pool.state, scratch, z0 + r * ldz, r0 + r * ldr,
                         n0 + r * O, p0 + r * O, w0)  # fmt: skip
        seated = _ZERO
        for r in range(n):
            if first + TILE + r < known:
                fetch_row(rows[first + TILE + r], slots[first + TILE + r], pool, records)
            b, s = rows[first + r], slots[first + r]
            if enter_row(b, s, seated, setup, pool, records, tap, out, prediction, r * O, block, broken, present):
                seat_rows[seated], seat_slots[seated], places[seated] = b, s, r
                seated += 1
            if seated == most or (r == n - 1 and seated > 0):
                score_block(
                    filled(block, D, seated), seat_rows, seat_slots, places, broken, present, setup, pool, records, tap, out,
                    network,
                )  # fmt: skip
                seated = _ZERO


_WAVES = [(known, CFunction(score_wave, score_wave_for(known))) for known in (ONE_FROZEN, {})]


def wave_for(sizes: Int64) -> CFunction:
    """`score_wave`, compiled for such sizes."""
    return next(wave for known, wave in _WAVES if all(sizes[entry] == value for entry, value in known.items()))
