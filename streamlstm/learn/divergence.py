"""Words for a training whose loss or gradient is no number any more."""

import numpy as np

from streamlstm.kernels.layout import HEADS
from streamlstm.types import Float32, Float64


def losses_by_feature(top: Float32, readout: Float32, target: Float32) -> Float64:
    """Squared error of each feature (D) in a window, over all heads; not finite where one of its outputs is not.

    top (N, Hp), h of the last layer; readout (Hp + 1, 3 D), bias last; target (N, 3 D), NaN for nothing.
    """
    with np.errstate(all="ignore"):  # what is looked for
        outputs = top.astype(np.float64) @ readout[:-1] + readout[-1]
        errors = np.where(np.isnan(target), 0, outputs - target)
        losses: Float64 = (errors**2).reshape(len(top), HEADS, -1).sum(axis=(0, 1))
    return losses


def told(losses: Float64, features: tuple[str, ...]) -> str:
    """Which features are to blame: those whose loss is not finite, else the one with the largest."""
    broken = ~np.isfinite(losses)
    if broken.all() and len(features) > 1:
        return "for every feature"
    if not broken.any():
        return f"largest for feature {features[int(losses.argmax())]!r}"
    named = ", ".join(repr(feature) for feature, of in zip(features, broken, strict=True) if of)
    return f"for feature{'s' * (int(broken.sum()) > 1)} {named}"
