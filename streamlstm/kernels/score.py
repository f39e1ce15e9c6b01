"""One record of one stream: what comes before the step of the network, and what comes after it.

| letter | meaning |
|---|---|
| b, r, s | record of the batch, row of the tile, slot of the stream |
| D, K, I | predicted features, known inputs, D + K |
| z | an input in standard deviations from its mean; float32 from here on |
| u | error of a feature over its usual size |

The tuples `setup`, `pool`, `records`, `out` and `tap` are those of `arguments`.
"""

import numpy as np

from streamlstm.kernels import episodes, thresholds
from streamlstm.kernels.compiling import jit
from streamlstm.kernels.episodes import NONE, UPDATED, step_episode
from streamlstm.kernels.inputs import (
    BOUND,
    absorb_regressors,
    begin_regressors,
    bounded,
    known_input,
    learn_inputs,
    normalised,
    spread_of,
)
from streamlstm.kernels.layout import *
from streamlstm.types import NO_TIME, Stage

LEARNING, CALIBRATING, LIVE = map(int, Stage)
_NORMALISER_ROWS = 10_000.0  # memory of the running mean and spread
_WILD, _WILD_EARLY = (
    256.0,
    10.0,
)  # usual errors: a record's part in the score; one value, however wild, must fade within some spans;
# before a stream is live it would also make up the tail of the threshold that is being learned
# What one record may move, in usual errors: the regressors and the recent error, and the usual error itself. Without
# the bounds one value of 1e30 makes a stream blind for thousands of records; a lasting shift is followed within some.
_JUMP, _OUTLIER = np.float32(100), np.float32(20)
_USUAL_ROWS = 1000.0  # memory of the usual error
_DAY_NS = 86_400e9
_ROWS_PER_DAY = 1440.0  # of data without times
_LARGEST_TAIL = 0.02  # a stream of a few records a day must not be told to flag them all
_NAN, _ZERO, _ONE = np.float32(np.nan), np.float32(0), np.float32(1)


@jit(inline=True)
def prepare_row(b, s, setup, pool, records, tap, z, z0, regressors, r0):
    """Writes what the network reads at record b: z (inputs of the first layer) and regressors behind the place of h."""
    sizes, params = setup.sizes, setup.params
    D, K, H = sizes[N_FEATURES], sizes[N_KNOWN], sizes[HIDDEN]
    I = D + K
    state, stat, mark, x = pool.state[s], pool.stats[s], pool.marks[s], records.x[b]
    at, layers = sizes[AT_REGRESSORS], sizes[AT_LAYERS]
    memory = 2 * sizes[LAYERS] * sizes[PADDED]
    clip = np.float32(params[CLIP])
    if mark[READY] == 1 and mark[BEGUN] == 0:
        mark[BEGUN] = 1
        for k in range(memory):
            state[layers + k] = _ZERO
        for d in range(D):
            begin = _ZERO
            if not np.isnan(x[d]) and not np.isnan(stat[d]):
                begin = bounded(normalised(x[d], stat[d], stat[2 * I + d]), BOUND)
            begin_regressors(state, at, D, d, begin)
            if mark[SCORED] == 0:
                state[sizes[AT_USUAL] + d] = setup.usual[d]
                state[sizes[AT_RECENT] + d] = setup.usual[d]
    for d in range(D):
        z[z0 + d] = bounded(state[at + d], clip)
    for k in range(D, I):
        z[z0 + k] = known_input(x, stat, I, k, clip)
    first = r0 + H
    regressors[first] = _ONE
    for j in range(REGRESSORS * D):
        regressors[first + 1 + j] = state[at + j]
    for k in range(K):
        regressors[first + 1 + REGRESSORS * D + k] = z[z0 + D + k]
    if sizes[ONLINE] == 1:
        for j in range(1 + REGRESSORS * D + K):
            tap.regressors[tap.at + b, j] = regressors[first + j]
        window = sizes[AT_WINDOW]
        if mark[WINDOW_AT] == 0:
            for k in range(memory):
                state[window + k] = state[layers + k]
        entry = window + memory + mark[WINDOW_AT] * (I + D)
        for k in range(I):
            state[entry + k] = z[z0 + k]


