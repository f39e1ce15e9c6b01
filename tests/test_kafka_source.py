"""Topics on a real broker: what comes out of `KafkaSource`, `TopicRange` and the clients that the configuration makes."""

import gc
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import MemberToRemove
from kafka.consumer.fetcher import Fetcher

from streamlstm.config import Config
from streamlstm.config.schema import Kafka
from streamlstm.errors import ConfigError, InputError, UsageError
from streamlstm.kafka_client import BrokerError, make_admin, make_consumer, make_producer
from streamlstm.kafka_client.batches import PartitionBatches
from streamlstm.kafka_client.quiet import RateLimited
from streamlstm.kafka_client.selftest import take_batches
from streamlstm.kafka_client.settings import client_settings
from streamlstm.sources.ranges import TopicRange
from streamlstm.sources.topics import KafkaSource, Trouble
from streamlstm.types import DeadLetter, RawBlock

MakeTopic = Callable[..., str]
Row = tuple[int, bytes | None, bytes | None, int]
LIMIT_S = 60.0
CODECS = [None, "gzip", "snappy", "lz4", "zstd"]
TIME = 1_700_000_000_000


@pytest.fixture
def topic(topic: MakeTopic) -> MakeTopic:
    """Makes topics that keep records of 2023: else the broker deletes them when it next looks."""
    return lambda partitions=1, **config: topic(partitions, **{"retention.ms": "-1"} | config)


@pytest.fixture(params=["compiled", "public"])
def batches(request: pytest.FixtureRequest) -> bool:
    """Whether whole batches are read, or records one by one."""
    return bool(request.param == "compiled")


def no_letters(letter: DeadLetter) -> None:
    raise AssertionError(letter)


def send(broker: str, topic: str, rows: Sequence[Any], partition: int = 0, **settings: Any) -> None:
    """Sends (key, value) or (key, value, headers), with times from TIME on, one millisecond apart."""
    with closing(KafkaProducer(bootstrap_servers=broker, linger_ms=50, **settings)) as producer:
        for at, (key, value, *headers) in enumerate(rows):
            producer.send(
                topic, value, key, headers=headers[0] if headers else None, partition=partition, timestamp_ms=TIME + at
            )
        producer.flush(timeout=LIMIT_S)


def numbered(first: int, count: int) -> list[tuple[bytes, bytes]]:
    return [(b"key-%d" % (n % 3), b'{"value": %d}' % n) for n in range(first, first + count)]


def rows_of(block: RawBlock) -> list[Row]:
    return [
        (int(block.offset[at]), block.key(at), block.value(at), int(block.timestamp[at])) for at in range(len(block))
    ]


def polled(source: KafkaSource, done: Callable[[], bool]) -> Iterator[RawBlock]:
    """Blocks until `done`, which is asked between two polls."""
    deadline = time.monotonic() + LIMIT_S
    while not done():
        assert time.monotonic() < deadline
        yield from source.poll(100)


def take(source: KafkaSource, count: int) -> list[tuple[str, int]]:
    """The source and offset of the next `count` records."""
    rows: list[tuple[str, int]] = []

    def add(block: RawBlock) -> None:
        rows.extend((block.source, offset) for offset in block.offset.tolist())

    for block in polled(source, lambda: len(rows) >= count):
        add(block)
    assert len(rows) == count
    return rows


def await_trouble(source: KafkaSource) -> list[Trouble]:
    """The next troubles, while no records come."""
    deadline = time.monotonic() + LIMIT_S
    while not (found := source.troubles()):
        assert time.monotonic() < deadline
        assert source.poll(100) == []
    return found


def open_source(broker: str, *partitions: str, **settings: Any) -> KafkaSource:
    """A source that reads these from their first offset."""
    source = KafkaSource(
        Kafka(bootstrap_servers=(broker,)), client_id="test", group=False,
        **{"on_dead_letter": no_letters, "isolation": "read_committed"} | settings,
    )  # fmt: skip
    source.assign(partitions)
    for partition in partitions:
        source.seek(partition, source.first_offset(partition))
        source.resume(partition)
    return source


