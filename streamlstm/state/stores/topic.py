"""Snapshots in a compacted topic: the key names partition and blob, the last value of a key is the blob.

Life of a blob: a record of at most a megabyte; one with the same key supersedes it, one without a value removes it, and
the broker's cleaner drops what is superseded, so that a restore reads little more than what is there. The state of
source partition t/3 lies in partition 3 modulo their number: partitions must not be added to the topic later.
"""

import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from streamlstm.config import schema
from streamlstm.errors import OutputError, StateError, UsageError
from streamlstm.kafka_client import (
    BrokerError,
    ConfigResource,
    KafkaError,
    TopicAlreadyExistsError,
    TopicPartition,
    explain,
    make_admin,
    make_consumer,
    make_producer,
)
from streamlstm.state.stores.protocol import HEAD_BYTES, Blob, fault, parts_of, seal

_RECORD_BYTES = 1 << 20
"""A record with its key and all around it; what a broker takes by default is a little more."""
_SETTINGS = {
    "cleanup.policy": "compact",
    "max.message.bytes": str(_RECORD_BYTES),
    # The cleaner never looks into the segment that is being written, and into the others once a tenth is superseded.
    "segment.bytes": str(64 << 20),
    "min.cleanable.dirty.ratio": "0.1",
    "max.compaction.lag.ms": "60000",
    # Longer than any restore: a reader that has seen a blob must also see its removal.
    "delete.retention.ms": "600000",
}
_READING = {"max_partition_fetch_bytes": 4 << 20}  # 105 MB took 0.33 s; 0.40 with 1 MiB, 0.41 with 16, 0.51 with 48
_WRITING = {"batch_size": 1 << 20}
_UNSENT_BYTES = 32 << 20
"""Written and not yet acknowledged: kafka-python's producer has no bound of its own."""
_SILENCE_S = 30.0
_POLL_MS = 500