@jit(inline=True)
def note_time(mark, time):
    """Writes first and last time of the stream and counts records that came late or with the time of the one before."""
    if time == NO_TIME:
        return
    if mark[FIRST_TIME] == NO_TIME:
        mark[FIRST_TIME] = mark[LAST_TIME] = time
    elif time < mark[LAST_TIME]:
        mark[BACKWARD] += 1
    elif time == mark[LAST_TIME]:
        mark[REPEATED] += 1
    else:
        mark[LAST_TIME] = time


@jit(inline=True)
def wished_tail(mark, params):
    """Share of records that may open an episode, from the wished alarms per day and the stream's own records per day."""
    per_day = _ROWS_PER_DAY
    if mark[FIRST_TIME] != NO_TIME and mark[LAST_TIME] > mark[FIRST_TIME]:
        per_day = mark[SEEN] * _DAY_NS / np.float64(mark[LAST_TIME] - mark[FIRST_TIME])
    return min(params[ALARMS_PER_DAY] / per_day, _LARGEST_TAIL)


@jit(inline=True)
def errors(s, setup, pool, x, prediction, p0, work, w0):
    """Sum of u^2 and number of features present; writes z (D) and error (D) to `work`, smoothed u^2 to the state.

    u = |e| / sqrt(usual * max(recent, usual)): half of the scale is fixed, half follows the stream, so that a permanent
    shift stops alarming (quality notes: a fixed scale alone loses .03 of VUS-PR).
    """
    sizes = setup.sizes
    D, I = sizes[N_FEATURES], sizes[N_FEATURES] + sizes[N_KNOWN]
    state, stat = pool.state[s], pool.stats[s]
    usual, recent, share = sizes[AT_USUAL], sizes[AT_RECENT], sizes[AT_SHARE]
    gain = np.float32(setup.params[SMOOTH_GAIN])
    floor = np.float32(setup.params[SCALE_FLOOR])
    total, present = 0.0, 0
    for d in range(D):
        predicted = bounded(prediction[p0 + d], BOUND)
        if np.isnan(x[d]):
            work[w0 + d], work[w0 + D + d] = predicted, _ZERO
            continue
        if np.isnan(stat[d]):
            stat[d], stat[I + d], stat[2 * I + d] = x[d], 0.0, spread_of(x[d], 0.0)
        z = normalised(x[d], stat[d], stat[2 * I + d])
        e = z - predicted
        fixed = max(state[usual + d], floor)
        u2 = np.float64(e) * e / (np.float64(fixed) * max(state[recent + d], fixed))
        total += u2
        present += 1
        state[share + d] += gain * (np.float32(u2) - state[share + d])
        work[w0 + d], work[w0 + D + d] = z, e
    return total, present


@jit(inline=True)
def write_detail(b, s, setup, pool, out, prediction, p0, present):
    """Writes expected value, band and attribution of record b, in the unit of the input.

    The band is where this feature alone would hold the score at the threshold.
    """
    sizes = setup.sizes
    D, I = sizes[N_FEATURES], sizes[N_FEATURES] + sizes[N_KNOWN]
    state, stat = pool.state[s], pool.stats[s]
    floor = np.float32(setup.params[SCALE_FLOOR])
    whole = 0.0
    for d in range(D):
        whole += state[sizes[AT_SHARE] + d]
    limit = np.float64(state[LIMIT]) * np.sqrt(np.float64(max(present, 1)))
    for d in range(D):
        fixed = max(state[sizes[AT_USUAL] + d], floor)
        scale = np.sqrt(np.float64(fixed) * max(state[sizes[AT_RECENT] + d], fixed))
        expected = stat[d] + stat[2 * I + d] * bounded(prediction[p0 + d], BOUND)
        out.details[OUT_EXPECTED, b, d] = expected
        out.details[OUT_LOW, b, d] = expected - limit * scale * stat[2 * I + d]
        out.details[OUT_HIGH, b, d] = expected + limit * scale * stat[2 * I + d]
        out.details[OUT_ATTRIBUTION, b, d] = state[sizes[AT_SHARE] + d] / whole if whole > 0.0 else 1.0 / D
    out.codes[OUT_DETAILED, b] = 1


@jit(inline=True)
def cause_of(s, setup, pool, work, w0):
    """The feature that the score is most owed to, counted from 1, negative where the value lay below the expected one."""
    D, share = setup.sizes[N_FEATURES], setup.sizes[AT_SHARE]
    state = pool.state[s]
    largest = 0
    for d in range(1, D):
        if state[share + d] > state[share + largest]:
            largest = d
    return largest + 1 if work[w0 + D + largest] >= _ZERO else -(largest + 1)