def read(broker: str, partition: str, end: int, start: int = 0, **settings: Any) -> list[Row]:
    """All rows of a partition from `start` until the position is `end`."""
    with closing(open_source(broker, partition, **settings)) as source:
        source.seek(partition, start)
        return [row for block in polled(source, lambda: source.position(partition) == end) for row in rows_of(block)]


@pytest.mark.parametrize("codec", CODECS)
def test_records_come_as_they_were_sent(kafka_broker: str, topic: MakeTopic, codec: str | None, batches: bool) -> None:
    name = topic()
    rows: list[Any] = [
        (b"k", b"v" * 3_000), (None, b"no key"), (b"tombstone", None), (b"", b""),
        (b"headers", b"{}", [("a", b"1"), ("b", b"")]), *numbered(0, 500),
    ]  # fmt: skip
    send(kafka_broker, name, rows, compression_type=codec)
    actual = read(kafka_broker, f"{name}/0", len(rows), batches=batches)
    assert actual == [(at, row[0], row[1], TIME + at) for at, row in enumerate(rows)]


def test_a_poll_gives_one_block_of_each_partition(kafka_broker: str, topic: MakeTopic, batches: bool) -> None:
    name = topic(2)
    for partition in (0, 1):
        for part in range(3):  # of several batches
            send(kafka_broker, name, numbered(100 * part, 100), partition)
    names = [f"{name}/0", f"{name}/1"]
    seen: dict[str, list[int]] = {partition: [] for partition in names}
    with closing(open_source(kafka_broker, *names, batches=batches)) as source:
        deadline = time.monotonic() + LIMIT_S
        while any(len(offsets) < 300 for offsets in seen.values()):
            assert time.monotonic() < deadline
            blocks = source.poll(200)
            assert len({block.source for block in blocks}) == len(blocks)
            for block in blocks:
                seen[block.source] += block.offset.tolist()
        assert source.lag() == 0
    assert list(seen.values()) == [[*range(300)], [*range(300)]]


def test_a_start_inside_a_batch(kafka_broker: str, topic: MakeTopic, batches: bool) -> None:
    name = topic()
    send(kafka_broker, name, numbered(0, 200), compression_type="lz4")
    actual = read(kafka_broker, f"{name}/0", 200, 137, batches=batches)
    assert [row[0] for row in actual] == [*range(137, 200)]


def test_the_brokers_time(kafka_broker: str, topic: MakeTopic, batches: bool) -> None:
    name = topic(**{"message.timestamp.type": "LogAppendTime"})
    before = int(1000 * time.time())
    send(kafka_broker, name, numbered(0, 10))
    times = {row[3] for row in read(kafka_broker, f"{name}/0", 10, batches=batches)}
    assert len(times) == 1
    assert before <= times.pop() <= 1000 * time.time() + 1000


def in_transactions(broker: str, topic: str) -> int:
    """Sends 10 committed, 10 aborted and 10 committed records; the offset behind all."""
    with closing(
        make_producer(Kafka(bootstrap_servers=(broker,)), client_id="test", transactional_id=topic)
    ) as producer:
        producer.init_transactions()
        for turn, end in enumerate(
            [producer.commit_transaction, producer.abort_transaction, producer.commit_transaction]
        ):
            producer.begin_transaction()
            for key, value in numbered(10 * turn, 10):
                producer.send(topic, value, key)
            producer.flush(timeout=LIMIT_S)
            end()
    return 33


