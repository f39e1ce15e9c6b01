"""What a crash campaign left in the topics against one undisturbed replay of the same events."""

import json
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.crash_setting import EVENTS, FLAGS, LETTERS, PARTITIONS, SCORES, Setting
from streamlstm.kafka_client import TopicPartition, make_consumer
from streamlstm.service.replay import replay
from streamlstm.sinks.blocks import read_block
from streamlstm.types import Int64

_SILENCE_MS = 500


@dataclass(frozen=True, slots=True)
class Comparison:
    """Counts of what was expected and what was found; `repeats` are outputs found more than once."""

    expected: int
    found: int
    repeats: int
    missing: int
    extra: int
    different: int

    def holds(self, *, repeats_allowed: bool) -> bool:
        """Whether the outputs are those of the replay."""
        return not (self.missing or self.extra or self.different) and (repeats_allowed or not self.repeats)


def compare(setting: Setting) -> dict[str, Comparison]:
    """Flags, scores and dead letters, read with read_committed."""
    flags, scores, letters = _replayed(setting)
    found_flags = [_flag(value) for value in _values(setting, FLAGS)]
    found_letters = [(_origin(record), record.value) for record in _records(setting, LETTERS)]
    return {
        "flags": _compare(flags, found_flags),
        "scores": _compare(scores, _rows(setting)),
        "letters": _compare(letters, found_letters),
    }


def _compare(expected: dict[Any, Any], found: list[tuple[Any, Any]]) -> Comparison:
    names = Counter(name for name, _ in found)
    return Comparison(
        len(expected),
        len(names),
        sum(names.values()) - len(names),
        len(expected.keys() - names.keys()),
        len(names.keys() - expected.keys()),
        len({name for name, content in found if name in expected and expected[name] != content}),
    )


def _replayed(setting: Setting) -> tuple[dict[str, str], dict[tuple[str, int], bytes], dict[str, bytes]]:
    """Flags by id, scores by partition and offset, and dead letters by origin, of one undisturbed replay."""
    flags: dict[str, str] = {}
    scores: dict[tuple[str, int], bytes] = {}
    letters: dict[str, bytes] = {}
    for number in range(PARTITIONS):
        paths = [
            setting.folder / f"expected-{number}-{name}" for name in ("flags.jsonl", "scores.parquet", "letters.jsonl")
        ]
        address = f"kafka://{setting.broker.bootstrap}/{EVENTS}?partition={number}"
        flag_path, score_path, letter_path = paths
        replay(
            [address], config=setting.folder / "config.yaml", flags=str(flag_path),
            scores=str(score_path), dead_letters=str(letter_path),
        )  # fmt: skip
        flags |= dict(map(_flag, flag_path.read_text().splitlines()))
        scores |= _exact(f"{EVENTS}/{number}", pq.read_table(score_path))
        if letter_path.exists():
            for letter in map(json.loads, letter_path.read_text().splitlines()):
                letters[f"{letter['source']}/{letter['line']}"] = letter["text"].encode(errors="surrogateescape")
    return flags, scores, letters


def _flag(text: str | bytes) -> tuple[str, str]:
    """The id and all fields; 20 and 20.0 are one number, but 0.0 and -0.0, or 1 and true, are two values."""
    row = json.loads(text, parse_int=float)
    return row["id"], json.dumps(row, sort_keys=True)


def _exact(source: str, table: pa.Table) -> dict[tuple[str, int], bytes]:
    """Every bit of each row by partition and offset."""
    numbers = [_bits(table[name]) for name in ("time", "score", "threshold", "severity", "flag")]
    texts = [table[name].cast(pa.string()).to_pylist() for name in ("key", "stage")]
    matrix = np.ascontiguousarray(np.stack(numbers, axis=1))
    rows = table["row"].to_pylist()
    return {(source, row): matrix[n].tobytes() + f"{texts[0][n]} {texts[1][n]}".encode() for n, row in enumerate(rows)}


def _bits(column: pa.ChunkedArray) -> Int64:
    if pa.types.is_floating(column.type):
        return np.asarray(column.to_numpy(), np.float32).view(np.int32).astype(np.int64)
    return np.asarray(column.cast(pa.int64()).to_numpy())


def _rows(setting: Setting) -> list[tuple[tuple[str, int], bytes]]:
    found: list[tuple[tuple[str, int], bytes]] = []
    for record in _records(setting, SCORES):
        source = dict(record.headers)["source"].decode()
        found += _exact(source, pa.Table.from_batches([read_block(record.value)])).items()
    return found


def _origin(record: Any) -> str:
    headers = {name: value.decode() for name, value in record.headers}
    return f"{headers['topic']}/{headers['partition']}/{headers['offset']}"


def _values(setting: Setting, topic: str) -> list[bytes]:
    return [record.value for record in _records(setting, topic)]


def _records(setting: Setting, topic: str) -> list[Any]:
    """All committed records of a topic, also those that the open transaction of a worker killed last still hides."""
    kafka = setting.config.kafka
    with closing(make_consumer(kafka, client_id="judge", group=False, isolation="read_uncommitted")) as seer:
        places = [TopicPartition(topic, number) for number in sorted(seer.partitions_for_topic(topic))]
        ends = seer.end_offsets(places)
    consumer = make_consumer(kafka, client_id="judge", group=False, isolation="read_committed", batches=False)
    try:
        consumer.assign(places)
        for place in places:
            consumer.seek(place, 0)
        found: list[Any] = []
        while any(consumer.position(place) < ends[place] for place in places):
            for records in consumer.poll(timeout_ms=_SILENCE_MS).values():
                found += records
        return found
    finally:
        consumer.close()


def wrote(folder: Path) -> str:
    """The last words of all workers, for a person who looks for the cause."""
    return "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("worker-*.log")))
