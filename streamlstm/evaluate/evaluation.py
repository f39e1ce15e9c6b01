"""Collects what a detector said, in its order, and judges it against labels at the end."""

import numpy as np
import numpy.typing as npt

from streamlstm.config.schema import Threshold
from streamlstm.errors import InputError, UsageError
from streamlstm.evaluate import metrics
from streamlstm.evaluate.labels import Windows
from streamlstm.evaluate.result import Placed, Quality, Result, total
from streamlstm.kernels.absorb import ROWS_PER_DAY
from streamlstm.kernels.layout import KINDS, WITHOUT_RATE
from streamlstm.types import NO_TIME, Episode, Float32, Int64, ScoredBatch, Stage, UInt8

_NS_PER_DAY = 86_400 * 10**9
_EPISODES_AT_ONCE = 4096  # bounds the matrix of episodes against sequences

Bools = npt.NDArray[np.bool_]


def promised_rate(threshold: Threshold) -> float | None:
    """False alarms per stream and day that a threshold promises, a fleet's shared out; None where it promises none."""
    if KINDS[threshold.kind] in WITHOUT_RATE:
        return None
    streams = threshold.expected_streams if threshold.scope == "fleet" else None
    return threshold.false_alarms_per_day / (streams or 1)


class Evaluation:
    """Quality of flags and scores per stream. About 22 bytes are kept per record until `result`.

    windows   labelled windows; None if `add` is given labels record by record
    start     records before it do not count: an int is a time (ns since 1970 UTC), a float the fraction 0 to 1 of each
              stream's records; None counts all
    promised  false alarms per stream and day, see `promised_rate`; only reported beside what was kept

    Only live records count, so neither a flag nor an episode that opened before its stream was live or before `start`
    is counted, right or wrong. A labelled sequence without any live record is `not_live`, not missed.
    """

    def __init__(
        self, windows: Windows | None, start: int | float | None = None, promised: float | None = None
    ) -> None:
        if isinstance(start, float) and not 0 <= start < 1:
            raise UsageError(f"start: a fraction must be from 0 to below 1, got {start}; give 0.5 for the second half")
        self._windows = windows
        self._start = start
        self._promised = promised
        self._ids: dict[str, int] = {}
        self._columns: list[tuple[npt.NDArray[np.int32], Int64, Float32, Bools, Bools, UInt8]] = []
        self._episodes: dict[str, dict[str, Episode]] = {}

    def add(self, batch: ScoredBatch, label: UInt8 | None = None) -> None:
        """Takes the next B records and, without windows, their labels, uint8 (B)."""
        if self._windows is None and label is None:
            raise UsageError("labels: the records carry none; name a 0/1 column of the input or a file of windows")
        used, inverse = np.unique(batch.keys.indices.to_numpy(zero_copy_only=False), return_inverse=True)
        names = batch.keys.dictionary.take(used).to_pylist()
        ids = np.array([self._ids.setdefault(name, len(self._ids)) for name in names], np.int32)
        live = (batch.stage == Stage.LIVE) & ~np.isnan(batch.severity)
        marks = np.zeros(len(batch), np.uint8) if self._windows is not None or label is None else label.astype(np.uint8)
        self._columns.append((ids[inverse], batch.time.copy(), batch.score.copy(), live, batch.flag & live, marks))

    def add_episode(self, episode: Episode) -> None:
        """Takes an episode once it is closed, or open at the end; a later one of the same id replaces the earlier."""
        self._episodes.setdefault(episode.key, {})[episode.id] = episode

    def result(self) -> Result:
        """The quality of everything that was added so far."""
        if not self._columns:
            raise InputError("evaluate: no records were read; check the input")
        stream, *columns = (np.concatenate(parts) for parts in zip(*self._columns, strict=True))
        order = np.argsort(stream, kind="stable")
        bounds = np.searchsorted(stream[order], np.arange(1, len(self._ids)))
        parts = [np.split(column[order], bounds) for column in columns]
        rows = tuple(self._judge(key, *(part[i] for part in parts)) for key, i in self._ids.items())
        unused = self._windows.unused(self._ids) if self._windows is not None else ()
        timed = self._ids.items() if self._windows is not None else ()
        placed = {key: self._placed(key, parts[0][i]) for key, i in timed}
        return Result(total(rows), rows, self._promised, unused, placed)

    def _placed(self, key: str, time: Int64) -> Placed:
        windows = self._rows_of_windows(key, time)[1].tolist()
        alarms = sorted({episode.first for episode in self._episodes.get(key, {}).values()})
        return Placed(len(time), tuple((first, last) for first, last in windows), tuple(alarms))

    def _judge(self, key: str, time: Int64, score: Float32, live: Bools, flag: Bools, label: UInt8) -> Quality:
        """One stream, its records in order."""
        timed = bool((time != NO_TIME).all())
        if self._windows is None:
            marked, labelled = label != 0, metrics.sequences(label)
        else:
            marked, labelled = self._rows_of_windows(key, time)
        begin = self._first_counted(key, time)
        labelled = labelled[labelled[:, 1] >= begin]
        labelled[:, 0] = np.maximum(labelled[:, 0], begin)
        counted = live.copy()
        counted[:begin] = False
        seen = np.append(0, np.cumsum(counted))
        alive = seen[labelled[:, 1] + 1] > seen[labelled[:, 0]]
        not_live, labelled = int((~alive).sum()), labelled[alive]

        found = self._counted_episodes(key, counted)
        chunks = [found[i : i + _EPISODES_AT_ONCE] for i in range(0, len(found), _EPISODES_AT_ONCE)] or [found]
        false = sum(metrics.overlap_counts(chunk, labelled)[1] for chunk in chunks)
        by_chunk = np.stack([metrics.delays(chunk, labelled) for chunk in chunks])
        rows = np.where(by_chunk < 0, np.iinfo(np.int64).max, by_chunk).min(axis=0)
        hit = (by_chunk >= 0).any(axis=0)
        at = labelled[hit, 0]
        seconds = np.maximum(time[at + rows[hit]] - time[at], 0) / 1e9 if timed else np.empty(0)

        judged = np.where(np.isnan(score[counted]), 0, score[counted])
        return Quality(
            key=key,
            records=len(time) - begin,
            live=int(counted.sum()),
            episodes=len(found),
            true=int(hit.sum()),
            false=false,
            missed=int((~hit).sum()),
            not_live=not_live,
            delays_rows=tuple(rows[hit].tolist()),
            delays_seconds=tuple(seconds.tolist()),
            flagged=int((flag & counted).sum()),
            days=_days(time if timed else None, counted, marked),
            auc_pr=metrics.average_precision(marked[counted], judged),
            vus_pr=metrics.vus_pr(marked[counted], judged),
        )

    def _rows_of_windows(self, key: str, time: Int64) -> tuple[Bools, Int64]:
        """Labelled rows of a stream, and per window that has records its first and last row."""
        assert self._windows is not None
        windows = self._windows.for_key(key)
        if len(windows) and (time == NO_TIME).all():
            raise InputError(f"labels: windows need times, but those of stream {key!r} have none; use a 0/1 column")
        marked = np.zeros(len(time), bool)
        pairs = []
        for first, last in windows:
            inside = np.flatnonzero((time >= first) & (time <= last) & (time != NO_TIME))
            if len(inside):
                marked[inside] = True
                pairs.append((inside[0], inside[-1]))
        return marked, np.array(pairs, np.int64).reshape(-1, 2)

    def _first_counted(self, key: str, time: Int64) -> int:
        if self._start is None:
            return 0
        if isinstance(self._start, float):
            return int(len(time) * self._start)
        if (time == NO_TIME).all():
            raise InputError(f"start: the records of stream {key!r} have no times; give a fraction instead of a time")
        late = np.flatnonzero(time >= self._start)
        return int(late[0]) if len(late) else len(time)

    def _counted_episodes(self, key: str, counted: Bools) -> Int64:
        """Episodes of a stream that opened at a counted record, int64 (M, 2), in the order of their opening."""
        pairs = sorted((e.first, e.last) for e in self._episodes.get(key, {}).values() if counted[e.first])
        return np.array(pairs, np.int64).reshape(-1, 2)


def _days(time: Int64 | None, counted: Bools, marked: Bools) -> float:
    """Days of counted data outside labels: time that passed between neighbouring such records; 1440 rows if untimed."""
    quiet = counted & ~marked
    if time is None:
        return int(quiet.sum()) / ROWS_PER_DAY
    steps = np.maximum(np.diff(time), 0)[quiet[1:] & counted[:-1]]
    return float(steps.sum(dtype=np.float64)) / _NS_PER_DAY
