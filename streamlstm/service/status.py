"""What the daemon has done and how it stands: one record, its line, and when the next one is due."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Status:
    """How a daemon stands.

    events, flags, dead_letters since it began
    events_per_s                since the status before
    lag                         records that lie in the topics after the last one scored, None where not yet known
    streams, partitions         that it holds now
    snapshots                   written since it began, of all partitions together
    snapshot_age_s              of the oldest newest snapshot of a partition, None before the first
    restore_s                   the longest that a partition took from its assignment until it could be read on
    loop_stall_ms_max           the longest that snapshots and commits held the loop up since the status before
    waiting                     records that wait for older ones of their streams (`time.late: reorder`)
    """

    events: int
    events_per_s: float
    lag: int | None
    flags: int
    dead_letters: int
    streams: int
    partitions: int
    snapshots: int
    snapshot_age_s: float | None
    restore_s: float
    loop_stall_ms_max: float
    waiting: int = 0

    def line(self) -> str:
        """`events 1,234,567 (20,576/s) lag 12 flags 3 dead letters 0 streams 10,000 snapshot 4 s ago`."""
        lag = "unknown" if self.lag is None else f"{self.lag:,}"
        snapshot = "none yet" if self.snapshot_age_s is None else f"{self.snapshot_age_s:.0f} s ago"
        waiting = f"waiting {self.waiting:,} " if self.waiting else ""
        return (
            f"events {self.events:,} ({self.events_per_s:,.0f}/s) lag {lag} flags {self.flags:,} "
            f"dead letters {self.dead_letters:,} streams {self.streams:,} {waiting}snapshot {snapshot}"
        )


class StatusLog:
    """Logs a status every `interval_s` seconds, however often it is asked."""

    def __init__(self, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s, self._clock = interval_s, clock
        self._due = clock() + interval_s

    def tick(self, status: Callable[[], Status]) -> Status | None:
        """The status that was logged now, None where it is not yet time."""
        now = self._clock()
        if now < self._due:
            return None
        self._due = now + self._interval_s
        found = status()
        _log.info("%s", found.line(), extra={"fields": asdict(found), "limited": False})
        return found


class Meter:
    """Counts what a daemon does, and makes a status of it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.events = 0
        self._clock = clock
        self._told, self._told_events = clock(), 0
        self._stall_s = 0.0

    def stalled(self, seconds: float) -> None:
        """Takes note that the loop did not read for so long."""
        self._stall_s = max(self._stall_s, seconds)

    def status(
        self,
        *,
        lag: int | None,
        flags: int,
        dead_letters: int,
        streams: int,
        partitions: int,
        snapshots: int,
        written_at: Sequence[float | None],
        restore_s: float,
        waiting: int = 0,
    ) -> Status:
        """How things stand; `written_at` are the clock's times of each partition's newest snapshot, None before the first."""
        now = self._clock()
        rate = (self.events - self._told_events) / max(now - self._told, 1e-9)
        written = [at for at in written_at if at is not None]
        age_s = now - min(written) if written else None
        status = Status(
            self.events, rate, lag, flags, dead_letters, streams, partitions, snapshots, age_s, restore_s,
            1000 * self._stall_s, waiting,
        )  # fmt: skip
        self._told, self._told_events, self._stall_s = now, self.events, 0.0
        return status
