"""Daemons in threads of the test's process, on a topic of the real broker, and what one undisturbed replay says of it."""

import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import yaml
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import RetriableError

from streamlstm.config import load
from streamlstm.detect.chunks import Manifest
from streamlstm.learn.fit import Recording, fit
from streamlstm.model.files import save_model
from streamlstm.service.daemon import Daemon
from streamlstm.service.replay import replay
from streamlstm.service.restoring import newest_manifest
from streamlstm.service.running import open_setup
from streamlstm.sinks.blocks import read_block
from streamlstm.state.stores import SnapshotStore, open_store

LIMIT_S = 60.0
START_MS, TICK_MS = 1_700_000_000_000, 60_000
QUICK = {"heartbeat_interval_ms": 300}  # that is how fast a member hears of a rebalance
ONLINE: dict[str, Any] = {
    "model": {"file": None, "hidden_size": 8},
    "learning": {"mode": "online", "learning_rows": 10, "calibrating_rows": 20, "update_every": 16},
    "score": {"span": 1},
    "threshold": {"kind": "fixed", "level": 4.0},
}
Row = tuple[bytes, bytes]
Rows = Mapping[Any, Any]


class BrokenOff(BaseException):
    """Ends a daemon's loop wherever it is: nothing is delivered, snapshotted or committed any more."""


def write_model(path: Path) -> Path:
    """A small model, fitted on one stream, so that every stream is live from its first record."""
    minutes = np.arange(1000)
    values = 20 + 3 * np.sin(minutes / 30) + 0.3 * np.random.default_rng(0).normal(size=1000)
    config = load({
        "model": {"hidden_size": 8}, "training": {"updates": 10}, "learning": {"calibrating_rows": 1},
        "score": {"span": 1}, "threshold": {"kind": "fixed", "level": 6.0},
    })  # fmt: skip
    save_model(fit({"fitted": Recording(minutes * 60_000_000_000, values[:, None])}, config, ("value",)), path)
    return path


def readings(first: int, count: int, keys: int = 7, name: str = "sensor") -> Iterator[Row]:
    """Events number `first` to `first + count`, of `keys` streams in turn; each fiftieth is a spike."""
    for n in range(first, first + count):
        minute, key = divmod(n, keys)
        noise = np.random.default_rng(n).normal()
        value = 20 + 3 * np.sin(minute / 30) + 0.3 * noise + (9 if n % 50 == 49 else 0)
        yield b"%s-%d" % (name.encode(), key), b'{"ts":%d,"value":%.17g}' % (START_MS + minute * TICK_MS, value)


