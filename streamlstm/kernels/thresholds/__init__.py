"""Thresholds: each kind is two scalar kernels on a row of state, `absorb` and `limit`, chosen by an integer.

`absorb(row, lesson, score, params)` is called once for every scored record, after it was judged, and writes the kind's
state `row` (its width in `layout.THRESHOLD_WIDTHS`) float32; a kind that counts time in wished alarms has `tail` before
`params`. `lesson` says what the record may teach:

| lesson | the record |
|---|---|
| LEARN | is as expected: its score is learned |
| EARLY | comes before the stream is live: its score is learned, and no alarm could have been wished |
| OPENED | opened an episode |
| INSIDE | lies in an open episode: time passes, its score is not learned |
| ACCEPTED | makes the episode so long that its score is the new normal |

`limit(row, tail, params)` is the score above which the next record is anomalous; `tail` is the wished number of alarms
per record of this stream. A new kind is one file, one number in `layout.KINDS` with its width, and one branch in each
function below.
"""

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.layout import (
    CONFORMAL,
    CONTRAST,
    DSPOT,
    EARLY,
    FIXED,
    LEARN,
    LIKELIHOOD,
    LIMIT_FLOOR,
    NDT,
    QUANTILE,
    SIGMA,
    SPOT,
)
from streamlstm.kernels.thresholds import conformal, contrast, dspot, fixed, likelihood, ndt, quantile, sigma, spot

_SCAN = 16  # records between two limits where one costs about as much as learning 16 scores


@jit(inline=True)
def absorb(kind, row, lesson, score, tail, params):
    """Writes what a scored record teaches into the threshold's state `row`."""
    if kind == CONTRAST:
        contrast.absorb(row, lesson, score, tail, params)
        return
    lesson = LEARN if lesson == EARLY else lesson
    if kind == QUANTILE:
        quantile.absorb(row, lesson, score, params)
    elif kind == FIXED:
        fixed.absorb(row, lesson, score, params)
    elif kind == SIGMA:
        sigma.absorb(row, lesson, score, params)
    elif kind == NDT:
        ndt.absorb(row, lesson, score, params)
    elif kind == SPOT:
        spot.absorb(row, lesson, score, params)
    elif kind == DSPOT:
        dspot.absorb(row, lesson, score, params)
    elif kind == LIKELIHOOD:
        likelihood.absorb(row, lesson, score, params)
    else:
        conformal.absorb(row, lesson, score, params)


@jit
def limit(kind, row, tail, params):
    """The threshold, at least its floor, where `tail` alarms per record are wished for."""
    if kind == QUANTILE:
        value = quantile.limit(row, tail, params)
    elif kind == FIXED:
        value = fixed.limit(row, tail, params)
    elif kind == SIGMA:
        value = sigma.limit(row, tail, params)
    elif kind == CONTRAST:
        value = contrast.limit(row, tail, params)
    elif kind == NDT:
        value = ndt.limit(row, tail, params)
    elif kind == SPOT:
        value = spot.limit(row, tail, params)
    elif kind == DSPOT:
        value = dspot.limit(row, tail, params)
    elif kind == LIKELIHOOD:
        value = likelihood.limit(row, tail, params)
    else:
        value = conformal.limit(row, tail, params)
    return max(value, params[LIMIT_FLOOR])


@jit(inline=True)
def held_against(kind, row, score, limit, params):
    """The threshold that `score` is held against: `limit`, unless the kind also knows scores that are too small."""
    return ndt.held_against(row, score, limit, params) if kind == NDT else limit


@jit(inline=True)
def interval(kind):
    """Records between two computations of the limit."""
    return _SCAN if kind in (QUANTILE, CONFORMAL) else 1