@jit
def write_learning(b, setup, records, out):
    """Writes the result of a record that came before its stream was ready: no score, no threshold."""
    out.values[OUT_SCORE, b] = _ZERO
    out.values[OUT_THRESHOLD, b] = _NAN
    out.values[OUT_SEVERITY, b] = _NAN
    for code in range(OUT_CODES):
        out.codes[code, b] = 0
    if records.detail:
        out.codes[OUT_DETAILED, b] = 1
        D = setup.sizes[N_FEATURES]
        for d in range(D):
            out.details[OUT_EXPECTED, b, d] = out.details[OUT_LOW, b, d] = out.details[OUT_HIGH, b, d] = np.nan
            out.details[OUT_ATTRIBUTION, b, d] = 1.0 / D


@jit(inline=True)
def score_row(b, s, setup, pool, records, tap, out, prediction, network, p0, work, w0):
    """Scores record b against `prediction` (at p0) and absorbs it; writes the outputs of b and the state of s.

    `network` (at p0) is the LSTM's part of the prediction; `work` (at w0) has room for 2 D values.
    """
    sizes, params = setup.sizes, setup.params
    D, I = sizes[N_FEATURES], sizes[N_FEATURES] + sizes[N_KNOWN]
    state, stat, mark, x = pool.state[s], pool.stats[s], pool.marks[s], records.x[b]
    time = records.time[b]
    note_time(mark, time)
    mark[LAST_ROW] = records.row[b]
    if mark[READY] == 0:
        learn_inputs(x, stat, I, 1.0 / (mark[SEEN] + 1.0))
        mark[SEEN] += 1
        mark[READY] = 1 if mark[SEEN] >= params[LEARNING_ROWS] else 0
        write_learning(b, setup, records, out)
        if sizes[ONLINE] == 1:
            for d in range(D):
                tap.target[tap.at + b, d] = _NAN
            tap.closed[0, tap.at + b] = 0
        return

    total, present = errors(s, setup, pool, x, prediction, p0, work, w0)
    live = mark[SCORED] >= params[CALIBRATING_ROWS] and state[LIMIT] > _ZERO
    rms = _ZERO
    if present > 0:
        rms = np.float32(min(np.sqrt(total / present), _WILD if live else _WILD_EARLY))
        state[SMOOTH] += (rms - state[SMOOTH]) * (_ONE if mark[SCORED] == 0 else np.float32(params[SMOOTH_GAIN]))
    score, limit = state[SMOOTH], state[LIMIT]
    severity, change, flag = _NAN, NONE, 0
    if live:
        severity = score / limit
        change = step_episode(mark, state, severity, time, records.source, records.row[b], params)
        flag = 1 if mark[OPEN] == 1 and severity > _ONE else 0
        if change in (episodes.OPENED, UPDATED):
            mark[CAUSE] = cause_of(s, setup, pool, work, w0)
    out.values[OUT_SCORE, b] = score
    out.values[OUT_THRESHOLD, b] = limit if live else _NAN
    out.values[OUT_SEVERITY, b] = severity
    out.codes[OUT_FLAG, b] = flag
    out.codes[OUT_STAGE, b] = LIVE if live else CALIBRATING
    out.codes[OUT_CHANGE, b] = change
    out.codes[OUT_IMPUTED, b] = D - present
    out.codes[OUT_DETAILED, b] = 0
    if flag == 1 or records.detail:
        write_detail(b, s, setup, pool, out, prediction, p0, present)
    if change != NONE:
        out.values[OUT_PEAK, b] = state[PEAK]
        for k in range(MARKS):
            out.episodes[b, k] = mark[k]
    absorb_row(b, s, setup, pool, x, tap, prediction, network, p0, work, w0, present, rms, live, change)


@jit(inline=True)
def lesson_of(mark, change, live, params):
    """What a record may teach the threshold after its episode's `change`, see `thresholds`."""
    if not live:
        return EARLY
    if change == episodes.OPENED:
        return OPENED
    if mark[OPEN] == 0 or mark[LENGTH] > params[ACCEPT_AFTER_ROWS]:
        return LEARN
    return ACCEPTED if mark[LENGTH] == params[ACCEPT_AFTER_ROWS] else INSIDE


