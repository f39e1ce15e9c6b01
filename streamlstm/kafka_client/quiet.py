"""Few lines from the client's loggers: a broker that is away makes kafka-python repeat itself without end."""

import logging
import time
from collections.abc import Callable

LINES = 3
_CHATTER = ("kafka.net", "kafka.cluster")
"""Loggers that tell one failed attempt to reach a broker in several lines, with numbers in the templates: one line each."""
WINDOW_S = 60.0
_TEMPLATES = 1000  # some messages carry their numbers in the template: bounds the memory


class RateLimited(logging.Handler):
    """Passes at most `lines` records a window of each logger and message template on; the next says how many it held."""

    def __init__(
        self, lines: int = LINES, window_s: float = WINDOW_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._lines, self._window_s, self._clock = lines, window_s, clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Hands the record to the root logger's handlers, or counts it."""
        chatter = record.name.startswith(_CHATTER)
        lines = 1 if chatter else self._lines
        now, name = self._clock(), (record.name, "" if chatter else str(record.msg))
        start, count = self._seen.get(name, (now, 0))
        held = 0
        if now - start >= self._window_s:
            start, count, held = now, 0, max(count - lines, 0)
        if len(self._seen) >= _TEMPLATES:
            self._seen.clear()
        self._seen[name] = start, count + 1
        if count >= lines:
            return
        if held:
            record.msg, record.args = f"{record.getMessage()} (and {held} more like it)", None
        logging.getLogger().handle(record)


def quieten() -> None:
    """Sends what kafka-python warns of through one `RateLimited`; a second call changes nothing."""
    logger = logging.getLogger("kafka")
    logger.setLevel(logging.WARNING)
    # It warns of every task that took 0.1 s, which checking a few megabytes of records does on a busy core.
    logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)
    if not any(isinstance(handler, RateLimited) for handler in logger.handlers):
        logger.addHandler(RateLimited())
        logger.propagate = False
