"""One record of one stream: what comes before the step of the network, and what comes after it.

| letter | meaning |
|---|---|
| b, r, s | record of the batch, row of the tile, slot of the stream |
| D, K, C, I | predicted features, known inputs, known inputs made of the time, D + K |
| P | regressors of a skip: a constant, 8 D, K, C |
| z | an input in standard deviations from its mean; float32 from here on |

The tuples `setup`, `pool`, `records`, `out` and `tap` are those of `arguments`; the score is that of `parts`.
"""

import numpy as np

from streamlstm.kernels import episodes, thresholds
from streamlstm.kernels.compiling import jit
from streamlstm.kernels.details import cause_of, write_alarm, write_detail, write_unscored
from streamlstm.kernels.episodes import NONE, step_episode, teaching
from streamlstm.kernels.extremes import absorb_extremes, lifted
from streamlstm.kernels.inputs import (
    BOUND,
    absorb_regressors,
    begin_regressors,
    bounded,
    calendar,
    known_input,
    learn_inputs,
    normalised,
    read_regressors,
)
from streamlstm.kernels.layout import *
from streamlstm.kernels.parts import (
    WORK,
    WORK_ERROR,
    combine,
    head_part,
    range_part,
    read_values,
    recent_spread,
    share_out,
    smooth_parts,
    variability_part,
)
from streamlstm.kernels.rules import broken_rule
from streamlstm.kernels.times import after_gap, note_time
from streamlstm.types import NO_TIME, Stage

LEARNING, CALIBRATING, LIVE = map(int, Stage)
_NORMALISER_ROWS = 10_000.0  # memory of the running mean and spread
# What one record may move, in usual errors: the recent error, and the usual error itself. Without the bounds one value
# of 1e30 makes a stream blind for thousands of records; a lasting shift is followed within some.
_JUMP, _OUTLIER = np.float32(100), np.float32(100)
_SANE = np.float32(10)  # online: usual errors above which a record teaches the weights nothing
_QUANTILE, _QUANTILE_GAIN = np.float32(0.01), np.float32(20)
_DAY_NS = 86_400e9
_ROWS_PER_DAY = 1440.0  # of data without times
_LARGEST_TAIL = 0.02  # a stream of a few records a day must not be told to flag them all
_NAN, _ZERO, _ONE = np.float32(np.nan), np.float32(0), np.float32(1)


@jit(inline=True)
def prepare_row(b, s, setup, pool, records, tap, z, z0, regressors, r0):
    """Writes what the network reads at record b: z (inputs of the first layer) and regressors behind the place of h."""
    sizes, params = setup.sizes, setup.params
    D, K, C, H = sizes[N_FEATURES], sizes[N_KNOWN], sizes[N_CALENDAR], sizes[HIDDEN]
    I, P = D + K, 1 + REGRESSORS * D + K + C
    state, stat, mark, x = pool.state[s], pool.stats[s], pool.marks[s], records.x[b]
    at = sizes[AT_REGRESSORS]
    clip = np.float32(params[CLIP])
    if mark[READY] == 1 and (mark[BEGUN] == 0 or after_gap(mark, records.time[b], params[RESET_NS])):
        begin_row(s, setup, pool, x, clip)
    for d in range(D):
        z[z0 + d] = bounded(state[at + d], clip)
    raw, cut = r0 + H, r0 + H + P
    read_regressors(state, at, sizes[AT_CLIPPED], D, clip, regressors, raw + 1, cut + 1)
    regressors[raw] = regressors[cut] = _ONE
    known = 1 + REGRESSORS * D
    for k in range(K):
        value = known_input(x, stat, I, D + k, clip)
        z[z0 + D + k] = regressors[raw + known + k] = regressors[cut + known + k] = value
    if C > 0:
        calendar(records.time[b], mark[FIRST_TIME], mark[LAST_TIME], regressors, raw + known + K)
        for k in range(C):
            regressors[cut + known + K + k] = regressors[raw + known + K + k]
    if sizes[ONLINE] == 1:
        for j in range(2 * P):
            tap.regressors[tap.at + b, j] = regressors[raw + j]
        window, memory = sizes[AT_WINDOW], 2 * sizes[LAYERS] * sizes[PADDED]
        if mark[WINDOW_AT] == 0:
            for k in range(memory):
                state[window + k] = state[sizes[AT_LAYERS] + k]
        entry = window + memory + mark[WINDOW_AT] * (I + HEADS * D)
        for k in range(I):
            state[entry + k] = z[z0 + k]


