"""When what was sent counts as delivered, and when offsets are committed: at least once, or exactly once."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any, Protocol

from streamlstm.errors import StreamlstmError
from streamlstm.kafka_client import KafkaError
from streamlstm.service.emitter import Emitter, Mark
from streamlstm.sources.topics import KafkaSource

Positions = Mapping[str, int]
"""The next offset of each partition, `topic/0`."""

_COMMIT_S = 30.0  # beyond the transaction's own 10 s the broker has aborted it
_ABORT_S = 5.0
_SLICE_S = 0.2


class LostError(StreamlstmError):
    """What was sent since the last commit is void: the partitions go back to their snapshots."""


class Delivery(Protocol):
    """The way of outputs and offsets out of the loop."""

    def begin(self) -> None:
        """Called before anything is sent."""

    def mark(self) -> Mark:
        """Stands for everything that was sent until now."""

    def settled(self, mark: Mark) -> bool:
        """Whether all before `mark` is delivered for good."""

    def step(self, positions: Positions) -> None:
        """Called in every round with the next offset of each partition; commits when that is due."""

    def settle(self, positions: Positions, timeout_s: float) -> bool:
        """Delivers and commits everything now; False where the time is over before."""

    def finish(self, positions: Positions, timeout_s: float) -> bool:
        """Like `settle`, for the last time and on the loop's own thread."""

    def abort(self) -> None:
        """Gives up what is not delivered."""


class AtLeastOnce:
    """Sinks acknowledge; the group's offsets follow for lag tools, since state holds its own."""

    def __init__(self, source: KafkaSource, emitter: Emitter, interval_s: float) -> None:
        self._source, self._emitter, self._interval_s = source, emitter, interval_s
        self._due = time.monotonic() + interval_s
        self._waiting: tuple[Mark, Positions] | None = None
        self._committed: Positions = {}

    def begin(self) -> None:
        """Nothing: each record stands for itself."""

    def mark(self) -> Mark:
        return self._emitter.mark()

    def settled(self, mark: Mark) -> bool:
        return self._emitter.settled(mark)

    def step(self, positions: Positions) -> None:
        now = time.monotonic()
        if self._waiting is None and now >= self._due and positions != self._committed:
            self._waiting = (self.mark(), dict(positions))
        if self._waiting is not None and self.settled(self._waiting[0]):
            still_ours = {name: offset for name, offset in self._waiting[1].items() if name in positions}
            self._source.commit_later(still_ours)
            self._committed, self._waiting, self._due = still_ours, None, now + self._interval_s

    def settle(self, positions: Positions, timeout_s: float) -> bool:
        return self._emitter.flush(timeout_s)

    def finish(self, positions: Positions, timeout_s: float) -> bool:
        return self._emitter.flush(timeout_s) and (not positions or self._source.commit(positions))

    def abort(self) -> None:
        self._waiting = None


class ExactlyOnce:
    """Outputs and source offsets in one transaction: committed together or not at all."""

    def __init__(
        self, source: KafkaSource, emitter: Emitter, producer: Any, interval_s: float, on_wait: Callable[[], None]
    ) -> None:
        self._source, self._emitter, self._producer = source, emitter, producer
        self._interval_s, self._on_wait = interval_s, on_wait
        self._open = False
        self._number = 0
        self._since = 0.0
        self._stuck = False

    def begin(self) -> None:
        if not self._open:
            self._call("begin", self._producer.begin_transaction)
            self._open, self._since = True, time.monotonic()

    def mark(self) -> Mark:
        return (self._number + self._open,)

    def settled(self, mark: Mark) -> bool:
        return self._number >= mark[0]

    def step(self, positions: Positions) -> None:
        if self._open and time.monotonic() >= self._since + self._interval_s:
            self._commit(positions)

    def settle(self, positions: Positions, timeout_s: float) -> bool:
        if self._open:
            self._commit(positions, timeout_s)
        return True

    def finish(self, positions: Positions, timeout_s: float) -> bool:
        return self.settle(positions, timeout_s)

    def abort(self) -> None:
        if self._open:
            self._open = False
            if self._stuck:
                return  # it is the next `init_transactions` that ends it
            with suppress(LostError):  # a transaction that cannot be aborted is aborted by the broker in 10 s
                self._call("abort", self._producer.abort_transaction, _ABORT_S)
        self._emitter.reset()

    def _commit(self, positions: Positions, timeout_s: float = _COMMIT_S) -> None:
        offsets = self._source.offsets(positions)
        group = self._source.group_metadata()
        if group.generation_id < 0:
            # The broker takes such offsets as those of a stranger to the group, whom it does not fence.
            raise LostError("transaction: not committed, since the group has given our place away")
        self._call("offsets", lambda: self._producer.send_offsets_to_transaction(offsets, group), timeout_s)
        self._call("commit", self._producer.commit_transaction, timeout_s)
        self._open = False
        self._number += 1
        if not self._emitter.settled(self._emitter.mark()):
            raise LostError("transaction: committed, but not all of its records are acknowledged")

    def _call(self, what: str, action: Callable[[], object], timeout_s: float = _COMMIT_S) -> None:
        """Does `action`, which must end within `timeout_s`; LostError where it fails or does not."""
        # kafka-python's calls of a transaction wait without a bound, and meanwhile the watchdog wants to be fed.
        waiting: Future[None] = Future()
        Thread(target=_do, args=(action, waiting), name="transaction", daemon=True).start()
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                waiting.result(_SLICE_S)
                return
            except TimeoutError:
                self._on_wait()
                if time.monotonic() > deadline:
                    self._stuck = True
                    raise LostError(f"transaction: {what}: no answer from the broker in {timeout_s:.0f} s") from None
            except KafkaError as error:
                raise LostError(f"transaction: {what}: {type(error).__name__}: {error}") from error


def _do(action: Callable[[], object], done: Future[None]) -> None:
    try:
        action()
    except BaseException as error:
        done.set_exception(error)
    else:
        done.set_result(None)
