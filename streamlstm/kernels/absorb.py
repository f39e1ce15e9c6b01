"""What a record teaches after it was judged: threshold, inputs, counters, and what online learning keeps of it.

The arguments are those of `score`.
"""

import numpy as np

from streamlstm.kernels import episodes, thresholds
from streamlstm.kernels.block import ERROR, LEARN_WEIGHT, PART_LEARN, TOTAL, Z, element, entry, fill, fill_parts
from streamlstm.kernels.compiling import jit
from streamlstm.kernels.episodes import teaching
from streamlstm.kernels.extremes import absorb_extremes
from streamlstm.kernels.inputs import BOUND, bounded, learn_inputs
from streamlstm.kernels.layout import *
from streamlstm.types import NO_TIME

_NORMALISER_ROWS = 10_000.0  # memory of the running mean and spread
_SANE = np.float32(10)  # online: usual errors above which a record teaches the weights nothing
_DAY_NS = 86_400e9
ROWS_PER_DAY = 1440.0  # of data without times
LARGEST_TAIL = 0.02  # a stream of a few records a day must not be told to flag them all
_NAN, _ZERO = np.float32(np.nan), np.float32(0)


@jit(inline=True)
def wished_tail(mark, params):
    """Alarms wished for per record, from those per day and the stream's own records per day."""
    per_day = ROWS_PER_DAY
    if mark[FIRST_TIME] != NO_TIME and mark[LAST_TIME] > mark[FIRST_TIME]:
        per_day = mark[SEEN] * _DAY_NS / np.float64(mark[LAST_TIME] - mark[FIRST_TIME])
    return min(params[ALARMS_PER_DAY] / per_day, LARGEST_TAIL)


@jit(inline=True)
def is_live(mark, state, params):
    """Whether the stream's next score meets a threshold."""
    rows = params[CALIBRATING_ROWS]
    return mark[SCORED] >= rows and mark[BEGUN] > rows and state[LIMIT] > _ZERO


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
def absorb_row(b, s, r, block, present, setup, pool, x, tap, network, n0, live, change):
    """Learns from record r of the block after its score: threshold, inputs, counters.

    What the block's elements and entries are to learn it writes as weights there. Whether there is such.
    """
    sizes, params = setup.sizes, setup.params
    D, I = sizes[N_FEATURES], sizes[N_FEATURES] + sizes[N_KNOWN]
    state, stat, mark = pool.state[s], pool.stats[s], pool.marks[s]
    quiet = teaching(mark, params)
    adapt = adapting(sizes, params, mark, quiet) if present > 0 else 0
    tail = wished_tail(mark, params)
    if adapt & THRESHOLD:
        lesson = lesson_of(mark, change, live, params)
        score = state[SCORE]
        if live and lesson != ACCEPTED:
            score = min(score, np.float32(2) * state[LIMIT])
        thresholds.absorb(sizes, state[sizes[AT_THRESHOLD] :], lesson, score, tail, params)
    if sizes[ONLINE] == 1:
        sane = entry(block, TOTAL, r * PARTS + RAW) < _SANE * _SANE * np.float32(present)
        absorb_tap(b, mark, state, sizes, tap, network, n0, block, r, quiet and sane)
        absorb_extremes(x, stat, D, I)
        if quiet:
            learn_inputs(x, stat, I, max(1.0 / (mark[SEEN] + 1.0), 1.0 / _NORMALISER_ROWS))
    of_errors = of_parts = _ZERO
    if adapt & (ERRORS | CALIBRATION):
        weight = 1.0 / (mark[SCORED] + 1.0)
        of_errors = np.float32(max(weight, params[LEAST_WEIGHT])) if adapt & ERRORS else _ZERO
        of_parts = np.float32(max(weight, params[LEAST_PART_WEIGHT])) if adapt & CALIBRATION else _ZERO
    fill(block, LEARN_WEIGHT, r * D, D, of_errors)
    fill_parts(block, PART_LEARN, r, of_parts)
    mark[IMPUTED] += D - present
    mark[SEEN] += 1
    mark[BEGUN] += 1
    if present > 0:
        mark[SCORED] += 1
    due = mark[SCORED] & (thresholds.interval(sizes) - 1) == 0
    if due or change == episodes.OPENED or (not live and mark[SCORED] >= params[CALIBRATING_ROWS]):
        state[LIMIT] = thresholds.limit(sizes, state[sizes[AT_THRESHOLD] :], tail, params)
    return adapt & (ERRORS | CALIBRATION) != 0


@jit
def absorb_tap(b, mark, state, sizes, tap, network, n0, block, r, admitted):
    """Writes what online learning takes from record b: the skips' target and the LSTM's, and a window that is full."""
    D, I = sizes[N_FEATURES], sizes[N_FEATURES] + sizes[N_KNOWN]
    O = HEADS * D
    memory = 2 * sizes[LAYERS] * sizes[PADDED]
    at = np.int64(tap.place[b])
    wished = sizes[AT_WINDOW] + memory + mark[WINDOW_AT] * (I + O) + I
    for d in range(D):
        tap.target[at, d] = bounded(element(block, Z, r * D + d), BOUND) if admitted else _NAN
        for head in range(HEADS):
            left = element(block, ERROR + head, r * D + d) + network[n0 + head * D + d]
            state[wished + head * D + d] = left if admitted else _NAN
    mark[WINDOW_AT] += 1
    tap.closed[0, at] = 0
    if mark[WINDOW_AT] == sizes[WINDOW]:
        mark[WINDOW_AT] = 0
        tap.closed[0, at] = 1
        window = sizes[AT_WINDOW]
        for k in range(memory + sizes[WINDOW] * (I + O)):
            tap.windows[at, k] = state[window + k]


@jit
def tap_nothing(b, sizes, tap):
    """Writes that record b teaches online learning nothing."""
    at = np.int64(tap.place[b])
    for d in range(sizes[N_FEATURES]):
        tap.target[at, d] = _NAN
    tap.closed[0, at] = 0
