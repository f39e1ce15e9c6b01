"""What any detector must beat: random scores, the last value, and a ridge regression on a few lags, in plain numpy.

| letter | size |
|---|---|
| T, U | rows of train and of test |
| D, I | predicted features, all columns |
"""

from collections.abc import Iterator

import numpy as np

from bench.quality_data import Stream
from streamlstm.types import Float64

_LAGS, _LAGS_OF_ONE = 3, 20  # of each feature, and where there is only one
_SPANS = (30, 105)
_PENALTY = 1.0


def floors(stream: Stream, seed: int) -> Iterator[tuple[str, Float64]]:
    """The name of each floor and its score of the test rows (U)."""
    yield "random", np.random.default_rng(seed).random(len(stream.test))
    T, D = len(stream.train), stream.features
    both = np.concatenate([stream.train, stream.test])
    spread = stream.train.std(axis=0)
    z = (both - stream.train.mean(axis=0)) / np.where(spread < 1e-6, 1, spread)
    yield "last value", np.abs(z[T:, :D] - _delayed(z[T:, :D], 1)).mean(axis=1)
    error = np.abs(_ridge_error(z, T, D, _LAGS_OF_ONE if D == 1 else _LAGS))
    rms = np.maximum(np.sqrt((error[:T] ** 2).mean(axis=0)), 1e-3)
    for name, rows in (("z", error.mean(axis=1)[T:]), ("train rms", (error / rms).mean(axis=1)[T:])):
        for span in _SPANS:
            yield f"ridge, by {name}, EWMA {span}", ewma(rows, span)


def _ridge_error(z: Float64, T: int, D: int, lags: int) -> Float64:
    """z (T + U, D) less its ridge prediction from earlier rows and known inputs, fitted on the first T rows.

    Test begins anew: its first row rarely follows train's last, and so large an error there would be smoothed over the
    rows behind it (MSL, EWMA 105: .467 instead of .522).
    """
    Y = z[:, :D]
    lagged = [np.concatenate([_delayed(Y[:T], n), _delayed(Y[T:], n)]) for n in range(1, lags + 1)]
    A = np.hstack([*lagged, z[:, D:]])
    a, y = A[:T].mean(axis=0), Y[:T].mean(axis=0)
    centred = A[:T] - a
    weights = np.linalg.solve(centred.T @ centred + _PENALTY * np.eye(A.shape[1]), centred.T @ (Y[:T] - y))
    error: Float64 = Y - y - (A - a) @ weights
    return error


def _delayed(x: Float64, n: int) -> Float64:
    """x (U, D) n rows late, its first row repeated."""
    return np.concatenate([np.repeat(x[:1], n, axis=0), x])[: len(x)]


def ewma(x: Float64, span: float) -> Float64:
    """Exponential mean of x (U): y += 2 / (span + 1) (x - y), the first value as start."""
    gain, y, out = 2 / (span + 1), float(x[0]), np.empty(len(x))
    for t, value in enumerate(x.tolist()):
        y += gain * (value - y)
        out[t] = y
    return out
