"""Thresholds: each kind is two scalar kernels on a row of state, `absorb` and `limit`, chosen by an integer.

A new kind is one file, one number in `layout.KINDS` with its width, and one branch in each function below.
"""

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.layout import FIXED, LIMIT_FLOOR, SIGMA
from streamlstm.kernels.thresholds import fixed, quantile, sigma


@jit(inline=True)
def absorb(kind, row, score, memory):
    """Writes `score` (>= 0) into the threshold's state `row` (its width) float32; `memory` scores are remembered."""
    if kind == FIXED:
        fixed.absorb(row, score, memory)
    elif kind == SIGMA:
        sigma.absorb(row, score, memory)
    else:
        quantile.absorb(row, score, memory)


@jit
def limit(kind, row, tail, params):
    """The threshold, at least its floor, where scores should exceed it with probability `tail`."""
    if kind == FIXED:
        value = fixed.limit(row, tail, params)
    elif kind == SIGMA:
        value = sigma.limit(row, tail, params)
    else:
        value = quantile.limit(row, tail, params)
    return max(value, params[LIMIT_FLOOR])
