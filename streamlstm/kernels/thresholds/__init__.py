"""Thresholds: each kind is two C functions on a row of state, `absorb` and `limit`; only those in use are compiled.

`absorb(row, lesson, score, tail, params)` is called once for every scored record, after it was judged, and writes the kind's
state `row` (its width in `layout.THRESHOLD_WIDTHS`) float32; `tail` is the wished number of alarms per record of this
stream. `lesson` says what the record may teach:

| lesson | the record |
|---|---|
| LEARN | is as expected: its score is learned |
| EARLY | comes before the stream is live: its score is learned, and no alarm could have been wished |
| OPENED | opened an episode |
| INSIDE | lies in an open episode: time passes, its score is not learned |
| ACCEPTED | makes the episode so long that its score is the new normal |

`limit(row, tail, params)` is the score above which the next record is anomalous. A new kind is one file, its
number and width in `layout`, and a line below.
"""

from typing import Any

from streamlstm.kernels.calls import call_absorb, call_limit
from streamlstm.kernels.compiling import CFunction, jit
from streamlstm.kernels.layout import *
from streamlstm.kernels.thresholds import conformal, contrast, dspot, fixed, likelihood, ndt, quantile, sigma, spot
from streamlstm.types import Int64

_FUNCTIONS: dict[int, Any] = {
    FIXED: fixed,
    SIGMA: sigma,
    QUANTILE: quantile,
    NDT: ndt,
    SPOT: spot,
    DSPOT: dspot,
    LIKELIHOOD: likelihood,
    CONFORMAL: conformal,
    CONTRAST: contrast,
}
_SCAN = 16  # records between two limits where one costs about as much as learning 16 scores


def connect(sizes: Int64) -> None:
    """Writes into `sizes` where the functions of its kind lie in this process; compiles, or loads, them."""
    absorb, limit = functions_of(int(sizes[KIND]))
    sizes[ABSORBING], sizes[LIMITING] = absorb.address, limit.address


def functions_of(kind: int) -> tuple[CFunction, CFunction]:
    """`absorb` and `limit` of a kind."""
    return _FUNCTIONS[kind].absorb, _FUNCTIONS[kind].limit


@jit(inline=True)
def absorb(sizes, row, lesson, score, tail, params):
    """Writes what a scored record teaches into the threshold's state `row`."""
    if lesson == EARLY and sizes[KIND] != CONTRAST:
        lesson = LEARN  # to the others it is no other lesson
    call_absorb(sizes[ABSORBING], row, lesson, score, tail, params)


@jit(inline=True)
def limit(sizes, row, tail, params):
    """The threshold, at least its floor, where `tail` alarms per record are wished for."""
    return max(call_limit(sizes[LIMITING], row, tail, params), params[LIMIT_FLOOR])


@jit(inline=True)
def held_against(sizes, row, score, limit, params):
    """The threshold that `score` is held against: `limit`, unless the kind also knows scores that are too small."""
    return ndt.held_against(row, score, limit, params) if sizes[KIND] == NDT else limit


@jit(inline=True)
def interval(sizes):
    """Records between two computations of the limit, a power of two."""
    return _SCAN if sizes[KIND] in (QUANTILE, CONFORMAL) else 1
