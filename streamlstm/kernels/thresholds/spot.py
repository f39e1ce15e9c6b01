"""`spot`: a generalised Pareto tail through the peaks above the stream's 98 % quantile.

After Siffer et al., "Anomaly Detection in Streams with Extreme Value Theory" (KDD 2017): above a high quantile t the
excesses follow a generalised Pareto distribution (`pareto`), and the threshold is

    z = t + sigma / gamma ((tail / share)^-gamma - 1)

What differs, and why:
- Scores are smoothed, so scores above t come in clusters and are no independent excesses. A cluster is what an episode
  would be: scores above t with no more than `merge_rows` below in between. Its highest excess is kept, the last 128 of
  them, and `share` is clusters per record: then `tail` is alarms per record.
- t moves: by sigma / (.02 n) * (1{score > t} - .02) per record (Robbins and Monro, their best step; n at most `memory`
  and 20 000). In the first five hundred records t is exceeded by 10 of n, so that there are excesses at all.
- An alarm is one peak: if alarms were not learned at all, the tail would be cut at the threshold, and lowered by it
  again and again. What follows its first record is not known; its peak is taken as sigma / 2 above that: an exponential
  tail overshoots by sigma in the mean, and the first record has part of that already.
- An accepted level begins anew. Until 100 scores are known, the threshold is the largest one plus its distance from
  their mean.
- sigma is at least 1 % of t: where all scores are equal (ties), a wiggle must not be an alarm.
"""

import numpy as np

from streamlstm.kernels.calls import ABSORB, LIMIT_OF
from streamlstm.kernels.compiling import c_function, jit
from streamlstm.kernels.layout import ACCEPTED, INSIDE, MEMORY_ROWS, MERGE_ROWS, OPENED, SPOT_PEAKS
from streamlstm.kernels.thresholds import pareto

ROWS, LEVEL, ABOVE, CLUSTERS, CALM, TOP, SIGMA, GAMMA, FILLED, AT, PEAKS = range(11)
_FIRST_ROWS, _FIRST_ABOVE = 100, 10
_SHARE = 0.02
_MOST_ROWS = 20_000.0  # the step for more rows would be lost in the rounding of a float32
_SIGMA_FLOOR = 0.01
_ZERO, _ONE, _HALF = np.float32(0), np.float32(1), np.float32(0.5)


@c_function(ABSORB)
def absorb(row, lesson, score, tail, params):
    """Writes one score into level and peaks."""
    if lesson == ACCEPTED:
        forget(row)
    if lesson != INSIDE:
        learn(row, lesson, np.float64(score), 0.0, params)


@c_function(LIMIT_OF)
def limit(row, tail, params):
    """The score that opens an episode `tail` times per record."""
    return bound(row, tail, 0.0)


@jit(inline=True)
def forget(row):
    """Begins anew: what was learned of another level is worth nothing."""
    row[ROWS] = row[ABOVE] = row[CLUSTERS] = row[TOP] = row[GAMMA] = row[FILLED] = row[AT] = _ZERO


@jit
def learn(row, lesson, x, base, params):
    """Writes one value x into level and peaks; x + base is the score."""
    rows = np.int64(row[ROWS])
    row[ROWS] = min(row[ROWS] + _ONE, np.float32(min(_MOST_ROWS, params[MEMORY_ROWS])))
    if rows < _FIRST_ROWS:
        row[PEAKS + rows] = x
        if rows == _FIRST_ROWS - 1:
            _begin(row, params)
        return
    if _observe(row, x, params) and (row[FILLED] < SPOT_PEAKS or row[AT] % 4 == 0):
        _fit(row)
    if lesson == OPENED:
        row[TOP] += _HALF * np.float32(_sigma(row, base))
    share = _share(row)
    step = _sigma(row, base) / (share * row[ROWS])
    row[LEVEL] += step * ((1.0 if x > row[LEVEL] else 0.0) - share)
    if row[ABOVE] >= _SHARE * params[MEMORY_ROWS]:
        row[ABOVE] *= _HALF
        row[CLUSTERS] *= _HALF


@jit
def bound(row, tail, base):
    """The value that is exceeded by a share `tail` of the clusters' peaks, at first above all values."""
    rows = np.int64(row[ROWS])
    if rows < _FIRST_ROWS:
        mean, largest = 0.0, 0.0
        for k in range(rows):
            mean += row[PEAKS + k] / np.float64(rows)
            largest = max(largest, np.float64(row[PEAKS + k]))
        return largest + max(largest - mean, _SIGMA_FLOOR * (largest + base))
    share = _share(row) * max(row[CLUSTERS], _ONE) / max(row[ABOVE], _ONE)
    return row[LEVEL] + pareto.exceeded_with(min(tail / share, 1.0), _sigma(row, base), np.float64(row[GAMMA]))


@jit(inline=True)
def _share(row):
    """The share of values that shall exceed the level."""
    return max(_SHARE, _FIRST_ABOVE / np.float64(row[ROWS]))


@jit(inline=True)
def _sigma(row, base):
    """The scale of the tail, floored."""
    return max(np.float64(row[SIGMA]), _SIGMA_FLOOR * (row[LEVEL] + base))


@jit
def _begin(row, params):
    """Turns the first values, held in the place of the peaks, into the level that ten of them exceed, and peaks."""
    level = np.inf
    for k in range(_FIRST_ROWS):
        above = 0
        for m in range(_FIRST_ROWS):
            above += 1 if row[PEAKS + m] > row[PEAKS + k] else 0
        if above <= _FIRST_ABOVE:
            level = min(level, np.float64(row[PEAKS + k]))
    row[LEVEL] = level
    row[CALM] = params[MERGE_ROWS] + 1.0
    for k in range(_FIRST_ROWS):  # no more clusters than values before: none is overwritten unread
        _observe(row, np.float64(row[PEAKS + k]), params)
    _fit(row)


@jit
def _observe(row, x, params):
    """Writes x into the open cluster, or begins a new one; has one been closed?"""
    excess = np.float32(x) - row[LEVEL]
    if excess <= _ZERO:
        row[CALM] += _ONE
        return False
    fresh = row[CALM] > params[MERGE_ROWS]
    closed = fresh and row[CLUSTERS] > _ZERO
    row[ABOVE] += _ONE
    row[CALM] = _ZERO
    if closed:
        at = np.int64(row[AT])
        row[PEAKS + at] = row[TOP]
        row[AT] = np.float32((at + 1) % SPOT_PEAKS)
        row[FILLED] = min(row[FILLED] + _ONE, np.float32(SPOT_PEAKS))
    if fresh or row[CLUSTERS] == _ZERO:
        row[CLUSTERS] += _ONE
        row[TOP] = excess
    else:
        row[TOP] = max(row[TOP], excess)
    return closed


@jit
def _fit(row):
    """Writes sigma and gamma of the closed clusters' peaks, of the open one's while there is no other."""
    filled = np.int64(row[FILLED])
    if filled == 0:
        row[SIGMA] = row[TOP]
        return
    sigma, gamma = pareto.fit(row, PEAKS, filled)
    row[SIGMA], row[GAMMA] = sigma, gamma
