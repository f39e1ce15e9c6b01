"""Inputs of the model: running mean and spread, normalised values, the skip's regressors."""

import numpy as np

from streamlstm.kernels.block import AVERAGE, CLIPPED_AVERAGE, LAG, Z, get, put
from streamlstm.kernels.compiling import LANES, jit
from streamlstm.kernels.lanes import copy_lanes, fill_lanes, load, maximum, minimum, rounded, splat, store, where
from streamlstm.kernels.layout import LAGS, REGRESSORS, SPANS
from streamlstm.types import NO_TIME

BOUND = np.float32(200)
"""Standard deviations that a regressor may reach: a wild value must fade from EWMA(100) within some hundred records."""
_ABSURD = 1e100  # beyond it a square overflows: no mean is made of it
_SETTLED, _OUTLIER = 0.25, 20.0  # after four records a value moves mean and spread by at most 20 spreads' worth
_EXTREME = 1e9  # standard deviations: a square of it and a sum of 512 such stay finite in float32
_GAINS = tuple(np.float32(2 / (span + 1)) for span in SPANS)
_ZERO, _ONE, _HALF, _QUARTER = np.float32(0), np.float32(1), np.float32(0.5), np.float32(0.25)
_TWO_PI = np.float32(6.283185307179586)
_S3, _S5, _S7, _S9 = (np.float32(1 / n) for n in (6, 120, 5040, 362880))
_DAY_NS = 86_400 * 10**9
_PERIODS = (_DAY_NS, _DAY_NS // 2, 7 * _DAY_NS)
_SHORTEST, _COVERED = _DAY_NS, (_DAY_NS, _DAY_NS, 7 * _DAY_NS)  # history from which a period's inputs count
CALENDAR = 2 * len(_PERIODS)
"""Known inputs of the skips that are made of the time: sine and cosine of each period."""


@jit(inline=True)
def normalised(value, mean, spread):
    """(value - mean) / spread as float32, within +-1e9."""
    return np.float32(min(max((value - mean) / spread, -_EXTREME), _EXTREME))


@jit(inline=True)
def bounded(z, bound):
    """z within +-bound."""
    return min(max(z, -bound), bound)


@jit(inline=True)
def bounded_lanes(z, bound):
    """Each lane of z within +-bound."""
    return minimum(maximum(z, splat(-bound)), splat(bound))


@jit(inline=True)
def spread_of(mean, variance):
    """Standard deviation with a floor of a thousandth of the level, so that a constant's first wiggle is no infinity."""
    floor = 1e-3 * abs(mean)
    return max(np.sqrt(variance), floor if floor > 0.0 else 1e-3)


@jit(inline=True)
def learn_inputs(x, stat, I, weight):
    """Writes mean, variance and spread of the inputs x (I) into stat (3 I), West's update; missing values change nothing."""
    for k in range(I):
        if abs(x[k]) < _ABSURD:  # false for NaN
            if np.isnan(stat[k]):
                stat[k] = x[k]
                stat[I + k] = 0.0
            else:
                difference = x[k] - stat[k]
                if weight < _SETTLED:
                    difference = min(max(difference, -_OUTLIER * stat[2 * I + k]), _OUTLIER * stat[2 * I + k])
                stat[k] += weight * difference
                stat[I + k] = (1.0 - weight) * (stat[I + k] + weight * difference * difference)
            stat[2 * I + k] = spread_of(stat[k], stat[I + k])


@jit(inline=True)
def begin_regressors(state, at, clipped, D, d, z, clip):
    """Writes the regressors of feature d, raw ones and clipped averages, as if z had always been its value."""
    for j in range(REGRESSORS):
        state[at + j * D + d] = z
    for j in range(REGRESSORS - LAGS):
        state[clipped + j * D + d] = bounded(z, clip)


@jit(inline=True)
def absorb_regressors(block, clip):
    """Writes the regressors after the values Z: lags 1 to 3, EWMAs of them and of the clipped ones."""
    for e in range(0, block.elements, LANES):
        z = bounded_lanes(get(block, Z, e), BOUND)
        for j in range(LAGS - 1, 0, -1):
            put(block, LAG + j, e, get(block, LAG + j - 1, e))
        put(block, LAG, e, z)
        cut = bounded_lanes(z, clip)
        for j in range(REGRESSORS - LAGS):
            raw, clipped = get(block, AVERAGE + j, e), get(block, CLIPPED_AVERAGE + j, e)
            put(block, AVERAGE + j, e, raw + _GAINS[j] * (z - raw))
            put(block, CLIPPED_AVERAGE + j, e, clipped + _GAINS[j] * (cut - clipped))


@jit(inline=True)
def read_clipped(state, at, clipped, D, clip, out, o0):
    """Writes the 8 D clipped regressors at o0 of `out`, and up to 15 floats more; the raw ones are `state` from `at` on."""
    for j in range(0, LAGS * D, LANES):
        store(out, o0 + j, bounded_lanes(load(state, at + j), clip))
    copy_lanes(state, clipped, out, o0 + LAGS * D, (REGRESSORS - LAGS) * D)


@jit(inline=True)
def known_input(x, stat, I, k, clip):
    """Input k, known before the prediction, in clipped standard deviations; the mean where it is missing."""
    if np.isnan(x[k]) or np.isnan(stat[k]):
        return _ZERO
    return bounded(normalised(x[k], stat[k], stat[2 * I + k]), clip)


@jit(inline=True)
def calendar(time, first, last, out, o0):
    """Writes sine and cosine of day, half day and week (CALENDAR values at o0), 0 until the history covers the period.

    time, first, last int64 ns: of the record, and of the stream's first and latest records before it. Up to 10 floats
    more are written behind.
    """
    fill_lanes(out, o0, CALENDAR, _ZERO)
    if time == NO_TIME or first == NO_TIME or last - first < _SHORTEST:
        return
    for k in range(len(_PERIODS)):
        if last - first >= _COVERED[k]:
            turn = np.float32(np.float64(time % _PERIODS[k]) / _PERIODS[k])
            out[o0 + 2 * k], out[o0 + 2 * k + 1] = turn, turn + _QUARTER
    for k in range(0, CALENDAR, LANES):
        store(out, o0 + k, sines_of_turns(load(out, o0 + k)))


@jit(inline=True)
def sines_of_turns(turns):
    """sin(2 pi turn) within 1e-6 for turns from 0 to 2: folded to a quarter turn, then the series of the sine to x^9."""
    x = turns - rounded(turns)
    x = where(x > _QUARTER, _HALF - x, where(x < -_QUARTER, -_HALF - x, x)) * _TWO_PI
    y = x * x
    return x * (_ONE - y * (_S3 - y * (_S5 - y * (_S7 - y * _S9))))
