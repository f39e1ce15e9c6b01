"""The generalised Pareto distribution of what lies above a high threshold: fit and high quantiles.

P(Y > y) = (1 + gamma y / sigma)^(-1 / gamma), the exponential exp(-y / sigma) at gamma = 0. The likelihood has two
unknowns; Grimshaw ("Computing Maximum Likelihood Estimates for the Generalized Pareto Distribution", 1993) reduces it to
one, theta = gamma / sigma: where the likelihood is largest, gamma = mean of ln(1 + theta y), and theta is a root of

    w(theta) = mean(1 / (1 + theta y)) * (1 + mean(ln(1 + theta y))) - 1

between -1 / max y and 2 (mean y - min y) / (min y)^2. The moments give gamma = (1 - mean^2 / variance) / 2 and
sigma = mean (mean^2 / variance + 1) / 2. Of the roots, the moments and the exponential the most likely one is taken.
"""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.scalars import exp32, log

_PER_LOG = 8  # factors of 1 + theta y whose product fits a float64
_NEAR_ZERO, _FACTOR, _HALVINGS = 1e-4, 4.0, 20  # of the search, from 1e-4 / mean y outward
_LEAST_GAMMA, _MOST_GAMMA = -0.5, 0.5  # beyond, the likelihood is irregular, and the variance infinite


@jit
def _sums(y, y0, n, theta):
    """mean(1 / (1 + theta y)) and mean(ln(1 + theta y)) of n values of y from y0 on."""
    inverse, logarithm, product = 0.0, 0.0, 1.0
    for k in range(n):
        factor = max(1.0 + theta * y[y0 + k], 1e-12)
        inverse += 1.0 / factor
        product *= factor
        if k % _PER_LOG == _PER_LOG - 1:
            logarithm += log(product)
            product = 1.0
    return inverse / n, (logarithm + log(product)) / n


@jit
def _w(y, y0, n, theta):
    """Grimshaw's function, zero where the likelihood is stationary."""
    inverse, logarithm = _sums(y, y0, n, theta)
    return inverse * (1.0 + logarithm) - 1.0


@jit
def _root(y, y0, n, near, far):
    """The root of w nearest to zero between near and far, which have one sign; zero where w keeps its sign."""
    sign = 1.0 if far > 0.0 else -1.0
    low, at_low = near, _w(y, y0, n, near)
    while sign * low < sign * far:
        high = sign * min(_FACTOR * sign * low, sign * far)
        at_high = _w(y, y0, n, high)
        if at_low * at_high < 0.0:
            for _ in range(_HALVINGS):
                middle = sign * np.sqrt(low * high)
                at_middle = _w(y, y0, n, middle)
                if at_low * at_middle < 0.0:
                    high = middle
                else:
                    low = middle
            return low
        low, at_low = high, at_high
    return 0.0


@jit
def _likelihood(y, y0, n, largest, sigma, gamma):
    """Mean log-likelihood of n values of y from y0 on under sigma > 0 and gamma other than 0."""
    theta = gamma / sigma
    if 1.0 + theta * largest <= 0.0:
        return -np.inf
    _, logarithm = _sums(y, y0, n, theta)
    return -log(sigma) - (1.0 + 1.0 / gamma) * logarithm


@jit
def fit(y, y0, n):
    """sigma and gamma of n excesses y (float32, at least 0) from y0 on; (0, 0) where all are 0."""
    mean, square, least, largest = 0.0, 0.0, np.inf, 0.0
    for k in range(n):
        mean += y[y0 + k] / np.float64(n)
        least, largest = min(least, y[y0 + k]), max(largest, y[y0 + k])
    for k in range(n):
        square += (y[y0 + k] - mean) * (y[y0 + k] - mean) / n
    sigma, gamma = mean, 0.0
    if square <= 1e-6 * mean * mean:
        return sigma, gamma
    best = -log(mean) - 1.0
    near, ratio = _NEAR_ZERO / mean, mean * mean / square
    for candidate in range(3):
        if candidate == 0:
            g, s = 0.5 * (1.0 - ratio), 0.5 * mean * (ratio + 1.0)
        else:
            if candidate == 1:
                theta = _root(y, y0, n, -near, -(1.0 - 1e-6) / largest)
            else:
                theta = _root(y, y0, n, near, min(2.0 * (mean - least) / max(least * least, 1e-30), 1e3 / mean))
            _, g = _sums(y, y0, n, theta)
            s = g / theta if theta != 0.0 else 0.0
        if s > 0.0 and g != 0.0:
            likelihood = _likelihood(y, y0, n, largest, s, g)
            if likelihood > best:
                best, sigma, gamma = likelihood, s, g
    bounded = min(max(gamma, _LEAST_GAMMA), _MOST_GAMMA)
    return (sigma, gamma) if bounded == gamma else (mean * (1.0 - bounded), bounded)


@jit
def exceeded_with(probability, sigma, gamma):
    """The excess that is exceeded with `probability`, 0 to 1: sigma (probability^-gamma - 1) / gamma."""
    rarity = -log(max(probability, 1e-30))
    x = gamma * rarity
    if abs(x) < 0.05:
        return sigma * rarity * (1.0 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24))))
    return sigma * rarity * (np.float64(exp32(np.float32(x))) - 1.0) / x
