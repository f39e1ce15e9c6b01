"""One event at a time: the compiled call on arrays that are made once, since making them takes longer than the call."""

from collections.abc import Sequence
from math import isfinite, nan
from typing import Any

import numpy as np

from streamlstm.detect.engine import Engine
from streamlstm.errors import UsageError
from streamlstm.kernels.arguments import Out
from streamlstm.kernels.layout import (
    OUT_ATTRIBUTION,
    OUT_CAUSE,
    OUT_CHANGE,
    OUT_EXPECTED,
    OUT_FLAG,
    OUT_HIGH,
    OUT_IMPUTED,
    OUT_LOW,
    OUT_PART,
    OUT_SCORE,
    OUT_SEVERITY,
    OUT_STAGE,
    OUT_THRESHOLD,
)
from streamlstm.types import Change, Float32, Scored, Stage, cause_text

_STAGES, _CHANGES = tuple(Stage), tuple(Change)


class SingleCall:
    """Scores one event; `outputs` and `slots` are what the last call wrote and read."""

    def __init__(self, engine: Engine, features: tuple[str, ...], num_inputs: int) -> None:
        self.slots = np.zeros(1, np.int32)
        self.outputs: Out = engine.outputs(1)
        self._engine = engine
        self._features = features
        self._time, self._row = np.zeros(1, np.int64), np.zeros(1, np.int64)
        self._x = np.zeros((1, num_inputs))
        self._first = self._x[0]
        self._values, self._codes = self.outputs.values[:, 0], self.outputs.codes[:, 0]
        self._details = self.outputs.details[:, 0]
        self._rows: Any = None
        self._weights: Float32 | None = None
        self._arguments: tuple[Any, ...] = ()

    def take(self, values: Sequence[float | None]) -> None:
        """Reads the values of the event to come; None and infinities count as missing. UsageError for what is no number."""
        try:
            self._first[:] = values
        except (TypeError, ValueError) as error:
            raise UsageError(f"values: {list(values)!r}: {error}; give numbers, NaN where one is missing") from error
        total = sum(self._first.tolist())
        if not isfinite(total):
            self._first[np.isinf(self._first)] = nan

    def __call__(self, rows: Any, slot: int, key: str, time: int, row: int, source: int, *, learn: bool) -> Scored:
        """Scores the event whose values were taken last and changes the row of stream `slot` in `rows`."""
        self.slots[0], self._time[0], self._row[0] = slot, time, row
        engine = self._engine
        if learn and slot >= engine.room:
            engine.reserve(slot + 1)
        if rows is not self._rows or engine.weights is not self._weights:  # these have grown, or the row is a copy
            self._rows = rows
            self._arguments = engine.arguments(
                rows, self.slots, self._time, self._x, self._row, self.outputs, detail=True, learn=learn
            )
            self._weights = engine.weights
        engine.call(self._arguments, source, learn=learn)
        score, codes, details = self._values.tolist(), self._codes.tolist(), self._details.tolist()
        return Scored(
            key,
            time,
            score[OUT_SCORE],
            score[OUT_THRESHOLD],
            score[OUT_SEVERITY],
            codes[OUT_FLAG] == 1,
            _STAGES[codes[OUT_STAGE]],
            _CHANGES[codes[OUT_CHANGE]],
            codes[OUT_IMPUTED],
            tuple(self._first.tolist()[: len(self._features)]),
            tuple(details[OUT_EXPECTED]),
            tuple(details[OUT_LOW]),
            tuple(details[OUT_HIGH]),
            tuple(details[OUT_ATTRIBUTION]),
            tuple(score[OUT_PART:]),
            cause_text(codes[OUT_CAUSE], self._features) if codes[OUT_FLAG] else "",
        )
