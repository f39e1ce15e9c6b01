"""The contract that every snapshot store keeps, and what only the folder or the topic can go wrong in."""

import os
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MakeTopic
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource

import streamlstm.state.stores.topic as topic_module
from streamlstm.config import schema
from streamlstm.errors import OutputError, StateError, UsageError
from streamlstm.kafka_client import BrokerError
from streamlstm.state.stores import FolderStore, MemoryStore, SnapshotStore, TopicStore, open_store
from streamlstm.state.stores.protocol import fault, seal

FLUSH_S = 30.0


Open = Callable[[], SnapshotStore]
"""Another store on the same place."""


@pytest.fixture
def opened() -> Iterator[list[SnapshotStore]]:
    """Stores to close after the test."""
    stores: list[SnapshotStore] = []
    yield stores
    for store in stores:
        store.close()


@pytest.fixture
def new_topic(kafka_admin: KafkaAdminClient, topic: MakeTopic) -> Callable[[int], Callable[[], TopicStore]]:
    """Makes stores on one compacted topic of the test's own."""

    def make(partitions: int = 3) -> Callable[[], TopicStore]:
        name = topic(partitions, **{"cleanup.policy": "compact"})
        return lambda: topic_store(kafka_admin, name)

    return make


def kafka_section(admin: KafkaAdminClient) -> schema.Kafka:
    return schema.Kafka(bootstrap_servers=(admin.config["bootstrap_servers"],))


def topic_store(admin: KafkaAdminClient, name: str, partitions: int = 3) -> TopicStore:
    return TopicStore(kafka_section(admin), name, client_id="test", partitions=partitions)


@pytest.fixture(params=["memory", "folder", "topic"])
def place(request: pytest.FixtureRequest, tmp_path: Path, opened: list[SnapshotStore]) -> Open:
    """Each kind of store in turn."""
    make: Callable[[], SnapshotStore]
    if request.param == "memory":
        store = MemoryStore()
        make = lambda: store  # noqa: E731
    elif request.param == "folder":
        make = lambda: FolderStore(tmp_path / "state")  # noqa: E731
    else:
        make = request.getfixturevalue("new_topic")(3)

    def open_one() -> SnapshotStore:
        opened.append(make())
        return opened[-1]

    return open_one


def load_all(store: SnapshotStore, partitions: list[str]) -> dict[str, dict[str, bytes]]:
    return {partition: store.load(partition) for partition in partitions}


def test_what_was_put_is_there_and_nothing_else(place: Open) -> None:
    rng = random.Random(7)
    # Equal numbers share a partition of the state topic, and so do 1 and 4.
    partitions = ["a/0", "a.b/0", "a-b/0", "a_b/1", "a/1", "a/4", "A/0"]
    names = ["0000000001.0000000007/chunk-00012", "0000000001.0000000007/manifest", "x", "..", ".", ".x", "%2E",
             "X", "ä/ö \n", "-"]  # fmt: skip
    expected: dict[str, dict[str, bytes]] = {partition: {} for partition in partitions}
    store = place()
    for step in range(150):
        partition, name = rng.choice(partitions), rng.choice(names)
        if rng.random() < 0.7:
            blob = rng.randbytes(rng.choice([0, 1, 100, 20_000]))
            store.put(partition, name, blob)
            expected[partition][name] = blob
        else:
            gone = rng.sample(names, 3)
            store.delete(partition, iter(gone))
            for each in gone:
                expected[partition].pop(each, None)
        if step % 50 == 49:
            store.flush(FLUSH_S)
            assert load_all(store, partitions) == expected
            assert load_all(place(), partitions) == expected
            assert store.partitions() == sorted(partition for partition, blobs in expected.items() if blobs)
    assert store.load("never/0") == {}
    assert all(expected.values())
    store.delete("a/1", names)
    store.flush(FLUSH_S)
    assert place().partitions() == sorted({*partitions} - {"a/1"})


