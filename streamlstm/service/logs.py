"""The daemon's log on standard error: text for people or JSON lines for machines, each with a limit on repetition."""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from streamlstm.config.secrets import without_users

PER_MINUTE = 10
_MINUTE_S = 60.0
_TEMPLATES = 1000  # kept at most: some libraries put numbers into their templates


class RateLimit(logging.Filter):
    """Lets the first `PER_MINUTE` records a minute of each logger and message template pass.

    When the minute is over, one record says how many more there were: at the template's next record, else at `tell`.
    A record with the attribute `limited = False` (given by `extra`) is always let through.
    """

    def __init__(self, emit: Callable[[logging.LogRecord], None], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._emit, self._clock = emit, clock
        self._minutes: dict[tuple[str, str], tuple[float, int, logging.LogRecord]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record may pass."""
        if not getattr(record, "limited", True):
            return True
        name = record.name, str(record.msg)
        if len(self._minutes) >= _TEMPLATES and name not in self._minutes:
            self.tell(everything=True)
        now = self._clock()
        start, count, _ = self._minutes.get(name, (now, 0, record))
        if now - start >= _MINUTE_S:
            self._close(name)
            start, count = now, 0
        self._minutes[name] = start, count + 1, record
        return count < PER_MINUTE

    def tell(self, *, everything: bool = False) -> None:
        """Says how many records were held back in the minutes that are over, or in all."""
        now = self._clock()
        for name, (start, _, _) in list(self._minutes.items()):
            if everything or now - start >= _MINUTE_S:
                self._close(name)

    def _close(self, name: tuple[str, str]) -> None:
        _, count, last = self._minutes.pop(name)
        if count > PER_MINUTE:
            more = logging.makeLogRecord(last.__dict__ | {"exc_info": None, "exc_text": None, "fields": {}})
            more.msg, more.args = "and %s more like this: %s", (f"{count - PER_MINUTE:,}", last.getMessage())
            self._emit(more)


class TextFormat(logging.Formatter):
    """`2026-11-20T12:00:00Z WARNING daemon[1]: message`, where the worker's number stands for one of several."""

    def __init__(self, worker: int | None) -> None:
        super().__init__()
        self._worker = "" if worker is None else f"[{worker}]"

    def format(self, record: logging.LogRecord) -> str:
        """The record as text; a traceback follows on lines of its own."""
        who = record.name.rpartition(".")[2]
        lines = [f"{_time(record)} {record.levelname} {who}{self._worker}: {record.getMessage()}"]
        if record.exc_info:
            lines.append(self.formatException(record.exc_info))
        return without_users("\n".join(lines))


class JsonFormat(logging.Formatter):
    """One JSON object a line: time, level, logger, message, worker, then what `extra={"fields": {...}}` holds."""

    def __init__(self, worker: int | None) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON; a traceback is the field `exception`."""
        content: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": without_users(record.getMessage()),
            "worker": self._worker,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            content["exception"] = without_users(self.formatException(record.exc_info))
        return json.dumps(content, ensure_ascii=False, default=str)


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that it is known from those of others."""


@contextmanager
def logs(
    kind: Literal["text", "json"],
    worker: int | None = None,
    *,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[RateLimit]:
    """A context in which all loggers write to `stream` (standard error): ours from INFO on, those of others from WARNING.

    Within another one it takes that one's place. `worker` is the number of this process among several.
    """
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(JsonFormat(worker) if kind == "json" else TextFormat(worker))
    limit = RateLimit(handler.emit, clock)
    handler.addFilter(limit)
    root, ours = logging.getLogger(), logging.getLogger("streamlstm")
    before = list(root.handlers), root.level, ours.level
    root.handlers[:] = [*(other for other in root.handlers if not isinstance(other, _Handler)), handler]
    root.setLevel(logging.WARNING)
    ours.setLevel(logging.INFO)
    try:
        yield limit
    finally:
        limit.tell(everything=True)
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        ours.setLevel(before[2])


def _time(record: logging.LogRecord) -> str:
    """UTC with milliseconds."""
    return f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03d}Z"