@pytest.mark.parametrize("isolation", ["read_committed", "read_uncommitted"])
def test_transactions(kafka_broker: str, topic: MakeTopic, batches: bool, isolation: str) -> None:
    name = topic()
    end = in_transactions(kafka_broker, name)
    rows = read(kafka_broker, f"{name}/0", end, batches=batches, isolation=isolation)
    expected = numbered(0, 10) + (numbered(10, 10) if isolation == "read_uncommitted" else []) + numbered(20, 10)
    assert [(key, value) for _, key, value, _ in rows] == expected


def test_a_partition_that_cannot_go_on_does_not_hold_up_the_others(
    kafka_broker: str, topic: MakeTopic, batches: bool
) -> None:
    name = topic(2)
    for partition in (0, 1):
        send(kafka_broker, name, numbered(0, 20), partition)
    names = [f"{name}/0", f"{name}/1"]
    with closing(open_source(kafka_broker, *names, batches=batches)) as source:
        source.seek(names[0], 1_000)
        assert take(source, 20) == [(names[1], offset) for offset in range(20)]
        troubles = await_trouble(source)
        assert [(trouble.partition, trouble.kind, trouble.offset) for trouble in troubles] == [
            (names[0], "missing", 1_000)
        ]
        source.seek(names[0], 5)
        source.resume(names[0])
        assert take(source, 15) == [(names[0], offset) for offset in range(5, 20)]
        assert source.troubles() == []


