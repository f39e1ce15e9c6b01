"""`quantile`: the score that the stream itself exceeds as rarely as the user wishes.

A histogram of fixed bins, eight to the octave from 1/8 to 64: the upper bits of a float32 are its bin. When it holds
`memory` scores all counts are halved, so older ones fade. Within the range a quantile is off by at most one bin, 12.5 %
of its value. Where the history holds too few scores to know the wished tail, it is extended by an exponential through
the levels exceeded by 40 and by 4 scores (the tail of a smoothed error falls about so).
"""

import numpy as np

from streamlstm.kernels.calls import ABSORB, LIMIT_OF
from streamlstm.kernels.compiling import c_function, jit
from streamlstm.kernels.layout import BINS, BINS_PER_OCTAVE, LEARN, LOWEST_OCTAVE, MEMORY_ROWS, OPENED
from streamlstm.kernels.scalars import bits32, float32_of, log

TOTAL = BINS
_SHIFT = np.int32(20)  # three bits of the 23-bit mantissa stay: eight bins to the octave
_FIRST = np.int32((127 + LOWEST_OCTAVE) * BINS_PER_OCTAVE)
_LAST = np.int32(BINS - 1)
_ZERO, _HALF = np.int32(0), np.float32(0.5)
KNOWN, WIDE = 4.0, 40.0
_LN_WIDE = 2.302585092994046  # ln(WIDE / KNOWN)


@c_function(ABSORB)
def absorb(row, lesson, score, tail, params):
    """Writes one score into its bin; an episode counts once, so that the alarms opened make up the tail."""
    if lesson != LEARN and lesson != OPENED:
        return
    bin = np.int32((bits32(np.float32(score)) >> _SHIFT) - _FIRST)
    row[min(max(bin, _ZERO), _LAST)] += np.float32(1)
    row[TOTAL] += np.float32(1)
    if row[TOTAL] >= params[MEMORY_ROWS]:
        for j in range(BINS):
            row[j] *= _HALF
        row[TOTAL] *= _HALF


@jit
def _exceeded_by(row, count):
    """The score that `count` of the histogram's scores exceed, linear within a bin."""
    above = 0.0
    j = BINS - 1
    while j > 0 and above + row[j] < count:
        above += row[j]
        j -= 1
    low = np.float64(float32_of(np.int32((np.int32(j) + _FIRST) << _SHIFT)))
    high = np.float64(float32_of(np.int32((np.int32(j) + _FIRST + np.int32(1)) << _SHIFT)))
    held = np.float64(row[j])
    share = min(max((above + held - count) / held, 0.0), 1.0) if held > 0.0 else 0.0
    return low + share * (high - low)


@c_function(LIMIT_OF)
def limit(row, tail, params):
    """The score exceeded by a share `tail` of the scores, extended beyond the known ones."""
    total = np.float64(row[TOTAL])
    wished = tail * total
    if wished >= KNOWN or total < 2.0 * WIDE:
        return _exceeded_by(row, wished)
    known, wide = _exceeded_by(row, KNOWN), _exceeded_by(row, WIDE)
    return known + (known - wide) * log(KNOWN / max(wished, 1e-12)) / _LN_WIDE
