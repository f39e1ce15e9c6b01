"""The demo through a real broker: the recording as messages, the daemon on it, its flags read back from their topic."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from streamlstm.config import load
from streamlstm.errors import InputError
from streamlstm.kafka_client import TopicPartition, make_consumer, make_producer
from streamlstm.model.files import load_model
from streamlstm.service.broker import LocalBroker
from streamlstm.service.daemon import Daemon

READINGS, FLAGS, DEAD_LETTERS = "readings", "flags", "dead-letters"
_LONGEST_S = 120.0
_KEY = b"i-53ea38"


@dataclass(frozen=True, slots=True)
class KafkaDemo:
    """Records sent, seconds from the daemon's start to its end, its flags, and whether they are those of the replay."""

    bootstrap: str
    records: int
    seconds: float
    flags: list[dict[str, Any]]
    equal: bool


def run_kafka_demo(
    folder: Path, recording: str, model_path: Path, replayed: Path, on_note: Callable[[str], None]
) -> KafkaDemo:
    """Sends `recording` to a broker that lives as long as this call, and compares the flags with those in `replayed`."""
    on_note("starting Apache Kafka (the first time, its jars are fetched)")
    with LocalBroker() as broker:
        on_note(f"broker at {broker.bootstrap}")
        broker.create_topics({READINGS: 1, FLAGS: 1, DEAD_LETTERS: 1})
        model = load_model(model_path)
        base = model.config.model_dump(
            include={"input", "model", "training", "learning", "score", "threshold", "episodes"}
        )
        # A recording names its stream in no column; a message has its key.
        base["input"]["key"] = None
        config = load({
            **base,
            "kafka": {"bootstrap_servers": [broker.bootstrap], "topics": [READINGS], "group_id": "demo"},
            "outputs": {"flags": f"kafka:{FLAGS}", "dead_letters": f"kafka:{DEAD_LETTERS}"},
            "delivery": {"snapshots": str(folder / "state"), "on_new_topic": "cold_start", "on_mismatch": "cold_start"},
        })  # fmt: skip
        records = 0
        producer = make_producer(config.kafka, client_id="demo", linger_ms=20)
        for value in _messages(recording):
            producer.send(READINGS, key=_KEY, value=value)
            records += 1
        producer.flush(timeout=_LONGEST_S)
        producer.close()
        began = time.monotonic()
        daemon = Daemon(config, model)
        daemon.run(lambda: daemon.status().events >= records or time.monotonic() > began + _LONGEST_S)
        seconds = time.monotonic() - began
        flags = list(_read(config.kafka, FLAGS))
    expected = pa_csv.read_csv(replayed).to_pylist()
    said = [(row["row"], row["score"], row["severity"]) for row in flags]
    return KafkaDemo(
        broker.bootstrap,
        records,
        seconds,
        flags,
        said == [(row["row"], row["score"], row["severity"]) for row in expected],
    )


def _messages(recording: str) -> Iterator[bytes]:
    """The recording's rows as JSON, times as they are written there."""
    options = pa_csv.ConvertOptions(column_types={"timestamp": pa.string(), "value": pa.float64()})
    for row in pa_csv.read_csv(recording, convert_options=options).to_pylist():
        yield json.dumps(row).encode()


def _read(kafka: Any, topic: str) -> Iterator[dict[str, Any]]:
    """All records of a topic's only partition."""
    consumer = make_consumer(kafka, client_id="demo", group=False, batches=False)
    place = TopicPartition(topic, 0)
    try:
        consumer.assign([place])
        end = consumer.end_offsets([place])[place]
        consumer.seek(place, 0)
        deadline = time.monotonic() + _LONGEST_S
        while consumer.position(place) < end:
            if time.monotonic() > deadline:
                raise InputError(f"{topic}: its {end} records could not be read in {_LONGEST_S:.0f} s")
            for record in consumer.poll(timeout_ms=500).get(place, ()):
                yield json.loads(record.value)
    finally:
        consumer.close()
