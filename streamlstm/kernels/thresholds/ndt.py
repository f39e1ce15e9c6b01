"""`ndt`: the nonparametric dynamic threshold of telemanom, made causal, with its pruning and its mirror.

After Hundman et al., "Detecting Spacecraft Anomalies Using LSTMs and Nonparametric Dynamic Thresholding" (KDD 2018),
with their constants. Over a window of 2100 scores, of eps = mean + z * deviation, z = 2.5, 3, ... 11.5, the one is
taken that maximises

    (drop of the mean / mean + drop of the deviation / deviation) / (sequences^2 + scores above eps)

where the drops are those of the scores left below eps, and sequences are widened by 100 scores on both sides, so that
near ones are one; an eps with more than five sequences or half of the scores above it does not count; without any it is
mean + 12 deviations. Pruning: of the peaks of the sequences, sorted downward and followed by the largest score below
eps, those stay that stand above a step of at least 13 %; so the next score is anomalous above the lowest level, from eps
upward, that exceeds the level under it by such a step. The mirror is the same of 2 mean - score: it finds scores that
are unusually small, once the window is full.

What differs, and why:
- The window holds the largest and the smallest score of each 20 records, 105 blocks, not all 2100: scores are smoothed,
  so neighbours say the same, and peaks are kept. The threshold is computed from the largest, the mirror from the
  smallest, and a block above eps counts as 20 scores. Both move once in 20 records.
- Flagged scores stay outside the window: else the threshold jumps when an anomaly enters and when it leaves. An episode
  also throws away the block it opened in, which holds its run-up; an accepted level begins anew.
- The guard against errors that are small in the signal's own range is the floors of error and threshold.
"""

import numpy as np

from streamlstm.kernels.calls import ABSORB, LIMIT_OF
from streamlstm.kernels.compiling import c_function, jit
from streamlstm.kernels.layout import ACCEPTED, LEARN, MIRROR, NDT_BLOCKS, OPENED

ROWS, LARGEST, SMALLEST, FILLED, AT, LIMIT, CENTRE, MIRRORED, MAXIMA = range(9)
MINIMA = MAXIMA + NDT_BLOCKS
_BLOCK = np.float32(20)
_NEAR = 10  # blocks: nearer sequences, each widened by 100 scores on both sides, are one
_LOWEST_Z, _STEP_Z, _LEVELS, _LAST_Z = 2.5, 0.5, 19, 12.0
_MOST_SEQUENCES, _MOST_ABOVE = 5, 0.5
_STEP = 1.0 / (1.0 - 0.13)
_SMALL = 1e-6  # a deviation below this share of the mean is rounding
_LEAST = np.float32(1e-30)
_ZERO, _ONE = np.float32(0), np.float32(1)


@c_function(ABSORB)
def absorb(row, lesson, score, tail, params):
    """Writes the score into the open block; each full block enters the window and moves the limits."""
    if lesson == LEARN:
        if row[ROWS] == _ZERO:
            row[LARGEST] = row[SMALLEST] = score
        row[LARGEST] = max(row[LARGEST], np.float32(score))
        row[SMALLEST] = min(row[SMALLEST], np.float32(score))
        row[ROWS] += _ONE
        if row[ROWS] == _BLOCK:
            _close_block(row)
    elif lesson == OPENED:
        row[ROWS] = _ZERO
    elif lesson == ACCEPTED:
        row[FILLED] = row[AT] = _ZERO
        row[LARGEST] = row[SMALLEST] = score
        _close_block(row)


@jit
def _close_block(row):
    """Writes largest and smallest score of the open block into the window, and the limits that follow."""
    at = np.int64(row[AT])
    row[MAXIMA + at], row[MINIMA + at] = row[LARGEST], row[SMALLEST]
    row[AT] = np.float32((at + 1) % NDT_BLOCKS)
    row[FILLED] = min(row[FILLED] + _ONE, np.float32(NDT_BLOCKS))
    row[ROWS] = _ZERO
    row[LIMIT] = _pruned(row, MAXIMA, 0.0, 1.0)
    mean, _ = _moments(row, MINIMA)
    row[CENTRE] = 2.0 * mean
    row[MIRRORED] = _pruned(row, MINIMA, 2.0 * mean, -1.0)


