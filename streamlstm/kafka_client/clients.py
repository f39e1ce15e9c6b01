"""Consumers, producers and admin clients, made from the section `kafka`."""

import logging
from collections.abc import Callable
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.net.compat import KafkaNetClient

from streamlstm.config import schema
from streamlstm.kafka_client.failures import BOOTSTRAP_MS, SilenceError, explain
from streamlstm.kafka_client.selftest import take_batches
from streamlstm.kafka_client.settings import client_settings

ASSIGNORS = {
    "cooperative-sticky": CooperativeStickyAssignor,
    "range": RangePartitionAssignor,
    "roundrobin": RoundRobinPartitionAssignor,
}
TRANSACTION_MS = 10_000
BATCHES = 64
"""Record batches that one poll returns; Java producers make 16 KiB of each, so that is a megabyte or more."""
_FETCH_BYTES = 8 << 20
_RECORDS = 100_000  # of the public path, which counts records


def make_consumer(
    kafka: schema.Kafka,
    *,
    client_id: str,
    group: bool = True,
    worker: int = 0,
    isolation: str | None = None,
    batches: bool = True,
) -> Any:
    """A KafkaConsumer that commits nothing by itself and never chooses a start by itself.

    With `group` it is a member of `kafka.group_id` once it subscribes; workers after the first one append their number to
    `kafka.group_instance_id`. `isolation` replaces `kafka.isolation`. With
    `batches` its poll returns `Batch` and `BadBatch`, if `take_batches` can do that; else ConsumerRecords as ever.
    """
    hook = take_batches() if batches else None
    settings = {
        "max_partition_fetch_bytes": _FETCH_BYTES,
        "max_poll_records": _RECORDS if hook is None else BATCHES,
        "receive_buffer_bytes": 1 << 20,
        "metrics_enabled": False,
        **client_settings(kafka, "consumer"),
        "isolation_level": isolation or kafka.isolation,
        "auto_offset_reset": "none",
        "enable_auto_commit": False,
        "allow_auto_create_topics": False,
        "partition_assignment_strategy": [ASSIGNORS[kafka.assignor]],
    }
    if group:
        static = kafka.group_instance_id
        settings |= {"group_id": kafka.group_id}
        settings |= {"group_instance_id": f"{static}-{worker}" if static is not None and worker else static}
    consumer = _made(KafkaConsumer, kafka, client_id, settings)
    _look_again(consumer._fetcher)
    if hook is not None:
        consumer._fetcher.PartitionRecords = hook
    if group:
        _ask_for_coordinator_once(consumer._coordinator)
    return consumer


def _ask_for_coordinator_once(coordinator: Any) -> None:
    """Lets `poll` ask who coordinates the group only while nobody does, or while the group is not at rest.

    kafka-python 3.0.12 hands that question to its IO thread in each poll, and waits: with a producer beside it on the same
    core that was 1.3 of the 7.3 ms of a round with nine flags (two shared cores, November 2026).
    """
    stock = coordinator.ensure_coordinator_ready

    def ensure(timeout_ms: float | None = None) -> bool:
        known = coordinator.coordinator_id
        at_rest = coordinator.stable() and not (coordinator.rejoin_needed or coordinator.rejoining)
        if at_rest and known is not None and coordinator._client.connected(known):
            return True
        found: bool = stock(timeout_ms=timeout_ms)
        return found

    coordinator.ensure_coordinator_ready = ensure


def _look_again(fetcher: Any) -> None:
    """Takes a response that comes just after the fetcher looked for one and before it looks what is under way.

    kafka-python 3.0.12 then sleeps `retry_backoff_ms` (100 ms) with the records in hand: at 1 000 records a second about once
    in twenty seconds.
    """
    stock = fetcher.fetch_records

    def fetch_records(*arguments: Any, **named: Any) -> Any:
        records, idle = stock(*arguments, **named)
        return stock(*arguments, **named) if idle and fetcher._completed_fetches else (records, idle)

    fetcher.fetch_records = fetch_records


def make_producer(
    kafka: schema.Kafka, *, client_id: str, transactional_id: str | None = None, linger_ms: int = 0
) -> Any:
    """A KafkaProducer that waits for all replicas and writes each record once; `send` blocks 10 s at most.

    Waiting for more flags of a round pays at no rate: of 1 000 and 3 000 a second half arrive within 1.2 and 1.9 ms without,
    2.1 and 2.4 ms with 1 ms (EPYC, November 2026). `linger_ms` and `compression_type` in `kafka.client` have the last word.
    """
    settings = {
        "linger_ms": linger_ms,
        "max_block_ms": 10_000,
        "metrics_enabled": False,
        **client_settings(kafka, "producer"),
        "acks": "all",
        "enable_idempotence": True,
        "allow_auto_create_topics": False,
    }
    if transactional_id is not None:
        settings |= {"transactional_id": transactional_id, "transaction_timeout_ms": TRANSACTION_MS}
    return _made(KafkaProducer, kafka, client_id, settings)


def make_admin(kafka: schema.Kafka, *, client_id: str) -> Any:
    """A KafkaAdminClient."""
    return _made(KafkaAdminClient, kafka, client_id, client_settings(kafka, "admin"))


def _made(client: Callable[..., Any], kafka: schema.Kafka, client_id: str, settings: dict[str, Any]) -> Any:
    settings = {"bootstrap_timeout_ms": BOOTSTRAP_MS, **settings}
    servers = list(kafka.bootstrap_servers)
    networks: list[Any] = []

    def network(**settings: Any) -> Any:
        networks.append(KafkaNetClient(**settings))
        return networks[-1]

    with _Ear() as ear:
        try:
            return client(bootstrap_servers=servers, client_id=client_id, kafka_client=network, **settings)
        except (KafkaError, OSError, ValueError, TypeError, AssertionError) as error:
            for half_made in networks:  # its thread would go on and on looking for a broker
                half_made.close()
            silent = isinstance(error, KafkaTimeoutError)
            reason = SilenceError(ear.last, settings["bootstrap_timeout_ms"]) if silent else error
            raise explain(reason, kafka) from error


class _Ear(logging.Handler):
    """Remembers why the last attempt to reach a broker failed: the client says it to its log alone."""

    last: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the exception among the record's arguments, if there is one."""
        arguments = record.args if isinstance(record.args, tuple) else ()
        reasons = (
            part for part in arguments if isinstance(part, BaseException) and not isinstance(part, KafkaTimeoutError)
        )
        self.last = next(reasons, self.last)

    def __enter__(self) -> "_Ear":
        logging.getLogger("kafka.net.manager").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("kafka.net.manager").removeHandler(self)
