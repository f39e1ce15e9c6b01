"""Forecasts on demand: a copy of a stream's row is stepped on and read out; nothing that scores knows of it."""

from collections.abc import Sequence

import numpy as np

from streamlstm.detect.engine import Engine
from streamlstm.errors import UsageError
from streamlstm.kernels.arguments import Pool
from streamlstm.kernels.compiling import padded
from streamlstm.kernels.forecast import forecast_row
from streamlstm.kernels.layout import BEGUN, DECAY_NS, FIRST_TIME, LAST_TIME, LEARNING_ROWS, READY, RESET_NS, SEEN
from streamlstm.model.network import Model
from streamlstm.types import NO_TIME, Float32, Forecast, Int64


class LearningError(UsageError):
    """A stream whose mean and spread are not known yet: nothing can be said in the unit of the input."""


class Forecaster:
    """Reads forecasts out of rows; made at the first one that is asked for. UsageError where the model makes none."""

    def __init__(self, model: Model | None, engine: Engine, features: tuple[str, ...]) -> None:
        engine.connect()
        if engine.learner is not None:
            raise UsageError(
                "forecast: the weights learn online and have moved away from the readout that `fit` made; "
                "give a model that was fitted with forecast.horizons, and learning.mode: frozen"
            )
        if model is None or model.outlook is None:
            raise UsageError(
                "forecast: the model makes none; fit one with the number of records ahead, "
                "as in --set forecast.horizons=12"
            )
        outlook, wanted, layout = model.outlook, model.config.forecast, engine.layout
        self._engine, self._features = engine, features
        self._levels = wanted.quantiles if wanted.loss == "pinball" else ()
        self._shape = outlook.bias.shape
        M = outlook.scale.size
        outputs = outlook.bias.size
        weight = outlook.weight.reshape(outputs, -1)
        self._readout = _columns(np.concatenate([outlook.bias.reshape(outputs, 1), weight], axis=1))
        self._skip = _columns(outlook.skip.reshape(M, -1))
        self._unit = outlook.scale.reshape(-1)
        self._scratch = np.zeros(layout.scratch_size + padded(outputs) + padded(M), np.float32)
        self._params = layout.params.copy()
        self._params[[RESET_NS, DECAY_NS]] = np.inf  # the next record is expected before any gap

    def __call__(self, key: str, rows: Pool, exogenous: Sequence[float]) -> Forecast:
        """The forecast of a copy of the row of stream `key`, which is changed; values of exogenous columns at the next
        record, of which those that are left out count as missing."""
        mark, stat = rows.marks[0], rows.stats[0]
        D, K = len(self._features), self._engine.layout.num_known
        if not mark[READY] or not mark[BEGUN]:
            raise LearningError(
                f"forecast: stream {key!r} is still learning its mean and spread; "
                f"ask when it has more than learning.learning_rows ({self._params[LEARNING_ROWS]:g}) records"
            )
        if len(exogenous) not in (0, K):
            raise UsageError(f"forecast: got {len(exogenous)} exogenous values, the model reads {K}; give all or none")
        x = np.full((1, D + K), np.nan)
        x[0, D : D + len(exogenous)] = exogenous
        x[np.isinf(x)] = np.nan
        out = np.zeros(self._shape, np.float32)
        engine, zero = self._engine, np.zeros(1, np.int64)
        forecast_row(
            engine.sizes, self._params, engine.weights, engine.usual, *rows, np.zeros(1, np.int32), next_time(mark), x, zero,
            self._scratch, self._readout, self._skip, self._unit, not self._levels, out.reshape(-1),
        )  # fmt: skip
        mean, spread = stat[:D], stat[2 * (D + K) : 2 * (D + K) + D]
        if self._levels:
            return Forecast(self._features, quantiles=np.sort(mean + spread * out, axis=0), levels=self._levels)
        return Forecast(self._features, mean + spread * out[0], spread * out[1])


def next_time(mark: Int64) -> Int64:
    """When the stream's next record is due, (1) int64 ns: after its mean interval so far; `NO_TIME` without times."""
    first, last = mark[FIRST_TIME], mark[LAST_TIME]
    interval = (last - first) // max(mark[SEEN] - 1, 1) if last != NO_TIME else 0
    return np.array([last + interval])


def _columns(rows: Float32) -> Float32:
    """A matrix (M, n) as kernels read it: transposed, flat, columns rounded up to whole vectors."""
    out = np.zeros((rows.shape[1], padded(len(rows))), np.float32)
    out[:, : len(rows)] = rows.T
    return out.reshape(-1)