def test_large_blobs_and_blobs_in_parts(place: Open) -> None:
    store = place()
    array = np.random.default_rng(0).integers(0, 256, store.chunk_bytes // 8, np.uint8)
    large = np.random.default_rng(1).bytes(store.chunk_bytes)
    parts = [b"head", memoryview(array.view(np.uint64)), bytearray(b"tail"), b"", memoryview(np.zeros((0, 3)))]
    store.put("t/2", "large", large)
    store.put("t/2", "parts", parts)
    store.put("t/2", "empty", [])
    store.flush(FLUSH_S)
    array[:] = 0  # what was put is a copy
    found = place().load("t/2")
    assert found["large"] == large
    original = np.random.default_rng(0).integers(0, 256, store.chunk_bytes // 8, np.uint8)
    assert found["parts"] == b"head" + original.tobytes() + b"tail"
    assert found["empty"] == b""


def test_a_load_during_puts_sees_whole_blobs(place: Open) -> None:
    store = place()
    versions = [bytes([n]) * (10_000 + n) for n in range(60)]
    store.put("t/0", "steady", b"steady")
    store.put("t/0", "blob", versions[0])
    store.flush(FLUSH_S)
    started = threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for n, version in enumerate(versions):
                store.put("t/0", "blob", version)
                store.put("t/0", f"short-lived-{n}", version)
                store.delete("t/0", [f"short-lived-{n}"])
                started.set()
            store.flush(FLUSH_S)
        except BaseException as error:
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    assert started.wait(FLUSH_S)
    seen = [versions.index(store.load("t/0")["blob"])]
    while writer.is_alive():
        found = store.load("t/0")
        assert found["steady"] == b"steady"
        seen.append(versions.index(found["blob"]))
    writer.join()
    assert failures == []
    assert seen == sorted(seen)
    assert store.load("t/0") == {"steady": b"steady", "blob": versions[-1]}


def test_a_former_owner_writes_beside_its_successor(place: Open) -> None:
    former, successor = place(), place()
    former.put("t/0", "1/chunk", b"old")
    former.flush(FLUSH_S)
    successor.put("t/0", "2/chunk", b"new")
    former.put("t/0", "1/manifest", b"late")
    successor.put("t/0", "2/manifest", b"new")
    successor.flush(FLUSH_S)
    successor.delete("t/0", ["1/chunk", "1/manifest"])
    successor.flush(FLUSH_S)
    former.put("t/0", "1/chunk", b"later still")
    former.delete("t/0", ["0/chunk"])
    former.flush(FLUSH_S)
    found = place().load("t/0")
    assert found.pop("1/chunk", b"later still") == b"later still"
    assert found.pop("1/manifest", b"late") == b"late"  # two writers of one moment have no order
    assert found == {"2/chunk": b"new", "2/manifest": b"new"}


def test_a_seal_tells_every_damage() -> None:
    head = seal("t/0", "name", [memoryview(b"con"), memoryview(b"tent")])
    assert fault("t/0", "name", head, b"content") == ""
    assert fault("t/1", "name", head, b"content") == "damaged: its checksum does not fit"
    assert fault("t/0", "nama", head, b"content") == "damaged: its checksum does not fit"
    assert fault("t/0", "name", head, b"Content") == "damaged: its checksum does not fit"
    assert fault("t/0", "name", head, b"conten") == "truncated: 6 of 7 bytes"
    assert fault("t/0", "name", head[:9], b"") == "truncated in its header"
    assert fault("t/0", "name", b"x" + head[1:], b"content") == "not a snapshot of streamlstm"


# ---- the folder


def blob_file(root: Path, topic: str = "t", number: str = "0") -> Path:
    (file,) = (path for path in (root / topic / number).iterdir() if not path.name.startswith("."))
    return file


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda file: os.truncate(file, 100), "truncated: 84 of 1000 bytes"),
        (lambda file: os.truncate(file, 7), "truncated in its header"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1] + b"!"), "damaged: its checksum does not fit"),
        (lambda file: file.rename(file.with_name("other")), "damaged: its checksum does not fit"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Callable[[Path], Any], words: str) -> None:
    store = FolderStore(tmp_path)
    store.put("t/0", "1/chunk", b"x" * 1000)
    damage(blob_file(tmp_path))
    with pytest.raises(StateError) as caught:
        store.load("t/0")
    file = blob_file(tmp_path)
    assert str(caught.value) == (
        f"{file}: {words}; restore {file.parent} from a backup, or remove it to start this partition without state"
    )


