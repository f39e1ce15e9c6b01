"""The forecast's share of a fit: a ridge skip for each horizon, what the LSTM is to learn beside the heads, and the result."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from streamlstm.config import Config
from streamlstm.kernels.losses import Ahead
from streamlstm.kernels.ridge import add_moments, solve_ridge
from streamlstm.model.outlook import GAUSSIAN_OUTPUTS, Outlook
from streamlstm.types import Float32, Float64

_LEAST = 1e-3  # of a unit, as of the heads' one


@dataclass(frozen=True, slots=True)
class Aim:
    """What is to be learned ahead.

    targets: of each stream (n, M) float32, values 1 to N records ahead in units of `scale`, less what the skip says, NaN
    beyond the stream's end; skip (N, P, D); scale (M); bias (Q M): what the readout begins with.
    """

    ahead: Ahead
    targets: list[Float32]
    skip: Float64
    scale: Float32
    bias: Float32

    @property
    def outputs(self) -> int:
        """Columns of the readout behind those of the heads."""
        return len(self.bias)


def take_aim(regressors: list[Float32], targets: list[Float32], config: Config) -> Aim:
    """The aim of streams with raw regressors (n, P) and values (n, D), both as of the record to come; M is N D.

    At a record the values 1 ahead are its own: it is the first that the network has not seen.
    """
    wanted, P, D = config.forecast, regressors[0].shape[1], targets[0].shape[1]
    N = wanted.horizons
    skip = np.zeros((N, P, D))
    left = [np.empty((len(target), N * D), np.float32) for target in targets]
    for n in range(N):
        shifted = [_ahead(target, n) for target in targets]
        gram, cross, used = np.zeros((P, P)), np.zeros((P, D)), 0
        for of, target in zip(regressors, shifted, strict=True):
            used = add_moments(of, target, gram, cross, used)
        if used:
            solve_ridge(gram, cross, config.training.ridge, True, np.zeros((P, P)), skip[n])
        for out, of, target in zip(left, regressors, shifted, strict=True):
            out[:, n * D : (n + 1) * D] = target - (of @ skip[n]).astype(np.float32)
    scale = np.array([_rms([of[:, m] for of in left]) for m in range(N * D)], np.float32)
    for of in left:
        of /= scale
    levels = np.array(wanted.quantiles if wanted.loss == "pinball" else (), np.float32)
    outputs = len(levels) or GAUSSIAN_OUTPUTS
    # Zeros are the skip's own mean and usual error; quantiles begin as those of what it leaves over.
    bias = np.zeros((outputs, N * D), np.float32)
    if len(levels):
        for m in range(N * D):
            bias[:, m] = _quantiles(np.concatenate([of[:, m] for of in left]), levels)
    # All horizons (and quantiles) together count for as much as one head.
    ahead = Ahead(N * D, levels, 1 / max(N * max(len(levels), 1), 1))
    return Aim(ahead, left, skip, scale, bias.reshape(-1))


def _ahead(target: Float32, n: int) -> Float32:
    """The values (n rows, D) of n records later, NaN beyond the end."""
    out = np.full_like(target, np.nan)
    out[: max(len(target) - n, 0)] = target[n:]
    return out


def _rms(columns: list[Float32]) -> float:
    """Root mean square over all streams, 1 where there is no value."""
    values = np.concatenate(columns)
    values = values[~np.isnan(values)].astype(np.float64)
    return max(float(np.sqrt((values**2).mean())), _LEAST) if len(values) else 1.0


def _quantiles(values: Float32, levels: Float32) -> Any:
    values = values[~np.isnan(values)]
    return np.quantile(values, levels) if len(values) else 0.0


def outlook_of(aim: Aim, readout: Float32, H: int) -> Outlook | None:
    """The outlook of a trained readout (Hp + 1, outputs), whose last row is its bias; None where nothing was aimed at."""
    N, _, D = aim.skip.shape
    if N == 0:
        return None
    return Outlook(
        np.ascontiguousarray(readout[:H].T).reshape(-1, N, D, H),
        readout[-1].reshape(-1, N, D).copy(),
        np.ascontiguousarray(aim.skip.transpose(0, 2, 1).astype(np.float32)),
        aim.scale.reshape(N, D),
    )
