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
from streamlstm.kernels.layout import CONTRAST, EARLY, FIXED, LEARN, LIMIT_FLOOR, QUANTILE, SIGMA
from streamlstm.kernels.thresholds import contrast, fixed, quantile, sigma

_SCAN = 16  # records between two limits of a kind that scans its state: a histogram's scan costs as much as 16 records


@jit(inline=True)
def absorb(kind, row, lesson, score, tail, params):
    """Writes what a scored record teaches into the threshold's state `row`."""
    if kind == CONTRAST:
        contrast.absorb(row, lesson, score, tail, params)
        return
    lesson = LEARN if lesson == EARLY else lesson
    if kind == FIXED:
        fixed.absorb(row, lesson, score, params)
    elif kind == SIGMA:
        sigma.absorb(row, lesson, score, params)
    else:
        quantile.absorb(row, lesson, score, params)


@jit
def limit(kind, row, tail, params):
    """The threshold, at least its floor, where `tail` alarms per record are wished for."""
    if kind == FIXED:
        value = fixed.limit(row, tail, params)
    elif kind == SIGMA:
        value = sigma.limit(row, tail, params)
    elif kind == CONTRAST:
        value = contrast.limit(row, tail, params)
    else:
        value = quantile.limit(row, tail, params)
    return max(value, params[LIMIT_FLOOR])


@jit(inline=True)
def interval(kind):
    """Records between two computations of the limit."""
    return _SCAN if kind == QUANTILE else 1
