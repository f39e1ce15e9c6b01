"""The ten rules of delivery, each on the real broker: what the daemon wrote is what one undisturbed replay says."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from daemons import ONLINE, QUICK, Place, Running, model, place, readings
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import MemberToRemove, NewPartitions
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from streamlstm.config.schema import Kafka
from streamlstm.detect.detector import Detector
from streamlstm.detect.engine import Engine
from streamlstm.errors import ConfigError, OutputError, StateError
from streamlstm.kafka_client import make_producer
from streamlstm.kernels.compiling import ARITHMETIC
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
    caplog.set_level(logging.INFO, "streamlstm.service.restoring")  # a daemon that ends restores its parent's level
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
    second = here.start()
    told = f"reading on from offset 0, up to {committed} in silence"
    here.until(lambda: told in caplog.text)  # where the first had committed all, there is nothing else to wait for
    here.until_read()
    second.stop()
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
    monkeypatch.setattr(TopicStore, "chunk_bytes", 1024)
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
    here.send(readings(0, 1500))
    first = here.start()
    here.until(lambda: settled(here, first))
    failing.set()
    here.send(readings(1500, 500))
    here.until(lambda: len(written) == 3)
    here.until_read()
    first.break_off()
    failing.clear()
    manifest = here.manifest()
    assert manifest is not None
    assert manifest.next_offset == 1500
    here.send(readings(2000, 300))
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


def test_6_a_zombie_of_an_older_generation_does_not_hurt(place: MakePlace) -> None:
    """It writes beside its successor, whose snapshot is the one that counts, and what it left is removed in time."""
    here = with_store(place(), "topic")
    here.send(readings(0, 200))
    first = here.start()
    here.until(lambda: settled(here, first))
    first.stop()
    partition = f"{here.topic}/0"
    with here.store() as store:
        old = store.load(partition)
        here.send(readings(200, 200))
        second = here.start()
        here.until(lambda: settled(here, second))
        for name, blob in old.items():
            store.put(partition, name, blob)
        store.flush(30)
        second.break_off()
        left = store.load(partition)
    assert {Owner.of(name) for name in left} > {Owner.of(name) for name in old}
    manifest = here.manifest()
    assert manifest is not None
    assert manifest.next_offset == 400
    here.send(readings(400, 100))
    third = here.start()
    here.until_read()
    third.stop()
    here.check(repeats=True)
    with here.store() as store:
        assert len({Owner.of(name) for name in store.load(partition)}) == 1


# ---- 7


@pytest.mark.parametrize("assignor", ["cooperative-sticky", "range"])
def test_7_workers_join_and_leave(place: MakePlace, assignor: str) -> None:
    here = place(3).exactly_once().configure(kafka={"assignor": assignor})
    sent = 0

    def send() -> None:
        nonlocal sent
        for partition in range(3):
            here.send(readings(sent, 60, name=f"sensor{partition}"), partition)
        sent += 60

    send()
    one = here.start(0)
    here.until(lambda: len(one.partitions()) == 3)
    send()
    two = here.start(1)
    send()
    here.until(lambda: one.partitions() and two.partitions())
    send()
    here.until_read()
    one.stop()
    send()
    here.until(lambda: len(two.partitions()) == 3)
    three = here.start(2)
    send()
    here.until(lambda: three.partitions())
    three.break_off()
    send()
    here.until_read()
    two.stop()
    here.check()


def test_7_what_was_lost_is_not_written(
    place: MakePlace, kafka_admin: KafkaAdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not in the round that hears of the loss, should a commit be due in it."""
    here = place().exactly_once().configure(delivery={"commit_interval_s": 1000})
    here.send(readings(0, 200))
    one = here.start()
    partition = f"{here.topic}/0"

    def position() -> int:
        found = one.daemon._partitions.get(partition) if one.daemon else None
        return found.position if found else 0

    here.until(lambda: position() == 200)
    daemon = one.daemon
    assert daemon is not None
    poll = daemon._source.poll
    lost, polls = [], []

    def polled(timeout_ms: int) -> Any:
        polls.append(timeout_ms)
        blocks = poll(timeout_ms)
        if daemon._void is not None:
            lost.append(daemon._void)
            monkeypatch.setattr(daemon._delivery, "_interval_s", 0.0)
        return blocks

    monkeypatch.setattr(daemon._source, "poll", polled)
    here.until(lambda: polls)  # else the loss may come in the poll that went on meanwhile, and nobody would see it
    member = daemon._source.group_metadata().member_id
    kafka_admin.remove_group_members(here.topic, [MemberToRemove(member_id=member)])
    here.until(lambda: lost and position() == 200)
    assert lost[0] == f"{partition} went to another worker"
    one.stop()
    here.check()


