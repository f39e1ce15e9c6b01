"""The detector: one partition of streams under one configuration and one model, event by event or in batches."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamlstm.config import Config, load
from streamlstm.detect import snapshots
from streamlstm.detect.backend import on_device
from streamlstm.detect.engine import Engine
from streamlstm.detect.episodes import EpisodeLog
from streamlstm.detect.forecasts import Forecaster
from streamlstm.detect.reorder import make_reorder
from streamlstm.detect.single import SingleCall
from streamlstm.errors import UsageError
from streamlstm.kernels.arguments import Out
from streamlstm.kernels.layout import (
    BACKWARD,
    DROPPED,
    LAST_ROW,
    OUT_ATTRIBUTION,
    OUT_CAUSE,
    OUT_CHANGE,
    OUT_DETAILED,
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
    REPEATED,
)
from streamlstm.model.files import load_model
from streamlstm.model.layout import Layout, make_layout
from streamlstm.model.network import Model
from streamlstm.state.pool import StreamPool, stages
from streamlstm.state.rates import possible_rates
from streamlstm.types import NO_TIME, Episode, EventBatch, Float64, Forecast, Int32, Int64, Scored, ScoredBatch, Stage

if TYPE_CHECKING:
    from streamlstm.state.device import DeviceRows

CALL = "call"
"""Source of records that a program hands over itself; their rows are counted from 0."""
_LOOKED_THROUGH = 1024
"""Records of a batch that are looked through for streams to be forgotten, once some of it had to be scored before."""


class Detector:
    """Scores events of any number of streams and keeps their state. Not thread-safe.

    `config` is a path, a preset's name, a dict or a Config; all but a Config lie over the settings that the model was
    fitted with; None takes these as they are, else the defaults. Without a model it learns online from the first event,
    and `features` may be left out: the first values then say how many there are.
    """

    def __init__(
        self,
        config: str | Path | Mapping[str, Any] | Config | None = None,
        *,
        model: Model | None = None,
        features: Sequence[str] = (),
        exogenous: Sequence[str] = (),
    ) -> None:
        if config is None and model is not None:
            config = model.config
        base = model.settings if model is not None and not isinstance(config, Config) else {}
        self.config = load(dict(config) if isinstance(config, Mapping) else config, base=base)
        self.model = model
        mode = self.config.learning.mode
        self.online = mode == "online" or (mode == "auto" and model is None)
        if model is None and not self.online:
            raise UsageError("learning.mode: frozen needs a model file; give --model, or set learning.mode: online")
        if self.online and self.config.model.state == "float16":
            raise UsageError("model.state: float16 needs frozen weights; fit a model, or leave model.state out")
        if self.online and self.config.model.weights == "per_stream" and self.config.runtime.max_streams is not None:
            raise UsageError(
                "model.weights: per_stream keeps what each stream learns in memory; leave runtime.max_streams out, or "
                "bound the streams that are known with learning.max_known_streams"
            )
        self._on_device, self.backend_note = on_device(self.config, online=self.online)
        self.class_changes: list[str] = []
        """Where restored rows went on under another arithmetic class, whose bits are others."""
        self.threads = 1  # that score a batch; no bit depends on it
        self.rows_of_calls = 0
        self.restored_to = -1  # a restored stream may have absorbed rows up to this one: those are skipped
        self.reorder = make_reorder(self.config)  # the records that wait, None where none do
        self._single: SingleCall | None = None
        self._forecaster: Forecaster | None = None
        self.features: tuple[str, ...] = ()
        self.exogenous: tuple[str, ...] = ()
        named = tuple(features) or (model.features if model else self.config.input.features)
        if named:
            self._set_up(named, tuple(exogenous) or (model.exogenous if model else self.config.input.exogenous))

    @classmethod
    def load(cls, path: str | Path, config: str | Path | Mapping[str, Any] | Config | None = None) -> Self:
        """A detector of a model file; raises ModelError where it is missing or damaged."""
        return cls(config, model=load_model(path))

    def _set_up(self, features: tuple[str, ...], exogenous: tuple[str, ...]) -> None:
        model = self.model
        if model is not None:
            model.check_columns(features, exogenous)
            model.check_architecture(self.config)
        self.features, self.exogenous = features, exogenous
        self.layout: Layout = make_layout(self.config, features, len(exogenous), online=self.online)
        # A threshold that was learned on other scores, or asks for another rate, is learned anew.
        keep = model is not None and all(
            getattr(model.config, part) == getattr(self.config, part) for part in ("threshold", "score")
        )
        self.engine, device = self._engine()
        self.pool = StreamPool(
            self.layout, model.starts if model else None, keep_thresholds=keep, limit=self.config.runtime.max_streams,
            most_known=self.config.learning.max_known_streams, device=device,
        )  # fmt: skip
        self.log = EpisodeLog(features)
        self._slots: dict[str, int] = {}
        self._width = len(features) + len(exogenous)

    def _engine(self) -> tuple[Engine, "DeviceRows | None"]:
        if not self._on_device:
            return Engine(self.config, self.layout, self.model), None
        from streamlstm.detect.device import DeviceEngine, device_rows  # needs the extra `cuda`

        assert self.model is not None, "a GPU scores with frozen weights"
        return DeviceEngine(self.config, self.layout, self.model), device_rows(self.layout)

    # ---- scoring

    def process(self, key: str, time: int, values: Sequence[float]) -> Scored:
        """Scores one event and absorbs it: time in ns since 1970 UTC (or NO_TIME), values of features, then exogenous.

        UsageError with `time.late: reorder`, under which an event waits and has no answer of its own yet.
        """
        single = self._prepared(values)
        single.take(values)
        slot = self._slots.get(key)
        if slot is None:
            keys = pa.array([key], pa.string())
            self.pool.take(keys)
            slot = int(self.pool.slots(self.pool.streams(keys))[0])
            if self.pool.limit is None and self.pool.recency is None:  # else rows move, or change their streams
                self._slots[key] = slot
        row = self.rows_of_calls
        self.rows_of_calls = row + 1
        scored = single(self.pool.rows, slot, key, time, row, self.log.number_of(CALL), learn=True)
        if scored.change:
            streams = np.array([self.pool.keys.find(key)], np.int32)
            self.log.note(single.outputs, streams, np.array([scored.change]), self.pool.keys)
        return scored

    def peek(self, key: str, time: int, values: Sequence[float]) -> Scored:
        """What `process` would return, without changing anything."""
        self._prepared(values)
        look = SingleCall(self.engine, self.features, self._width)
        look.take(values)
        return look(self.pool.copy_of(key), 0, key, time, self.rows_of_calls, 0, learn=False)

    def process_batch(
        self, keys: Sequence[str] | pa.Array, times: npt.ArrayLike | None, values: npt.ArrayLike
    ) -> ScoredBatch:
        """Scores B events in their order: keys (B), times (B) int64 ns or None, values (B, I) or, for one input, (B).

        With `time.late: reorder` the answer is of the events that are released by these, as `process_events` says; `row`
        counts the events of all calls.
        """
        x = np.array(values, np.float64, ndmin=2, order="C")
        if np.ndim(values) == 1:
            x = x.T.copy()
        column = keys if isinstance(keys, pa.DictionaryArray) else pa.array(keys, pa.string()).dictionary_encode()
        B = len(column)
        time = np.full(B, NO_TIME) if times is None else np.array(times, np.int64)
        if time.shape != (B,) or x.shape[:1] != (B,):
            raise UsageError(
                f"process_batch: {B} keys, times of shape {time.shape}, values of shape {x.shape}; B rows each"
            )
        first = self.rows_of_calls
        self.rows_of_calls = first + B
        return self.process_events(EventBatch(column, time, x, np.arange(first, first + B), CALL), detail=True)

    def process_events(self, batch: EventBatch, *, detail: bool = False) -> ScoredBatch:
        """Scores the records of a source; `detail` asks for expected values of all records, else of flags alone.

        Records that a restored stream has absorbed already (see `detect.chunks`) are left out of the answer. With
        `time.late: reorder` it is of those that wait no longer: some of them, in another order, and some of earlier calls.
        """
        if self.reorder is None:
            return self.score_events(batch, detail=detail)
        self._check(batch)
        return self._joined(self.reorder.release(batch), detail=detail)

    def flush(self) -> ScoredBatch:
        """Scores the records that still wait for older ones (`time.late: reorder`), stream after stream: the input ends.

        Empty where none do.
        """
        if not self.features:
            raise UsageError("flush: the detector has seen no record yet; there is nothing to score")
        keys, none = pa.array([], pa.string()).dictionary_encode(), np.zeros(0, np.int64)
        waiting = self.reorder.release_all() if self.reorder is not None else []
        return self._joined(waiting or [EventBatch(keys, none, np.zeros((0, self._width)), none, CALL)], detail=True)

    def score_events(self, batch: EventBatch, *, detail: bool = False) -> ScoredBatch:
        """Like `process_events`, of records that are in the order in which they are to be scored (see `detect.reorder`)."""
        self._check(batch)
        limit = self.pool.limit
        if limit is not None and len(batch) > limit:  # as many records name no more streams
            parts = [batch.part(at, min(at + limit, len(batch))) for at in range(0, len(batch), limit)]
            return ScoredBatch.joined([self.score_events(part, detail=detail) for part in parts])
        taken = self.pool.take(batch.keys)
        if taken == len(batch):
            return self._score(batch, detail=detail)
        done = [self._score(batch.part(0, taken), detail=detail)]
        while taken < len(batch):
            rest = batch.part(taken, min(taken + _LOOKED_THROUGH, len(batch)))
            some = self.pool.take(rest.keys)
            done.append(self._score(rest.part(0, some), detail=detail))
            taken += some
        return ScoredBatch.joined(done)

    def _check(self, batch: EventBatch) -> None:
        if not self.features:
            self._set_up(tuple(f"value_{d}" for d in range(batch.x.shape[1])), ())
        if batch.x.ndim != 2 or batch.x.shape[1] != self._width:
            raise UsageError(self._wanted(batch.x.shape[1]))

    def _joined(self, batches: Sequence[EventBatch], *, detail: bool) -> ScoredBatch:
        return ScoredBatch.joined([self.score_events(batch, detail=detail) for batch in batches])

    def _score(self, batch: EventBatch, *, detail: bool) -> ScoredBatch:
        x, streams = batch.x, self.pool.streams(batch.keys)
        slots = self.pool.slots(streams)
        if len(batch) and batch.row[0] <= self.restored_to:
            new = np.flatnonzero(batch.row > self.pool.marks(slots)[:, LAST_ROW])
            batch, streams, slots = batch.take(new), streams[new], slots[new]
            x = batch.x
        # Another layout would be another type to the compiler, and half a minute of compiling in mid-stream.
        x = np.require(_finite(x), np.float64, ["C", "W"])
        time, row = (np.require(column, np.int64, ["C", "W"]) for column in (batch.time, batch.row))
        out = self._call(streams, slots, time, x, row, batch.source, detail=detail)
        codes = out.codes
        return ScoredBatch(
            self.features, batch.keys, batch.time, batch.row, x[:, : len(self.features)],
            out.values[OUT_SCORE], out.values[OUT_THRESHOLD], out.values[OUT_SEVERITY],
            codes[OUT_FLAG].astype(np.bool_), codes[OUT_STAGE].astype(np.uint8), codes[OUT_CHANGE].astype(np.uint8),
            codes[OUT_IMPUTED], out.details[OUT_EXPECTED], out.details[OUT_LOW], out.details[OUT_HIGH],
            out.details[OUT_ATTRIBUTION], codes[OUT_DETAILED].astype(np.bool_), out.values[OUT_PART:].T, codes[OUT_CAUSE],
        )  # fmt: skip

    def _call(
        self, streams: Int32, slots: Int32, time: Int64, x: Float64, row: Int64, source: str, *, detail: bool
    ) -> Out:
        number = self.log.number_of(source)
        out = self.engine.score(self.pool.rows, slots, time, x, row, number, detail=detail, threads=self.threads)
        change = out.codes[OUT_CHANGE]
        if change.any():
            self.log.note(out, streams, change, self.pool.keys)
        return out

    def _prepared(self, values: Sequence[float]) -> SingleCall:
        if not self.features:
            self._set_up(tuple(f"value_{d}" for d in range(len(values))), ())
        if len(values) != self._width:
            raise UsageError(self._wanted(len(values)))
        if self.reorder is not None:
            raise UsageError(
                "process: an event that waits for older ones (time.late: reorder) has no answer of its own yet; "
                "use process_batch and, at the end, flush, or another time.late"
            )
        if self._single is None:
            self._single = SingleCall(self.engine, self.features, self._width)
        return self._single

    def _wanted(self, given: int) -> str:
        columns = ", ".join((*self.features, *self.exogenous))
        return f"values: got {given} columns, this detector reads {self._width}: {columns}"

    def forecast(self, key: str, exogenous: Sequence[float] = ()) -> Forecast:
        """What is expected of the stream's next records, without changing anything; the model's `forecast` says how many.

        `exogenous`: those columns at the next record, where they are known already; else they count as missing, which is
        their mean. UsageError for a stream that is not known or still learning, without such a model, and where weights
        learn online.
        """
        if not self.features or self.pool.keys.find(key) < 0:
            raise UsageError(f"forecast: stream {key!r} has had no record; score its records first")
        if self._forecaster is None:
            self._forecaster = Forecaster(self.model, self.engine, self.features)
        return self._forecaster(key, self.pool.copy_of(key), exogenous)

    # ---- what the streams say of themselves

    def keys(self) -> list[str]:
        """Keys of all streams seen, in the order of their first records."""
        keys: list[str] = self.pool.keys.strings().to_pylist() if self.features else []
        return keys

    def closed_episodes(self) -> list[Episode]:
        """Episodes that closed since the last call."""
        return self.log.take_closed()

    def open_episodes(self) -> list[Episode]:
        """Episodes that are open now."""
        return self.log.open_in(self.pool) if self.features else []

    def stages(self) -> dict[str, int]:
        """Number of streams in each stage: learning, calibrating, live."""
        if not self.features:
            return {stage.name.lower(): 0 for stage in Stage}
        totals = np.zeros(len(Stage), np.int64)
        for _, rows in self.pool.scan():
            totals += np.bincount(stages(rows, self.layout), minlength=len(Stage))
        return {stage.name.lower(): int(totals[stage]) for stage in Stage}

    def time_faults(self) -> tuple[int, int, int]:
        """Records whose time lay before the latest of their stream, records that repeated it, and how many were dropped."""
        if not self.features:
            return 0, 0, 0
        counts = [rows.marks[:, [BACKWARD, REPEATED, DROPPED]].sum(axis=0) for _, rows in self.pool.scan()]
        backward, repeated, dropped = np.sum(counts, axis=0) if counts else (0, 0, 0)
        return int(backward), int(repeated), int(dropped)

    def possible_rates(self) -> Float64:
        """Alarms per day that those live streams can keep whose data cannot support the wished rate."""
        if not self.features:
            return np.zeros(0)
        return np.concatenate([np.zeros(0), *(possible_rates(rows, self.layout) for _, rows in self.pool.scan())])

    # ---- snapshots

    def go_on_from(self, arithmetic: str, changes: Sequence[str], place: str) -> None:
        """Takes the `class_changes` of restored state, and one more where it comes from another class than this one's."""
        now = self.engine.arithmetic
        self.class_changes = [*changes, *([f"{arithmetic} -> {now} at {place}"] if arithmetic != now else [])]

    def snapshot(self, path: str | Path) -> None:
        """Writes everything that the next record depends on to one file; raises OutputError where it cannot."""
        snapshots.save(self, path)

    @classmethod
    def restore(
        cls, path: str | Path, *, backend: Literal["cpu", "cuda", "auto"] | None = None,
        on_class_change: Literal["accept", "fail"] = "fail",
    ) -> Self:  # fmt: skip
        """The detector of a snapshot: what it goes on to say equals what the one that wrote it would have said.

        `backend` stands for the `runtime.backend` that wrote it. On a processor of another arithmetic class only with
        `on_class_change="accept"`: scores then agree to rounding alone, and `class_changes` says where that began.
        """
        return snapshots.load(cls, path, backend, on_class_change)


def _finite(x: Float64) -> Float64:
    """x with infinities as NaN: an infinity means missing."""
    infinite = np.isinf(x)
    if infinite.any():
        x = x.copy()
        x[infinite] = np.nan
    return x