def test_a_batch_that_cannot_be_read_becomes_a_dead_letter(
    kafka_broker: str, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker refuses such a batch from a producer, so that it is spoilt on its way to us."""
    name = topic()
    for part in range(3):
        send(kafka_broker, name, numbered(10 * part, 10), compression_type="gzip")
    opened = PartitionBatches._opened

    def spoil(self: Any, batch: Any) -> Any:
        if batch.base_offset == 10:
            batch._buffer[70:90] = bytes(20)
        return opened(self, batch)

    monkeypatch.setattr(PartitionBatches, "_opened", spoil)
    letters: list[DeadLetter] = []
    rows = read(kafka_broker, f"{name}/0", 30, on_dead_letter=letters.append)
    assert [row[0] for row in rows] == [*range(10), *range(20, 30)]
    assert [(letter.source, letter.line) for letter in letters] == [(f"{name}/0", 10)]
    assert letters[0].reason.startswith("offsets 10 to 19 cannot be read: its gzip compression cannot be undone")
    assert letters[0].value is not None
    assert len(letters[0].value) > 90


def test_a_wrong_checksum_is_fetched_again_and_then_stops_the_partition(
    kafka_broker: str, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = topic()
    send(kafka_broker, name, numbered(0, 10))
    send(kafka_broker, name, numbered(10, 10))
    damaged = [10] * 3  # how often the batch arrives damaged
    good = "kafka.record.default_records.DefaultRecordBatch.validate_crc"
    monkeypatch.setattr(good, lambda self: self.base_offset not in damaged or damaged.pop() != 10)
    with closing(open_source(kafka_broker, f"{name}/0")) as source:
        assert take(source, 10) == [(f"{name}/0", offset) for offset in range(10)]
        troubles = await_trouble(source)
        assert [(t.partition, t.kind, t.offset) for t in troubles] == [(f"{name}/0", "corrupt", 10)]
        damaged.clear()
        source.seek(f"{name}/0", 10)
        source.resume(f"{name}/0")
        assert take(source, 10) == [(f"{name}/0", offset) for offset in range(10, 20)]


def test_records_come_one_by_one_where_the_seam_is_gone(
    kafka_broker: str, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = topic()
    send(kafka_broker, name, numbered(0, 100))

    class Other(Fetcher.PartitionRecords):  # type: ignore[misc]
        def _unpack_records(self, parts: Any) -> Any:  # another signature
            raise NotImplementedError

    monkeypatch.setattr("streamlstm.kafka_client.selftest.PartitionBatches", Other)
    take_batches.cache_clear()
    try:
        for _ in range(2):
            assert len(read(kafka_broker, f"{name}/0", 100)) == 100
    finally:
        take_batches.cache_clear()
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("streamlstm")]
    assert len(warnings) == 1
    assert "records are read one by one" in warnings[0]


def test_the_hook_is_the_one_in_use(kafka_broker: str) -> None:
    consumer = make_consumer(Kafka(bootstrap_servers=(kafka_broker,)), client_id="test", group=False)
    with closing(consumer):
        assert consumer._fetcher.PartitionRecords is PartitionBatches


# ---- the group


class Member:
    """A member of a group that goes on from the committed offsets."""

    def __init__(
        self, broker: str, topic: str, on_revoked: Callable[[Collection[str]], None] | None = None, **settings: Any
    ) -> None:
        kafka = Kafka(bootstrap_servers=(broker,), topics=(topic,), group_id=topic, **settings)
        self.revoked: list[str] = []
        self.lost: list[str] = []
        self.rows: list[tuple[str, int]] = []
        self.partitions: list[str] = []
        self.source = KafkaSource(
            kafka, client_id="member", on_dead_letter=no_letters,
            on_revoked=on_revoked or self.revoked.extend, on_lost=self.lost.extend,
        )  # fmt: skip
        self.source.subscribe(kafka.topics)

    def turn(self) -> None:
        for partition in self.source.take_assigned() or ():
            assert self.source.position(partition) is None
            with pytest.raises(ValueError, match="resumed before seek"):
                self.source.resume(partition)
            self.source.seek(partition, self.source.committed(partition) or 0)
            self.source.resume(partition)
        for block in self.source.poll(50):
            self.rows += [(block.source, offset) for offset in block.offset.tolist()]
        assert self.source.troubles() == []
        self.partitions = self.source.assigned()

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not done():
            assert time.monotonic() < deadline
            self.turn()


def together(done: Callable[[], bool], *members: Member) -> None:
    """Lets each member poll in a thread of its own until `done`, and raises what one of them raises.

    In one thread, one after the other, they would never agree: kafka-python (3.0.12) throws away a join that is
    completed while its member is not in `poll`, and joins again.
    """
    stop = threading.Event()

    def run(member: Member) -> None:
        while not stop.is_set():
            member.turn()

    with ThreadPoolExecutor(len(members)) as pool:
        running = [pool.submit(run, member) for member in members]
        try:
            deadline = time.monotonic() + LIMIT_S
            while not done() and not any(future.done() for future in running):
                assert time.monotonic() < deadline
                wait(running, timeout=0.05)
        finally:
            stop.set()
        for future in running:
            future.result()


def commits_later(source: KafkaSource, offset: int) -> bool:
    """Commits for all partitions without waiting, and says whether that has already arrived."""
    source.commit_later(dict.fromkeys(source.assigned(), offset))
    return {source.committed(partition) for partition in source.assigned()} == {offset}


@pytest.mark.parametrize("assignor", ["cooperative-sticky", "range", "roundrobin"])
def test_partitions_move_between_members(kafka_broker: str, topic: MakeTopic, assignor: str) -> None:
    name = topic(2)
    both = [f"{name}/0", f"{name}/1"]
    for partition in (0, 1):
        send(kafka_broker, name, numbered(0, 10), partition)
    first = Member(kafka_broker, name, assignor=assignor)
    with closing(first.source):
        first.until(lambda: len(first.rows) == 20)
        assert first.source.assigned() == both
        assert first.source.generation() > 0
        assert first.source.committed(both[0]) is None
        assert first.source.commit(dict.fromkeys(both, 10))
        assert first.source.committed(both[0]) == 10
        second = Member(kafka_broker, name, assignor=assignor)
        with closing(second.source):
            together(lambda: len(second.partitions) == len(first.partitions) == 1, first, second)
            assert set(first.revoked) >= set(second.partitions)
            assert (set(first.revoked) == set(both)) == first.source.eager
            for partition in (0, 1):
                send(kafka_broker, name, numbered(10, 10), partition)
            together(lambda: len(first.rows) + len(second.rows) == 40, first, second)
            second.until(lambda: commits_later(second.source, 20))
        assert first.lost == second.lost == []
    assert sorted(first.rows + second.rows) == [(partition, offset) for partition in both for offset in range(20)]


def test_a_member_that_was_thrown_out_cannot_commit(kafka_broker: str, topic: MakeTopic) -> None:
    name = topic()
    member = Member(kafka_broker, name)
    with closing(member.source):
        member.until(lambda: bool(member.source.assigned()))
        with closing(KafkaAdminClient(bootstrap_servers=kafka_broker)) as admin:
            identity = member.source.group_metadata().member_id
            admin.remove_group_members(name, [MemberToRemove(member_id=identity)])
        assert not member.source.commit({f"{name}/0": 0})
        member.until(lambda: bool(member.lost))
        assert member.lost == [f"{name}/0"]


def test_what_the_listener_raises_comes_out_of_poll(kafka_broker: str, topic: MakeTopic) -> None:
    name = topic(2)
    refused: list[str] = []

    def refuse(partitions: Collection[str]) -> None:
        refused.extend(partitions)
        raise InputError("the disk is full")

    first = Member(kafka_broker, name, on_revoked=refuse)
    with closing(first.source):
        first.until(lambda: len(first.source.assigned()) == 2)
        second = Member(kafka_broker, name)
        with closing(second.source):
            with pytest.raises(InputError, match="the disk is full"):
                together(lambda: False, first, second)
            assert len(refused) == 1


def test_while_held_nothing_comes(kafka_broker: str, topic: MakeTopic) -> None:
    name = topic()
    send(kafka_broker, name, numbered(0, 10))
    with closing(open_source(kafka_broker, f"{name}/0")) as source:
        source.hold(True)
        assert source.poll(300) == []
        source.pause(f"{name}/0")
        source.resume(f"{name}/0")
        assert source.poll(300) == []
        source.hold(False)
        assert len(take(source, 10)) == 10


def test_a_topic_made_anew_has_another_id(kafka_broker: str, kafka_admin: KafkaAdminClient, topic: MakeTopic) -> None:
    name = topic()
    with closing(open_source(kafka_broker, f"{name}/0")) as source:
        before = source.topic_id(f"{name}/0")
    kafka_admin.delete_topics([name])
    deadline = time.monotonic() + LIMIT_S
    while True:
        with suppress(Exception):
            kafka_admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1}})
            break
        assert time.monotonic() < deadline
    with closing(open_source(kafka_broker, f"{name}/0")) as source:
        after = source.topic_id(f"{name}/0")
    assert None not in (before, after)
    assert before != after


# ---- a range


def open_range(address: str, **settings: Any) -> tuple[TopicRange, list[str], list[DeadLetter]]:
    notes: list[str] = []
    letters: list[DeadLetter] = []
    config = Config.model_validate(
        {"input": {"features": ["value"]}, "kafka": {"isolation": settings.pop("isolation", "read_committed")},
         "runtime": {"batch_rows": 64}}
    )  # fmt: skip
    return TopicRange(address, config, on_dead_letter=letters.append, on_note=notes.append, **settings), notes, letters


def values_of(found: TopicRange) -> dict[str, list[float]]:
    out: dict[str, list[float]] = {}
    for batch in found:
        assert len(batch) <= 64
        out.setdefault(batch.source, []).extend(batch.x[:, 0].tolist())
    return out


def test_a_range_is_read_partition_after_partition(kafka_broker: str, topic: MakeTopic) -> None:
    name = topic(3)
    for partition in (2, 0):
        send(kafka_broker, name, numbered(100 * partition, 100), partition)
    found, notes, letters = open_range(f"kafka://{kafka_broker}/{name}")
    expected = {f"{name}/0": [*map(float, range(100))], f"{name}/2": [*map(float, range(200, 300))]}
    for _ in range(2):
        actual = values_of(found)
        assert actual == expected
        assert list(actual) == list(expected)
        assert found.progress() == (200, 200)
    assert (notes, letters, found.infinities, found.columns.features) == ([], [], 0, ("value",))
    send(kafka_broker, name, numbered(0, 5))
    assert values_of(found) == expected  # the end is that of the start


@pytest.mark.parametrize(
    ("query", "first", "end", "notes"),
    [
        ("from=10&to=20", 10, 20, 0),
        ("from=95&to=500", 95, 100, 1),
        ("from=50&to=50", 0, 0, 0),
        ("from=60&to=50", 0, 0, 0),
        (f"from={TIME + 30}&to={TIME + 40}", 30, 40, 0),
        ("from=2023-11-14T22:13:20.030Z&to=2023-11-14T23:13:20.040%2B01:00", 30, 40, 0),
        (f"from={TIME + 30}", 30, 100, 0),
        (f"from={TIME + 1_000}", 0, 0, 0),
        (f"to={TIME + 1_000}&partition=0", 0, 100, 0),
    ],
)
def test_from_and_to(kafka_broker: str, topic: MakeTopic, query: str, first: int, end: int, notes: int) -> None:
    name = topic(2)
    send(kafka_broker, name, numbered(0, 100), compression_type="lz4")
    found, said, _ = open_range(f"kafka://{kafka_broker}/{name}?{query}")
    assert [value for values in values_of(found).values() for value in values] == [*map(float, range(first, end))]
    assert sum(note.startswith(f"{name}/0") for note in said) == notes


@pytest.mark.parametrize("isolation", ["read_committed", "read_uncommitted"])
def test_a_range_that_ends_in_control_records(kafka_broker: str, topic: MakeTopic, isolation: str) -> None:
    name = topic()
    end = in_transactions(kafka_broker, name)
    for start, expected in ((0, 30), (21, 10), (32, 0)):
        found, _, _ = open_range(f"kafka://{kafka_broker}/{name}?from={start}", isolation=isolation)
        aborted = 10 if isolation == "read_committed" and start == 0 else 0
        assert sum(map(len, values_of(found).values())) == expected - aborted
        assert found.progress() == (end - start, end - start)


def test_an_open_transaction_is_an_error_and_no_endless_wait(kafka_broker: str, topic: MakeTopic) -> None:
    name = topic()
    send(kafka_broker, name, numbered(0, 5))
    kafka = Kafka(bootstrap_servers=(kafka_broker,))
    with closing(make_producer(kafka, client_id="test", transactional_id=name)) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(name, b"{}").get(timeout=LIMIT_S)
        found, _, _ = open_range(f"kafka://{kafka_broker}/{name}", idle_s=1.0)
        with pytest.raises(
            InputError, match=rf"{name}/0 gives nothing for 1 s at offset 5, 1 before the end; .*transaction"
        ):
            values_of(found)
        producer.abort_transaction()
    assert values_of(found) == {f"{name}/0": [*map(float, range(5))]}


def test_values_that_are_no_records_become_dead_letters(kafka_broker: str, topic: MakeTopic) -> None:
    name = topic()
    send(kafka_broker, name, [(b"a", b'{"value": 1}'), (b"a", b"no"), (b"a", b'{"value": 2}')])
    found, _, letters = open_range(f"kafka://{kafka_broker}/{name}")
    assert values_of(found) == {f"{name}/0": [1.0, 2.0]}
    assert [(letter.source, letter.line, letter.value) for letter in letters] == [(f"{name}/0", 1, b"no")]


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("127.0.0.1:1", "is no address of a topic; write kafka://HOST:PORT"),
        ("127.0.0.1/t", "'127.0.0.1' is no HOST:PORT"),
        ("127.0.0.1:9,b:99999/t", "'b:99999' is no HOST:PORT"),
        ("127.0.0.1:9/a topic", "'a topic' is no name of a topic"),
        ("127.0.0.1:9/t?form=1", "unknown part 'form'; known are from, to and partition"),
        ("127.0.0.1:9/t?from=", "from='' is neither an offset nor a time"),
        ("127.0.0.1:9/t?from", "from has no value"),
        ("127.0.0.1:9/t?from=1&from=2", "from stands there twice"),
        ("127.0.0.1:9/t?to=yesterday", "to='yesterday' is neither an offset nor a time"),
        ("127.0.0.1:9/t?partition=-1", "partition='-1' must be a whole number"),
    ],
)
def test_a_malformed_address_says_what_is_right(rest: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_range(f"kafka://{rest}")
    assert message in str(caught.value)


def test_a_partition_that_is_not_there(kafka_broker: str, topic: MakeTopic) -> None:
    name = topic(2)
    with pytest.raises(UsageError, match="there is no partition 7; there are 0, 1"):
        open_range(f"kafka://{kafka_broker}/{name}?partition=7")


# ---- settings and errors


def test_a_topic_that_is_not_there_is_named_with_the_nearest(kafka_broker: str, topic: MakeTopic) -> None:
    name = topic()
    with pytest.raises(BrokerError) as caught:
        open_range(f"kafka://{kafka_broker}/{name}x")
    assert f"has no topic '{name}x'; the nearest are {name}" in str(caught.value)


@pytest.fixture
def forgetful() -> Iterator[None]:
    """kafka-python (3.0.12) forgets the sockets of connections that fail: they end here, and in no other test."""
    yield
    gc.collect()


forgets = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@forgets
@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("make", [make_consumer, make_producer, make_admin])
def test_nobody_answers(make: Callable[..., Any]) -> None:
    kafka = Kafka(bootstrap_servers=("127.0.0.1:1",), client={"bootstrap_timeout_ms": 500})
    threads = set(threading.enumerate())
    with pytest.raises(BrokerError) as caught:
        make(kafka, client_id="test")
    assert str(caught.value).startswith("kafka.bootstrap_servers: nobody answers at 127.0.0.1:1 (tried for 0.5 s): ")
    assert "connection refused" in str(caught.value)
    assert [thread for thread in threading.enumerate() if thread not in threads and thread.is_alive()] == []


@forgets
@pytest.mark.usefixtures("forgetful")
def test_encryption_that_the_broker_does_not_speak(kafka_broker: str) -> None:
    kafka = Kafka(bootstrap_servers=(kafka_broker,), client={"security_protocol": "SSL", "bootstrap_timeout_ms": 2_000})
    with pytest.raises(BrokerError, match=r"kafka.client: TLS with .* failed: .*check security_protocol, ssl_cafile"):
        make_admin(kafka, client_id="test")


@forgets
@pytest.mark.usefixtures("forgetful")
def test_a_login_that_the_broker_does_not_know(kafka_broker: str) -> None:
    client = {
        "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_plain_username": "me",
        "sasl_plain_password": "hidden", "bootstrap_timeout_ms": 2_000,
    }  # fmt: skip
    with pytest.raises(BrokerError) as caught:
        make_admin(Kafka(bootstrap_servers=(kafka_broker,), client=client), client_id="test")
    assert "hidden" not in str(caught.value)
    assert "sasl_mechanism" in str(caught.value)


@pytest.mark.parametrize(
    ("client", "message"),
    [
        ({"ssl_cfile": "a"}, "kafka.client.ssl_cfile: kafka-python has no such setting; did you mean 'ssl_cafile'?"),
        ({"zzz": 1}, "kafka.client.zzz: kafka-python has no such setting; the settings are: api_version, "),
        ({"group_id": "a"}, "kafka.client.group_id: is set by kafka.group_id; remove it here"),
        ({"acks": 1}, "kafka.client.acks: is set by delivery.mode; remove it here"),
        ({"ssl_context": "a"}, "kafka.client.ssl_context: takes a Python object"),
        ({"linger_ms": "5"}, "kafka.client.linger_ms: must be a number, got '5'"),
        ({"ssl_check_hostname": 1}, "kafka.client.ssl_check_hostname: must be true or false, got 1"),
        ({"ssl_password": {"env": "NOT_SET"}}, "kafka.client.ssl_password: the environment variable NOT_SET is not set"),
        ({"ssl_password": {"file": "nowhere"}}, "kafka.client.ssl_password: the file nowhere cannot be read"),
        ({"ssl_password": {"enw": "A"}}, "kafka.client.ssl_password: a secret is written {env: NAME} or {file: PATH}"),
    ],
)  # fmt: skip
def test_settings_that_are_refused(client: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    for kind in ("consumer", "producer", "admin"):
        with pytest.raises(ConfigError) as caught:
            client_settings(Kafka(client=client), kind)  # type: ignore[arg-type]
        assert str(caught.value).startswith(message)


def test_each_client_gets_what_it_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_NAME", "me")
    (tmp_path / "secret").write_text("pass word\n")
    kafka = Kafka(
        client={
            "linger_ms": 5, "fetch_min_bytes": 2, "sasl_plain_username": {"env": "USER_NAME"},
            "sasl_plain_password": {"file": str(tmp_path / "secret")},
        }
    )  # fmt: skip
    shared = {"sasl_plain_username": "me", "sasl_plain_password": "pass word"}
    assert client_settings(kafka, "consumer") == shared | {"fetch_min_bytes": 2}
    assert client_settings(kafka, "producer") == shared | {"linger_ms": 5}
    assert client_settings(kafka, "admin") == shared


def test_a_repeated_message_is_counted_and_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    handler = RateLimited(lines=2, window_s=60.0, clock=lambda: now)
    logger = logging.Logger("kafka.test")
    logger.addHandler(handler)
    for number in range(10):
        logger.warning("lost node %d", number)
    logger.warning("another")
    now = 61.0
    logger.warning("lost node %d", 99)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["lost node 0", "lost node 1", "another", "lost node 99 (and 8 more like it)"]


def test_blocks_own_plain_arrays(kafka_broker: str, topic: MakeTopic, batches: bool) -> None:
    """What kernels are compiled for: one type of array on either path."""
    name = topic()
    send(kafka_broker, name, numbered(0, 3))
    with closing(open_source(kafka_broker, f"{name}/0", batches=batches)) as source:
        block = next(polled(source, lambda: False))
    for array, dtype in (
        (block.data, np.uint8),
        (block.keys, np.int64),
        (block.values, np.int64),
        (block.offset, np.int64),
    ):
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        assert array.flags.writeable


def test_records_that_come_between_two_looks_do_not_wait(
    kafka_broker: str, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = topic()
    slow = Kafka(bootstrap_servers=(kafka_broker,), client={"retry_backoff_ms": 30_000, "fetch_max_wait_ms": 20_000})
    with closing(make_consumer(slow, client_id="test", group=False)) as consumer:
        place = TopicPartition(name, 0)
        consumer.assign([place])
        consumer.seek(place, 0)
        fetcher = consumer._fetcher
        stock = fetcher.send_fetches
        while not stock():  # one is under way when the first look finds nothing
            time.sleep(0.01)

        def send_fetches() -> Any:
            monkeypatch.undo()
            send(kafka_broker, name, numbered(0, 3))
            until = time.monotonic() + 10
            while not fetcher._completed_fetches and time.monotonic() < until:
                time.sleep(0.01)
            return stock()

        monkeypatch.setattr(fetcher, "send_fetches", send_fetches)
        began = time.monotonic()
        assert consumer.poll(60_000)[place]
        assert time.monotonic() - began < 20
