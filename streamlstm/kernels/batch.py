"""The one compiled call: a batch of records through network, score, threshold and episode.

The planner sorts the batch by stream. Streams are then run in groups whose state fits the second-level cache; within a
group, wave after wave; within a wave, tile after tile. Streams never touch each other, so threads take groups of their
own and no bit depends on their number, on the group or on the tile.
"""

import numpy as np
from numba import prange

from streamlstm.kernels.arguments import Out, Pool, Records, Setup, Tap
from streamlstm.kernels.calls import call_wave
from streamlstm.kernels.compiling import jit
from streamlstm.kernels.layout import *
from streamlstm.kernels.plan import plan_batch
from streamlstm.kernels.score import drop_row
from streamlstm.kernels.sizes import unchanging
from streamlstm.kernels.times import unwanted

_ZERO = np.int64(0)


@jit
def score_streams(u0, end, order, starts, setup, pool, records, tap, out, scratch, seats):
    """Scores streams u0 .. end of the plan, group by group; seats int32 (GROUP_SEATS) is scratch."""
    fetched = _ZERO
    while u0 < end:
        u1 = min(u0 + GROUP, end)
        fetched = score_group(u0, u1, end, fetched, order, starts, setup, pool, records, tap, out, scratch, seats)
        u0 = u1


@jit
def score_group(u0, u1, end, fetched, order, starts, setup, pool, records, tap, out, scratch, seats):
    """Scores all waves of streams u0 .. u1 of the plan, whose first `fetched` records are fetched already; returns how many
    it has fetched of those from u1 on.

    Behind the records of a wave stand those of the next one, or of the next group up to `end`, so that they are fetched
    meanwhile (a first tile that waits for its memory costs 4 % of a call of 8192 streams; EPYC, November 2026).
    """
    active, rows = seats[:GROUP], seats[GROUP : 2 * GROUP + TILE]
    slots, rest = seats[2 * GROUP + TILE : 3 * GROUP + 2 * TILE], seats[3 * GROUP + 2 * TILE :]
    told = Setup(unchanging(setup.sizes), setup.params, setup.weights, setup.usual)
    count = u1 - u0
    for j in range(count):
        active[j] = u0 + j
    wave = 0
    while count > 0:
        left, wanted = 0, _ZERO  # an integer's own type: a literal would compile the callee twice
        for j in range(count):
            u = active[j]
            b = records.first + order[starts[u] + wave]
            s = records.slots[b]
            if unwanted(pool.marks[s], records.time[b], setup.sizes[DROPS]):
                drop_row(b, s, setup, pool, records, tap, out)
            else:
                rows[wanted], slots[wanted] = b, s
                wanted += 1
            if starts[u] + wave + 1 < starts[u + 1]:
                active[left] = u
                left += 1
        wave += 1
        known = wanted
        for j in range(min(TILE, left if left > 0 else end - u1)):
            b = records.first + order[starts[active[j]] + wave if left > 0 else starts[u1 + j]]
            rows[known], slots[known] = b, records.slots[b]
            known += 1
        call_wave(setup.sizes[WAVE], rows, slots, wanted, known, fetched, told, pool, records, tap, out, scratch, rest)
        count, fetched = left, known - wanted
    return fetched


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
    tap = Tap(values, values, values, codes, slots)  # never read: weights are frozen
    run_groups(slots.shape[0], setup, pool, records, tap, out, plan, scratch[0])


@jit
def run_groups(count, setup, pool, records, tap, out, plan, scratch):
    """Plans `count` records from records.first on and scores their groups one after another."""
    order, starts = plan[:count], plan[count : 2 * count + 1]
    group = plan[2 * count + 1 : 2 * count + 1 + GROUP_SEATS]
    slots = records.slots[records.first : records.first + count]
    streams = plan_batch(slots, order, starts, plan[2 * count + 1 + GROUP_SEATS :])
    score_streams(_ZERO, streams, order, starts, setup, pool, records, tap, out, scratch, group)


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
    tap = Tap(values, values, values, codes, slots)
    B = slots.shape[0]
    u0 = np.searchsorted(starts[:streams], B * t // threads)
    end = np.searchsorted(starts[:streams], B * (t + 1) // threads)
    score_streams(u0, end, order, starts, setup, pool, records, tap, out, scratch, group)
