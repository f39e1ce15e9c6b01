"""A Kafka topic as a sink: sends without waiting and remembers what the broker has not acknowledged."""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from streamlstm.errors import OutputError
from streamlstm.kafka_client import KafkaError, RetriableError
from streamlstm.sinks.records import Record

T = TypeVar("T")

_PAUSE_S = 1.0  # before what failed is sent again
_LOOK_S = 0.05
_TOO_LARGE = (10, 18)  # the protocol's numbers for a record, and for a batch, above the topic's max.message.bytes


@dataclass(slots=True)
class _Sending:
    """A record on its way; `future` is the producer's, None while it is not handed over."""

    record: Record
    since: float
    future: Any = None


class TopicSink(Generic[T]):
    """Sends what `render` makes of each item to `topic`; the producer may be shared and is not closed here.

    Whatever the broker has not acknowledged is kept, up to `queue_rows` rows before `ready` says no. The producer tries
    again by itself within its `delivery_timeout_ms`; what it then gives up is sent again from here, so that a broker
    that was away for an hour loses nothing. Within a partition records keep their order, except those given up.
    In a transaction nothing is sent again: the first failure is an OutputError, and after the abort comes `reset`.

    A record above the producer's or the topic's limit is divided or shortened, as `Record.smaller` says, and counted in
    `shortened`: one huge flag must not stop all others.
    """

    def __init__(
        self, topic: str, producer: Any, render: Callable[[T, str], Iterable[Record]], queue_rows: int = sys.maxsize
    ) -> None:
        self.sent = self.shortened = 0
        self._name = f"kafka:{topic}"
        self._topic, self._producer, self._render, self._queue_rows = topic, producer, render, queue_rows
        self._acknowledged = 0
        self._waiting: deque[_Sending] = deque()
        self._unsent = 0  # how many of `_waiting` have no future
        self._resume = 0.0
        self._trouble: str | None = None
        self._largest: int = producer.config["max_request_size"]
        try:
            producer.partitions_for(topic)
        except RetriableError as error:
            raise OutputError(
                f"{self._name}: the broker has no such topic, or does not answer ({_words(error)}); "
                "create the topic, or correct the name"
            ) from error
        except (KafkaError, ValueError) as error:
            self._fail(error)

    def write(self, item: T, /, source: str = "") -> None:
        """Hands the records of `item` to the producer, which waits for nothing as long as it knows the topic."""
        for whole in self._render(item, source):
            for record in self._fitting(whole):
                self._waiting.append(_Sending(record, time.monotonic()))
                self._unsent += 1
                self.sent += record.rows
                if self._unsent == 1:
                    self._send(self._waiting[-1])

    def ready(self) -> bool:
        self._settle()
        return self.sent - self._acknowledged < self._queue_rows

    def acknowledged(self) -> int:
        self._settle()
        return self._acknowledged

    def flush(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while True:
            self._settle()
            left = deadline - time.monotonic()
            if not self._waiting or left <= 0:
                return not self._waiting
            done = threading.Event()
            if (future := self._waiting[0].future) is not None:
                future.add_both(lambda _, done=done: done.set())
            done.wait(min(left, _LOOK_S))

    def reset(self) -> None:
        self._waiting.clear()
        self._unsent = 0
        self._trouble = None
        self.sent = self._acknowledged

    def reconnect(self, producer: Any) -> None:
        """Goes on with another producer and sends everything unacknowledged again; the old one is closed already."""
        self._producer = producer
        for sending in self._waiting:
            sending.future = None
        self._unsent, self._resume = len(self._waiting), 0.0
        self._send_again()

    def oldest_s(self) -> float:
        return time.monotonic() - self._waiting[0].since if self._waiting else 0.0

    def trouble(self) -> str | None:
        return self._trouble if self._waiting else None

    def close(self) -> None:
        """Forgets what waits; the producer may still deliver it."""
        self._waiting.clear()
        self._unsent = 0

    def _settle(self) -> None:
        """Counts what has arrived, and sends again what has not."""
        while self._waiting and (future := self._waiting[0].future) is not None and future.is_done:
            error, record = future.exception, self._waiting[0].record
            if error is None:
                self._waiting.popleft()
                self._acknowledged += record.rows
                self._trouble = None
            elif getattr(error, "errno", None) in _TOO_LARGE:
                self._divide(error)
            elif isinstance(error, RetriableError) and not self._in_transactions():
                self._hold(error)
            else:
                self._fail(error)
        self._send_again()

    def _send(self, sending: _Sending) -> bool:
        record = sending.record
        try:
            sending.future = self._producer.send(
                self._topic, value=record.value, key=record.key, headers=list(record.headers)
            )
        except RetriableError as error:  # the topic's partitions are not known, for `max_block_ms` already
            if self._in_transactions():
                self._fail(error)
            self._hold(error)
            return False
        except KafkaError as error:
            self._fail(error)
        self._unsent -= 1
        return True

    def _send_again(self) -> None:
        if self._unsent and time.monotonic() >= self._resume:
            all(self._send(sending) for sending in self._waiting if sending.future is None)

    def _hold(self, error: BaseException) -> None:
        """Takes back what the producer gave up."""
        for sending in self._waiting:
            if sending.future is not None and isinstance(sending.future.exception, RetriableError):
                sending.future = None
                self._unsent += 1
        self._resume = time.monotonic() + _PAUSE_S
        self._trouble = f"{self._name}: {_words(error)}; trying again"

    def _divide(self, error: BaseException) -> None:
        """Replaces the oldest record, which the broker finds too large."""
        self._largest = min(self._largest, self._waiting[0].record.size - 1)
        if self._in_transactions():  # which this has spoilt; the next one knows the limit
            self._fail(error)
        whole = self._waiting[0]
        parts = [_Sending(record, whole.since) for record in self._fitting(whole.record)]
        self._waiting.popleft()
        self._waiting.extendleft(reversed(parts))
        self._unsent += len(parts)

    def _fitting(self, record: Record) -> list[Record]:
        """`record`, or what it has to be divided into or shortened to."""
        if record.size <= self._largest:
            self.shortened += record.shortened
            return [record]
        smaller = record.smaller()
        if not smaller:
            raise OutputError(
                f"{self._name}: a record of {record.size} bytes is too large and cannot be shortened; "
                "raise max.message.bytes of the topic, or max_request_size in kafka.client"
            )
        return [fitting for part in smaller for fitting in self._fitting(part)]

    def _in_transactions(self) -> bool:
        return self._producer.config["transactional_id"] is not None

    def _fail(self, error: BaseException) -> NoReturn:
        raise OutputError(
            f"{self._name}: cannot be written: {_words(error)}; check the topic, its settings and the right to write to it"
        ) from error


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
