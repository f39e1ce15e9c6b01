"""Learning from the stream: shared weights, one copy per partition, updated after every N-th record.

Between two updates the weights stand still, so what a record gives does not depend on how the records came in batches.
Everything that an update reads was kept by the record's place in its segment of N records, and sums run in that order.
"""

from typing import NamedTuple

import numpy as np

from streamlstm.kernels.arguments import Out, Pool, Records, Setup, Tap
from streamlstm.kernels.batch import run_groups
from streamlstm.kernels.bptt import window_gradient
from streamlstm.kernels.cells.cell import Kernels
from streamlstm.kernels.cells.program import UNITS
from streamlstm.kernels.compiling import jit
from streamlstm.kernels.layout import *
from streamlstm.kernels.losses import Ahead
from streamlstm.kernels.optimisers import ADAM, clip_gradient, update_parameters
from streamlstm.kernels.ridge import add_moments, scale_moments, solve_ridge
from streamlstm.kernels.wave import skip_lanes
from streamlstm.types import Float32, Float64, Int64

# ---- entries of Learner.counters
RECORDS, UPDATES, STEPS, ROWS, SCALED, COUNTERS = range(6)
LANES_PER_TILE = 64
"""Windows whose gradients are computed side by side; their sum runs tile by tile, lane by lane."""
_FIRST_STEP = 8  # updates of the skip before the LSTM begins: it learns what a settled skip leaves over
_MEMORY_ROWS = 20_000.0  # of the skip's moments
_PENALTY, _HUBER, _CLIP_NORM = 1.0, 3.0, 1.0
_LEAST = np.float32(1e-3)
_ZERO = np.int64(0)


class Learner(NamedTuple):
    """All that learns: the cell's kernels; counters int64; theta, its Adam moments and gradient; the network's unit `scale`
    (3 D) in deviations; moments of raw and of clipped regressors (2, P, ..), weights of the skips (3, P, D); the tap's
    arrays; scratch of a tile of windows."""

    cell: Kernels
    counters: Int64
    theta: Float32
    first: Float32
    second: Float32
    decay: Float32
    gradient: Float32
    scale: Float32
    gram: Float64
    cross: Float64
    factor: Float64
    skip: Float64
    regressors: Float32
    target: Float32
    windows: Float32
    closed: Float32
    x: Float32
    wished: Float32
    h: Float32
    c: Float32


@jit
def score_online(
    sizes, params, weights, usual, state, stats, marks, slots, time, x, row, source, detail,
    values, codes, details, episodes, plan, scratch, learner, work, rate,
):  # fmt: skip
    """Scores B records and learns from them; the arguments are those of `batch.score_serial` and what learns.

    plan has B further values.
    """
    setup, pool = Setup(sizes, params, weights, usual), Pool(state, stats, marks)
    out = Out(values, codes, details, episodes)
    B, N = slots.shape[0], sizes[SEGMENT]
    place, first = plan[plan.shape[0] - B :], _ZERO
    while first < B:
        at = learner.counters[RECORDS] % N
        count = min(N - at, B - first)
        records = Records(slots, time, x, row, source, detail, first)
        for k in range(count):
            place[first + k] = at + k
        tap = Tap(learner.regressors, learner.target, learner.windows, learner.closed, place)
        run_groups(count, setup, pool, records, tap, out, plan, scratch[0])
        learner.counters[RECORDS] += count
        first += count
        if at + count == N:
            learn_segment(setup, learner, work, rate)


@jit
def learn_segment(setup, learner, work, rate):
    """One update: the skip by ridge regression on all rows so far, then one Adam step of the LSTM; writes the weights."""
    counters = learner.counters
    P = learner.cross.shape[1]
    fade = 1.0 - setup.sizes[SEGMENT] / _MEMORY_ROWS
    used = _ZERO
    for cut in range(2):
        gram, cross = learner.gram[cut], learner.cross[cut]
        scale_moments(gram, cross, fade)
        used = add_moments(learner.regressors[:, cut * P : (cut + 1) * P], learner.target, gram, cross, counters[ROWS])
        if used > 0:
            solve_ridge(gram, cross, _PENALTY, True, learner.factor, learner.skip[cut])
    if used > 0:
        known = P - setup.sizes[N_CALENDAR]
        gram, cross = learner.gram[RAW, known:, known:], learner.cross[RAW, known:]
        solve_ridge(gram, cross, _PENALTY, False, learner.factor, learner.skip[BARE, known:])
    counters[ROWS] = used
    counters[UPDATES] += 1
    if counters[UPDATES] >= _FIRST_STEP:
        step_lstm(setup.sizes, learner, work, rate)
    write_weights(setup.sizes, learner.theta, learner.scale, learner.skip, setup.weights)


