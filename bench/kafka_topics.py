"""Topics of the Kafka benchmark: made, filled by a quick producer, fed at a rate, read to the end."""

import time
from collections.abc import Iterator
from itertools import count
from threading import Event
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.agreement import Disagreement
from bench.kafka_events import chunks, json_values, keys
from bench.kafka_setting import Setting, Topic

_LIMIT_S = 600.0
_SLICE_S = 0.01  # a paced producer wakes up this often


def create(setting: Setting, name: str) -> str:
    """The name of a new topic of one partition that keeps everything."""
    admin = AdminClient({"bootstrap.servers": setting.bootstrap})
    topic = NewTopic(name, num_partitions=1, replication_factor=1, config={"retention.ms": "-1"})
    admin.create_topics([topic], operation_timeout=30)[name].result(timeout=60)
    return name


def producer(setting: Setting, **more: Any) -> Producer:
    """A producer that keeps the order and neither drops nor repeats a record."""
    return Producer({"bootstrap.servers": setting.bootstrap, "enable.idempotence": True} | more)


def consumer(setting: Setting, topic: str, **more: Any) -> Consumer:
    """A connected consumer at the start of partition 0, without a group."""
    reader = Consumer({
        "bootstrap.servers": setting.bootstrap, "group.id": setting.name("reader"), "enable.auto.commit": False,
        "enable.partition.eof": True,
    } | more)  # fmt: skip
    reader.list_topics(topic, timeout=30)
    reader.assign([TopicPartition(topic, 0, 0)])
    return reader


def filled(setting: Setting, topic: Topic) -> None:
    """Makes and fills the topic unless that was done; Disagreement unless every record is in it once."""
    done = setting.folder / f"{topic.name}.filled"
    if done.exists():
        return
    create(setting, topic.name)
    queue = {"queue.buffering.max.messages": 1_000_000, "linger.ms": 20}
    sender = producer(setting, **{"batch.size": 262_144, "compression.type": "none"} | queue)
    names = keys(topic.streams)
    for time_ms, stream, value in chunks(topic.streams, topic.records):
        for text, key in zip(json_values(time_ms, value), map(names.__getitem__, stream.tolist()), strict=True):
            while True:
                try:
                    sender.produce(topic.name, text, key, 0)
                    break
                except BufferError:
                    sender.poll(0.05)
    left = sender.flush(_LIMIT_S)
    end = _end(setting, topic.name)
    if left or end != topic.records:
        raise Disagreement(f"{topic.name}: holds {end} records after filling, expected {topic.records}")
    done.touch()


def _end(setting: Setting, topic: str) -> int:
    reader = consumer(setting, topic)
    try:
        return int(reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)[1])
    finally:
        reader.close()


def feed(setting: Setting, topic: Topic, per_second: int, stop: Event) -> None:
    """Goes on where filling the topic ended, at a steady rate, until told to stop."""
    sender = producer(setting, **{"linger.ms": 5})
    names = keys(topic.streams)
    began = time.perf_counter()
    for sent, (text, key) in enumerate(_on_and_on(topic, names), start=1):
        sender.produce(topic.name, text, key, 0)
        if sent % max(1, int(per_second * _SLICE_S)) == 0:
            sender.poll(0)
            if stop.wait(max(0.0, began + sent / per_second - time.perf_counter())):
                break
    sender.flush(30)


def _on_and_on(topic: Topic, names: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    for turn in count(topic.records // topic.streams):
        for time_ms, stream, value in chunks(topic.streams, (turn + 1) * topic.streams, turn * topic.streams):
            yield from zip(json_values(time_ms, value), map(names.__getitem__, stream.tolist()), strict=True)


def committed_values(setting: Setting, topic: str) -> Iterator[bytes]:
    """The values in the topic now, none of an open or aborted transaction."""
    reader = consumer(setting, topic, **{"isolation.level": "read_committed"})
    try:
        deadline = time.monotonic() + _LIMIT_S
        while time.monotonic() < deadline:
            for message in reader.consume(10_000, 1.0):
                error = message.error()
                if error is None:
                    yield message.value()
                elif error.code() == KafkaError._PARTITION_EOF:
                    return
                else:
                    raise KafkaException(error)
        raise Disagreement(f"{topic}: no end of it within {_LIMIT_S:g} s")
    finally:
        reader.close()
