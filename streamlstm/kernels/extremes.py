"""The rule of the value never seen: a record outside all that its stream has shown is an alarm by itself.

Only of streams that are learned online: others have no columns for it. How far outside is measured in the range that the
feature has shown, as root mean square over the features present, so that of D features one must lie sqrt(D) times as far
out; beyond `learning.extreme_margin` it is an alarm. It lifts the score in proportion, to the threshold times distance
over margin, and the part of the usual range with it.

A model sees a step of one record, whose effect on a smoothed score depends on what it predicted; this rule sees the
value itself, at once. On NAB's files, learned online by the preset `online`, it is worth 25 points of 100.
"""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.layout import AT_VALUE, EXTREME_MARGIN, N_FEATURES, N_KNOWN

_FARTHEST = 1000.0  # ranges
_ABSURD = 1e100  # beyond it a difference overflows when squared


@jit(inline=True)
def distance_outside(x, stat, D, I):
    """How far x (D) lies outside the values shown, in their range; 0 for a feature that was constant so far."""
    low, high, spread = stat[3 * I :], stat[3 * I + D :], stat[2 * I :]
    total, present = 0.0, 0
    for d in range(D):
        if not np.isnan(x[d]):
            present += 1
            if high[d] > low[d]:
                away = max(low[d] - x[d], x[d] - high[d]) / max(high[d] - low[d], spread[d])
                away = min(max(away, 0.0), _FARTHEST)
                total += away * away
    return np.sqrt(total / max(present, 1))


@jit(inline=True)
def has_extremes(sizes, params):
    """Whether streams have columns for the values shown, and the rule is wanted."""
    return sizes[AT_VALUE] > 3 * (sizes[N_FEATURES] + sizes[N_KNOWN]) and params[EXTREME_MARGIN] > 0.0


@jit(inline=True)
def lifted(score, limit, x, stat, sizes, params):
    """The score float32, or as many times the limit as x lies margins outside the values shown, if that is an alarm."""
    D, I = sizes[N_FEATURES], sizes[N_FEATURES] + sizes[N_KNOWN]
    margins = np.float32(distance_outside(x, stat, D, I) / params[EXTREME_MARGIN])
    return max(score, margins * limit) if margins > np.float32(1) else score


@jit(inline=True)
def absorb_extremes(x, stat, D, I):
    """Widens the values shown to x (D), by their range at most: one wild value must not blind the rule for ever."""
    low, high = stat[3 * I :], stat[3 * I + D :]
    for d in range(D):
        if abs(x[d]) < _ABSURD:  # false for NaN
            if np.isnan(low[d]):
                low[d] = high[d] = x[d]
            else:
                room = high[d] - low[d] if high[d] > low[d] else np.inf
                low[d], high[d] = min(low[d], max(x[d], low[d] - room)), max(high[d], min(x[d], high[d] + room))