class TopicStore:
    """Blobs as records of `topic`, which is made with `partitions` where it is absent; a `SnapshotStore` for many hosts.

    BrokerError where no broker answers, also from `load`; UsageError where the topic exists and is not compacted.
    """

    chunk_bytes = 960 << 10

    def __init__(self, kafka: schema.Kafka, topic: str, *, client_id: str, partitions: int) -> None:
        self._reading = kafka.model_copy(update={"client": _READING | kafka.client})
        self._writing = kafka.model_copy(update={"client": _WRITING | kafka.client})
        self._topic = topic
        self._client_id = client_id
        self._producer: Any = None
        self._unsent: deque[tuple[Any, int]] = deque()  # futures and bytes
        self._unsent_bytes = 0
        self._partitions = self._open(kafka, partitions)

    def partitions(self) -> list[str]:
        blobs: dict[bytes, bool] = {}
        try:
            for number in range(self._partitions):
                for record in self._records(TopicPartition(self._topic, number)):
                    if record.key is not None:
                        blobs[record.key] = record.value is not None
        except KafkaError as error:
            raise explain(error, self._reading) from error
        return sorted({key.partition(b"\0")[0].decode() for key, there in blobs.items() if there})

    def load(self, partition: str) -> dict[str, bytes]:
        prefix = f"{partition}\0".encode()
        sealed: dict[str, bytes] = {}
        try:
            for record in self._records(self._place(partition)):
                if record.key is None or not record.key.startswith(prefix):
                    continue
                name = record.key[len(prefix) :].decode()
                sealed.pop(name, None)
                if record.value is not None:
                    sealed[name] = record.value
        except KafkaError as error:
            raise explain(error, self._reading) from error
        blobs = {}
        for name, value in sealed.items():
            head, blobs[name] = value[:HEAD_BYTES], value[HEAD_BYTES:]
            wrong = fault(partition, name, head, blobs[name])
            if wrong:
                raise StateError(
                    f"kafka:{self._topic}: {partition} {name}: {wrong}; name another topic in delivery.snapshots "
                    "to start without state"
                )
        return blobs

    def put(self, partition: str, name: str, blob: Blob) -> None:
        parts = parts_of(blob)
        self._send(partition, name, b"".join([seal(partition, name, parts), *parts]))

    def delete(self, partition: str, names: Iterable[str]) -> None:
        for name in names:
            self._send(partition, name, None)

    def flush(self, timeout_s: float) -> None:
        self._await_acknowledged(0, timeout_s)

    def close(self) -> None:
        if self._producer is not None:
            # `close` alone waits for every unsent batch, each as long as its time-out.
            self._producer._sender.force_close()
            self._producer.close(timeout=1)
        self._producer = None
        self._unsent.clear()
        self._unsent_bytes = 0

    def _place(self, partition: str) -> Any:
        return TopicPartition(self._topic, int(partition.rpartition("/")[2]) % self._partitions)

    def _open(self, kafka: schema.Kafka, partitions: int) -> int:
        """How many partitions the topic has, once it is there and fit to keep state."""
        admin = make_admin(kafka, client_id=self._client_id)
        try:
            if self._topic not in admin.list_topics():
                with suppress(TopicAlreadyExistsError):  # another worker was faster
                    admin.create_topics({self._topic: {"num_partitions": partitions, "configs": _SETTINGS}})
                admin.wait_for_topics([self._topic])
            names = ["cleanup.policy", "max.message.bytes"]
            found = admin.describe_configs([ConfigResource("topic", self._topic, names)], config_filter="all")
            policy, most = (found["topic"][self._topic][name]["value"] for name in names)
            if policy != "compact":
                raise UsageError(
                    f"delivery.snapshots: topic {self._topic} has cleanup.policy={policy}, which loses state or grows for "
                    "ever; set it to compact, or name a topic that does not exist"
                )
            if int(most) < _RECORD_BYTES:
                raise UsageError(
                    f"delivery.snapshots: topic {self._topic} has max.message.bytes={most}, which is too small for the "
                    f"pieces of a snapshot; set it to {_RECORD_BYTES} or more, or name a topic that does not exist"
                )
            return len(admin.describe_topics([self._topic])[0]["partitions"])
        except KafkaError as error:
            raise explain(error, kafka) from error
        finally:
            admin.close()

    def _records(self, place: Any) -> Iterable[Any]:
        """All records from the first to the last that was there at the call, committed or not."""
        consumer = make_consumer(
            self._reading, client_id=self._client_id, group=False, isolation="read_uncommitted", batches=False
        )
        timeout_ms = int(1000 * _SILENCE_S)
        try:
            consumer.assign([place])
            position = consumer.beginning_offsets([place], timeout_ms=timeout_ms)[place]
            end = consumer.end_offsets([place], timeout_ms=timeout_ms)[place]
            consumer.seek(place, position)
            heard = time.monotonic()
            while position < end:
                yield from consumer.poll(timeout_ms=_POLL_MS).get(place, ())
                before, position = position, consumer.position(place, timeout_ms=timeout_ms)
                if position != before:
                    heard = time.monotonic()
                elif time.monotonic() - heard > _SILENCE_S:
                    raise BrokerError(
                        f"kafka:{self._topic}: nothing of partition {place.partition} for {_SILENCE_S:g} s, read up to "
                        f"{position} of {end}; check that the broker runs"
                    )
        finally:
            consumer.close()

    def _send(self, partition: str, name: str, value: bytes | None) -> None:
        size = 0 if value is None else len(value)
        self._await_acknowledged(max(0, _UNSENT_BYTES - size), _SILENCE_S)
        try:
            if self._producer is None:
                self._producer = make_producer(self._writing, client_id=self._client_id)
            place, key = self._place(partition), f"{partition}\0{name}".encode()
            future = self._producer.send(place.topic, key=key, value=value, partition=place.partition)
        except KafkaError as error:
            raise self._unwritable(error) from error
        except BrokerError as error:
            raise OutputError(str(error)) from error
        self._unsent.append((future, size))
        self._unsent_bytes += size

    def _await_acknowledged(self, bytes_left: int, timeout_s: float) -> None:
        """Waits until at most `bytes_left` are unacknowledged; 0 means every record."""
        deadline = time.monotonic() + timeout_s
        while self._unsent and (not bytes_left or self._unsent_bytes > bytes_left):
            future, size = self._unsent[0]
            try:
                future.get(timeout=max(0.0, deadline - time.monotonic()))
            except KafkaError as error:
                if future.failed():
                    self.close()  # what was refused would be missing in what follows: the caller begins anew
                raise self._unwritable(error) from error
            self._unsent.popleft()
            self._unsent_bytes -= size

    def _unwritable(self, error: KafkaError) -> OutputError:
        return OutputError(f"kafka:{self._topic}: cannot write the snapshot: {explain(error, self._writing)}")
