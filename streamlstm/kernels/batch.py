"""The one compiled call: a batch of records through network, score, threshold and episode.

The planner sorts the batch by stream. Streams are then run in groups whose state fits the second-level cache; within a
group, wave after wave; within a wave, tile after tile. Streams never touch each other, so threads take groups of their
own and no bit depends on their number, on the group or on the tile.
"""

import numpy as np
from numba import prange

from streamlstm.kernels.arguments import Out, Pool, Records, Setup, Tap
from streamlstm.kernels.block import make_block, records_of
from streamlstm.kernels.cells.calls import call_step
from streamlstm.kernels.cells.tile import UNITS
from streamlstm.kernels.compiling import LANES, jit
from streamlstm.kernels.lanes import copy_lanes, prefetch
from streamlstm.kernels.layout import *
from streamlstm.kernels.matrix import multiply
from streamlstm.kernels.parts import begin_parts
from streamlstm.kernels.plan import plan_batch
from streamlstm.kernels.score import drop_row, enter_row, prepare_row, score_block
from streamlstm.kernels.times import unwanted

_ZERO, _ONE = np.int64(0), np.int64(1)


@jit
def panels_size(sizes, inputs):
    """float32 weights of one recurrent layer, see `cells.tile`."""
    units = (sizes[HIDDEN] + UNITS - 1) // UNITS * UNITS
    return units * ((1 + inputs + sizes[HIDDEN]) * sizes[GATES] + sizes[VECTORS])


@jit
def step_network(slots, first, count, setup, state, scratch, z0, r0, n0, p0):
    """One step of all layers and the readout for `count` rows of `slots` from `first` on.

    scratch (flat float32): the first layer's inputs lie at z0, the regressors (behind room for h) at r0. Writes h and c
    in `state`, the LSTM's part of the prediction at n0 and the whole prediction at p0, OUTPUTS values a row.
    """
    sizes, weights = setup.sizes, setup.weights
    H, Hp, O = sizes[HIDDEN], sizes[PADDED], sizes[OUTPUTS]
    ldz, ldr, inputs = sizes[LDZ], sizes[LDR], sizes[N_FEATURES] + sizes[N_KNOWN]
    w0, h0 = _ZERO, sizes[AT_LAYERS]
    for layer in range(sizes[LAYERS]):
        for r in range(count):
            row, at = state[slots[first + r]], z0 + r * ldz
            if layer > 0:
                copy_lanes(row, h0 - 2 * Hp, scratch, at, H)
            copy_lanes(row, h0, scratch, at + inputs, H)
        call_step(sizes[STEP], weights, w0, inputs, H, scratch, z0, ldz, slots, first, count, state, _ZERO,
                  state.shape[1], h0, h0 + Hp)  # fmt: skip
        w0 += panels_size(sizes, inputs)
        h0 += 2 * Hp
        inputs = H
    for r in range(count):
        row, at = state[slots[first + r]], r0 + r * ldr
        copy_lanes(row, h0 - 2 * Hp, scratch, at, H)
    multiply(scratch, r0, ldr, _ONE, count, H, weights, w0 + O, O, O, weights, w0, _ZERO, scratch, n0, O)
    for j in range(count * O):
        scratch[p0 + j] = scratch[n0 + j]
    P, raw = sizes[N_REGRESSORS], w0 + (1 + H) * O
    D, C = sizes[N_FEATURES], sizes[N_CALENDAR]
    (_, wide), (cut, cut_wide), (bare, bare_wide) = skip_lanes(D, RAW), skip_lanes(D, CLIPPED), skip_lanes(D, BARE)
    multiply(scratch, r0 + Hp, ldr, _ONE, count, P, weights, raw, wide, wide,
             scratch, p0, O, scratch, p0, O)  # fmt: skip
    multiply(scratch, r0 + Hp + P, ldr, _ONE, count, P, weights, raw + P * wide, cut_wide, cut_wide,
             scratch, p0 + cut, O, scratch, p0 + cut, O)  # fmt: skip
    if C > 0:
        multiply(scratch, r0 + Hp + 2 * P - C, ldr, _ONE, count, C, weights, raw + P * (wide + cut_wide), bare_wide,
                 bare_wide, scratch, p0 + bare, O, scratch, p0 + bare, O)  # fmt: skip


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


@jit
def score_wave(rows, slots, count, setup, pool, records, tap, out, scratch, seats):
    """Scores `count` records of different streams: rows (batch positions) and slots int32, in slot order; seats int32
    (SEATS) is scratch."""
    sizes = setup.sizes
    ldz, ldr, O, D = sizes[LDZ], sizes[LDR], sizes[OUTPUTS], sizes[N_FEATURES]
    z0 = _ZERO
    r0 = z0 + TILE * ldz
    n0 = r0 + TILE * ldr
    p0 = n0 + TILE * O
    prediction, network, rest = scratch[p0:], scratch[n0:], scratch[p0 + TILE * O :]
    most = min(records_of(D), count)
    begin_parts(make_block(rest, D, most), setup.params)
    seat_rows, seat_slots, places = seats[:LANES], seats[LANES : 2 * LANES], seats[2 * LANES : 3 * LANES]
    broken, present = seats[3 * LANES : 4 * LANES], seats[4 * LANES :]
    for r in range(min(TILE, count)):
        fetch_row(rows[r], slots[r], pool, records)
    for first in range(0, count, TILE):
        n = min(TILE, count - first)
        for r in range(n):
            b, s = rows[first + r], slots[first + r]
            prepare_row(b, s, setup, pool, records, tap, scratch, z0 + r * ldz, scratch, r0 + r * ldr)
        step_network(slots, np.int64(first), np.int64(n), setup, pool.state, scratch, z0, r0, n0, p0)
        seated = 0
        for r in range(n):
            if first + TILE + r < count:
                fetch_row(rows[first + TILE + r], slots[first + TILE + r], pool, records)
            b, s = rows[first + r], slots[first + r]
            block = make_block(rest, D, seated)
            if enter_row(b, s, seated, setup, pool, records, tap, out, prediction, r * O, block, broken, present):
                seat_rows[seated], seat_slots[seated], places[seated] = b, s, r
                seated += 1
            if seated == most or (r == n - 1 and seated > 0):
                block = make_block(rest, D, seated)
                score_block(
                    block, seat_rows, seat_slots, places, broken, present, setup, pool, records, tap, out, network
                )
                seated = 0


