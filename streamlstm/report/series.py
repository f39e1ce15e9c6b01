"""Keeps what a report draws while batches pass by: counts of every stream, decimated series of the worst."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamlstm.report.decimate import BoundedSeries, Buckets
from streamlstm.types import NO_TIME, Int64, ScoredBatch, Stage

MAX_FEATURES = 6
"""Features of a stream that a report draws."""

_MAX_BUCKETS = 8192  # per stream: several per pixel, and few enough to draw at once
_MIN_BUCKETS = 128  # below this a series shows nothing, so fewer streams are kept instead
_MAX_VALUES = 16_000_000  # float64 in memory: bounds the buckets of inputs with hundreds of features


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """What is known of one stream; times are ns since 1970 UTC or `NO_TIME`, `peak` is NaN if it was never live."""

    key: str
    records: int
    flags: int
    peak: float
    stage: Stage
    begin: int
    end: int
    timed: bool
    series: BoundedSeries | None


class SeriesCollector:
    """Bounded memory of all that was scored. `max_points` counts buckets times panels (features drawn, and the score).

    A stream's share shrinks as streams are added; when it would fall below 128 buckets, only the worst streams so far
    keep a series. One that becomes bad later has its series from then on.
    """

    def __init__(self, features: tuple[str, ...], max_points: int = 100_000) -> None:
        self.features = features
        panels = 1 + min(len(features), MAX_FEATURES)
        self._buckets = max(min(max_points // panels, _MAX_VALUES // (5 * max(len(features), 1))), _MIN_BUCKETS)
        self._ids: dict[str, int] = {}
        self._kept: dict[int, BoundedSeries] = {}
        self._records = np.zeros(0, np.int64)
        self._flags = np.zeros(0, np.int64)
        self._peak = np.zeros(0, np.float64)  # -1 before live
        self._stage = np.zeros(0, np.uint8)
        self._begin = np.zeros(0, np.int64)
        self._end = np.zeros(0, np.int64)
        self._timed = np.zeros(0, bool)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def records(self) -> int:
        """Records of all streams."""
        return int(self._records.sum())

    @property
    def flags(self) -> int:
        """Flagged records of all streams."""
        return int(self._flags.sum())

    def add(self, batch: ScoredBatch) -> None:
        """Takes the next records."""
        if not len(batch):
            return
        used, codes = np.unique(batch.keys.indices.to_numpy(zero_copy_only=False), return_inverse=True)
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(len(used)))
        ids = self._streams(batch.keys.dictionary.take(used).to_pylist())
        before = self._records[ids]
        self._count(ids, order, starts, batch)
        self._choose(ids)
        capacity = min(self._buckets // max(len(self._kept), 1), _MAX_BUCKETS)
        for series in self._kept.values():
            series.shrink(capacity)
        ends = np.append(starts[1:], len(order))
        for i, stream in enumerate(ids.tolist()):
            kept = self._kept.get(stream)
            if kept is not None:
                if not kept.records:
                    kept.first = int(before[i])
                rows = order[starts[i] : ends[i]]
                kept.add(_records(batch, rows), capacity)
                flagged = rows[batch.flag[rows] & batch.detailed[rows]]
                kept.attribution += np.nan_to_num(batch.attribution[flagged]).sum(axis=0, dtype=np.float64)

    def streams(self) -> list[StreamSummary]:
        """All streams, worst first: by peak severity, then flags, then the order in which they appeared."""
        keys = list(self._ids)
        return [
            StreamSummary(
                key=keys[i],
                records=int(self._records[i]),
                flags=int(self._flags[i]),
                peak=float(self._peak[i]) if self._peak[i] >= 0 else float("nan"),
                stage=Stage(int(self._stage[i])),
                begin=int(self._begin[i]) if self._end[i] != NO_TIME else NO_TIME,
                end=int(self._end[i]),
                timed=bool(self._timed[i]),
                series=self._kept.get(i),
            )
            for i in self._worst_first(np.arange(len(keys))).tolist()
        ]

    def _streams(self, keys: list[str]) -> npt.NDArray[np.int64]:
        ids = np.array([self._ids.setdefault(key, len(self._ids)) for key in keys], np.int64)
        if (more := len(self._ids) - len(self._records)) > 0:
            more += len(self._records) // 2  # grow by half, so that many new streams cost no copy each
            self._records = np.append(self._records, np.zeros(more, np.int64))
            self._flags = np.append(self._flags, np.zeros(more, np.int64))
            self._peak = np.append(self._peak, np.full(more, -1.0))
            self._stage = np.append(self._stage, np.zeros(more, np.uint8))
            self._begin = np.append(self._begin, np.full(more, np.iinfo(np.int64).max))
            self._end = np.append(self._end, np.full(more, NO_TIME))
            self._timed = np.append(self._timed, np.ones(more, bool))
        return ids

    def _count(self, ids: Int64, order: npt.NDArray[np.intp], starts: npt.NDArray[np.intp], batch: ScoredBatch) -> None:
        """Adds to the counts of the streams `ids`, whose rows are the runs of `order` that begin at `starts`."""
        self._records[ids] += np.diff(starts, append=len(order))
        self._flags[ids] += np.add.reduceat(batch.flag[order].astype(np.int64), starts)
        peak = np.fmax.reduceat(batch.severity[order].astype(np.float64), starts)
        self._peak[ids] = np.fmax(self._peak[ids], peak)
        self._stage[ids] = batch.stage[order][np.append(starts[1:], len(order)) - 1]
        time = batch.time[order]
        known = time != NO_TIME
        first = np.minimum.reduceat(np.where(known, time, np.iinfo(np.int64).max), starts)
        self._begin[ids] = np.minimum(self._begin[ids], first)
        self._end[ids] = np.maximum(self._end[ids], np.maximum.reduceat(time, starts))
        self._timed[ids] &= np.logical_and.reduceat(known, starts)

    def _choose(self, ids: Int64) -> None:
        """Decides which streams keep a series; only streams of this batch can have become worse."""
        candidates = np.union1d(np.fromiter(self._kept, np.int64, len(self._kept)), ids)
        limit = self._buckets // _MIN_BUCKETS
        chosen = self._worst_first(candidates)[:limit].tolist()
        features = len(self.features)
        self._kept = {i: self._kept.get(i) or BoundedSeries(0, features) for i in sorted(chosen)}

    def _worst_first(self, ids: Int64) -> Int64:
        return ids[np.lexsort((ids, -self._flags[ids], -self._peak[ids]))]


def _records(batch: ScoredBatch, rows: npt.NDArray[np.intp]) -> Buckets:
    """Those rows of a batch, each as a bucket of its own; without detail there is nothing expected."""
    value = batch.value[rows]
    hidden = ~batch.detailed[rows, None]
    return Buckets(
        time=batch.time[rows],
        records=np.ones(len(rows), np.int64),
        lowest=value,
        highest=value,
        expected=np.where(hidden, np.nan, batch.expected[rows]),
        low=np.where(hidden, np.nan, batch.low[rows]),
        high=np.where(hidden, np.nan, batch.high[rows]),
        score=batch.score[rows],
        threshold=batch.threshold[rows],
        severity=batch.severity[rows],
        flags=batch.flag[rows].astype(np.int64),
    )
