"""The words that rooms exchange: columns, never an object per event.

| letter | size |
|---|---|
| B | records of a batch |
| D | predicted features |
| K | known inputs: exogenous columns, read but not predicted |
| I | inputs of the model, D + K, features first |
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

NO_TIME = np.iinfo(np.int64).min
"""Time of a record that carries none."""


class Stage(IntEnum):
    """What a stream is ready for; only a live stream has a severity."""

    LEARNING = 0
    CALIBRATING = 1
    LIVE = 2


class Change(IntEnum):
    """What a record did to its stream's episode."""

    NONE = 0
    OPENED = 1
    UPDATED = 2
    CLOSED = 3


class Cause(IntEnum):
    """What an alarm is owed to most: a part of the score, or a rule beside the model."""

    STEP = 0
    DRIFT = 1
    NEVER_SEEN = 2
    NOISY = 3
    FLAT = 4
    STUCK = 5
    OUT_OF_RANGE = 6
    JUMP = 7
    MISSING = 8
    SILENT = 9


CAUSE_KIND = 4096
"""A cause is written as `Cause` * CAUSE_KIND + 2 * feature + (1 if the value lay below the expected one)."""

_SIDED = {
    Cause.STEP: "unexpected step",
    Cause.DRIFT: "slow drift",
    Cause.NEVER_SEEN: "value never seen",
    Cause.OUT_OF_RANGE: "outside its allowed range",
    Cause.JUMP: "changed faster than allowed",
}
_PLAIN = {
    Cause.NOISY: "unusually noisy",
    Cause.FLAT: "flat",
    Cause.STUCK: "stuck at one value",
    Cause.MISSING: "missing",
    Cause.SILENT: "was silent",
}