def test_7_a_static_member_comes_back_to_its_partitions(place: MakePlace) -> None:
    here = place(4).configure(kafka={"group_instance_id": "static", "client": {"session_timeout_ms": 30000} | QUICK})
    workers = [here.start(0), here.start(1)]
    here.until(lambda: all(len(worker.partitions()) == 2 for worker in workers))
    stays, leaves = workers
    assert stays.daemon is not None
    before = stays.daemon._source.generation(), stays.partitions(), leaves.partitions()
    leaves.stop()
    again = here.start(1)
    here.until(lambda: len(again.partitions()) == 2)
    assert (stays.daemon._source.generation(), stays.partitions(), again.partitions()) == before
    again.stop()
    stays.stop()


@pytest.mark.slow  # two members polled in turn by one thread may take a minute to agree on a generation
def test_7_a_rejoin_that_outlasts_a_poll_is_not_forgotten(place: MakePlace) -> None:
    """kafka-python 3.0.12 forgets one that a change of the topics began: it fetches on, and is no member any more."""
    here = place(2)
    kafka = open_setup(str(here.config), {}).config.kafka
    with ExitStack() as stack:
        members = [
            stack.enter_context(closing(KafkaSource(kafka, client_id=f"{n}", on_dead_letter=print))) for n in range(2)
        ]
        for member in members:
            member.subscribe([here.topic])

        def polled(who: list[KafkaSource]) -> list[int]:
            for member in who:
                member.poll(50)
            return [len(member.assigned()) for member in who]

        coordinators = [member._consumer._coordinator for member in members]
        here.until(
            lambda: polled(members) == [1, 1] and not any(one.rejoining or one.need_rejoin() for one in coordinators)
        )
        (leader,) = (member for member in members if member._consumer._coordinator._is_leader)
        before = leader.generation()
        leader._consumer._coordinator._assignment_snapshot = {here.topic: {0}}  # as if partition 1 were new
        polled([leader])
        assert leader._consumer._coordinator.rejoining
        here.until(
            lambda: polled([member for member in members if member is not leader]) and leader.generation() > before
        )
        here.until(lambda: polled(members) == [1, 1] and leader.commit({leader.assigned()[0]: 0}))


# ---- 8


def run_out(place: Place, text: str) -> None:
    """Asserts that a daemon ends with these words."""
    running = place.start()
    running.thread.join(30)
    with pytest.raises(StateError, match=text):
        running.stop()


def one_run(place: Place) -> None:
    """Reads everything that is there, then stops."""
    running = place.start()
    place.until_read()
    running.stop()


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
def test_8_missing_state(place: MakePlace, mode: str) -> None:
    here = place()
    if mode == "exactly_once":
        here.exactly_once()
    here.send(readings(0, 100))
    one_run(here)
    here.configure(delivery={"snapshots": str(here.folder / "elsewhere"), "on_missing_state": "fail"})
    run_out(here, r"read up to offset 100, but there is no snapshot; set delivery\.on_missing_state")
    here.configure(delivery={"on_missing_state": "cold_start"})
    here.send(readings(100, 100))
    one_run(here)
    rows = [row for (_, row), _ in here.scores()]
    assert rows == list(range(200))


POLICIES = [("earliest", range(150, 200), 7), ("cold_start", range(150, 200), 0), ("latest", range(200, 200), 7)]