@jit(inline=True)
def absorb_row(b, s, setup, pool, x, tap, prediction, network, p0, work, w0, present, rms, live, change):
    """Learns from record b after its score: threshold, usual and recent errors, regressors, counters of stream s.

    An open episode teaches neither the threshold nor the model, until it has lasted so long that it is the new normal;
    its first record counts once in the threshold, so that the alarms opened make up the tail.
    """
    sizes, params = setup.sizes, setup.params
    D, I = sizes[N_FEATURES], sizes[N_FEATURES] + sizes[N_KNOWN]
    state, stat, mark = pool.state[s], pool.stats[s], pool.marks[s]
    score, limit = state[SMOOTH], state[LIMIT]
    quiet = mark[OPEN] == 0 or mark[LENGTH] >= params[ACCEPT_AFTER_ROWS]
    tail = wished_tail(mark, params)
    if present > 0:
        lesson = lesson_of(mark, change, live, params)
        learned = min(score, np.float32(2) * limit) if live and lesson != ACCEPTED else score
        thresholds.absorb(sizes[KIND], state[sizes[AT_THRESHOLD] :], lesson, learned, tail, params)
    adapting = (sizes[ONLINE] == 1 and quiet) or not live
    usual_weight = np.float32(max(1.0 / (mark[SCORED] + 1.0), 2.0 / (_USUAL_ROWS + 1.0)))
    scale_gain, floor = np.float32(params[SCALE_GAIN]), np.float32(params[SCALE_FLOOR])
    usual, recent, at = sizes[AT_USUAL], sizes[AT_RECENT], sizes[AT_REGRESSORS]
    if sizes[ONLINE] == 1:
        absorb_tap(b, mark, state, sizes, tap, network, p0, work, w0, quiet and rms < _WILD_EARLY)
    for d in range(D):
        z, e = work[w0 + d], work[w0 + D + d]
        if not np.isnan(x[d]):
            fixed = max(state[usual + d], floor)
            largest = max(fixed, state[recent + d])
            predicted = bounded(prediction[p0 + d], BOUND)
            z = min(max(z, predicted - _JUMP * largest), predicted + _JUMP * largest)
            if adapting:
                size = min(abs(e), _OUTLIER * fixed)
                state[usual + d] = np.sqrt(fixed * fixed + usual_weight * (size * size - fixed * fixed))
            state[recent + d] += scale_gain * (min(abs(e), _JUMP * largest) - state[recent + d])
        absorb_regressors(state, at, D, d, z)
    if adapting and sizes[ONLINE] == 1:
        learn_inputs(x, stat, I, max(1.0 / (mark[SEEN] + 1.0), 1.0 / _NORMALISER_ROWS))
    mark[IMPUTED] += D - present
    mark[SEEN] += 1
    if present > 0:
        mark[SCORED] += 1
    if (
        mark[SCORED] % thresholds.interval(sizes[KIND]) == 0
        or change == episodes.OPENED
        or (not live and mark[SCORED] >= params[CALIBRATING_ROWS])
    ):
        state[LIMIT] = thresholds.limit(sizes[KIND], state[sizes[AT_THRESHOLD] :], tail, params)


@jit
def absorb_tap(b, mark, state, sizes, tap, network, p0, work, w0, admitted):
    """Writes what online learning takes from record b: the skip's target and the LSTM's, and a window that is full."""
    D, I = sizes[N_FEATURES], sizes[N_FEATURES] + sizes[N_KNOWN]
    memory = 2 * sizes[LAYERS] * sizes[PADDED]
    entry = sizes[AT_WINDOW] + memory + mark[WINDOW_AT] * (I + D)
    for d in range(D):
        z, e = work[w0 + d], work[w0 + D + d]
        tap.target[tap.at + b, d] = bounded(z, BOUND) if admitted else _NAN
        state[entry + I + d] = e + network[p0 + d] if admitted else _NAN
    mark[WINDOW_AT] += 1
    tap.closed[0, tap.at + b] = 0
    if mark[WINDOW_AT] == sizes[WINDOW]:
        mark[WINDOW_AT] = 0
        tap.closed[0, tap.at + b] = 1
        window = sizes[AT_WINDOW]
        for k in range(memory + sizes[WINDOW] * (I + D)):
            tap.windows[tap.at + b, k] = state[window + k]
