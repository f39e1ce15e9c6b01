"""Forecasts of files: all records are scored, then each stream says what it expects of the next ones."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.detect.forecasts import LearningError
from streamlstm.detect.reorder import reordered
from streamlstm.errors import InputError, UsageError
from streamlstm.service.opening import check_outputs, config_path, make_detector, open_source, resolve
from streamlstm.service.replay import Hooks
from streamlstm.sinks import DeadLetterFile, Sink, open_sink
from streamlstm.sinks.schemas import forecasts_schema
from streamlstm.sinks.tables import forecast_table
from streamlstm.sources.addresses import is_topic
from streamlstm.state.keys import KeyTable
from streamlstm.types import EventBatch, Float64


def forecast_files(
    inputs: Sequence[str],
    output: str,
    *,
    config: str | Path | Config | None = None,
    model: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    dead_letters: str = "dead-letters.jsonl",
    hooks: Hooks | None = None,
) -> int:
    """Writes the forecast of every stream after its last record to `output`, by suffix; returns how many streams have one.

    Exogenous columns are taken to stay as the stream's last record has them. Streams that are still learning are noted.
    """
    hooks = hooks or Hooks()
    if any(is_topic(address) for address in inputs):
        raise UsageError("forecast: reads files, since a key in two partitions is two streams; export the topic first")
    settings, found = resolve(config, model, overrides or {})
    if found is None or found.outlook is None:
        raise UsageError(
            "forecast: needs a model that makes forecasts; fit one with the number of records ahead, "
            "as in `streamlstm fit INPUT --model M --set forecast.horizons=12`"
        )
    wanted = found.config.forecast
    levels = wanted.quantiles if wanted.loss == "pinball" else ()
    letters = DeadLetterFile(dead_letters)
    try:
        source = open_source(inputs, settings, found, label=None, on_dead_letter=letters, on_note=hooks.on_note)
        check_outputs([output, dead_letters], [*source.paths, model, config_path(config)])
        columns = source.columns
        detector = make_detector(settings, found, columns.features, columns.exogenous)
        known = _Known(len(columns.features), len(columns.exogenous))
        records = 0
        with closing(open_sink(output, forecasts_schema(levels))) as sink:
            for batch in reordered(source, settings):
                detector.score_events(batch)
                known.take(batch)
                records += len(batch)
                hooks.on_progress(records, *source.progress())
            if records == 0:
                raise InputError(f"{', '.join(inputs)}: no record could be read; the reasons are in {dead_letters}")
            return _write(detector, known, sink, hooks)
    finally:
        letters.close()


class _Known:
    """The latest values of K exogenous columns, which stand behind D features, of every stream (S, K)."""

    def __init__(self, D: int, K: int) -> None:
        self._keys, self._features = KeyTable(), D
        self._values: Float64 = np.zeros((0, K))

    def take(self, batch: EventBatch) -> None:
        """Notes those of a batch."""
        slots = self._keys.slots_of(batch.keys)
        if self._keys.count > len(self._values):
            grown = np.full((2 * self._keys.count, self._values.shape[1]), np.nan)
            grown[: len(self._values)] = self._values
            self._values = grown
        self._values[slots] = batch.x[:, self._features :]  # of several records of a stream the last one stays

    def of(self, key: str) -> list[float]:
        """Those of one stream."""
        values: list[float] = self._values[self._keys.find(key)].tolist()
        return values


def _write(detector: Detector, known: _Known, sink: Sink, hooks: Hooks) -> int:
    """Writes the forecasts of all streams and returns how many have one."""
    written = learning = 0
    for key in detector.keys():  # noqa: SIM118 - not a mapping
        try:
            forecast = detector.forecast(key, known.of(key))
        except LearningError:
            learning += 1
            continue
        sink.write(forecast_table(key, forecast))
        written += 1
    if learning:
        hooks.on_note(f"streams that are still learning and have no forecast: {learning:,}")
    return written