def test_leftovers_of_a_dead_writer_go_and_those_of_a_live_one_stay(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("t/0", "chunk", b"x")
    folder = tmp_path / "t" / "0"
    program = """
import fcntl, os, sys
for name in ("dead", "live"):
    file = os.open(f"{sys.argv[1]}/.writing-{name}", os.O_WRONLY | os.O_CREAT)
    os.write(file, b"half a blo")
    if name == "live":
        fcntl.flock(file, fcntl.LOCK_EX)
print("ready", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        assert store.load("t/0") == {"chunk": b"x"}
        assert sorted(path.name for path in folder.iterdir()) == [".writing-live", "chunk"]
        other.kill()
    assert store.load("t/0") == {"chunk": b"x"}
    assert [path.name for path in folder.iterdir()] == ["chunk"]


KILLED = """
import itertools, sys
from streamlstm.state.stores import FolderStore

store = FolderStore(sys.argv[1])
first = int.from_bytes(store.load("t/0").get("manifest", bytes(4)), "big")
for round in itertools.count(first + 1):
    for n in range(4):
        store.put("t/0", f"chunk-{n}", round.to_bytes(4, "big") * 50_000)
    store.flush(10)
    store.put("t/0", "manifest", round.to_bytes(4, "big"))
    store.put("t/0", f"old-{round}", b"old")
    store.flush(10)
    store.delete("t/0", [f"old-{round}"])
    if round == first + 1:
        print("ready", flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_whole_blobs(tmp_path: Path) -> None:
    rng, rounds = random.Random(3), 0
    for _ in range(6):
        command = [sys.executable, "-c", KILLED, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0, 0.02))  # the moment is the point of the test
            writer.kill()
        found = FolderStore(tmp_path).load("t/0")
        complete = int.from_bytes(found["manifest"], "big")
        assert complete > rounds
        rounds = complete
        for n in range(4):
            number = int.from_bytes(found[f"chunk-{n}"][:4], "big")
            assert number in (rounds, rounds + 1)
            assert found[f"chunk-{n}"] == number.to_bytes(4, "big") * 50_000
        assert not [path for path in (tmp_path / "t" / "0").iterdir() if path.name.startswith(".")]


def test_a_folder_of_another_tool_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"delivery\.snapshots: .* such as 'thesis\.tex'; name an empty folder"):
        FolderStore(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_new_volume_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    FolderStore(tmp_path).put("t/0", "chunk", b"x")
    assert FolderStore(tmp_path).load("t/0") == {"chunk": b"x"}


def test_a_place_that_is_no_folder_is_said(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(
        OutputError, match="file: cannot write the snapshot: Not a directory; check that it is a folder"
    ):
        FolderStore(file)


def test_a_folder_without_permission_is_said(tmp_path: Path) -> None:
    user = os.geteuid()
    FolderStore(tmp_path)
    tmp_path.chmod(0o500)
    if user == 0:  # to whom nothing is forbidden
        os.seteuid(65_534)
    try:
        with pytest.raises(OutputError, match="cannot write the snapshot: Permission denied; give this user the right"):
            FolderStore(tmp_path)
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o700)


def test_a_full_disk_is_said_and_the_old_blob_stays(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("t/0", "chunk", b"old")
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, allowed[1]))  # the interpreter ignores its signal
    try:
        with pytest.raises(OutputError, match="chunk: cannot write the snapshot: File too large; make room there"):
            store.put("t/0", "chunk", bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    assert store.load("t/0") == {"chunk": b"old"}
    assert [path.name for path in (tmp_path / "t" / "0").iterdir()] == ["chunk"]


def test_file_names_stay_short_and_readable(tmp_path: Path) -> None:
    longest = "t" * 249
    store = FolderStore(tmp_path)
    store.put(f"{longest}/12345", "0000000001.0000000007/chunk-00012", b"x")
    assert blob_file(tmp_path, longest, "12345").name == "0000000001.0000000007%2Fchunk-00012"
    assert store.load(f"{longest}/12345") == {"0000000001.0000000007/chunk-00012": b"x"}


# ---- the topic


def test_an_absent_topic_is_made_compacted(kafka_admin: KafkaAdminClient) -> None:
    name = f"state-made-{os.urandom(4).hex()}"
    stores: list[TopicStore] = []
    failures: list[BaseException] = []

    def make() -> None:
        try:
            stores.append(topic_store(kafka_admin, name, partitions=2))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=make) for _ in range(3)]  # workers that start at once
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        (described,) = kafka_admin.describe_topics([name])
        assert len(described["partitions"]) == 2
        with closing(stores[0]) as store:
            store.put("t/5", "chunk", b"x")
            store.flush(FLUSH_S)
        assert stores[1].load("t/5") == {"chunk": b"x"}
    finally:
        kafka_admin.delete_topics([name])


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
def test_a_topic_that_is_not_compacted_is_refused(kafka_admin: KafkaAdminClient, topic: MakeTopic, policy: str) -> None:
    name = topic(1, **{"cleanup.policy": policy})
    with pytest.raises(
        UsageError, match=rf"{name} has cleanup\.policy=[a-z,]+, which loses state .* set it to compact"
    ):
        topic_store(kafka_admin, name)


