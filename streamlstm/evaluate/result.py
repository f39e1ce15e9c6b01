"""The outcome of an evaluation, as numbers for machines and as a table for people."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from streamlstm.errors import InputError
from streamlstm.evaluate import nab
from streamlstm.evaluate.metrics import precision_recall_f1


@dataclass(frozen=True, slots=True)
class Quality:
    """Counts of one stream, or of all: what was labelled, what was flagged, and how they met.

    records        records from the start of counting on; `live` those of them that could be flagged
    episodes       alarms that opened at such a live record
    true, missed   labelled sequences that an episode meets, and that none meets
    false          episodes that meet no labelled sequence
    not_live       labelled sequences without a live record; neither true nor missed
    delays_rows, delays_seconds
                   one per true sequence, from its start to the opening of the first episode that meets it; at least 0;
                   seconds only where the records carry times
    flagged        records that were flagged
    days           of data outside labels
    auc_pr, vus_pr of the score; None without labelled records, for all streams the mean over those that have some
    """

    key: str
    records: int
    live: int
    episodes: int
    true: int
    false: int
    missed: int
    not_live: int
    delays_rows: tuple[int, ...]
    delays_seconds: tuple[float, ...]
    flagged: int
    days: float
    auc_pr: float | None
    vus_pr: float | None

    @property
    def precision(self) -> float | None:
        """Share of right ones among found sequences and false episodes."""
        return precision_recall_f1(self.true, self.false, self.missed)[0]

    @property
    def recall(self) -> float | None:
        """Share of labelled sequences that were found."""
        return precision_recall_f1(self.true, self.false, self.missed)[1]

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall."""
        return precision_recall_f1(self.true, self.false, self.missed)[2]

    @property
    def delay_rows(self) -> float | None:
        """Median delay in records."""
        return float(statistics.median(self.delays_rows)) if self.delays_rows else None

    @property
    def delay_seconds(self) -> float | None:
        """Median delay in seconds."""
        return float(statistics.median(self.delays_seconds)) if self.delays_seconds else None

    @property
    def flagged_share(self) -> float | None:
        """Share of live records that were flagged."""
        return self.flagged / self.live if self.live else None

    @property
    def false_per_day(self) -> float | None:
        """False episodes per day of data outside labels; for all streams, per stream and day."""
        return self.false / self.days if self.days else None

    def as_dict(self) -> dict[str, Any]:
        """Counts and quotients by name, without the single delays."""
        counted = {f.name: getattr(self, f.name) for f in fields(self) if not f.name.startswith("delays_")}
        return counted | {name: getattr(self, name) for name in _QUOTIENTS}


_QUOTIENTS = ("precision", "recall", "f1", "delay_rows", "delay_seconds", "flagged_share", "false_per_day")


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a stream's labelled windows and its alarms lie among its `rows` records: (first, last), and opening rows."""

    rows: int
    windows: tuple[tuple[int, int], ...]
    alarms: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """Quality of all streams together and of each, the promised rate, and label keys that no stream has.

    `placed` holds every stream by key where labels are windows, whatever the start of counting.
    """

    total: Quality
    streams: tuple[Quality, ...]
    promised: float | None
    unused_labels: tuple[str, ...] = ()
    placed: Mapping[str, Placed] = field(default_factory=dict)

    @property
    def kept(self) -> float | None:
        """False episodes per stream and day, all streams' false episodes over all streams' days outside labels.

        A quotient of sums, so that a stream of ten minutes with one false episode does not count as 144 a day.
        """
        return self.total.false_per_day

    @property
    def promised_alarms(self) -> float | None:
        """False alarms that the promise allows in all streams' days outside labels."""
        return None if self.promised is None else self.promised * self.total.days

    def nab_scores(self) -> dict[str, float]:
        """NAB's score of the alarms by profile, at the thresholds that the detector chose itself.

        InputError where a labelled stream is not in the data, since that would raise the score, or labels are no windows.
        """
        if not self.placed:
            raise InputError("nab: needs windows; give labels as a file")
        if self.unused_labels:
            missing = (
                f"{len(self.unused_labels)} labelled files are not in the data, the first: {self.unused_labels[0]}"
            )
            raise InputError(f"nab: {missing}; leaving files out raises the score, give all of them")
        windows = {key: np.array(one.windows, np.int64).reshape(-1, 2) for key, one in self.placed.items()}
        flags = {key: np.bincount(one.alarms, minlength=one.rows) > 0 for key, one in self.placed.items()}
        scores = {key: flag.astype(np.float64) for key, flag in flags.items()}
        return {name: nab.sweep(windows, scores, profile).at(1.0) for name, profile in nab.PROFILES.items()}

    def as_dict(self) -> dict[str, Any]:
        """Everything but NAB's score, ready for JSON."""
        return {
            "total": self.total.as_dict(),
            "promised_false_alarms_per_day": self.promised,
            "kept_false_alarms_per_day": self.kept,
            "promised_false_alarms": self.promised_alarms,
            "unused_labels": list(self.unused_labels),
            "streams": [quality.as_dict() for quality in self.streams],
        }

    def rows(self) -> list[tuple[str, ...]]:
        """A table of texts, header first, then every stream, then all of them; "-" where there is no value."""
        lines = [*self.streams, self.total] if len(self.streams) > 1 else list(self.streams)
        return [tuple(_TABLE), *(tuple(cell(quality) for cell in _TABLE.values()) for quality in lines)]


def total(streams: Sequence[Quality]) -> Quality:
    """All streams as one: counts summed, delays together, means of the scores' areas."""

    def mean(name: str) -> float | None:
        known = [value for q in streams if (value := getattr(q, name)) is not None]
        return statistics.fmean(known) if known else None

    names = ("records", "live", "episodes", "true", "false", "missed", "not_live", "flagged")
    return Quality(
        key="all streams",
        **{name: sum(getattr(q, name) for q in streams) for name in names},
        delays_rows=tuple(d for q in streams for d in q.delays_rows),
        delays_seconds=tuple(d for q in streams for d in q.delays_seconds),
        days=sum(q.days for q in streams),
        auc_pr=mean("auc_pr"),
        vus_pr=mean("vus_pr"),
    )


def number(value: float | None, digits: int = 2) -> str:
    """A value for people, "-" for None."""
    return "-" if value is None else f"{value:,.{digits}f}"


def share(value: float | None) -> str:
    """A share as per cent, "-" for None."""
    return "-" if value is None else f"{value:.2%}"


def duration(seconds: float | None) -> str:
    """Seconds in the unit that reads best, "-" for None."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s"


_TABLE: dict[str, Callable[[Quality], str]] = {
    "stream": lambda q: q.key,
    "records": lambda q: f"{q.records:,}",
    "found": lambda q: f"{q.true:,}",
    "missed": lambda q: f"{q.missed:,}",
    "false": lambda q: f"{q.false:,}",
    "not live": lambda q: f"{q.not_live:,}",
    "precision": lambda q: number(q.precision),
    "recall": lambda q: number(q.recall),
    "F1": lambda q: number(q.f1),
    "delay": lambda q: duration(q.delay_seconds) if q.delay_seconds is not None else _rows(q.delay_rows),
    "flagged": lambda q: share(q.flagged_share),
    "false/day": lambda q: number(q.false_per_day),
    "AUC-PR": lambda q: number(q.auc_pr, 3),
    "VUS-PR": lambda q: number(q.vus_pr, 3),
}


def _rows(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} rows"