@jit
def _moments(row, first):
    """Mean and standard deviation of the window's blocks from column `first`."""
    filled = np.int64(row[FILLED])
    mean, square = 0.0, 0.0
    for k in range(filled):
        mean += row[first + k]
    mean /= filled
    for k in range(filled):
        difference = row[first + k] - mean
        square += difference * difference
    return mean, np.sqrt(square / filled)


@jit(inline=True)
def _value(row, first, age, offset, sign):
    """The window's value of block `age`, 0 the oldest."""
    filled = np.int64(row[FILLED])
    begin = np.int64(row[AT]) if filled == NDT_BLOCKS else 0
    return offset + sign * row[first + (begin + age) % filled]


@jit
def _worth(row, first, offset, sign, eps, mean, deviation):
    """What telemanom maximises at `eps`; -1 where too many values or sequences lie above."""
    filled = np.int64(row[FILLED])
    total, square, above, sequences, last = 0.0, 0.0, 0, 0, -_NEAR - 1
    for age in range(filled):
        difference = _value(row, first, age, offset, sign) - mean
        if difference > eps - mean:
            above += 1
            sequences += 1 if age - last > _NEAR else 0
            last = age
        else:
            total += difference
            square += difference * difference
    if sequences > _MOST_SEQUENCES or above >= _MOST_ABOVE * filled:
        return -1.0
    drop = -total / (filled - above)
    left = np.sqrt(max(square / (filled - above) - drop * drop, 0.0))
    return (drop / mean + (deviation - left) / deviation) / (sequences * sequences + above * _BLOCK)


@jit
def _epsilon(row, first, offset, sign):
    """mean + z * deviation with the z that is worth most."""
    mean, deviation = _moments(row, first)
    mean = offset + sign * mean
    eps, best = mean + _LAST_Z * deviation, 0.0
    if deviation <= _SMALL * mean:
        return eps
    largest = -np.inf
    for k in range(np.int64(row[FILLED])):
        largest = max(largest, offset + sign * row[first + k])
    for n in range(_LEVELS):
        candidate = mean + (_LOWEST_Z + _STEP_Z * n) * deviation
        if candidate >= largest:
            break
        worth = _worth(row, first, offset, sign, candidate, mean, deviation)
        if worth >= best:
            best, eps = worth, candidate
    return eps


@jit
def _next_peak(row, first, offset, sign, eps, under):
    """The lowest peak above `under` of the sequences above `eps`; infinite where there is none."""
    lowest, peak, last = np.inf, -np.inf, 0
    for age in range(np.int64(row[FILLED])):
        value = _value(row, first, age, offset, sign)
        if value > eps:
            if age - last > _NEAR and peak > under:
                lowest = min(lowest, peak)
            peak = value if age - last > _NEAR else max(peak, value)
            last = age
    return min(lowest, peak) if peak > under else lowest


@jit
def _pruned(row, first, offset, sign):
    """The least value from eps upward that stands a step above the peak, or the usual values, under it."""
    eps = _epsilon(row, first, offset, sign)
    under = -np.inf
    for age in range(np.int64(row[FILLED])):
        value = _value(row, first, age, offset, sign)
        if value <= eps:
            under = max(under, value)
    while True:
        needed = max(under * _STEP, eps)
        above = _next_peak(row, first, offset, sign, eps, under)
        if needed <= above:
            return needed
        under = above


@c_function(LIMIT_OF)
def limit(row, tail, params):
    """The limit of the window; before its first block is full, a step above the largest score."""
    return row[LIMIT] if row[FILLED] > _ZERO else np.float32(_STEP) * row[LARGEST]


@jit(inline=True)
def held_against(row, score, limit, params):
    """`limit`, or below the mirrored limit of a full window the score over the mirrored severity."""
    if params[MIRROR] == 0.0 or row[FILLED] < NDT_BLOCKS:
        return limit
    mirrored = (row[CENTRE] - score) / row[MIRRORED]
    return max(np.float32(score / mirrored), _LEAST) if mirrored > _ONE else limit
