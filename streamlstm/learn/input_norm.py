"""Batch normalisation of the network's inputs while it trains (Ioffe and Szegedy 2015), without the affine part."""

import numpy as np

from streamlstm.types import Float32, Float64

_MOMENTUM = 0.1  # of the running statistics, as in PyTorch
# PyTorch's 1e-5 would make 316 of an input that stood still in the history and then moves by one; this makes 10 of it.
# Inputs are in standard deviations of their stream already, so that it changes others by half a percent.
_EPSILON = 1e-2


def normalise_window(x: Float32, target: Float32, running: Float64) -> tuple[Float64, Float64]:
    """Mean and inverse deviation (I) of a window's inputs x (T, B, I); moves the `running` mean and variance (2, I) on.

    Rows without any target (T, B, ..) count for nothing: they fill a lane up. Fewer than two others take the running ones.
    """
    rows = x[~np.isnan(target).all(axis=2)].astype(np.float64)
    n = len(rows)
    if n < 2:
        return running[0].copy(), inverse_deviation(running[1])
    mean, variance = rows.mean(axis=0), rows.var(axis=0)
    running += _MOMENTUM * (np.stack([mean, variance * n / (n - 1)]) - running)
    return mean, inverse_deviation(variance)


def inverse_deviation(variance: Float64) -> Float64:
    """What an input less its mean is multiplied by."""
    return 1 / np.sqrt(variance + _EPSILON)