@pytest.mark.parametrize(("policy", "offsets", "streams"), POLICIES)
def test_8_missing_offsets(
    place: MakePlace, kafka_admin: KafkaAdminClient, policy: str, offsets: range, streams: int
) -> None:
    here = place()
    here.send(readings(0, 100))
    one_run(here)
    here.send(readings(100, 100))
    kafka_admin.delete_records({TopicPartition(here.topic, 0): 150})
    run_out(here, r"ends at offset 100, but the topic now begins at 150; set delivery\.on_missing_offsets")
    here.configure(delivery={"on_missing_offsets": policy})
    seen: list[int] = []
    running = here.start()
    here.until(lambda: running.partitions())
    assert running.daemon is not None
    seen.append(len(running.daemon._partitions[f"{here.topic}/0"].detector.pool))
    here.send([(b"sensor-0", b'{"ts":1800000000000,"value":20}')])
    here.until_read()
    running.stop()
    assert [row for (_, row), _ in here.scores()] == [*range(100), *offsets, 200]
    assert seen[0] >= streams


def test_8_a_topic_made_anew(place: MakePlace, kafka_admin: KafkaAdminClient) -> None:
    here = place().exactly_once()
    here.send(readings(0, 150))
    one_run(here)
    kafka_admin.delete_topics([here.topic])
    here.until(lambda: here.topic not in kafka_admin.list_topics())
    kafka_admin.create_topics({here.topic: {"num_partitions": 1, "replication_factor": 1}})
    kafka_admin.wait_for_topics([here.topic])
    here.send(readings(0, 120, name="other"))
    run_out(here, r"belongs to another topic of that name.*set delivery\.on_new_topic")
    here.configure(delivery={"on_new_topic": "cold_start"})
    one_run(here)
    rows = [row for (key, row), _ in here.scores() if key.startswith("other")]
    assert rows == list(range(120))


def test_8_a_snapshot_of_other_settings(place: MakePlace) -> None:
    here = place()
    here.send(readings(0, 100))
    one_run(here)
    here.configure(threshold={"kind": "fixed", "level": 2.0})
    run_out(here, r"written under another configuration \(.*set delivery\.on_mismatch")
    here.configure(delivery={"on_mismatch": "cold_start"})
    here.send(readings(100, 100))
    one_run(here)
    assert [row for (_, row), _ in here.scores()] == list(range(200))


