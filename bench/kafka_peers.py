"""The other clients: each reads the first records of the topic and says how many seconds one of them took."""

import json
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from bench.agreement import Disagreement
from bench.kafka_events import FEATURE, check, checksum
from bench.kafka_setting import Setting

_LIMIT_S = 600.0
_FETCH_BYTES = 8 << 20
_QUIX_RECORDS = 200_000  # it needs 20 us a record
_PERFORMANCE = "org.apache.kafka.tools.ConsumerPerformance"


def consumer_performance(setting: Setting) -> float:
    """Kafka's own consumer in Java, which decodes nothing: its fetch phase."""
    from streamlstm.service.broker import LocalBroker

    tools = LocalBroker(setting.folder / "tools", tools=True)
    printed = tools.run_tool(
        _PERFORMANCE, "--bootstrap-server", setting.bootstrap, "--topic", setting.events.name,
        "--num-records", str(setting.records), timeout_s=_LIMIT_S,
    )  # fmt: skip
    count, per_second = parse_performance(printed)
    if not setting.records <= count <= setting.events.records:  # it ends with the poll that reaches the number
        raise Disagreement(f"consumer_performance: {count} records, expected {setting.records}; not timed")
    return 1 / per_second


def parse_performance(printed: str) -> tuple[int, float]:
    """Records, and records per second of the fetch phase, of what ConsumerPerformance prints."""
    lines = [[cell.strip() for cell in line.split(",")] for line in printed.splitlines()]
    for names, values in pairwise(lines):
        if "fetch.nMsg.sec" in names and len(values) == len(names):
            found = dict(zip(names, values, strict=True))
            return int(found["data.consumed.in.nMsg"]), float(found["fetch.nMsg.sec"])
    raise Disagreement(f"consumer_performance: no line with fetch.nMsg.sec in what it printed: {printed[-500:]!r}")


def _confluent(setting: Setting, *, decode: bool) -> float:
    from bench.kafka_topics import consumer

    queues = {"queued.min.messages": 1_000_000, "queued.max.messages.kbytes": 1 << 20}
    sizes = {"max.partition.fetch.bytes": _FETCH_BYTES, "enable.partition.eof": False}
    reader = consumer(setting, setting.events.name, **queues, **sizes)
    wanted, count, last, total = setting.records, 0, -1, 0.0
    began = time.perf_counter()
    while count < wanted and time.perf_counter() - began < _LIMIT_S:
        messages = reader.consume(min(10_000, wanted - count), 1.0)
        if decode:
            for message in messages:
                total += json.loads(message.value())[FEATURE]
        count += len(messages)
        last = messages[-1].offset() if messages else -1
    seconds = time.perf_counter() - began
    reader.close()
    return _checked("confluent", setting, count, last, total if decode else None, seconds)


def _kafka_python(setting: Setting, *, decode: bool) -> float:
    from kafka import KafkaConsumer, TopicPartition

    reader = KafkaConsumer(
        bootstrap_servers=setting.bootstrap, enable_auto_commit=False, auto_offset_reset="earliest",
        max_partition_fetch_bytes=_FETCH_BYTES, max_poll_records=10_000,
    )  # fmt: skip
    partition = TopicPartition(setting.events.name, 0)
    reader.assign([partition])
    reader.position(partition)
    wanted, count, last, total = setting.records, 0, -1, 0.0
    began = time.perf_counter()
    while count < wanted and time.perf_counter() - began < _LIMIT_S:
        for records in reader.poll(1000, max_records=min(10_000, wanted - count)).values():
            if decode:
                for record in records:
                    total += json.loads(record.value)[FEATURE]
            count += len(records)
            last = records[-1].offset
    seconds = time.perf_counter() - began
    reader.close()
    return _checked("kafka_python", setting, count, last, total if decode else None, seconds)


def _quix(setting: Setting, *, stateful: bool) -> float:
    """JSON and one Python function; it counts from that function's first call on: the group has been joined then."""
    from quixstreams import Application

    wanted = min(setting.records, _QUIX_RECORDS)
    application = Application(
        broker_address=setting.bootstrap, consumer_group=setting.name("quix"), auto_offset_reset="earliest",
        state_dir=setting.folder / setting.name("quix"), loglevel="WARNING",
        consumer_extra_config={"max.partition.fetch.bytes": _FETCH_BYTES},
    )  # fmt: skip
    count, total, first, last = 0, 0.0, 0.0, 0.0

    def note(event: dict[str, Any]) -> None:
        nonlocal count, total, first, last
        if count == 0:
            first = time.perf_counter()
        if count < wanted:
            count += 1
            total += event[FEATURE]
            if count == wanted:
                last = time.perf_counter()

    def remember(event: dict[str, Any], state: Any) -> None:
        state.set("seen", state.get("seen", 0) + 1)
        note(event)

    frame = application.dataframe(application.topic(setting.events.name, value_deserializer="json"))
    frame = frame.update(remember, stateful=True) if stateful else frame.update(note)
    application.run(count=wanted, timeout=_LIMIT_S, collect=False)
    check("quix", (wanted, checksum(setting.events.streams, wanted)), count, total)
    return (last - first) / (wanted - 1)


def _checked(what: str, setting: Setting, count: int, last: int, total: float | None, seconds: float) -> float:
    """Seconds of a record; `last` is the offset of the last one, `total` the sum of values where they were decoded."""
    if last != setting.records - 1:
        raise Disagreement(f"{what}: the last record has offset {last}, expected {setting.records - 1}; not timed")
    expected = checksum(setting.events.streams, setting.records)
    check(what, (setting.records, expected), count, expected if total is None else total)
    return seconds / count


PEERS: dict[str, Callable[[Setting], float]] = {
    "consumer_performance": consumer_performance,
    "confluent": lambda setting: _confluent(setting, decode=False),
    "confluent_json": lambda setting: _confluent(setting, decode=True),
    "kafka_python": lambda setting: _kafka_python(setting, decode=False),
    "kafka_python_json": lambda setting: _kafka_python(setting, decode=True),
    "quix": lambda setting: _quix(setting, stateful=False),
    "quix_state": lambda setting: _quix(setting, stateful=True),
}
