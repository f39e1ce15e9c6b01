"""Losses of one row of outputs, and their gradient by these: of the heads, then of the forecast.

| letter | size |
|---|---|
| D | outputs of the heads, which are also their targets |
| M | targets of the forecast, behind those of the heads: features of one horizon after another |
| Q | outputs for each of these: mean and log-scale, or one for each quantile; output q of target m is D + q M + m |

A forecast is in units of what its skip leaves over (root mean square), so that outputs of zero are the skip's own forecast
with its usual error for a scale. A loss is summed in float64, in the order of the outputs.
"""

from typing import NamedTuple

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.scalars import exp32, tanh32
from streamlstm.types import Float32

_F0 = np.float32(0)
_LARGEST = np.float32(5)
"""Bound of a log-scale: from 1/148 to 148 times the usual error. A tanh leads there, so that no gradient dies at it."""


class Ahead(NamedTuple):
    """What is forecast beside the heads: `targets`, M, 0 for nothing; `levels` of the quantiles (Q) float32, empty for mean
    and log-scale; `weight` of one target beside a head's."""

    targets: int
    levels: Float32
    weight: float


@jit(inline=True)
def log_scale(y):
    """The log-scale of an output: y where it is small, within +-5."""
    return _LARGEST * tanh32(y / _LARGEST)


@jit
def write_losses(outputs, target, D, huber, scale, ahead, loss):
    """`loss` plus the losses of one row; writes their gradient times `scale` over the outputs, 0 over what has no target.

    outputs (O) and target (D + M) float32, NaN where nothing is to be learned. The result is not times `scale`.
    """
    for d in range(D):
        wished = target[d]
        if np.isnan(wished):
            outputs[d] = _F0
            continue
        e = outputs[d] - wished
        size = np.float64(abs(e))
        loss += 0.5 * size * size if size <= huber else huber * (size - 0.5 * huber)
        outputs[d] = np.float32(min(max(np.float64(e), -huber), huber) * scale)
    if ahead.targets == 0:
        outputs[D:] = _F0
        return loss
    if ahead.levels.shape[0] == 0:
        return write_gaussian(outputs[D:], target[D:], huber, scale, ahead, loss)
    return write_pinball(outputs[D:], target[D:], scale, ahead, loss)


@jit
def write_gaussian(outputs, target, huber, scale, ahead, loss):
    """`write_losses` of mean and log-scale s: s + rho((mean - target) / exp(s)), with Huber's rho.

    That is the negative logarithm of a normal density with exponential tails beyond `huber` scales; with `huber` infinite
    of the normal density. A spike of 50 scales would else outweigh a thousand records.
    """
    M = ahead.targets
    for m in range(M):
        wished = target[m]
        if np.isnan(wished):
            outputs[m] = outputs[M + m] = _F0
            continue
        s = log_scale(outputs[M + m])
        inverse = exp32(-s)
        u = np.float64((outputs[m] - wished) * inverse)
        size = abs(u)
        loss += ahead.weight * (s + (0.5 * u * u if size <= huber else huber * (size - 0.5 * huber)))
        cut = min(max(u, -huber), huber)
        turn = np.float64(s / _LARGEST)
        outputs[m] = np.float32(cut * inverse * ahead.weight * scale)
        outputs[M + m] = np.float32((1.0 - cut * u) * (1.0 - turn * turn) * ahead.weight * scale)
    outputs[2 * M :] = _F0
    return loss


@jit
def write_pinball(outputs, target, scale, ahead, loss):
    """`write_losses` of quantiles: level * e above the output, (level - 1) * e below it, for e = target - output."""
    M, Q = ahead.targets, ahead.levels.shape[0]
    for q in range(Q):
        level = np.float64(ahead.levels[q])
        for m in range(M):
            at, wished = q * M + m, target[m]
            if np.isnan(wished) or outputs[at] == wished:
                outputs[at] = _F0
                continue
            slope = level if outputs[at] < wished else level - 1.0
            loss += ahead.weight * slope * np.float64(wished - outputs[at])
            outputs[at] = np.float32(-slope * ahead.weight * scale)
    outputs[Q * M :] = _F0
    return loss
