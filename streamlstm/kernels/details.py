"""What a record is told beside its score: expected values, bands, attribution, and the cause of an alarm."""

import numpy as np

from streamlstm.kernels import episodes
from streamlstm.kernels.block import (
    ERROR,
    ERRORS_NOW,
    PART_MEAN,
    PART_VARIANCE,
    PREDICTED,
    SHARE,
    UNREST_NOW,
    USUAL,
    VALUE,
    VARIABILITY_MEAN,
    element,
    entry,
)
from streamlstm.kernels.compiling import jit
from streamlstm.kernels.inputs import BOUND, bounded
from streamlstm.kernels.layout import *
from streamlstm.kernels.parts import LEAST_SPREAD
from streamlstm.kernels.scalars import exp32
from streamlstm.types import CAUSE_KIND, Cause

_NAN, _ZERO, _ONE, _TWO = np.float32(np.nan), np.float32(0), np.float32(1), np.float32(2)
STEP, DRIFT, NEVER_SEEN, NOISY, FLAT = map(int, list(Cause)[:5])


@jit
def write_detail(b, s, r, block, present, setup, pool, out):
    """Writes expected value, band and attribution of record b, record r of the block, in the unit of the input.

    The band is where this feature alone, off by as much at every record, would hold the score at the threshold by its
    errors against all heads.
    """
    sizes, params = setup.sizes, setup.params
    D, I = sizes[N_FEATURES], sizes[N_FEATURES] + sizes[N_KNOWN]
    stat, floor = pool.stats[s], np.float32(params[SCALE_FLOOR])
    whole = 0.0
    for d in range(D):
        whole += element(block, SHARE, r * D + d)
    weight = _ZERO
    for head in range(HEADS):
        weight += np.float32(params[WEIGHT + head])
    each = exp32(pool.state[s, LIMIT] / weight) - _ONE if weight > _ZERO else _ZERO
    mean, variance = entry(block, PART_MEAN, r * PARTS + RAW), entry(block, PART_VARIANCE, r * PARTS + RAW)
    limit = np.float64(mean + max(np.sqrt(variance), LEAST_SPREAD) * each) * np.sqrt(np.float64(max(present, 1)))
    for d in range(D):
        e = r * D + d
        fixed = max(element(block, USUAL, e), floor)
        scale = np.sqrt(np.float64(fixed) * max(element(block, ERRORS_NOW, e), fixed))
        expected = stat[d] + stat[2 * I + d] * bounded(element(block, PREDICTED, e), BOUND)
        out.details[OUT_EXPECTED, b, d] = expected
        out.details[OUT_LOW, b, d] = expected - limit * scale * stat[2 * I + d]
        out.details[OUT_HIGH, b, d] = expected + limit * scale * stat[2 * I + d]
        out.details[OUT_ATTRIBUTION, b, d] = element(block, SHARE, e) / whole if whole > 0.0 else 1.0 / D
    out.codes[OUT_DETAILED, b] = 1


@jit
def cause_of(block, r, D):
    """The kind of what the score of record r is most owed to, the feature, and the side on which its value lay.

    Errors against the bare head alone mean a drift: each step was as predicted.
    """
    largest = r * D
    for e in range(r * D + 1, r * D + D):
        if element(block, SHARE, e) > element(block, SHARE, largest):
            largest = e
    at = r * PARTS
    raw, clipped, bare = (
        entry(block, VALUE, at + RAW),
        entry(block, VALUE, at + CLIPPED),
        entry(block, VALUE, at + BARE),
    )
    skips = max(raw, clipped)
    most = max(skips, bare)
    head = RAW if raw >= clipped else CLIPPED
    kind = STEP
    if bare > _TWO * skips:
        kind, head = DRIFT, BARE
    if entry(block, VALUE, at + VARIABILITY) > most:
        kind, most = NOISY, entry(block, VALUE, at + VARIABILITY)
        if element(block, UNREST_NOW, largest) < element(block, VARIABILITY_MEAN, largest):
            kind = FLAT
    if entry(block, VALUE, at + RANGE) > most:
        kind = NEVER_SEEN
    below = 1 if element(block, ERROR + head, largest) < _ZERO else 0
    return kind * CAUSE_KIND + 2 * (largest - r * D) + below


@jit(inline=True)
def write_alarm(b, mark, state, out, change, flag, cause):
    """Writes what record b means to its stream's episode; of an alarm the cause, of a change the episode."""
    out.codes[OUT_FLAG, b] = flag
    out.codes[OUT_CAUSE, b] = cause
    out.codes[OUT_CHANGE, b] = change
    if change != episodes.NONE:
        write_change(b, mark, state, out, change, cause)


@jit
def write_change(b, mark, state, out, change, cause):
    """Writes the episode that record b changed; once a rule is broken, it stays the episode's cause."""
    first_rule = episodes.FIRST_RULE
    if change == episodes.OPENED or (change == episodes.UPDATED and (cause >= first_rule or mark[CAUSE] < first_rule)):
        mark[CAUSE] = cause
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
