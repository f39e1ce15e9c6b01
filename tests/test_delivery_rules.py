"""The ten rules of delivery, each on the real broker: what the daemon wrote is what one undisturbed replay says."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from daemons import ONLINE, Place, Running, model, place, readings
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import MemberToRemove, NewPartitions
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from streamlstm.config.schema import Kafka
from streamlstm.detect.detector import Detector
from streamlstm.errors import ConfigError, OutputError, StateError
from streamlstm.kafka_client import make_producer
from streamlstm.service.daemon import Daemon
from streamlstm.service.delivery import ExactlyOnce, LostError
from streamlstm.service.emitter import Emitter
from streamlstm.service.running import open_setup
from streamlstm.service.snapshots import MANIFEST, Owner, PartitionSnapshots
from streamlstm.sinks.blocks import read_block
from streamlstm.sources.topics import KafkaSource
from streamlstm.state.stores.folder import FolderStore
from streamlstm.state.stores.topic import TopicStore

MakePlace = Callable[..., Place]
STORES = ("folder", "topic")
__all__ = ["model", "place"]  # fixtures


def with_store(place: Place, kind: str) -> Place:
    """Keeps snapshots in a compacted topic where `kind` says so."""
    if kind == "topic":
        name = place.make_topic(1, **{"cleanup.policy": "compact", "max.message.bytes": str(1 << 20)})
        place.configure(delivery={"snapshots": f"kafka:{name}"})
    return place


def settled(place: Place, running: Running, partition: int = 0) -> bool:
    """Whether a snapshot holds everything that was sent."""
    found = place.manifest(partition)
    return found is not None and found.next_offset == place.ends()[f"{place.topic}/{partition}"]


# ---- 1


def test_1_one_loop_owns_everything(place: MakePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    here = place()
    threads: dict[str, set[str]] = {}

    def watch(kind: type, name: str) -> None:
        original = getattr(kind, name)

        def watched(self: Any, *given: Any, **named: Any) -> Any:
            threads.setdefault(f"{kind.__name__}.{name}", set()).add(threading.current_thread().name)
            return original(self, *given, **named)

        monkeypatch.setattr(kind, name, watched)

    loop = ((Detector, "process_events"), (Emitter, "emit"), (PartitionSnapshots, "_chunk"), (KafkaSource, "poll"))
    for kind, name in (*loop, (FolderStore, "put")):
        watch(kind, name)
    here.send(readings(0, 300))
    running = here.start()
    here.until(lambda: settled(here, running))
    owner = running.thread.name
    running.stop()
    assert threads.pop("FolderStore.put") == {"snapshots"}
    assert len(threads) == len(loop)
    assert set().union(*threads.values()) == {owner}


# ---- 2


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("learning", ["frozen", "online"])
def test_2_state_and_offset_move_together(place: MakePlace, learning: str, store: str) -> None:
    here = with_store(place(), store)
    if learning == "online":
        here.configure(**ONLINE)
    here.send(readings(0, 400))
    first = here.start()
    here.until(lambda: settled(here, first))
    here.send(readings(400, 150))
    here.until_read()
    first.break_off()  # perhaps behind its last snapshot
    here.send(readings(550, 150))
    second = here.start()
    here.until_read()
    second.stop()
    assert settled(here, second)
    here.send(readings(700, 100))
    third = here.start()
    here.until_read()
    third.stop()
    here.check(repeats=True)
    assert here.committed() == {f"{here.topic}/0": 800}


# ---- 3


class Webhook(ThreadingHTTPServer):
    """Takes rows and answers only while `open` is set."""

    daemon_threads = True

    def __init__(self) -> None:
        self.open = threading.Event()
        self.rows: list[Any] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not outer.open.wait(30):
                    return
                outer.rows += rows
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    """A server that holds its answers back until the test lets it."""
    with Webhook() as server:
        yield server
        server.open.set()
        server.shutdown()


def test_3_no_checkpoint_before_every_sink_has_acknowledged(place: MakePlace, webhook: Webhook) -> None:
    here = place()
    here.configure(outputs={"flags": f"http://127.0.0.1:{webhook.server_port}/", "timeout_s": 40})
    here.send(readings(0, 400))
    running = here.start()
    here.until(lambda: (here.folder / "scores.jsonl").exists() and len(here.scores()) == 400)
    held = running.rounds
    here.until(lambda: running.rounds > held + 8)  # some seconds of snapshot and commit intervals
    manifest = here.manifest()
    assert manifest is not None
    assert manifest.next_offset == 0
    assert manifest.streams == 0
    assert here.committed() == {}
    webhook.open.set()
    here.until(lambda: settled(here, running))
    here.until_read()
    running.stop()
    assert {row["id"] for row in webhook.rows} == here.expected()[0].keys()


# ---- 4


def test_4_flags_and_offsets_in_one_transaction(place: MakePlace, caplog: pytest.LogCaptureFixture) -> None:
    here = place().exactly_once().configure(delivery={"snapshot_interval_s": 1000})
    here.send(readings(0, 300))
    first = here.start()
    here.until_read()
    here.send(readings(300, 200))
    first.break_off()  # the second part is sent or not, committed or not
    manifest, committed = here.manifest(), here.committed()[f"{here.topic}/0"]
    assert manifest is not None
    assert manifest.next_offset == 0  # S is behind E, which is one transaction's end
    assert {offset for (_, offset), _ in here.scores()} == set(range(committed))
    caplog.set_level(logging.INFO, "streamlstm")
    second = here.start()
    here.until_read()
    second.stop()
    assert f"reading on from offset 0, up to {committed} in silence" in caplog.text
    here.check()


def test_4_what_cannot_take_part_is_refused(place: MakePlace) -> None:
    here = place().configure(delivery={"mode": "exactly_once"})
    setup = open_setup(str(here.config), {})
    with pytest.raises(ConfigError, match=r"outputs\.flags: .*exactly_once.*must be a topic"):
        Daemon(setup.config, setup.model)


def test_4_nobody_outside_the_group_commits() -> None:
    """The broker takes offsets of generation -1 as a stranger's, and would not fence them."""

    class Source:
        offsets = dict

        def group_metadata(self) -> ConsumerGroupMetadata:
            return ConsumerGroupMetadata("group")

    class Producer:
        committed = False

        def begin_transaction(self) -> None:
            pass

        def send_offsets_to_transaction(self, offsets: Any, group: Any) -> None:
            self.committed = True

    producer: Any = Producer()
    source: Any = Source()
    delivery = ExactlyOnce(source, None, producer, 0.0, lambda: None)  # type: ignore[arg-type]
    delivery.begin()
    with pytest.raises(LostError, match="given our place away"):
        delivery.step({"t/0": 5})
    assert not producer.committed


