"""Inputs of the model: running mean and spread, normalised values, the skip's regressors."""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.layout import LAGS, REGRESSORS, SPANS

BOUND = np.float32(50)
"""Standard deviations that a regressor may reach: a wild value must fade from EWMA(100) within some hundred records."""
_ABSURD = 1e100  # beyond it a square overflows: no mean is made of it
_SETTLED, _OUTLIER = 0.25, 20.0  # after four records a value moves mean and spread by at most 20 spreads' worth
_EXTREME = 1e9  # standard deviations: a square of it and a sum of 512 such stay finite in float32
_GAINS = tuple(np.float32(2 / (span + 1)) for span in SPANS)
_ZERO = np.float32(0)


@jit(inline=True)
def normalised(value, mean, spread):
    """(value - mean) / spread as float32, within +-1e9."""
    return np.float32(min(max((value - mean) / spread, -_EXTREME), _EXTREME))


@jit(inline=True)
def bounded(z, bound):
    """z within +-bound."""
    return min(max(z, -bound), bound)


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
def begin_regressors(state, at, D, d, z):
    """Writes the regressors of feature d as if z had always been its value."""
    for j in range(REGRESSORS):
        state[at + j * D + d] = z


@jit(inline=True)
def absorb_regressors(state, at, D, d, z):
    """Writes the regressors of feature d after its value z: lags 1 to 3, then the EWMAs."""
    column = at + d
    z = bounded(z, BOUND)
    state[column + 2 * D] = state[column + D]
    state[column + D] = state[column]
    state[column] = z
    for j in range(REGRESSORS - LAGS):
        k = column + (LAGS + j) * D
        state[k] += _GAINS[j] * (z - state[k])


@jit(inline=True)
def known_input(x, stat, I, k, clip):
    """Input k, known before the prediction, in clipped standard deviations; the mean where it is missing."""
    if np.isnan(x[k]) or np.isnan(stat[k]):
        return _ZERO
    return bounded(normalised(x[k], stat[k], stat[2 * I + k]), clip)
