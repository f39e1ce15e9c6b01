"""`conformal`: as many earlier scores are at least as large as the wished rate allows; the rate follows the alarms given.

The p-value of a score among m earlier ones is (1 + #{earlier ones at least as large}) / (m + 1) (Vovk et al. 2005); the
threshold is where it equals alpha. Conformal p-values need exchangeable scores, and smoothed neighbours are not: what is
compared is the largest score of each 20 records, and alpha is the wished alarms per 20 records. Rarer than 5 / (m + 1),
the tail is an exponential through the p-values of the 5th and the 21st largest: the very largest ones, which may be
alarms, do not stretch it. Against ties the threshold lies at least 1 % above the median.

Under drift p-values are not uniform, so alpha adapts (Gibbs and Candes, "Adaptive Conformal Inference Under Distribution
Shift", 2021), here on a log scale because the wished tails are tiny, and bounded:

    ln alpha = ln(20 tail) + (expected - given) / sqrt(expected + 10)

with the alarms expected and given in the last `memory` records, from the first alarm on: before a stream is live none
can be given. alpha stays between a hundredth and twice the wish. An accepted level begins anew.

The state holds the largest scores of m <= 210 blocks (4200 records), sorted upward. A new one replaces the one at a rank
that steps through all ranks by the golden section: forgetting that prefers no height, without ages.
"""

import numpy as np

from streamlstm.kernels.calls import ABSORB, LIMIT_OF
from streamlstm.kernels.compiling import c_function, jit
from streamlstm.kernels.layout import ACCEPTED, CONFORMAL_BLOCKS, INSIDE, MEMORY_ROWS, OPENED
from streamlstm.kernels.scalars import exp32, log

ROWS, ALARMS, TAKEN, LARGEST, FILLED, RANK, SORTED = range(7)
_BLOCK = np.float32(20)
_KNOWN, _TAIL = 4, 20  # ranks, 0 the largest, that the tail goes through
# a wish for more alarms than the merging of episodes allows must not push the threshold down without end
_LN_LEAST, _LN_MOST, _MOST_ALPHA = -4.605170185988091, 0.6931471805599453, 0.5
_TIES = 1.01
_GOLDEN = 131  # of 210 ranks, without a common divisor
_ZERO, _ONE = np.float32(0), np.float32(1)


@c_function(ABSORB)
def absorb(row, lesson, score, tail, params):
    """Writes one score into the open block, each full block into the sorted ones, and counts records and alarms."""
    if lesson == INSIDE:
        return
    if lesson == ACCEPTED:
        row[FILLED] = row[TAKEN] = row[ROWS] = row[ALARMS] = _ZERO
        _insert(row, np.float32(score))
        return
    kept = np.float32(1.0 - 1.0 / params[MEMORY_ROWS])
    row[ALARMS] = kept * row[ALARMS] + (_ONE if lesson == OPENED else _ZERO)
    if row[ALARMS] > _ZERO:
        row[ROWS] = kept * row[ROWS] + _ONE
    row[LARGEST] = np.float32(score) if row[TAKEN] == _ZERO else max(row[LARGEST], np.float32(score))
    row[TAKEN] += _ONE
    if row[TAKEN] == _BLOCK:
        row[TAKEN] = _ZERO
        _insert(row, row[LARGEST])


@jit
def _insert(row, score):
    """Writes a score to its place among the sorted ones; when they are full, another one goes."""
    filled = np.int64(row[FILLED])
    k = filled  # a free place; from here the score moves to its rank
    if filled == CONFORMAL_BLOCKS:
        k = np.int64(row[RANK])
        row[RANK] = np.float32((k + _GOLDEN) % CONFORMAL_BLOCKS)
    else:
        row[FILLED] = np.float32(filled + 1)
        filled += 1
    while k > 0 and row[SORTED + k - 1] > score:
        row[SORTED + k] = row[SORTED + k - 1]
        k -= 1
    while k + 1 < filled and row[SORTED + k + 1] < score:
        row[SORTED + k] = row[SORTED + k + 1]
        k += 1
    row[SORTED + k] = score


@c_function(LIMIT_OF)
def limit(row, tail, params):
    """The score whose p-value is the adapted alpha."""
    filled = np.int64(row[FILLED])
    if filled == 0:
        return _TIES * row[LARGEST]
    expected = tail * row[ROWS]
    wrong = (expected - row[ALARMS]) / np.sqrt(expected + 10.0)
    factor = np.float64(exp32(np.float32(min(max(wrong, _LN_LEAST), _LN_MOST))))
    wished = min(tail * factor * _BLOCK, _MOST_ALPHA) * (filled + 1)  # 1 + the number that is at least as large
    top = SORTED + filled - 1
    known, last = min(_KNOWN, filled // 4), min(_TAIL, filled - 1)
    level, least = np.float64(row[top - known]), _TIES * row[SORTED + filled // 2]
    if wished >= known + 1.0:
        rank = min(wished - 1.0, filled - 1.0)
        k = np.int64(rank)
        high, low = np.float64(row[top - k]), np.float64(row[top - min(k + 1, filled - 1)])
        return max(high - (rank - k) * (high - low), least)
    scale = (level - row[top - last]) / log((last + 1.0) / (known + 1.0)) if last > known else 0.0
    return max(level + scale * log((known + 1.0) / max(wished, 1e-30)), least)