def test_8_a_snapshot_of_another_arithmetic_class(
    place: MakePlace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = place()
    here.send(readings(0, 100))
    with monkeypatch.context() as there:
        there.setattr(Engine, "arithmetic", "elsewhere")
        one_run(here)
    run_out(
        here, r"at offset 100 was written under another arithmetic class \(elsewhere, .*set delivery\.on_class_change"
    )
    here.configure(delivery={"on_class_change": "accept"})
    here.send(readings(100, 100))
    one_run(here)
    here.check()
    assert "scores agree with those before to rounding alone" in caplog.text
    manifest = here.manifest()
    assert manifest is not None
    assert manifest.changes == (f"elsewhere -> {ARITHMETIC} at offset 100",)


def test_8_another_class_after_flags_beyond_the_snapshot(place: MakePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    here = place().exactly_once().configure(delivery={"snapshot_interval_s": 3600, "on_class_change": "accept"})
    here.send(readings(0, 100))
    with monkeypatch.context() as there:
        there.setattr(Engine, "arithmetic", "elsewhere")
        running = here.start()
        here.until_read()
        here.until(lambda: here.committed() == here.ends())
        running.break_off()
    run_out(here, r"elsewhere, .*flags were sent up to offset 100: .*go on once on a processor of that class")


def test_8_partitions_added_while_they_run(place: MakePlace, kafka_admin: KafkaAdminClient) -> None:
    here = place(2).configure(kafka={"client": {"metadata_max_age_ms": 300} | QUICK})
    here.send(readings(0, 100))
    workers = [here.start(0), here.start(1)]
    here.until(lambda: all(worker.partitions() for worker in workers))
    here.until_read()
    kafka_admin.create_partitions({here.topic: NewPartitions(4)})
    here.until(lambda: sum(len(worker.partitions()) for worker in workers) == 4)
    for partition in (2, 3):
        here.send(readings(0, 100, name=f"new{partition}"), partition)
    here.until_read()
    for worker in workers:
        worker.stop()
    here.check()


# ---- 9


def test_9_a_sink_that_is_not_ready_pauses_the_source(place: MakePlace, webhook: Webhook) -> None:
    here = place().configure(
        outputs={"flags": f"http://127.0.0.1:{webhook.server_port}/", "queue_rows": 3, "timeout_s": 40},
        kafka={"client": {"max_poll_records": 1}},
    )
    for first in range(0, 1000, 100):  # each is a batch of its own, of two flags or more
        here.send(readings(first, 100))
    running = here.start()
    here.until(lambda: running.daemon is not None and not running.daemon._emitter.ready())
    assert running.daemon is not None
    source = running.daemon._source
    here.until(lambda: source._consumer.paused() == source._consumer.assignment() != set())
    generation, rounds, scored = source.generation(), running.rounds, len(here.scores())
    here.until(lambda: running.rounds > rounds + 10)
    assert len(here.scores()) == scored < 1000
    assert source.generation() == generation
    assert source.assigned() == [f"{here.topic}/0"]
    webhook.open.set()
    here.until_read()
    running.stop()
    expected_flags, expected_scores = here.expected()
    assert {row["id"] for row in webhook.rows} == expected_flags.keys()
    assert dict(here.scores()) == expected_scores


# ---- 10


def test_10_scores_arrive_in_blocks(place: MakePlace) -> None:
    here = place().exactly_once()
    here.send(readings(0, 3500))
    one_run(here)
    here.check()
    sizes = [read_block(record.value).num_rows for record in here.records("scores")]
    assert sum(sizes) == 3500
    assert max(sizes) == 1000
    assert len(sizes) < 12


# ---- and what belongs to all of them


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
def test_poison_goes_to_the_dead_letters_and_the_daemon_goes_on(place: MakePlace, mode: str) -> None:
    here = place()
    if mode == "exactly_once":
        here.exactly_once()
    else:
        here.configure(outputs={"dead_letters": f"kafka:{here.make_topic()}"})
    poison: list[tuple[bytes | None, bytes | None]] = [
        (b"sensor-1", b'{"ts":1'), (b"sensor-2", None), (b"\xff\xfe", b'{"ts":1,"value":1}'), (None, b"\x00"),
        (b"sensor-3", b'{"ts":"no time","value":1}'),
    ]  # fmt: skip
    here.send([*readings(0, 60), *((key, value, [("origin", b"x")]) for key, value in poison), *readings(60, 60)])
    one_run(here)
    letters = here.records("dead_letters")
    assert [(record.key, record.value) for record in letters] == poison
    headers = [dict(record.headers) for record in letters]
    assert [int(header["offset"]) for header in headers] == list(range(60, 60 + len(poison)))
    assert all(header["topic"].decode() == here.topic and header["reason"] for header in headers)
    here.check()


def test_streams_that_are_spilled_say_the_same(place: MakePlace) -> None:
    here = place().configure(runtime={"max_streams": 64, "batch_rows": 50})
    here.send(readings(0, 1200, keys=300))
    first = here.start()
    here.until(lambda: settled(here, first))
    first.break_off()
    here.send(readings(1200, 1200, keys=300))
    one_run(here)
    here.check(repeats=True, **{"runtime.max_streams": None, "runtime.batch_rows": 65536})


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
def test_streams_that_are_forgotten_say_the_same(place: MakePlace, mode: str) -> None:
    """Some come once and push out those of `readings` that are idle, which come back as new ones."""

    def coming(first: int, count: int) -> list[Any]:
        rows = list(readings(first, count, keys=40))
        guests = [
            *readings(first, count // 4, keys=10**9, name=f"guest-{first}"),
            *readings(first, 30, keys=30, name="rare"),
        ]
        return [*rows[: count // 2], *guests, *rows[count // 2 :]]

    here = place().configure(learning={"max_known_streams": 64})
    if mode == "exactly_once":
        here.exactly_once()
    here.send(coming(0, 1200))
    first = here.start()
    here.until(lambda: settled(here, first))
    first.break_off()
    here.send(coming(1200, 1200))
    one_run(here)
    here.check(repeats=mode == "at_least_once")
