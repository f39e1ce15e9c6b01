"""A Kafka topic as a sink: sends without waiting and remembers what the broker has not acknowledged."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

from streamlstm.config.schema import Kafka
from streamlstm.errors import OutputError
from streamlstm.kafka_client import ConfigResource, KafkaError, RetriableError, make_admin
from streamlstm.sinks.records import Record

T = TypeVar("T")

_LIMIT = "max.message.bytes"
_USUAL_LIMIT = 1_048_588  # the broker's default
_LOOK_S = 0.05


class _Sending(NamedTuple):
    """A record on its way: how many rows, since when, and the producer's future."""

    rows: int
    since: float
    future: Any


class TopicSink(Generic[T]):
    """Sends what `render` makes of each item to `topic`; the producer may be shared and is not closed here.

    The producer alone tries again, up to its `delivery_timeout_ms`. What it gives up is an OutputError, and then the
    producer is of no more use: kafka-python 3.0.12 accepts further records after a record that timed out or was refused,
    and never delivers them. Who makes another one opens the sinks anew too, and writes again from the last checkpoint.

    A record larger than `limit` bytes is divided or shortened, as `Record.smaller` says, and counted in `shortened`: one
    huge flag must not stop all others. In a transaction of the producer records are part of it; after its abort `reset`.
    """

    def __init__(
        self, topic: str, producer: Any, render: Callable[[T, str], Iterable[Record]], *, limit: int, queue_rows: int
    ) -> None:
        self.sent = self.shortened = 0
        self._name = f"kafka:{topic}"
        self._topic, self._producer, self._render, self._queue_rows = topic, producer, render, queue_rows
        self._limit: int = min(limit, producer.config["max_request_size"])
        self._acknowledged = 0
        self._waiting: deque[_Sending] = deque()
        self._failure: OutputError | None = None
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
                self._send(record)

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
            self._waiting[0].future.add_both(lambda _, done=done: done.set())
            done.wait(min(left, _LOOK_S))

    def reset(self) -> None:
        self._waiting.clear()
        self._failure = None
        self.sent = self._acknowledged

    def oldest_s(self) -> float:
        self._settle()
        return time.monotonic() - self._waiting[0].since if self._waiting else 0.0

    def trouble(self) -> str | None:
        return str(self._failure) if self._failure else None

    def close(self) -> None:
        """Forgets what waits; the producer may still deliver it."""
        self._waiting.clear()

    def _settle(self) -> None:
        """Counts what has arrived."""
        if self._failure is not None:
            raise self._failure
        while self._waiting and self._waiting[0].future.is_done:
            error = self._waiting[0].future.exception
            if error is not None:
                self._fail(error)
            self._acknowledged += self._waiting.popleft().rows

    def _send(self, record: Record) -> None:
        try:
            future = self._producer.send(self._topic, value=record.value, key=record.key, headers=list(record.headers))
        except KafkaError as error:
            self._fail(error)
        self._waiting.append(_Sending(record.rows, time.monotonic(), future))
        self.sent += record.rows

    def _fitting(self, record: Record) -> list[Record]:
        """`record`, or what it has to be divided into or shortened to."""
        if record.size <= self._limit:
            self.shortened += record.shortened
            return [record]
        smaller = record.smaller()
        if not smaller:
            self._failure = OutputError(
                f"{self._name}: a record of {record.size} bytes cannot be shortened to the limit of {self._limit}; "
                f"raise {_LIMIT} of the topic, or max_request_size in kafka.client"
            )
            raise self._failure
        return [fitting for part in smaller for fitting in self._fitting(part)]

    def _fail(self, error: BaseException) -> NoReturn:
        words = f"cannot be written: {_words(error)}; check the broker, the topic and the right to write to it"
        self._failure = OutputError(f"{self._name}: {words}")
        raise self._failure from error


def record_limit(kafka: Kafka, topic: str) -> int:
    """`max.message.bytes` of a topic; the broker's default where the topic is missing or we may not ask.

    Asked beforehand, since a refused record is the end of its producer.
    """
    admin = make_admin(kafka, client_id="streamlstm-limits")
    try:
        found = admin.describe_configs([ConfigResource("topic", topic, [_LIMIT])], config_filter="all")
    except KafkaError:  # most likely no permission; a broker that is away says so when the topic is opened
        return _USUAL_LIMIT
    finally:
        admin.close()
    return int(found["topic"][topic].get(_LIMIT, {"value": _USUAL_LIMIT})["value"])


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
