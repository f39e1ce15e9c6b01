"""A series of bounded length, whatever the number of records: neighbouring records share a bucket.

| letter | size |
|---|---|
| N | buckets |
| D | features |
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from streamlstm.types import Float32, Float64, Int64


@dataclass(frozen=True, slots=True)
class Buckets:
    """Runs of neighbouring records of one stream; a single record is a bucket too.

    time       int64 (N), of the first record
    records    int64 (N), how many they are
    lowest, highest
               float64 (N, D), of the values, NaN if all are missing
    expected   float64 (N, D), mean of the predictions
    low, high  float64 (N, D), the band's outermost ends
    score, threshold, severity
               float32 (N), of the record with the largest severity, before the stream is live of that with the largest
               score; so score crosses threshold in the picture exactly where a record did
    flags      int64 (N), number of flagged records
    """

    time: Int64
    records: Int64
    lowest: Float64
    highest: Float64
    expected: Float64
    low: Float64
    high: Float64
    score: Float32
    threshold: Float32
    severity: Float32
    flags: Int64

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, part: slice) -> "Buckets":
        return Buckets(*(column[part] for column in self._columns()))

    def followed_by(self, other: "Buckets") -> "Buckets":
        """The buckets of both, one after the other."""
        return Buckets(*(np.concatenate(pair) for pair in zip(self._columns(), other._columns(), strict=True)))

    def merged(self, starts: npt.NDArray[np.intp]) -> "Buckets":
        """One bucket for each run that begins at `starts`, ascending from 0."""
        if len(starts) == len(self):
            return self
        peak = self._peaks(starts)
        return Buckets(
            time=self.time[starts],
            records=np.add.reduceat(self.records, starts),
            lowest=np.fmin.reduceat(self.lowest, starts, axis=0),
            highest=np.fmax.reduceat(self.highest, starts, axis=0),
            expected=self._mean_expected(starts),
            low=np.fmin.reduceat(self.low, starts, axis=0),
            high=np.fmax.reduceat(self.high, starts, axis=0),
            score=self.score[peak],
            threshold=self.threshold[peak],
            severity=self.severity[peak],
            flags=np.add.reduceat(self.flags, starts),
        )

    def _columns(self) -> list[npt.NDArray[Any]]:
        return [getattr(self, field.name) for field in fields(self)]

    def _peaks(self, starts: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """The row in each run that stands for it, (N)."""
        score = np.fmax(self.score.astype(np.float64), 0)  # fmax turns NaN into 0
        rank = np.where(np.isnan(self.severity), -1 / (1 + score), self.severity)  # not live ranks below 0, by score
        runs = np.diff(starts, append=len(self))
        best = np.repeat(np.maximum.reduceat(rank, starts), runs)
        rows = np.where(rank == best, np.arange(len(self)), len(self))
        result: npt.NDArray[np.intp] = np.minimum.reduceat(rows, starts)
        return result

    def _mean_expected(self, starts: npt.NDArray[np.intp]) -> Float64:
        known = ~np.isnan(self.expected)
        weight = known * self.records[:, None]
        total = np.add.reduceat(weight, starts, axis=0).astype(np.float64)
        # Shares are formed before the sum so that values near the largest float do not overflow in it.
        runs = np.diff(starts, append=len(self))
        part = weight / np.repeat(np.maximum(total, 1), runs, axis=0)
        mean: Float64 = np.add.reduceat(np.where(known, self.expected, 0) * part, starts, axis=0)
        return np.where(total > 0, mean, np.nan)


class BoundedSeries:
    """The records of one stream from `first` on, in at most `capacity` buckets of `width` records each.

    When they do not fit, neighbouring buckets are merged two by two and the width doubles. How the records were
    cut into batches changes nothing but the rounding of `expected`.
    """

    def __init__(self, first: int, features: int) -> None:
        self.first = first
        self.width = 1
        self.records = 0
        self.attribution: Float64 = np.zeros(features)  # (D), summed over flagged records
        self.buckets: Buckets | None = None

    def add(self, rows: Buckets, capacity: int) -> None:
        """Appends single records."""
        self.shrink(capacity, len(rows))
        index = (self.records + np.arange(len(rows))) // self.width
        if self.buckets is not None and self.records % self.width:  # the last bucket takes more
            done, rows = self.buckets[:-1], self.buckets[-1:].followed_by(rows)
            index = np.concatenate(([self.records // self.width], index))
        else:
            done = self.buckets if self.buckets is not None else rows[:0]
        self.records += int(rows.records.sum()) - (self.records % self.width)
        self.buckets = done.followed_by(rows.merged(np.flatnonzero(np.diff(index, prepend=-1))))

    def shrink(self, capacity: int, more: int = 0) -> None:
        """Merges buckets until they, and `more` records, fit."""
        while -(-(self.records + more) // self.width) > max(capacity, 1):
            self.width *= 2
            if self.buckets is not None and len(self.buckets):
                self.buckets = self.buckets.merged(np.arange(0, len(self.buckets), 2))
