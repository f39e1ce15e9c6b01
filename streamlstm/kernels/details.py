"""What a record is told beside its score: expected values, bands, attribution, and the cause of an alarm."""

import numpy as np

from streamlstm.kernels import episodes
from streamlstm.kernels.compiling import jit
from streamlstm.kernels.inputs import BOUND, bounded
from streamlstm.kernels.layout import *
from streamlstm.kernels.parts import LEAST_SPREAD, WORK_ERROR, recent_spread
from streamlstm.kernels.scalars import exp32
from streamlstm.types import CAUSE_KIND, Cause

_NAN, _ZERO, _ONE, _TWO = np.float32(np.nan), np.float32(0), np.float32(1), np.float32(2)
STEP, DRIFT, NEVER_SEEN, NOISY, FLAT = map(int, list(Cause)[:5])


@jit
def write_detail(b, s, setup, pool, out, prediction, p0, present):
    """Writes expected value, band and attribution of record b, in the unit of the input.

    The band is where this feature alone, off by as much at every record, would hold the score at the threshold by its
    errors against all heads.
    """
    sizes, params = setup.sizes, setup.params
    D, I = sizes[N_FEATURES], sizes[N_FEATURES] + sizes[N_KNOWN]
    state, stat = pool.state[s], pool.stats[s]
    floor = np.float32(params[SCALE_FLOOR])
    whole = 0.0
    for d in range(D):
        whole += state[sizes[AT_SHARE] + d]
    weight = _ZERO
    for head in range(HEADS):
        weight += np.float32(params[WEIGHT + head])
    each = exp32(state[LIMIT] / weight) - _ONE if weight > _ZERO else _ZERO
    mean, variance = state[sizes[AT_PARTS] + RAW], state[sizes[AT_PARTS] + PARTS + RAW]
    limit = np.float64(mean + max(np.sqrt(variance), LEAST_SPREAD) * each) * np.sqrt(np.float64(max(present, 1)))
    for d in range(D):
        fixed = max(state[sizes[AT_USUAL] + d], floor)
        scale = np.sqrt(np.float64(fixed) * max(state[sizes[AT_ERRORS] + d], fixed))
        expected = stat[d] + stat[2 * I + d] * bounded(prediction[p0 + d], BOUND)
        out.details[OUT_EXPECTED, b, d] = expected
        out.details[OUT_LOW, b, d] = expected - limit * scale * stat[2 * I + d]
        out.details[OUT_HIGH, b, d] = expected + limit * scale * stat[2 * I + d]
        out.details[OUT_ATTRIBUTION, b, d] = state[sizes[AT_SHARE] + d] / whole if whole > 0.0 else 1.0 / D
    out.codes[OUT_DETAILED, b] = 1


@jit
def cause_of(b, s, setup, pool, parts, work, w0):
    """The kind of what the score is most owed to, the feature, and the side on which its value lay.

    parts (PARTS, B): shares of the score. Errors against the bare head alone mean a drift: each step was as predicted.
    """
    D, share = setup.sizes[N_FEATURES], setup.sizes[AT_SHARE]
    state = pool.state[s]
    largest = 0
    for d in range(1, D):
        if state[share + d] > state[share + largest]:
            largest = d
    skips = max(parts[RAW, b], parts[CLIPPED, b])
    most = max(skips, parts[BARE, b])
    head = RAW if parts[RAW, b] >= parts[CLIPPED, b] else CLIPPED
    kind = STEP
    if parts[BARE, b] > _TWO * skips:
        kind, head = DRIFT, BARE
    if parts[VARIABILITY, b] > most:
        kind, most = NOISY, parts[VARIABILITY, b]
        usual = state[setup.sizes[AT_VARIABILITY] + largest]
        if recent_spread(state[setup.sizes[AT_RING] :], D, largest) < usual:
            kind = FLAT
    if parts[RANGE, b] > most:
        kind = NEVER_SEEN
    below = 1 if work[w0 + (WORK_ERROR + head) * D + largest] < _ZERO else 0
    return kind * CAUSE_KIND + 2 * largest + below


@jit
def write_alarm(b, mark, state, out, change, flag, cause):
    """Writes what record b means to its stream's episode; of an alarm the cause, of a change the episode."""
    first_rule = episodes.FIRST_RULE  # once a rule is broken, it stays the cause
    if change == episodes.OPENED or (change == episodes.UPDATED and (cause >= first_rule or mark[CAUSE] < first_rule)):
        mark[CAUSE] = cause
    out.codes[OUT_FLAG, b] = flag
    out.codes[OUT_CAUSE, b] = cause
    out.codes[OUT_CHANGE, b] = change
    if change != episodes.NONE:
        out.values[OUT_PEAK, b] = state[PEAK]
        for k in range(MARKS):
            out.episodes[b, k] = mark[k]


@jit
def write_unscored(b, setup, detail, stage, out):
    """Writes the result of a record that was dropped or came before its stream was ready: no score, no threshold."""
    out.values[OUT_SCORE, b] = _ZERO
    out.values[OUT_THRESHOLD, b] = _NAN
    out.values[OUT_SEVERITY, b] = _NAN
    for part in range(PARTS):
        out.values[OUT_PART + part, b] = _ZERO
    for code in range(OUT_CODES):
        out.codes[code, b] = 0
    out.codes[OUT_STAGE, b] = stage
    if detail:
        out.codes[OUT_DETAILED, b] = 1
        D = setup.sizes[N_FEATURES]
        for d in range(D):
            out.details[OUT_EXPECTED, b, d] = out.details[OUT_LOW, b, d] = out.details[OUT_HIGH, b, d] = np.nan
            out.details[OUT_ATTRIBUTION, b, d] = 1.0 / D