@jit
def begin_row(s, setup, pool, x, clip):
    """Writes the state of a stream at its first record that is scored, and after a gap: no memory, regressors as if x had
    always been. What is usual for the stream stays known."""
    sizes = setup.sizes
    D, I = sizes[N_FEATURES], sizes[N_FEATURES] + sizes[N_KNOWN]
    state, stat, mark = pool.state[s], pool.stats[s], pool.marks[s]
    mark[BEGUN], mark[WINDOW_AT] = 1, 0
    for k in range(2 * sizes[LAYERS] * sizes[PADDED]):
        state[sizes[AT_LAYERS] + k] = _ZERO
    for d in range(D):
        begin = _ZERO
        if not np.isnan(x[d]) and not np.isnan(stat[d]):
            begin = bounded(normalised(x[d], stat[d], stat[2 * I + d]), BOUND)
        begin_regressors(state, sizes[AT_REGRESSORS], sizes[AT_CLIPPED], D, d, begin, clip)
        if mark[SCORED] == 0:
            state[sizes[AT_RANGE] + d] = state[sizes[AT_RANGE] + D + d] = begin
        state[sizes[AT_UNREST] + d] = _ZERO
    for k in range(HEADS * D):
        if mark[SCORED] == 0:
            state[sizes[AT_USUAL] + k] = setup.usual[k]
        state[sizes[AT_ERRORS] + k] = state[sizes[AT_USUAL] + k]
    for part in range(PARTS):
        state[sizes[AT_SMOOTH] + part] = state[sizes[AT_PARTS] + part]


@jit(inline=True)
def wished_tail(mark, params):
    """Alarms wished for per record, from those per day and the stream's own records per day."""
    per_day = _ROWS_PER_DAY
    if mark[FIRST_TIME] != NO_TIME and mark[LAST_TIME] > mark[FIRST_TIME]:
        per_day = mark[SEEN] * _DAY_NS / np.float64(mark[LAST_TIME] - mark[FIRST_TIME])
    return min(params[ALARMS_PER_DAY] / per_day, _LARGEST_TAIL)