@jit
def score_group(u0, u1, order, starts, setup, pool, records, tap, out, scratch, seats):
    """Scores all waves of streams u0 .. u1 of the plan; seats int32 (GROUP_SEATS) is scratch."""
    active, rows, slots = seats[:GROUP], seats[GROUP : 2 * GROUP], seats[2 * GROUP : 3 * GROUP]
    count = u1 - u0
    for j in range(count):
        active[j] = u0 + j
    wave = 0
    while count > 0:
        left = wanted = 0
        for j in range(count):
            b = records.first + order[starts[active[j]] + wave]
            s = records.slots[b]
            if unwanted(pool.marks[s], records.time[b], setup.sizes[DROPS]):
                drop_row(b, s, setup, pool, records, tap, out)
            else:
                rows[wanted], slots[wanted] = b, s
                wanted += 1
        score_wave(rows, slots, wanted, setup, pool, records, tap, out, scratch, seats[3 * GROUP :])
        wave += 1
        for j in range(count):
            u = active[j]
            if starts[u] + wave < starts[u + 1]:
                active[left] = u
                left += 1
        count = left


@jit
def score_serial(
    sizes, params, weights, usual, state, stats, marks, slots, time, x, row, source, detail,
    values, codes, details, episodes, plan, scratch,
):  # fmt: skip
    """Scores B records on the calling thread; writes values, codes, details, episodes and the pool's rows.

    Arguments are the fields of `Setup`, `Pool`, `Records` and `Out`, taken apart since a call pays for each tuple;
    plan int32 (3 B + SPARE + GROUP_SEATS + 1) and scratch float32 (threads, scratch_size) are scratch.
    """
    setup, pool = Setup(sizes, params, weights, usual), Pool(state, stats, marks)
    records, out = Records(slots, time, x, row, source, detail, _ZERO), Out(values, codes, details, episodes)
    tap = Tap(values, values, values, codes, _ZERO)  # never read: weights are frozen
    run_groups(slots.shape[0], setup, pool, records, tap, out, plan, scratch[0])


@jit
def run_groups(count, setup, pool, records, tap, out, plan, scratch):
    """Plans `count` records from records.first on and scores their groups one after another."""
    order, starts = plan[:count], plan[count : 2 * count + 1]
    group = plan[2 * count + 1 : 2 * count + 1 + GROUP_SEATS]
    slots = records.slots[records.first : records.first + count]
    streams = plan_batch(slots, order, starts, plan[2 * count + 1 + GROUP_SEATS :])
    for u0 in range(0, streams, GROUP):
        u1 = min(u0 + GROUP, streams)
        score_group(u0, u1, order, starts, setup, pool, records, tap, out, scratch, group)


@jit(parallel=True)
def score_parallel(
    sizes, params, weights, usual, state, stats, marks, slots, time, x, row, source, detail,
    values, codes, details, episodes, plan, scratch,
):  # fmt: skip
    """The twin of `score_serial` on scratch.shape[0] threads: each takes one contiguous part of the planned streams."""
    B = slots.shape[0]
    threads = scratch.shape[0]
    order, starts = plan[:B], plan[B : 2 * B + 1]
    streams = plan_batch(slots, order, starts, plan[2 * B + 1 + GROUP_SEATS * threads :])
    for t in prange(threads):
        score_part(t, threads, streams, order, starts, sizes, params, weights, usual, state, stats, marks,
                   slots, time, x, row, source, detail, values, codes, details, episodes,
                   plan[2 * B + 1 + GROUP_SEATS * t : 2 * B + 1 + GROUP_SEATS * (t + 1)], scratch[t])  # fmt: skip


@jit
def score_part(
    t, threads, streams, order, starts, sizes, params, weights, usual, state, stats, marks,
    slots, time, x, row, source, detail, values, codes, details, episodes, group, scratch,
):  # fmt: skip
    """Scores part t of `threads`: the streams whose records begin in its share of the planned records."""
    setup, pool = Setup(sizes, params, weights, usual), Pool(state, stats, marks)
    records, out = Records(slots, time, x, row, source, detail, _ZERO), Out(values, codes, details, episodes)
    tap = Tap(values, values, values, codes, _ZERO)
    B = slots.shape[0]
    u0 = np.searchsorted(starts[:streams], B * t // threads)
    end = np.searchsorted(starts[:streams], B * (t + 1) // threads)
    while u0 < end:
        u1 = min(u0 + GROUP, end)
        score_group(u0, u1, order, starts, setup, pool, records, tap, out, scratch, group)
        u0 = u1