# ---- 5


def test_5_an_open_transaction_of_the_dead_hides_nothing(place: MakePlace) -> None:
    here = with_store(place().exactly_once(), "topic")
    here.send(readings(0, 200))
    first = here.start()
    here.until(lambda: settled(here, first))
    here.until_read()
    # Somebody dies in mid-transaction, with records in the topic of snapshots and offsets on their way.
    config = open_setup(str(here.config), {}).config
    dead = make_producer(Kafka(bootstrap_servers=(here.broker,)), client_id="dead", transactional_id=here.topic)
    dead.init_transactions()
    dead.begin_transaction()
    dead.send(config.delivery.snapshots.removeprefix("kafka:"), key=b"nobody/0\0blob", value=b"?", partition=0).get(10)
    here.send(readings(200, 100))
    here.until(lambda: settled(here, first))
    first.stop()  # its last snapshot lies behind the open transaction
    place_ = TopicPartition(here.topic, 0)
    dead.send_offsets_to_transaction({place_: OffsetAndMetadata(7, "", -1)}, ConsumerGroupMetadata(here.topic))
    here.send(readings(300, 100))
    second = here.start()
    threading.Timer(1.0, dead.abort_transaction).start()  # as the broker does after ten seconds
    here.until_read()
    second.stop()
    dead.close()
    here.check()


# ---- 6


def blobs_put(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that are put to topics from now on, in order."""
    names: list[str] = []
    original = TopicStore.put

    def put(self: TopicStore, partition: str, name: str, blob: Any) -> None:
        names.append(name.rsplit("/", 1)[1])
        original(self, partition, name, blob)

    monkeypatch.setattr(TopicStore, "put", put)
    return names


def test_6_only_what_changed_is_written(place: MakePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TopicStore, "chunk_bytes", 8192)
    names = blobs_put(monkeypatch)
    here = with_store(place(), "topic")
    here.send(readings(0, 300, keys=100))
    running = here.start()
    here.until(lambda: settled(here, running))
    chunks = {name for name in names if name.startswith("chunk")}
    assert len(chunks) > 4
    del names[:]
    here.send([(b"sensor-99", b'{"ts":1800000000000,"value":20}')])
    here.until(lambda: settled(here, running))
    running.stop()
    assert {name for name in names if name != MANIFEST} == {max(chunks)}


@pytest.mark.parametrize("learning", ["frozen", "online"])
def test_6_chunks_of_different_age_combine(place: MakePlace, learning: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash between some chunks and the manifest; weights that learn do not mix with rows of another age."""
    monkeypatch.setattr(TopicStore, "chunk_bytes", 8192)
    original = TopicStore.put
    failing = threading.Event()
    written: list[str] = []

    def put(self: TopicStore, partition: str, name: str, blob: Any) -> None:
        if failing.is_set():
            if name.endswith(MANIFEST) or len(written) == 3:
                raise OutputError("the disk is full")
            written.append(name)
        original(self, partition, name, blob)

    monkeypatch.setattr(TopicStore, "put", put)
    here = with_store(place(), "topic")
    if learning == "online":
        here.configure(**ONLINE)
    here.send(readings(0, 1500, keys=100))
    first = here.start()
    here.until(lambda: settled(here, first))
    failing.set()
    here.send(readings(1500, 500, keys=100))
    here.until(lambda: len(written) == 3)
    here.until_read()
    first.break_off()
    failing.clear()
    manifest = here.manifest()
    assert manifest is not None
    assert manifest.next_offset == 1500
    here.send(readings(2000, 300, keys=100))
    second = here.start()
    here.until_read()
    second.stop()
    here.check(repeats=True)


def test_6_weights_that_learn_are_written_whole(place: MakePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TopicStore, "chunk_bytes", 8192)
    names = blobs_put(monkeypatch)
    here = with_store(place(), "topic").configure(**ONLINE)
    here.send(readings(0, 300, keys=100))
    running = here.start()
    here.until(lambda: settled(here, running))
    del names[:]
    here.send([(b"sensor-99", b'{"ts":1800000000000,"value":20}')])
    here.until(lambda: settled(here, running))
    running.stop()
    manifest = here.manifest()
    assert manifest is not None
    once = [
        *(name.rsplit("/", 1)[1] for name in manifest.chunks),
        *([manifest.learned.rsplit("/", 1)[1]] if manifest.learned else []),
        MANIFEST,
    ]
    rounds = len(names) // len(once)
    assert rounds >= 1
    assert [name.split(".")[-1] for name in names] == [name.split(".")[-1] for name in once] * rounds