@jit(inline=True)
def score_row(b, s, setup, pool, records, tap, out, prediction, network, p0, work, w0):
    """Scores record b against `prediction` (at p0) and absorbs it; writes the outputs of b and the state of s.

    `prediction` holds a row of 3 D values, head by head; `network` (at p0) is the LSTM's part of it; `work` (at w0) has
    room for WORK * D + PARTS values.
    """
    sizes, params = setup.sizes, setup.params
    D, I = sizes[N_FEATURES], sizes[N_FEATURES] + sizes[N_KNOWN]
    state, stat, mark, x = pool.state[s], pool.stats[s], pool.marks[s], records.x[b]
    time = records.time[b]
    broken = broken_rule(mark, state, stat, x, time, sizes, params) if sizes[RULES] != 0 else 0
    note_time(mark, time)
    mark[LAST_ROW] = records.row[b]
    if mark[READY] == 0:
        learn_row(b, s, setup, pool, records, tap, out, broken)
        return

    present = read_values(x, stat, D, I, prediction, p0, work, w0)
    live = is_live(mark, state, params)
    totals, parts = work[w0 + WORK * D :], out.values[OUT_PART:]
    floor, gain = np.float32(params[SCALE_FLOOR]), np.float32(params[SMOOTH_GAIN])
    for head in range(HEADS):
        totals[head] = head_part(head, D, sizes, state, floor, prediction, p0, work, w0)
    totals[VARIABILITY] = variability_part(D, sizes, state, mark[BEGUN] - 1, np.float32(params[SCALE_GAIN]), work, w0)
    totals[RANGE] = range_part(D, sizes, state, work, w0)
    smooth, known = state[sizes[AT_SMOOTH] :], state[sizes[AT_PARTS] :]
    if present > 0:
        settled = mark[SCORED] >= params[CALIBRATING_ROWS] or params[ADAPT] != BY_STAGE
        smooth_parts(totals, present, D, gain, mark[SCORED] == 0, mark[BEGUN] - 1, settled, smooth)
    score = combine(smooth, known, known[PARTS:], params, parts, b)
    limit = state[LIMIT]
    state[SCORE] = score
    if live:
        lift = lifted(score, limit, x, stat, sizes, params)
        parts[RANGE, b] += lift - score
        score = lift
    share_out(D, gain, score, parts, b, totals, work, w0, state[sizes[AT_SHARE] :])
    severity = _NAN
    if live:
        limit = thresholds.held_against(sizes[KIND], state[sizes[AT_THRESHOLD] :], score, limit, params)
        severity = score / limit
    change = step_episode(mark, state, severity, broken, time, records.source, records.row[b], params)
    flag = 1 if mark[OPEN] == 1 and (severity > _ONE or broken != 0) else 0
    cause = 0
    if flag == 1:
        cause = broken if broken != 0 else cause_of(b, s, setup, pool, parts, work, w0)
    write_alarm(b, mark, state, out, change, flag, cause)
    out.values[OUT_SCORE, b] = score
    out.values[OUT_THRESHOLD, b] = limit if live else _NAN
    out.values[OUT_SEVERITY, b] = severity
    out.codes[OUT_STAGE, b] = LIVE if live else CALIBRATING
    out.codes[OUT_IMPUTED, b] = D - present
    out.codes[OUT_DETAILED, b] = 0
    if flag == 1 or records.detail:
        write_detail(b, s, setup, pool, out, prediction, p0, present)
    # a rule's alarm is none that the threshold was to keep rare
    absorb_row(b, s, setup, pool, x, tap, network, p0, work, w0, present, live, change if severity > _ONE else NONE)


@jit(inline=True)
def is_live(mark, state, params):
    """Whether the stream's next score meets a threshold."""
    rows = params[CALIBRATING_ROWS]
    return mark[SCORED] >= rows and mark[BEGUN] > rows and state[LIMIT] > _ZERO


@jit
def learn_row(b, s, setup, pool, records, tap, out, broken):
    """Learns mean and spread from record b, which is not scored yet; a broken rule is an alarm all the same."""
    sizes, params = setup.sizes, setup.params
    state, mark = pool.state[s], pool.marks[s]
    change = step_episode(mark, state, _NAN, broken, records.time[b], records.source, records.row[b], params)
    flag = 1 if mark[OPEN] == 1 and broken != 0 else 0
    if teaching(mark, params):
        D, I, x, stat = sizes[N_FEATURES], sizes[N_FEATURES] + sizes[N_KNOWN], records.x[b], pool.stats[s]
        learn_inputs(x, stat, I, 1.0 / (mark[BEGUN] + 1.0))
        if sizes[ONLINE] == 1:
            absorb_extremes(x, stat, D, I)
        mark[BEGUN] += 1
    mark[SEEN] += 1
    if mark[BEGUN] >= params[LEARNING_ROWS]:
        mark[READY], mark[BEGUN] = 1, 0
    write_unscored(b, setup, records.detail + flag, LEARNING, out)
    write_alarm(b, mark, state, out, change, flag, broken if flag == 1 else 0)
    if sizes[ONLINE] == 1:
        tap_nothing(b, sizes, tap)


@jit
def drop_row(b, s, setup, pool, records, tap, out):
    """Counts record b, which the stream does not take, and writes its result; nothing else comes to know of it."""
    sizes, state, mark = setup.sizes, pool.state[s], pool.marks[s]
    note_time(mark, records.time[b])
    mark[LAST_ROW] = records.row[b]
    mark[DROPPED] += 1
    stage = LIVE if is_live(mark, state, setup.params) else CALIBRATING
    write_unscored(b, setup, records.detail, stage if mark[READY] == 1 else LEARNING, out)
    if sizes[ONLINE] == 1:
        tap_nothing(b, sizes, tap)


