"""Rows to an HTTP address: POST of JSON arrays from a thread of its own, again and again until they are taken."""

import hashlib
import random
import re
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import pyarrow as pa
import urllib3
from urllib3.exceptions import HTTPError, InvalidHeader

from streamlstm.errors import ConfigError, OutputError
from streamlstm.sinks.flagged import Flagged, keyed_rows
from streamlstm.sinks.sink import LetterSink
from streamlstm.types import DeadLetter
from streamlstm.version import VERSION

_ROWS, _BYTES = 500, 1 << 20  # of one POST
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _LONGEST_REQUEST_S = 0.25, 30.0, 600.0
_PATIENCE_S = 60.0
_CLOSE_S = 1.0
_WORDS = 200  # characters of an answer that are shown
_PASSING = {408, 425, 429}
_ABOUT_THE_ROWS = {400, 413, 422}


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of a POST; status 0 is none."""

    status: int
    reason: str
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Rows that the address does not take; `at` counts all rows sent before the first."""

    at: int
    rows: list[bytes]
    reason: str


class WebhookSink:
    """Posts rows in their order, up to 500 at once, as a JSON array of objects.

    The answer decides. 2xx: the rows are delivered. No answer, 408, 425, 429 and 5xx: the same POST again, after growing
    pauses of up to 30 s or what Retry-After says (10 minutes at most), for ever: meanwhile the queue fills, `ready` says
    no and the source pauses, so that nothing is lost. 400, 413 and 422 are about the rows: the POST is halved until the
    ones to blame stand alone. Anything else (a wrong password, a moved address; redirects are not followed) is tried for
    a minute. Rows refused so are neither dropped nor allowed to stop detection: they go to the dead letters with the
    reason, are counted in `refused`, and are acknowledged when the letters are. After such a refusal each POST has one
    try until one is taken again.

    A header Idempotency-Key, the digest of the body, tells a receiver that a POST is a repeat. Each row of flags has an
    `id` that stays the same after a restart. Of the address only scheme, host and port are ever shown.
    """

    def __init__(
        self, address: str, letters: LetterSink, *, queue_rows: int, timeout_s: float, patience_s: float = _PATIENCE_S
    ) -> None:
        parts = parsed(address)
        self.sent = self.refused = 0
        self._name = shown(address)
        self._url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
        self._headers = {"Content-Type": "application/json", "User-Agent": f"streamlstm/{VERSION}"}
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers |= urllib3.util.make_headers(basic_auth=login)
        self._pool = _pool(parts, timeout_s)
        self._letters, self._queue_rows, self._patience_s = letters, queue_rows, patience_s
        self._post_rows = _ROWS
        self._change = threading.Condition()  # guards everything below, which both threads use
        self._queue: deque[bytes] = deque()
        self._taken = 0  # rows that left the queue, delivered or refused
        self._refusals: deque[_Refusal] = deque()
        self._trouble: str | None = None
        self._failure: Exception | None = None
        self._closing = False
        self._round = self._posting = 0  # `reset` begins a new round, and what is posted in an old one has no effect
        self._refusing = False
        self._lettered: deque[tuple[int, int]] = deque()  # (first row, letters sent) of the caller's thread alone
        self._thread = threading.Thread(target=self._work, name="webhook", daemon=True)
        self._thread.start()

    def write(self, table: pa.RecordBatch | Flagged, /, source: str = "") -> None:
        rows = [row for _, row in keyed_rows(table)]
        with self._change:
            self._queue.extend(rows)
            self.sent += len(rows)
            self._change.notify_all()

    def ready(self) -> bool:
        self._settle()
        with self._change:
            return len(self._queue) < self._queue_rows

    def acknowledged(self) -> int:
        return self._settle()

    def flush(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        with self._change:
            self._change.wait_for(lambda: not self._queue or self._failure is not None, timeout_s)
        if self._settle() < self.sent:  # perhaps only the letters of refused rows are still on their way
            self._letters.flush(max(0.0, deadline - time.monotonic()))
        return self._settle() == self.sent

    def reset(self) -> None:
        """Forgets what waits; a POST on its way may arrive nevertheless."""
        with self._change:
            self._queue.clear()
            self._round += 1
            self.sent = self._taken
            self._change.notify_all()

    def oldest_s(self) -> float:
        return 0.0

    def trouble(self) -> str | None:
        with self._change:
            return self._trouble

    def close(self) -> None:
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join(_CLOSE_S)

    def _settle(self) -> int:
        """Hands refused rows to the letters; returns how many rows are done with."""
        with self._change:
            taken, failure = self._taken, self._failure
            refusals = list(self._refusals)
            self._refusals.clear()
        for refusal in refusals:
            for at, row in enumerate(refusal.rows, refusal.at):
                self._letters.write(DeadLetter(self._name, at, refusal.reason, row.decode(), value=row))
            self.refused += len(refusal.rows)
            self._lettered.append((refusal.at, self._letters.sent))
        if failure is not None:
            raise OutputError(f"{self._name}: the sender has failed: {type(failure).__name__}: {failure}") from failure
        while self._lettered and self._letters.acknowledged() >= self._lettered[0][1]:
            self._lettered.popleft()
        return self._lettered[0][0] if self._lettered else taken

    def _work(self) -> None:
        try:
            while rows := self._next():
                self._deliver(rows)
        except Exception as error:  # a fault of ours: the loop's thread raises it
            with self._change:
                self._failure = error
                self._change.notify_all()
        finally:
            self._pool.clear()

    def _next(self) -> list[bytes]:
        """Rows for the next POST, none when it is time to end; they stay in the queue."""
        with self._change:
            self._change.wait_for(lambda: self._queue or self._closing)
            self._posting = self._round
            rows: list[bytes] = []
            size = 0
            for row in islice(self._queue, 0 if self._closing else self._post_rows):
                size += len(row)
                if rows and size > _BYTES:
                    break
                rows.append(row)
            return rows

    def _deliver(self, rows: list[bytes]) -> None:
        """Posts until the rows are taken or refused, or the sink is closed."""
        start, pause_s = time.monotonic(), _FIRST_PAUSE_S
        while not self._closing and self._posting == self._round:
            answer = self._post(rows)
            if 200 <= answer.status < 300:
                self._refusing = False
                self._take(rows, None)
                return
            if answer.status in _ABOUT_THE_ROWS:
                if len(rows) == 1:
                    self._take(rows, answer.reason)
                    return
                half = len(rows) // 2
                if answer.status == 413:
                    self._post_rows = half + 1
                self._deliver(rows[:half])
                self._deliver(rows[half:])
                return
            passing = answer.status == 0 or answer.status >= 500 or answer.status in _PASSING
            if not passing and (self._refusing or time.monotonic() - start >= self._patience_s):
                self._refusing = True
                self._take(rows, answer.reason)
                return
            wait_s = max(pause_s * random.uniform(0.5, 1.0), min(answer.after_s, _LONGEST_REQUEST_S))
            with self._change:
                self._trouble = f"{self._name}: {answer.reason}; trying again for {time.monotonic() - start:.0f} s"
                self._change.wait_for(lambda: self._closing or self._posting != self._round, wait_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _take(self, rows: Sequence[bytes], refused: str | None) -> None:
        """Takes rows off the queue, delivered, or refused for a reason."""
        with self._change:
            if self._posting != self._round:
                return
            if refused is not None:
                self._refusals.append(_Refusal(self._taken, list(rows), refused))
            self._trouble = refused and f"{self._name}: {refused}; the rows went to the dead letters"
            for _ in rows:
                self._queue.popleft()
            self._taken += len(rows)
            self._change.notify_all()

    def _post(self, rows: Sequence[bytes]) -> _Answer:
        body = b"[" + b",".join(rows) + b"]"
        headers = self._headers | {"Idempotency-Key": hashlib.sha256(body).hexdigest()[:32]}
        try:
            response = self._pool.request(
                "POST", self._url, body=body, headers=headers, redirect=False, retries=False, preload_content=False
            )
        except HTTPError as error:
            return _Answer(0, f"no answer ({type(error).__name__}: {error})")
        text = b""
        with suppress(HTTPError):  # the status has come, which is what counts
            text = response.read(_WORDS)
        response.close()  # the answer may be longer, or endless
        said = " ".join(text.decode(errors="replace").split())
        reason = f"answers {response.status} {response.reason or ''}".rstrip() + (f" ({said})" if said else "")
        return _Answer(response.status, reason, _retry_after_s(response))


def shown(address: str) -> str:
    """The address without user, password, path and query, any of which may be a secret."""
    scheme, slashes, rest = address.partition("://")
    if not slashes:
        return f"{address.partition(':')[0]}:..."
    host, *more = re.split("[/?#]", rest, maxsplit=1)
    return f"{scheme}://{host.rpartition('@')[2]}{'/...' if more and more[0] else ''}"


def parsed(address: str) -> SplitResult:
    """The parts of an http(s) address; ConfigError where it is none."""
    try:
        parts = urlsplit(address)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(f"{shown(address)}: is no address; must be like https://user:password@host:port/path")
    return parts


def _pool(parts: SplitResult, timeout_s: float) -> urllib3.PoolManager:
    """One connection that is kept, through the proxy that the environment names, if any."""
    timeout = urllib3.Timeout(connect=timeout_s, read=timeout_s)
    proxy = getproxies().get(parts.scheme)
    if proxy is None or proxy_bypass(parts.hostname or ""):
        return urllib3.PoolManager(num_pools=1, maxsize=1, timeout=timeout)
    via = urlsplit(proxy)
    headers = None
    if via.username is not None:
        headers = urllib3.util.make_headers(proxy_basic_auth=f"{unquote(via.username)}:{unquote(via.password or '')}")
    return urllib3.ProxyManager(proxy, num_pools=1, maxsize=1, timeout=timeout, proxy_headers=headers)


def _retry_after_s(response: urllib3.BaseHTTPResponse) -> float:
    try:
        return urllib3.Retry().get_retry_after(response) or 0.0
    except InvalidHeader:
        return 0.0
