"""The rate of each update of a training: how it rises at the beginning and falls towards the end."""

import math

WARM_UP = 20
"""Updates over which the rate grows to its full value."""
_CYCLE_RISE, _CYCLE_START, _CYCLE_END = 0.3, 1 / 25, 1e-5


def rate_at(schedule: str, peak: float, update: int, updates: int) -> float:
    """The rate of update number `update`, from 1 to `updates`.

    `cosine` falls to 0 along a cosine; `step` falls to a tenth after half of the updates and to a hundredth after three
    quarters; `constant` stays; `one_cycle` rises over 30 % of the updates from a 25th and falls to a hundred thousandth,
    along cosines both times (Smith and Topin 2018). All but the last rise over the first WARM_UP updates.
    """
    done = update / updates
    if schedule == "one_cycle":
        if done < _CYCLE_RISE:
            return peak * _between(_CYCLE_START, 1.0, done / _CYCLE_RISE)
        return peak * _between(1.0, _CYCLE_END, (done - _CYCLE_RISE) / (1 - _CYCLE_RISE))
    rate = peak * min(1, update / WARM_UP)
    if schedule == "cosine":
        return rate * 0.5 * (1 + math.cos(math.pi * update / updates))
    if schedule == "step":
        return rate * (1.0 if done <= 0.5 else 0.1 if done <= 0.75 else 0.01)
    return rate


def _between(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * 0.5 * (1 + math.cos(math.pi * share))