@jit(inline=True)
def lesson_of(mark, change, live, params):
    """What a record may teach the threshold after its episode's `change`, see `thresholds`."""
    if not live:
        return EARLY if teaching(mark, params) else INSIDE
    if change == episodes.OPENED:
        return OPENED
    if mark[OPEN] == 0:
        return LEARN
    if mark[LENGTH] % np.int64(params[ACCEPT_AFTER_ROWS]) == 0:
        return ACCEPTED  # again and again: what comes within an accepted episode is bounded, too
    return LEARN if mark[LENGTH] > params[ACCEPT_AFTER_ROWS] else INSIDE


@jit(inline=True)
def adapting(sizes, params, mark, quiet):
    """The bits ERRORS, CALIBRATION and THRESHOLD that say what a record may teach.

    An open episode teaches nothing, until it has lasted so long that it is the new normal; a threshold is learned from
    scores whose calibration has settled.
    """
    if params[ADAPT] != BY_STAGE:
        return np.int64(params[ADAPT]) if quiet else 0
    if mark[SCORED] >= params[CALIBRATING_ROWS]:
        return THRESHOLD | (ERRORS | CALIBRATION if sizes[ONLINE] == 1 and quiet else 0)
    if not quiet:
        return 0
    return ERRORS | CALIBRATION | (THRESHOLD if 2 * mark[SCORED] >= params[CALIBRATING_ROWS] else 0)


@jit(inline=True)
def absorb_row(b, s, setup, pool, x, tap, network, p0, work, w0, present, live, change):
    """Learns from record b after its score: threshold, calibration, usual and recent errors, regressors, counters."""
    sizes, params = setup.sizes, setup.params
    D, I = sizes[N_FEATURES], sizes[N_FEATURES] + sizes[N_KNOWN]
    state, stat, mark = pool.state[s], pool.stats[s], pool.marks[s]
    quiet = teaching(mark, params)
    adapt = adapting(sizes, params, mark, quiet)
    tail = wished_tail(mark, params)
    if present > 0 and adapt & THRESHOLD:
        lesson = lesson_of(mark, change, live, params)
        score = state[SCORE]
        if live and lesson != ACCEPTED:
            score = min(score, np.float32(2) * state[LIMIT])
        thresholds.absorb(sizes[KIND], state[sizes[AT_THRESHOLD] :], lesson, score, tail, params)
    if sizes[ONLINE] == 1:
        sane = work[w0 + WORK * D + RAW] < _SANE * _SANE * np.float32(present)
        absorb_tap(b, mark, state, sizes, tap, network, p0, work, w0, quiet and sane)
    weight = 1.0 / (mark[SCORED] + 1.0)
    if present > 0 and adapt & ERRORS:
        absorb_errors(D, sizes, state, mark, np.float32(max(weight, params[LEAST_WEIGHT])), params, work, w0)
    if present > 0 and adapt & CALIBRATION:
        absorb_parts(sizes, state, np.float32(max(weight, params[LEAST_PART_WEIGHT])))
    absorb_recent(D, sizes, state, params, work, w0)
    absorb_regressors(state, sizes[AT_REGRESSORS], sizes[AT_CLIPPED], D, work, w0, np.float32(params[CLIP]))
    if sizes[ONLINE] == 1:
        absorb_extremes(x, stat, D, I)
        if quiet:
            learn_inputs(x, stat, I, max(1.0 / (mark[SEEN] + 1.0), 1.0 / _NORMALISER_ROWS))
    mark[IMPUTED] += D - present
    mark[SEEN] += 1
    mark[BEGUN] += 1
    if present > 0:
        mark[SCORED] += 1
    due = mark[SCORED] % thresholds.interval(sizes[KIND]) == 0
    if due or change == episodes.OPENED or (not live and mark[SCORED] >= params[CALIBRATING_ROWS]):
        state[LIMIT] = thresholds.limit(sizes[KIND], state[sizes[AT_THRESHOLD] :], tail, params)