def test_a_restore_after_compaction_is_the_last_state(kafka_admin: KafkaAdminClient, topic: MakeTopic) -> None:
    name = topic(1, **{
        "cleanup.policy": "compact", "segment.bytes": str(1 << 20), "min.cleanable.dirty.ratio": "0.01",
        "max.compaction.lag.ms": "100", "min.compaction.lag.ms": "0", "delete.retention.ms": "0",
    })  # fmt: skip

    def size() -> int:
        (broker,) = kafka_admin.describe_log_dirs([name])
        topics = [topic for folder in broker["log_dirs"] for topic in folder["topics"]]
        return sum(partition["partition_size"] for topic in topics for partition in topic["partitions"])

    expected = {}
    with closing(topic_store(kafka_admin, name)) as store:
        for snapshot in range(100):
            for n in range(10):
                expected[f"1/chunk-{n}"] = bytes([snapshot, n]) * 20_000
                store.put("t/0", f"1/chunk-{n}", expected[f"1/chunk-{n}"])
            store.put("t/0", f"1/gone-{snapshot}", b"superseded")
            store.delete("t/0", [f"1/gone-{snapshot}"])
            store.flush(FLUSH_S)
        written = 100 * 10 * 40_000
        deadline = time.monotonic() + 120
        while size() > written / 4:
            assert time.monotonic() < deadline, f"{size()} of {written} bytes are still there"
            time.sleep(0.5)  # the broker's cleaner runs every 15 s and tells nobody
        assert store.load("t/0") == expected


def test_an_open_transaction_hides_nothing(kafka_admin: KafkaAdminClient, topic: MakeTopic) -> None:
    name = topic(1, **{"cleanup.policy": "compact"})
    stranger = KafkaProducer(
        bootstrap_servers=kafka_admin.config["bootstrap_servers"], transactional_id=name, transaction_timeout_ms=60_000
    )
    with closing(stranger), closing(topic_store(kafka_admin, name)) as store:
        stranger.init_transactions()
        stranger.begin_transaction()
        stranger.send(name, key=b"u/0\0chunk", value=b"never committed", partition=0).get(timeout=FLUSH_S)
        store.put("t/0", "chunk", b"mine")
        store.flush(FLUSH_S)
        assert store.load("t/0") == {"chunk": b"mine"}
        stranger.abort_transaction()
        assert store.load("t/0") == {"chunk": b"mine"}  # a control record stands at the end


def test_a_foreign_value_is_said(kafka_admin: KafkaAdminClient, topic: MakeTopic) -> None:
    name = topic(1, **{"cleanup.policy": "compact"})
    with closing(KafkaProducer(bootstrap_servers=kafka_admin.config["bootstrap_servers"])) as stranger:
        stranger.send(name, key=b"t/0\0chunk", value=b"a value of another tool", partition=0).get(timeout=FLUSH_S)
        stranger.send(name, key=b"t/1\0chunk", value=b"", partition=0).get(timeout=FLUSH_S)
    with closing(topic_store(kafka_admin, name)) as store:
        for partition, words in (("t/0", "not a snapshot of streamlstm"), ("t/1", "truncated in its header")):
            with pytest.raises(StateError, match=rf"kafka:{name}: {partition} chunk: {words}; name another topic"):
                store.load(partition)


