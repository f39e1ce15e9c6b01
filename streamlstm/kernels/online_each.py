"""Learning from the stream with weights of each stream alone: updated after every N-th record of that stream.

A learner's arrays have a row for every stream: rows below `base` are what new streams begin with, that of slot s is base
+ s; a stream's mark OWN names its row. Weights lie row after row. Streams never touch each other.
"""

import numpy as np

from streamlstm.kernels.arguments import Out, Pool, Records, Setup, Tap
from streamlstm.kernels.batch import score_streams
from streamlstm.kernels.compiling import jit
from streamlstm.kernels.layout import *
from streamlstm.kernels.online import RECORDS, Learner, learn_segment
from streamlstm.kernels.plan import plan_batch

_ZERO, _ONE = np.int64(0), np.int64(1)


@jit
def score_each(
    sizes, params, weights, usual, state, stats, marks, slots, time, x, row, source, detail,
    values, codes, details, episodes, plan, scratch, learners, work, rate, base,
):  # fmt: skip
    """Scores B records and learns from them; the arguments are those of `online.score_online`, with B + 2 values of plan."""
    setup, pool = Setup(sizes, params, weights, usual), Pool(state, stats, marks)
    out = Out(values, codes, details, episodes)
    records = Records(slots, time, x, row, source, detail, _ZERO)
    B, N, W = slots.shape[0], sizes[SEGMENT], sizes[WEIGHTS]
    order, starts, group = plan[:B], plan[B : 2 * B + 1], plan[2 * B + 1 : 2 * B + 1 + GROUP_SEATS]
    place, one = plan[plan.shape[0] - B :], plan[plan.shape[0] - B - 2 : plan.shape[0] - B]
    streams = plan_batch(slots, order, starts, plan[2 * B + 1 + GROUP_SEATS :])
    for u in range(streams):
        first, end = np.int64(starts[u]), np.int64(starts[u + 1])
        s = np.int64(slots[order[first]])
        n = base + s
        if marks[s, SEEN] == 0:
            begin_learner(learners, weights, W, marks[s, OWN], n)
            marks[s, OWN] = n
        learner = learner_of(learners, n)
        tap = Tap(learner.regressors, learner.target, learner.windows, learner.closed, place)
        own = Setup(sizes, params, weights[n * W : (n + 1) * W], usual)
        while first < end:
            at = learner.counters[RECORDS] % N
            count = min(N - at, end - first)
            some = order[first : first + count]
            for k in range(count):
                place[some[k]] = at + k
            one[0], one[1] = 0, count
            score_streams(_ZERO, _ONE, some, one, setup, pool, records, tap, out, scratch[0], group)
            learner.counters[RECORDS] += count
            first += count
            if at + count == N:
                learn_segment(own, learner, work, rate)


@jit
def learner_of(learners, n):
    """Row n of all that learns."""
    return Learner(
        learners.cell, learners.counters[n], learners.theta[n], learners.first[n], learners.second[n], learners.decay,
        learners.gradient, learners.scale[n], learners.gram[n], learners.cross[n], learners.factor, learners.skip[n],
        learners.regressors[n], learners.target[n], learners.windows[n], learners.closed[n], learners.x, learners.wished,
        learners.h, learners.c,
    )  # fmt: skip


@jit
def begin_learner(learners, weights, W, begun, n):
    """Writes row n as row `begun`, which has learned nothing yet in use."""
    for k in range(W):
        weights[n * W + k] = weights[begun * W + k]
    copy_row(learners.counters, begun, n)
    copy_row(learners.theta, begun, n)
    copy_row(learners.first, begun, n)
    copy_row(learners.second, begun, n)
    copy_row(learners.scale, begun, n)
    for cut in range(learners.gram.shape[1]):
        copy_matrix(learners.gram[begun, cut], learners.gram[n, cut])
        copy_matrix(learners.cross[begun, cut], learners.cross[n, cut])
    for head in range(HEADS):
        copy_matrix(learners.skip[begun, head], learners.skip[n, head])


@jit
def copy_row(rows, source, target):
    """Writes row `target` as row `source`."""
    for k in range(rows.shape[1]):
        rows[target, k] = rows[source, k]


@jit
def copy_matrix(source, target):
    """Writes target (n, m) as source."""
    for r in range(source.shape[0]):
        for k in range(source.shape[1]):
            target[r, k] = source[r, k]