@jit
def absorb_errors(D, sizes, state, mark, weight, params, work, w0):
    """Writes the usual errors of the heads (root mean square), mean and variance of the variability, and the range."""
    floor, there = np.float32(params[SCALE_FLOOR]), work[w0 + D :]
    for head in range(HEADS):
        usual, error = state[sizes[AT_USUAL] + head * D :], work[w0 + (WORK_ERROR + head) * D :]
        for d in range(D):
            fixed = max(usual[d], floor)
            size = min(abs(error[d]), _OUTLIER * fixed)
            usual[d] = np.sqrt(fixed * fixed + there[d] * weight * (size * size - fixed * fixed))
    low, high, z = state[sizes[AT_RANGE] :], state[sizes[AT_RANGE] + D :], work[w0:]
    step = min(_QUANTILE_GAIN * weight, _ONE)
    for d in range(D):
        low[d] += there[d] * step * (_QUANTILE - (_ONE if z[d] < low[d] else _ZERO))
        high[d] += there[d] * step * ((_ONE if z[d] > high[d] else _ZERO) - _QUANTILE)
    if mark[BEGUN] < RECENT_ROWS:
        return
    mean, variance = state[sizes[AT_VARIABILITY] :], state[sizes[AT_VARIABILITY] + D :]
    ring = state[sizes[AT_RING] :]
    for d in range(D):
        difference = recent_spread(ring, D, d) - mean[d]
        mean[d] += weight * difference
        variance[d] = (_ONE - weight) * (variance[d] + weight * difference * difference)


@jit
def absorb_parts(sizes, state, weight):
    """Writes mean and variance of the smoothed parts (West's update)."""
    smooth, mean, variance = state[sizes[AT_SMOOTH] :], state[sizes[AT_PARTS] :], state[sizes[AT_PARTS] + PARTS :]
    for part in range(PARTS):
        difference = smooth[part] - mean[part]
        mean[part] += weight * difference
        variance[part] = (_ONE - weight) * (variance[part] + weight * difference * difference)


@jit(inline=True)
def absorb_recent(D, sizes, state, params, work, w0):
    """Writes the recent errors of the heads."""
    gain, floor, there = np.float32(params[SCALE_GAIN]), np.float32(params[SCALE_FLOOR]), work[w0 + D :]
    for head in range(HEADS):
        usual, recent = state[sizes[AT_USUAL] + head * D :], state[sizes[AT_ERRORS] + head * D :]
        error = work[w0 + (WORK_ERROR + head) * D :]
        for d in range(D):
            largest = max(max(usual[d], floor), recent[d])
            recent[d] += there[d] * gain * (min(abs(error[d]), _JUMP * largest) - recent[d])


@jit
def absorb_tap(b, mark, state, sizes, tap, network, p0, work, w0, admitted):
    """Writes what online learning takes from record b: the skips' target and the LSTM's, and a window that is full."""
    D, I = sizes[N_FEATURES], sizes[N_FEATURES] + sizes[N_KNOWN]
    O = HEADS * D
    memory = 2 * sizes[LAYERS] * sizes[PADDED]
    entry = sizes[AT_WINDOW] + memory + mark[WINDOW_AT] * (I + O)
    for d in range(D):
        tap.target[tap.at + b, d] = bounded(work[w0 + d], BOUND) if admitted else _NAN
    for j in range(O):
        state[entry + I + j] = work[w0 + WORK_ERROR * D + j] + network[p0 + j] if admitted else _NAN
    mark[WINDOW_AT] += 1
    tap.closed[0, tap.at + b] = 0
    if mark[WINDOW_AT] == sizes[WINDOW]:
        mark[WINDOW_AT] = 0
        tap.closed[0, tap.at + b] = 1
        window = sizes[AT_WINDOW]
        for k in range(memory + sizes[WINDOW] * (I + O)):
            tap.windows[tap.at + b, k] = state[window + k]


@jit
def tap_nothing(b, sizes, tap):
    """Writes that record b teaches online learning nothing."""
    for d in range(sizes[N_FEATURES]):
        tap.target[tap.at + b, d] = _NAN
    tap.closed[0, tap.at + b] = 0