class Running:
    """A daemon on a thread of its own."""

    def __init__(self, place: "Place", worker: int = 0, **overrides: Any) -> None:
        self.error: BaseException | None = None
        self.daemon: Daemon | None = None
        self.rounds = 0
        self._place = place
        self._ending, self._breaking = threading.Event(), threading.Event()
        self._setup = open_setup(str(place.config), overrides)
        self.thread = threading.Thread(target=self._run, args=(worker,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Ends it as SIGTERM would; raises what it raised."""
        self._ending.set()
        self._join()

    def break_off(self) -> None:
        """Ends it without a last snapshot or commit, as a crash would."""
        self._breaking.set()
        self._join()

    def partitions(self) -> list[str]:
        """The partitions that it reads."""
        return [] if self.daemon is None else sorted(self.daemon._partitions)

    def _join(self) -> None:
        self.thread.join(LIMIT_S)
        assert not self.thread.is_alive()
        self._place.running.remove(self)
        if self.error is not None:
            raise self.error

    def _run(self, worker: int) -> None:
        try:
            self.daemon = Daemon(self._setup.config, self._setup.model, on_round=self._round, worker=worker)
            self.daemon.run(self._ending.is_set)
        except BrokenOff:
            pass
        except BaseException as error:
            self.error = error

    def _round(self) -> None:
        self.rounds += 1
        if self._breaking.is_set():
            self._breaking.clear()
            raise BrokenOff


class Place:
    """A topic, the configuration of its daemons, and what they have written."""

    def __init__(
        self,
        broker: str,
        admin: KafkaAdminClient,
        topic: str,
        make_topic: Callable[..., str],
        folder: Path,
        model: Path,
    ) -> None:
        self.broker, self.admin, self.topic, self.make_topic, self.folder = broker, admin, topic, make_topic, folder
        self.running: list[Running] = []
        self.config = folder / "config.yaml"
        self._sections: dict[str, dict[str, Any]] = {
            "kafka": {"bootstrap_servers": [broker], "topics": [topic], "group_id": topic} | {"client": QUICK},
            "input": {"features": ["value"], "time": "ts", "time_unit": "ms"},
            "model": {"file": str(model)},
            "outputs": {
                "flags": str(folder / "flags.jsonl"), "scores": str(folder / "scores.jsonl"),
                "dead_letters": str(folder / "letters.jsonl"),
            },
            "delivery": {"snapshots": str(folder / "state"), "snapshot_interval_s": 0.2, "commit_interval_s": 0.1},
        }  # fmt: skip
        self.configure()

    def configure(self, **sections: Mapping[str, Any]) -> Self:
        """Changes the configuration of the daemons that start from now on."""
        for name, section in sections.items():
            self._sections[name] = self._sections.get(name, {}) | dict(section)
        self.config.write_text(yaml.safe_dump(self._sections))
        return self

    def exactly_once(self) -> Self:
        """All outputs to topics, each with a score of its own."""
        names = {name: f"kafka:{self.make_topic()}" for name in ("flags", "scores", "dead_letters")}
        return self.configure(outputs=names, delivery={"mode": "exactly_once"})

    def send(self, rows: Iterable[Any], partition: int = 0) -> int:
        """Sends key, value and perhaps headers; returns the end of the partition."""
        with closing(KafkaProducer(bootstrap_servers=self.broker, linger_ms=20)) as producer:
            for key, value, *headers in rows:
                producer.send(self.topic, value, key, headers=headers[0] if headers else None, partition=partition)
            producer.flush(timeout=LIMIT_S)
        return self.ends()[f"{self.topic}/{partition}"]

    def start(self, worker: int = 0, **overrides: Any) -> Running:
        """Starts a daemon."""
        running = Running(self, worker, **overrides)
        self.running.append(running)
        return running

    def until(self, reached: Callable[[], Any], limit_s: float = LIMIT_S) -> None:
        """Waits until `reached`; raises what a daemon raised meanwhile."""
        deadline = time.monotonic() + limit_s
        while not reached():
            for running in self.running:
                if running.error is not None:
                    raise running.error
            assert time.monotonic() < deadline, "this never came"
            time.sleep(0.02)

    def until_read(self) -> None:
        """Waits until the group has committed the ends of all partitions."""
        self.until(lambda: self.committed() == {name: end for name, end in self.ends().items() if end})

    def committed(self) -> dict[str, int]:
        """The group's offsets that are not 0."""
        try:
            (offsets,) = self.admin.list_group_offsets({self._sections["kafka"]["group_id"]: None}).values()
        except RetriableError:  # the broker has had no group yet, or was away
            return {}
        return {f"{place.topic}/{place.partition}": at.offset for place, at in offsets.items() if at.offset > 0}

    def ends(self) -> dict[str, int]:
        """The ends of all partitions."""
        (found,) = self.admin.describe_topics([self.topic])
        places = [TopicPartition(self.topic, one["partition_index"]) for one in found["partitions"]]
        ends = self.admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST))
        return {f"{place.topic}/{place.partition}": end.offset for place, end in ends.items()}

    @contextmanager
    def store(self) -> Iterator[SnapshotStore]:
        """The daemons' snapshot store."""
        config = open_setup(str(self.config), {}).config
        with closing(open_store(config, client_id="look")) as store:
            yield store

    def manifest(self, partition: int = 0) -> Manifest | None:
        """The newest manifest of a partition."""
        with self.store() as store:
            return newest_manifest(store.load(f"{self.topic}/{partition}"))

    def records(self, output: str) -> list[Any]:
        """All committed records of the topic of an output."""
        topic = self._sections["outputs"][output].removeprefix("kafka:")
        with closing(KafkaConsumer(bootstrap_servers=self.broker, isolation_level="read_committed")) as consumer:
            place = TopicPartition(topic, 0)
            consumer.assign([place])
            consumer.seek(place, 0)
            end, found = consumer.end_offsets([place])[place], []
            while consumer.position(place) < end:
                found += consumer.poll(timeout_ms=200).get(place, [])
            return found

    def flags(self) -> list[tuple[str, str]]:
        """The id and all fields of each flag that was written, in order."""
        address = self._sections["outputs"]["flags"]
        if address.startswith("kafka:"):
            return [_flag(record.value) for record in self.records("flags")]
        return [_flag(line) for line in Path(address).read_text().splitlines()]

    def scores(self) -> list[tuple[Any, Any]]:
        """Key, offset and all bits of each score that was written, in order."""
        address = self._sections["outputs"]["scores"]
        if address.startswith("kafka:"):
            tables = [read_block(record.value) for record in self.records("scores")]
            return [_score(row) for table in tables for row in table.to_pylist()]
        return [_score(json.loads(line)) for line in Path(address).read_text().splitlines()]

    def expected(self, **overrides: Any) -> tuple[Rows, Rows]:
        """Flags and scores of one undisturbed replay, which may miss what is not in the topic any more."""
        flags, scores = self.folder / "expected-flags.jsonl", self.folder / "expected-scores.jsonl"
        letters = self.folder / "expected-letters.jsonl"
        replay(
            [f"kafka://{self.broker}/{self.topic}"], config=self.config, overrides=overrides, flags=str(flags),
            scores=str(scores), dead_letters=str(letters),
        )  # fmt: skip
        return (
            dict(_flag(line) for line in flags.read_text().splitlines()),
            dict(_score(json.loads(line)) for line in scores.read_text().splitlines()),
        )

    def check(self, *, repeats: bool = False, waiting: Collection[int] = (), **overrides: Any) -> None:
        """Asserts that flags and scores are those of one replay, each once unless `repeats` are allowed.

        Records at the offsets `waiting`, which a replay scores at its end, must not be among them.
        """
        expected_flags, expected_scores = self.expected(**overrides)
        expected_flags = {
            name: flag for name, flag in expected_flags.items() if int(name.rsplit("/", 1)[1]) not in waiting
        }
        expected_scores = {place: score for place, score in expected_scores.items() if place[1] not in waiting}
        assert expected_flags
        assert len(expected_scores) > len(expected_flags)
        for expected, found in ((expected_flags, self.flags()), (expected_scores, self.scores())):
            assert dict(found).keys() == expected.keys()
            assert [pair for pair in found if expected[pair[0]] != pair[1]] == []
            assert repeats or len(found) == len(expected)
        names = [name.rsplit("/", 1) for name in expected_flags]
        assert {source for source, _ in names} <= self.ends().keys()

    def close(self) -> None:
        """Ends the daemons that a failing test left."""
        for running in list(self.running):
            running._breaking.set()
            running.thread.join(LIMIT_S)


def _flag(line: str | bytes) -> tuple[str, str]:
    """20 and 20.0 are one number, but 0.0 and -0.0, or 1 and true, are two values."""
    row = json.loads(line, parse_int=float)
    return row["id"], json.dumps(row, sort_keys=True)


def _score(row: dict[str, Any]) -> tuple[tuple[str, int], tuple[Any, ...]]:
    """From JSON or from Arrow: floats of either are equal when their bits are."""
    fields = ("threshold", "score", "severity")
    values = [None if row[name] is None else np.float32(row[name]).tobytes() for name in fields]
    return (row["key"], row["row"]), (*values, bool(row["flag"]), row["stage"])


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of most tests."""
    return write_model(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture
def place(
    kafka_broker: str, kafka_admin: KafkaAdminClient, topic: Callable[..., str], tmp_path: Path, model: Path
) -> Iterator[Callable[..., Place]]:
    """Makes a place: `place(partitions)`."""
    made: list[Place] = []

    def make(partitions: int = 1, **config: str) -> Place:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Place(kafka_broker, kafka_admin, topic(partitions, **config), topic, folder, model))
        return made[-1]

    yield make
    for one in made:
        one.close()