def cause_text(code: int, features: Sequence[str]) -> str:
    """The cause in words: `temperature: unexpected step, above expected`."""
    kind, rest = divmod(code, CAUSE_KIND)
    if kind in _PLAIN:
        return _PLAIN[Cause(kind)] if kind == Cause.SILENT else f"{features[rest // 2]}: {_PLAIN[Cause(kind)]}"
    return f"{features[rest // 2]}: {_SIDED[Cause(kind)]}, {('above', 'below')[rest % 2]} expected"


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of the input mean what; the order of `features` and `exogenous` is the order in `EventBatch.x`."""

    time: str | None
    key: str | None
    features: tuple[str, ...]
    exogenous: tuple[str, ...] = ()
    label: str | None = None


@dataclass(frozen=True, slots=True)
class EventBatch:
    """B records of one partition, in its order, all from one file or topic.

    keys   DictionaryArray (B) of int32 indices into distinct strings, or StringArray (B); no nulls
    time   int64 (B), nanoseconds since 1970 UTC, `NO_TIME` where the record has none
    x      float64 (B, I), features then exogenous columns, NaN where missing
    row    int64 (B), number of the record in `source`, from 0, counting records that could not be read; of a topic
           the offset; ascending with gaps, until `detect.reorder` has put them in order of time
    source path as the user wrote it, or topic/partition: `source/row` is the id of a record
    label  uint8 (B), 1 where the input says anomalous; None unless a label column was asked for
    """

    keys: pa.DictionaryArray | pa.StringArray
    time: Int64
    x: Float64
    row: Int64
    source: str
    label: UInt8 | None = None

    def __len__(self) -> int:
        return len(self.row)

    def take(self, rows: npt.NDArray[np.intp]) -> "EventBatch":
        """The records at positions `rows`."""
        label = None if self.label is None else self.label[rows]
        return EventBatch(self.keys.take(rows), self.time[rows], self.x[rows], self.row[rows], self.source, label)

    def part(self, first: int, end: int) -> "EventBatch":
        """Records first .. end, in the same memory."""
        at = slice(first, end)
        label = None if self.label is None else self.label[at]
        return EventBatch(self.keys[at], self.time[at], self.x[at], self.row[at], self.source, label)


@dataclass(frozen=True, slots=True)
class RawBlock:
    """B records of one partition as the bytes that they came in.

    source    topic/partition
    data      uint8 (n), the bytes of all keys and values
    keys      int64 (B, 2), first byte and end of each record's key in `data`; -1, -1 for a record without key
    values    int64 (B, 2), likewise
    offset    int64 (B), ascending, with gaps
    timestamp int64 (B), of the records, milliseconds since 1970 UTC; -1 for none
    """

    source: str
    data: UInt8
    keys: Int64
    values: Int64
    offset: Int64
    timestamp: Int64

    def __len__(self) -> int:
        return len(self.offset)

    def key(self, at: int) -> bytes | None:
        """The key of the record at a position, None where it has none."""
        start, end = self.keys[at]
        return None if start < 0 else self.data[start:end].tobytes()

    def value(self, at: int) -> bytes | None:
        """The value of the record at a position, None where it has none."""
        start, end = self.values[at]
        return None if start < 0 else self.data[start:end].tobytes()


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be read: where it stands (1-based line of a text file, else row), why, and its text.

    Of a topic `source` is topic/partition, `line` the offset, and `key` and `value` are the record's bytes.
    """

    source: str
    line: int
    reason: str
    text: str
    key: bytes | None = None
    value: bytes | None = None


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """What the detector says of B records; arrays of length B unless a shape is given.

    score       float32, >= 0, 0 is as expected
    threshold   float32, the score above which a record is anomalous
    severity    float32, score / threshold; NaN before the stage is live
    flag        bool, the record belongs to an episode and its severity is above 1
    stage       uint8, a `Stage`
    change      uint8, a `Change`
    imputed     uint16, number of features that were missing and taken from the prediction
    expected, low, high
                float64 (B, D), in the unit of the input: the prediction and the band it stood in
    attribution float64 (B, D), each feature's share of the score, sums to 1
    detailed    bool, the last four are filled in for this record (always for flags)
    parts       float32 (B, 5), the score is their sum: error against the raw, the clipped, the bare head; unusual
                variability; values outside the usual range
    cause       uint16, of flags: see `cause_text`
    """

    features: tuple[str, ...]
    keys: pa.DictionaryArray | pa.StringArray
    time: Int64
    row: Int64
    value: Float64
    score: Float32
    threshold: Float32
    severity: Float32
    flag: npt.NDArray[np.bool_]
    stage: UInt8
    change: UInt8
    imputed: npt.NDArray[np.uint16]
    expected: Float64
    low: Float64
    high: Float64
    attribution: Float64
    detailed: npt.NDArray[np.bool_]
    parts: Float32
    cause: npt.NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.row)

    @classmethod
    def joined(cls, parts: Sequence["ScoredBatch"]) -> "ScoredBatch":
        """The records of all parts, one after another."""
        columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(cls)}
        features, keys = columns.pop("features")[0], pa.concat_arrays(columns.pop("keys"))
        return cls(features, keys, **{name: np.concatenate(arrays) for name, arrays in columns.items()})


class Scored(NamedTuple):
    """What the detector says of one event; the fields are those of `ScoredBatch`, per feature and part as tuples.

    `cause` is in words, empty unless the event is flagged.
    """

    key: str
    time: int
    score: float
    threshold: float
    severity: float
    flag: bool
    stage: Stage
    change: Change
    imputed: int
    value: tuple[float, ...]
    expected: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    attribution: tuple[float, ...]
    parts: tuple[float, ...]
    cause: str


@dataclass(frozen=True, slots=True)
class Episode:
    """One alarm: a run of anomalous records of one stream.

    id is `source/row` of the record that opened it; times are nanoseconds since 1970 UTC or `NO_TIME`; `closed` is the
    last anomalous record's time; `state` is "open" or "closed"; `first` and `last` count the stream's records from 0;
    `events` counts anomalous records.
    """

    id: str
    key: str
    state: str
    opened: int
    closed: int
    first: int
    last: int
    peak_time: int
    peak_severity: float
    events: int
    cause: str

    def as_dict(self) -> dict[str, Any]:
        """The episode's fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of the next N records of one stream, in the unit of the input; horizon n is row n - 1.

    mean, scale  float64 (N, D), of a normal distribution; None where quantiles are forecast
    quantiles    float64 (Q, N, D), in the order of `levels` and ascending; None where mean and scale are forecast
    levels       share of the values that should lie below each quantile (Q)
    """

    features: tuple[str, ...]
    mean: Float64 | None = None
    scale: Float64 | None = None
    quantiles: Float64 | None = None
    levels: tuple[float, ...] = ()