def test_a_flush_that_has_no_time_is_said_and_may_be_repeated(new_topic: Callable[[int], Any]) -> None:
    with closing(new_topic(1)()) as store:
        store.put("t/0", "chunk", bytes(store.chunk_bytes))
        with pytest.raises(OutputError, match="cannot write the snapshot: kafka: no answer from the broker"):
            store.flush(0.0)
        store.flush(FLUSH_S)
        assert len(store.load("t/0")["chunk"]) == store.chunk_bytes


def test_a_blob_that_is_refused_is_said_and_the_next_goes_through(
    kafka_admin: KafkaAdminClient, topic: MakeTopic
) -> None:
    name = topic(1, **{"cleanup.policy": "compact"})
    with closing(topic_store(kafka_admin, name)) as store:
        words = f"kafka:{name}: cannot write the snapshot: kafka: MessageSizeTooLargeError"
        with pytest.raises(OutputError, match=words):
            store.put("t/0", "refused here", bytes(2 << 20))
        kafka_admin.alter_configs([ConfigResource("topic", name, {"max.message.bytes": "1000"})])
        store.put("t/0", "refused by the broker", bytes(2000))
        with pytest.raises(OutputError, match=words):
            store.flush(FLUSH_S)
        store.put("t/0", "small", b"x")
        store.flush(FLUSH_S)
        assert store.load("t/0") == {"small": b"x"}
    with pytest.raises(UsageError, match=rf"{name} has max\.message\.bytes=1000, .* set it to 1048576 or more"):
        topic_store(kafka_admin, name)


def test_a_broker_that_falls_silent_is_said(new_topic: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    real = topic_module.make_consumer

    def deaf(*arguments: Any, **keywords: Any) -> Any:
        consumer = real(*arguments, **keywords)
        consumer.poll = lambda timeout_ms: {}
        return consumer

    with closing(new_topic(1)()) as store:
        store.put("t/0", "chunk", b"x")
        store.flush(FLUSH_S)
        monkeypatch.setattr(topic_module, "make_consumer", deaf)
        monkeypatch.setattr(topic_module, "_SILENCE_S", 0.2)
        with pytest.raises(BrokerError, match=r"nothing of partition 0 for 0\.2 s, read up to 0 of 1; check"):
            store.load("t/0")


def test_more_than_the_bound_waits_for_the_broker(
    new_topic: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_module, "_UNSENT_BYTES", 100_000)
    with closing(new_topic(1)()) as store:
        for n in range(50):
            store.put("t/0", f"chunk-{n}", bytes([n]) * 30_000)
            assert store._unsent_bytes <= 100_000
        store.flush(FLUSH_S)
        assert len(store.load("t/0")) == 50


# ---- the store that a configuration names


@pytest.mark.parametrize(
    ("value", "words"), [("", "is empty; name a folder"), ("kafka:", "names no topic; write kafka:TOPIC")]
)
def test_a_place_that_is_none_is_refused(value: str, words: str) -> None:
    config = schema.Config(delivery=schema.Delivery(snapshots=value))
    with pytest.raises(UsageError, match=f"delivery.snapshots: .*{words}"):
        open_store(config, client_id="test")


def test_each_place_opens_its_store(tmp_path: Path, kafka_admin: KafkaAdminClient, topic: MakeTopic) -> None:
    name = topic(1, **{"cleanup.policy": "compact"})
    kinds = {"memory:": MemoryStore, str(tmp_path / "deep" / "state"): FolderStore, f"kafka:{name}": TopicStore}
    for number, (value, kind) in enumerate(kinds.items()):
        config = schema.Config(kafka=kafka_section(kafka_admin), delivery=schema.Delivery(snapshots=value))
        with closing(open_store(config, client_id="test")) as store:
            assert type(store) is kind
            store.put("t/0", "chunk", bytes([number]))
            store.flush(FLUSH_S)
            assert store.load("t/0") == {"chunk": bytes([number])}