@jit
def step_lstm(sizes, learner, work, rate):
    """One Adam step from the windows that came to their end in this segment, each record of them for the only time."""
    D, K, L, Hp = sizes[N_FEATURES], sizes[N_KNOWN], sizes[LAYERS], sizes[PADDED]
    I, T, N, targets = D + K, sizes[WINDOW], sizes[SEGMENT], HEADS * D
    memory = 2 * L * Hp
    nothing = Ahead(_ZERO, learner.scale[:0], 0.0)
    closed = 0
    for n in range(N):
        closed += np.int64(learner.closed[0, n])
    if closed == 0:
        return
    if learner.counters[SCALED] == 0:
        set_scale(sizes, learner)
        learner.counters[SCALED] = 1
    learner.gradient[:] = np.float32(0)
    n = 0
    while n < N:
        lanes = 0
        B = min(closed, LANES_PER_TILE)
        closed -= B
        while lanes < B:
            if learner.closed[0, n] == 1:
                window = learner.windows[n]
                for layer in range(L):
                    for u in range(Hp):
                        learner.h[(layer * B + lanes) * Hp + u] = window[2 * layer * Hp + u]
                        learner.c[(layer * B + lanes) * Hp + u] = window[(2 * layer + 1) * Hp + u]
                for t in range(T):
                    entry = memory + t * (I + targets)
                    for k in range(I):
                        learner.x[(t * B + lanes) * I + k] = window[entry + k]
                    for j in range(targets):
                        learner.wished[(t * B + lanes) * targets + j] = window[entry + I + j] / learner.scale[j]
                lanes += 1
            n += 1
        window_gradient(learner.cell, learner.theta, learner.x, learner.wished, learner.h, learner.c, T, B, I, Hp, L, targets,
                        sizes[OUTPUTS], _HUBER, 1.0 / (T * LANES_PER_TILE), nothing, work, learner.gradient)  # fmt: skip
        if closed == 0:
            break
    learner.counters[STEPS] += 1
    if np.isfinite(clip_gradient(learner.gradient, _CLIP_NORM, np.inf)):
        update_parameters(ADAM, learner.theta, learner.gradient, learner.first, learner.second, learner.decay,
                          learner.counters[STEPS], rate)  # fmt: skip


@jit
def set_scale(sizes, learner):
    """Writes the root mean square of what the heads leave over in the closed windows: the LSTM's unit from now on."""
    I, targets = sizes[N_FEATURES] + sizes[N_KNOWN], HEADS * sizes[N_FEATURES]
    memory = 2 * sizes[LAYERS] * sizes[PADDED]
    for d in range(targets):
        total, count = 0.0, 0
        for n in range(sizes[SEGMENT]):
            if learner.closed[0, n] == 1:
                for t in range(sizes[WINDOW]):
                    e = learner.windows[n, memory + t * (I + targets) + I + d]
                    if not np.isnan(e):
                        total += np.float64(e) * e
                        count += 1
        learner.scale[d] = max(np.float32(np.sqrt(total / max(count, 1))), _LEAST)


@jit
def write_weights(sizes, theta, scale, skip, out_weights):
    """Writes the weights as the step reads them: panels of every layer, then readout (in deviations) and skips."""
    D, H, L, Hp, O = sizes[N_FEATURES], sizes[HIDDEN], sizes[LAYERS], sizes[PADDED], sizes[OUTPUTS]
    gates, vectors = sizes[GATES], sizes[VECTORS]
    G, inputs, w0, at = gates * Hp, D + sizes[N_KNOWN], 0, 0
    for layer in range(L):
        read = inputs if layer == 0 else H  # theta pads the rows of h to Hp, a panel holds H of them
        behind = w0 + (inputs + Hp + 1) * G
        for p in range((H + UNITS - 1) // UNITS):
            for k in range(read + H + 1):
                row = inputs + Hp if k == 0 else (k - 1 if k <= read else inputs + k - 1 - read)
                for gate in range(gates):
                    source = w0 + row * G + gate * Hp + p * UNITS  # theta has the bias last, a panel first
                    for unit in range(UNITS):
                        out_weights[at + unit] = theta[source + unit]
                    at += UNITS
            for vector in range(vectors):
                source = behind + vector * Hp + p * UNITS
                for unit in range(UNITS):
                    out_weights[at + unit] = theta[source + unit]
                at += UNITS
        w0 = behind + vectors * Hp
        inputs = Hp
    for j in range(HEADS * D):
        out_weights[at + j] = theta[w0 + Hp * O + j] * scale[j]
        for u in range(H):
            out_weights[at + (1 + u) * O + j] = theta[w0 + u * O + j] * scale[j]
    at += (1 + H) * O
    P = skip.shape[1]
    for head in range(HEADS):
        column, wide = skip_lanes(D, head)
        for p in range(P - sizes[N_CALENDAR] if head == BARE else 0, P):
            for d in range(D):
                out_weights[at + head * D - column + d] = skip[head, p, d]
            at += wide
