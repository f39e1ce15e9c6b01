"""`likelihood`: the mean of the last ten scores, against the Gaussian that such means have followed for long.

After the anomaly likelihood of Lavin and Ahmad ("Evaluating Real-Time Anomaly Detection Algorithms", 2015) and its
published constants: ten scores, floors of .03 on the mean and .0003 on the variance. It asks whether the mean of the
last ten scores lies above `level` = mean + z * deviation, z from the wished tail; the threshold is the score with which
the next mean reaches `level`, and no less than `level`: just after a spike a quiet record is quiet.

Simplified: older means fade exponentially (theirs: a sliding window of 8640), and a Gaussian that is fitted to skewed
scores promises fewer alarms than it gives. The last ten scores pass also inside an episode (they are what is judged);
the long history stands still, and moves to their mean when a level is accepted.
"""

import numpy as np

from streamlstm.kernels.calls import ABSORB, LIMIT_OF
from streamlstm.kernels.compiling import c_function, jit
from streamlstm.kernels.layout import ACCEPTED, INSIDE, MEMORY_ROWS, RECENT_SCORES
from streamlstm.kernels.scalars import log

COUNT, MEAN, VARIANCE, PASSED, RECENT = range(5)
_RECENT = np.int64(RECENT_SCORES)
_MEAN_FLOOR, _VARIANCE_FLOOR = 0.03, 0.0003
_ACCEPTED_COUNT = np.float32(100)  # an accepted level is relearned as fast as after so many means
_ONE = np.float32(1)


@c_function(ABSORB)
def absorb(row, lesson, score, tail, params):
    """Writes the score into the ring of recent ones and their mean into count, mean and variance (West's update)."""
    row[RECENT + np.int64(row[PASSED]) % _RECENT] = score
    # once the ring is full the count goes around within ten and twenty, so that it stays exact
    row[PASSED] = row[PASSED] + _ONE if row[PASSED] < 2 * _RECENT - 1 else np.float32(_RECENT)
    if lesson == INSIDE:
        return
    filled = min(np.int64(row[PASSED]), _RECENT)
    mean = 0.0
    for k in range(filled):
        mean += row[RECENT + k]
    mean /= filled
    if lesson == ACCEPTED:
        row[MEAN] = mean
        row[COUNT] = min(row[COUNT], _ACCEPTED_COUNT)
        return
    row[COUNT] = min(row[COUNT] + _ONE, np.float32(params[MEMORY_ROWS]))
    weight = 1.0 / row[COUNT]
    difference = mean - row[MEAN]
    row[MEAN] += weight * difference
    row[VARIANCE] = (1.0 - weight) * (row[VARIANCE] + weight * difference * difference)


@jit
def deviations(tail):
    """z that a standard normal value exceeds with probability `tail`, 0 to 0.5, within 5e-4.

    Hastings' rational approximation: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.2.23.
    """
    t = np.sqrt(-2.0 * log(min(max(tail, 1e-30), 0.5)))
    above = 2.515517 + t * (0.802853 + t * 0.010328)
    return t - above / (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308)))


@c_function(LIMIT_OF)
def limit(row, tail, params):
    """The score with which the mean of the last ten is as high as a share `tail` of such means."""
    mean, variance = max(np.float64(row[MEAN]), _MEAN_FLOOR), max(np.float64(row[VARIANCE]), _VARIANCE_FLOOR)
    level = mean + deviations(tail) * np.sqrt(variance)
    passed = np.int64(row[PASSED])
    filled = min(passed, _RECENT)
    needed = level * (filled + 1 if filled < _RECENT else _RECENT)
    for k in range(filled):
        if filled < _RECENT or k != passed % _RECENT:  # the oldest one leaves with the next record
            needed -= row[RECENT + k]
    return max(needed, level)
