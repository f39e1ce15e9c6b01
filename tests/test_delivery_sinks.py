"""The daemon's sinks: one contract for all, then what each does when its other side fails."""

import base64
import csv
import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from email.message import Message
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import NewTopic
from test_sinks import ORIGIN, scored

from streamlstm.config import Config
from streamlstm.config.schema import Kafka, Outputs
from streamlstm.errors import ConfigError, InputError, OutputError, UsageError
from streamlstm.kafka_client import make_producer
from streamlstm.service.broker import LocalBroker
from streamlstm.sinks.appending import AppendedFile
from streamlstm.sinks.blocks import CONTENT_TYPE, block_records, read_block
from streamlstm.sinks.delivery import (
    check_exactly_once,
    check_outputs,
    hidden,
    needs_producer,
    open_delivery_sink,
    open_letter_sink,
    transactional,
)
from streamlstm.sinks.records import letter_records
from streamlstm.sinks.schemas import flags_schema, scores_schema
from streamlstm.sinks.tables import flags_table, scores_table
from streamlstm.sinks.webhook import WebhookSink
from streamlstm.types import DeadLetter

FEATURES = ("temperature", "load")
FLAGS = flags_schema(FEATURES)
SCORES = scores_schema(FEATURES, detail=False)
WAIT_S = 30.0
Topic = Callable[..., str]


def flags(*rows: int, features: tuple[str, ...] = FEATURES) -> pa.RecordBatch:
    """Flags of some of a hundred records; their ids end in 10 + row."""
    return flags_table(scored(100, flags=rows, features=features), **ORIGIN)


def ids(text: str) -> list[str | None]:
    """The column `id` of CSV, header included; None for a line that is no row."""
    return [row[8] if len(row) == len(FLAGS) else None for row in csv.reader(text.splitlines())]


def scores(rows: int) -> pa.RecordBatch:
    return scores_table(scored(rows), detail=False)


def letter(number: int, value: bytes = b"{broken") -> DeadLetter:
    return DeadLetter("sensors/3", number, "no JSON", value.decode(errors="replace"), b"pump-\xff", value)


def at(bootstrap: str, queue_rows: int = 10_000) -> Config:
    return Config(kafka=Kafka(bootstrap_servers=(bootstrap,)), outputs=Outputs(queue_rows=queue_rows))


def until(condition: Callable[[], bool]) -> None:
    """Waits for something that must come."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def records(bootstrap: str, topic: str, isolation: str = "read_uncommitted") -> list[Any]:
    """What a topic holds, partition after partition."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level=isolation, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    with closing(consumer):
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        found: dict[TopicPartition, list[Any]] = {partition: [] for partition in partitions}
        deadline = time.monotonic() + WAIT_S
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            assert time.monotonic() < deadline
            for partition, some in consumer.poll(timeout_ms=100).items():
                found[partition] += some
    return [record for partition in partitions for record in found[partition]]


# An HTTP server that does as it is told


@dataclass
class Receiver:
    """Answers each POST as `say` decides; keeps the bodies that it took."""

    say: Callable[[list[Any]], tuple[int, dict[str, str]]] = lambda _: (200, {})
    posts: list[tuple[Message, list[Any]]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    taken: list[Any] = field(default_factory=list)
    address: str = ""

    def script(self, *statuses: int, **headers: str) -> None:
        """These statuses in turn, then 200; 0 breaks the connection."""
        left = list(statuses)
        self.say = lambda _: (left.pop(0), headers) if left else (200, {})


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            rows = json.loads(body)
            assert self.headers["Idempotency-Key"] == hashlib.sha256(body).hexdigest()[:32]
            state.posts.append((self.headers, rows))
            state.paths.append(self.path)
            status, headers = state.say(rows)
            if not status:
                self.close_connection = True
                return
            if 200 <= status < 300:
                state.taken += rows
            text = b"as told"
            with suppress(ConnectionError):  # who waited too long has gone
                self.send_response(status)
                for name, value in {"Content-Length": str(len(text)), **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.address = f"http://127.0.0.1:{server.server_port}/hook"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture
def producer(kafka_broker: str) -> Iterator[Any]:
    with closing(make_producer(Kafka(bootstrap_servers=(kafka_broker,)), client_id="test")) as producer:
        yield producer


@pytest.fixture
def closed_later() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


# The contract


@dataclass
class Case:
    """One sink, what to write, and what then stands at its other side."""

    sink: Any
    items: list[Any]
    expected: list[Any]
    actual: Callable[[], list[Any]]


IDS = ["a.csv/11", "a.csv/13", "a.csv/14", "a.csv/60", "a.csv/109"]


@pytest.fixture(params=["csv", "jsonl", "topic", "blocks", "webhook", "letter file", "letter topic"])
def case(request: pytest.FixtureRequest, tmp_path: Path, closed_later: ExitStack) -> Case:
    letters = open_letter_sink(str(tmp_path / "dead.jsonl"), producer=None, settings=Config())
    settings = Config()

    def made(sink: Any, items: list[Any], expected: list[Any], actual: Callable[[], list[Any]]) -> Case:
        closed_later.callback(sink.close)
        return Case(sink, items, expected, actual)

    rows = [flags(1, 3), flags(), flags(4), flags(50, 99)]
    dead = [letter(number) for number in range(4)]
    match request.param:
        case "csv" | "jsonl" as kind:
            path = tmp_path / f"flags.{kind}"
            sink = open_delivery_sink(str(path), FLAGS, producer=None, settings=settings, letters=letters)

            def lines() -> list[Any]:
                if kind == "csv":
                    return ids(path.read_text())[1:]
                return [json.loads(line)["id"] for line in path.read_text().splitlines()]

            return made(sink, rows, IDS, lines)
        case "letter file":
            path = tmp_path / "dead.jsonl"
            return made(
                letters, dead, [0, 1, 2, 3], lambda: [json.loads(row)["line"] for row in path.read_text().splitlines()]
            )
        case "webhook":
            receiver: Receiver = request.getfixturevalue("receiver")
            sink = open_delivery_sink(receiver.address, FLAGS, producer=None, settings=settings, letters=letters)
            return made(sink, rows, IDS, lambda: [row["id"] for row in receiver.taken])
    bootstrap, producer = (request.getfixturevalue(name) for name in ("kafka_broker", "producer"))
    topic: str = request.getfixturevalue("topic")()
    address = f"kafka:{topic}"
    if request.param == "letter topic":
        sink = open_letter_sink(address, producer=producer, settings=at(bootstrap))
        return made(
            sink, dead, [0, 1, 2, 3], lambda: [int(dict(r.headers)["offset"]) for r in records(bootstrap, topic)]
        )
    if request.param == "blocks":
        sink = open_delivery_sink(address, SCORES, producer=producer, settings=at(bootstrap), letters=letters)

        def block_rows() -> list[Any]:
            return [row for r in records(bootstrap, topic) for row in read_block(r.value)["row"].to_pylist()]

        return made(sink, [scores(5), scores(0), scores(2500)], [*range(10, 15), *range(10, 2510)], block_rows)
    sink = open_delivery_sink(address, FLAGS, producer=producer, settings=at(bootstrap), letters=letters)
    return made(sink, rows, IDS, lambda: [json.loads(r.value)["id"] for r in records(bootstrap, topic)])


def test_everything_arrives_once_and_in_order(case: Case) -> None:
    for item in case.items:
        case.sink.write(item)
    assert case.sink.sent == len(case.expected)
    assert case.sink.flush(WAIT_S)
    assert case.sink.acknowledged() == case.sink.sent
    assert case.actual() == case.expected
    assert case.sink.ready()
    assert case.sink.oldest_s() == 0
    assert case.sink.trouble() is None


def test_acknowledgements_come_without_a_flush(case: Case) -> None:
    for item in case.items:
        case.sink.write(item)
    until(lambda: case.sink.acknowledged() == len(case.expected))
    assert case.actual() == case.expected


def test_with_nothing_sent_there_is_nothing_to_wait_for(case: Case) -> None:
    assert case.sink.ready()
    assert case.sink.flush(0.0)
    assert (case.sink.sent, case.sink.acknowledged()) == (0, 0)
    case.sink.close()
    case.sink.close()


def test_a_reset_keeps_what_was_acknowledged(case: Case) -> None:
    case.sink.write(case.items[0])
    assert case.sink.flush(WAIT_S)
    sent = case.sink.sent
    case.sink.reset()
    assert (case.sink.sent, case.sink.acknowledged()) == (sent, sent)
    case.sink.write(case.items[-1])
    assert case.sink.flush(WAIT_S)
    assert case.sink.acknowledged() == case.sink.sent > sent


# Files


def csv_sink(path: Path, schema: pa.Schema = FLAGS) -> Any:
    letters = open_letter_sink("unused", producer=None, settings=Config())
    return open_delivery_sink(str(path), schema, producer=None, settings=Config(), letters=letters)


def test_a_second_run_appends_without_a_second_header(tmp_path: Path) -> None:
    path = tmp_path / "flags.csv"
    for rows in ((1,), (3, 4)):
        with closing(csv_sink(path)) as sink:
            sink.write(flags(*rows))
    assert ids(path.read_text()) == ["id", "a.csv/11", "a.csv/13", "a.csv/14"]


def test_a_torn_line_is_cut_off_wherever_it_was_torn(tmp_path: Path) -> None:
    """Also within a quoted text that holds a line break, where a line seems to end."""
    path = tmp_path / "a.csv"
    header, first, second = b"key,x\n", b'"a\n""b""\nc",1\n', b'"d\ne",2\n'
    whole = header + first + second
    ends = [0, len(header), len(header + first), len(whole)]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        AppendedFile(str(path), header).close()
        kept = max(end for end in ends if end <= size)
        assert path.read_bytes() == (whole[:kept] or header)


def test_a_torn_line_of_json_is_cut_off_across_chunks(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a":"\\""}\n' + b'{"b":"' + b"x" * 3_000_000)
    AppendedFile(str(path)).close()
    assert path.read_bytes() == b'{"a":"\\""}\n'


def test_a_file_of_other_columns_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "flags.csv"
    path.write_bytes(b"name,age\nann,4")
    with pytest.raises(OutputError, match="begins with b'name,age"):
        csv_sink(path)
    assert path.read_bytes() == b"name,age\nann,4"


def test_processes_append_to_one_file_and_only_a_lone_one_cuts(tmp_path: Path) -> None:
    path = tmp_path / "flags.csv"
    with closing(csv_sink(path)) as first:
        first.write(flags(1))
        with path.open("ab") as other:
            other.write(b"half a li")
        with closing(csv_sink(path)) as second:
            assert path.read_bytes().endswith(b"half a li")
            with path.open("ab") as other:
                other.write(b"ne\n")
            second.write(flags(3))
            first.write(flags(4))
    assert ids(path.read_text()) == ["id", "a.csv/11", None, "a.csv/13", "a.csv/14"]


def test_a_file_that_another_program_keeps_locked_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamlstm.sinks.appending._LOCK_S", 0.1)
    path = tmp_path / "flags.csv"
    with path.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="locked by another process"):
            csv_sink(path)


def test_a_full_disk_is_an_error_of_that_write() -> None:
    with closing(AppendedFile("/dev/full")) as file, pytest.raises(OutputError, match="/dev/full: cannot be written"):
        file.write([b"x\n"])


def test_standard_output_takes_csv(capfd: pytest.CaptureFixture[str]) -> None:
    with closing(csv_sink(Path("-"))) as sink:
        sink.write(flags(1, 3))
        assert sink.flush(0.0)
        assert sink.acknowledged() == 2
    assert ids(capfd.readouterr().out) == ["id", "a.csv/11", "a.csv/13"]


def test_a_letter_file_gives_back_every_byte(tmp_path: Path) -> None:
    path, value = tmp_path / "dead.jsonl", bytes(range(256))
    with closing(open_letter_sink(str(path), producer=None, settings=Config())) as sink:
        sink.write(letter(7, value))
        assert sink.flush(0.0)
    fields = json.loads(path.read_bytes())
    assert fields["text"].encode(errors="surrogateescape") == value
    assert fields["key"].encode(errors="surrogateescape") == b"pump-\xff"
    assert (fields["source"], fields["line"], fields["reason"]) == ("sensors/3", 7, "no JSON")


# Topics


def test_a_flag_is_a_json_object_under_its_streams_key(kafka_broker: str, producer: Any, topic: Topic) -> None:
    name = topic(3)
    sink = open_topic(kafka_broker, name, producer)
    table = flags(1, 2, 4)
    sink.write(table)
    assert sink.flush(WAIT_S)
    found = {json.loads(record.value)["id"]: record for record in records(kafka_broker, name)}
    for row in table.to_pylist():
        record = found[row["id"]]
        value = json.loads(record.value)
        assert record.key == row["key"].encode()
        assert dict(record.headers) == {"schema_version": b"1", "content-type": b"application/json"}
        assert list(value) == FLAGS.names
        assert value["expected.load"] == row["expected.load"]
    assert len({record.partition for record in found.values() if record.key == b"b,c"}) == 1


def open_topic(bootstrap: str, name: str, producer: Any, schema: pa.Schema = FLAGS, queue_rows: int = 10_000) -> Any:
    letters = open_letter_sink("unused", producer=None, settings=Config())
    settings = at(bootstrap, queue_rows)
    return open_delivery_sink(f"kafka:{name}", schema, producer=producer, settings=settings, letters=letters)


def test_a_letters_record_holds_the_original_bytes(kafka_broker: str, producer: Any, topic: Topic) -> None:
    name, value = topic(), bytes(range(256))
    sink = open_letter_sink(f"kafka:{name}", producer=producer, settings=at(kafka_broker))
    sink.write(letter(7, value))
    sink.write(DeadLetter("sensors/3", 8, "no value", "", b"k", None))
    sink.write(DeadLetter("sensors/3", 9, "no value", "", None, None))
    sink.write(DeadLetter("http://host", 4, "answers 400", "{}"))
    assert sink.flush(WAIT_S)
    first, tombstone, nothing, other = records(kafka_broker, name)
    assert (first.key, first.value) == (b"pump-\xff", value)
    assert dict(first.headers) == {"reason": b"no JSON", "topic": b"sensors", "partition": b"3", "offset": b"7"}
    assert (tombstone.key, tombstone.value) == (b"k", None)
    assert (nothing.key, nothing.value) == (None, b"")
    assert other.value == b"{}"
    assert dict(other.headers) == {"reason": b"answers 400", "source": b"http://host", "line": b"4"}


def test_records_above_the_topics_limit_are_shortened_or_divided(
    kafka_broker: str, producer: Any, topic: Topic
) -> None:
    names = [topic(**{"max.message.bytes": "12000"}) for _ in range(3)]
    many = tuple(f"feature-{number}" for number in range(100))
    huge = open_topic(kafka_broker, names[0], producer, flags_schema(many))
    huge.write(flags(1, 3, features=many))
    blocks = open_topic(kafka_broker, names[1], producer, SCORES)
    blocks.write(scores(1000), "sensors/0")
    letters = open_letter_sink(f"kafka:{names[2]}", producer=producer, settings=at(kafka_broker))
    for number, value in enumerate((b"x" * 11_000, b"y" * 20_000, b"z")):
        letters.write(letter(number, value))
    assert huge.flush(WAIT_S)
    assert blocks.flush(WAIT_S)
    assert letters.flush(WAIT_S)

    rows = [json.loads(record.value) for record in records(kafka_broker, names[0])]
    assert [(row["id"], row["shortened"]) for row in rows] == [("a.csv/11", True), ("a.csv/13", True)]
    assert not any(name.startswith("expected.") for name in rows[0])
    assert huge.shortened == 2
    parts = [read_block(record.value) for record in records(kafka_broker, names[1])]
    assert len(parts) > 1
    assert [row for part in parts for row in part["row"].to_pylist()] == list(range(10, 1010))
    assert blocks.shortened == 0
    found = {dict(record.headers)["offset"]: record for record in records(kafka_broker, names[2])}
    assert found[b"0"].value == b"x" * 11_000
    assert (found[b"1"].value, dict(found[b"1"].headers)["shortened"]) == (b"y" * 1000, b"20000")
    assert found[b"2"].value == b"z"
    assert letters.shortened == 1


def test_a_record_above_the_producers_limit_is_shortened(kafka_broker: str, topic: Topic) -> None:
    kafka = Kafka(bootstrap_servers=(kafka_broker,), client={"max_request_size": 5000})
    name = topic()
    wide = tuple(f"feature-{number}" for number in range(40))
    with closing(make_producer(kafka, client_id="test")) as producer:
        sink = open_topic(kafka_broker, name, producer, flags_schema(wide))
        sink.write(flags(1, features=wide))
        narrow = open_topic(kafka_broker, name, producer)
        narrow.write(flags(3))
        score = scores_table(scored(2, features=wide), detail=True)
        detailed = open_topic(kafka_broker, name, producer, score.schema)
        detailed.write(score, "s/0")
        assert sink.flush(WAIT_S)
        assert narrow.flush(WAIT_S)
        assert detailed.flush(WAIT_S)
    assert (sink.shortened, narrow.shortened, detailed.shortened) == (1, 0, 2)
    first, second, *blocks = records(kafka_broker, name)
    assert json.loads(first.value)["shortened"]
    assert "shortened" not in json.loads(second.value)
    assert [read_block(block.value)["row"].to_pylist() for block in blocks] == [[10], [11]]


def test_a_record_that_nothing_can_be_left_out_of_is_an_error(kafka_broker: str, producer: Any, topic: Topic) -> None:
    sink = open_topic(kafka_broker, topic(**{"max.message.bytes": "100"}), producer)
    with pytest.raises(OutputError, match=r"cannot be shortened to the limit of 100; raise max\.message\.bytes"):
        sink.write(flags(1))
    with pytest.raises(OutputError, match="cannot be shortened"):
        sink.acknowledged()


def test_a_final_failure_is_an_error_that_stays(kafka_broker: str, producer: Any, topic: Topic) -> None:
    name = topic(**{"cleanup.policy": "compact"})
    sink = open_letter_sink(f"kafka:{name}", producer=producer, settings=at(kafka_broker))
    sink.write(DeadLetter("sensors/3", 9, "a compacted topic wants a key", "x"))
    for action in (lambda: sink.flush(WAIT_S), sink.acknowledged, sink.ready):
        with pytest.raises(OutputError, match=f"kafka:{name}: cannot be written: .*without key"):
            action()


def test_a_missing_topic_is_said_at_once(kafka_broker: str) -> None:
    kafka = Kafka(bootstrap_servers=(kafka_broker,), client={"max_block_ms": 500})
    missing = pytest.raises(OutputError, match="kafka:not-there-9: the broker has no such topic")
    with closing(make_producer(kafka, client_id="test")) as producer, missing:
        open_topic(kafka_broker, "not-there-9", producer)


def test_what_is_sent_belongs_to_the_producers_transaction(kafka_broker: str, topic: Topic) -> None:
    name = topic()
    kafka = Kafka(bootstrap_servers=(kafka_broker,))
    with closing(make_producer(kafka, client_id="test", transactional_id=name)) as producer:
        producer.init_transactions()
        sink = open_topic(kafka_broker, name, producer)
        producer.begin_transaction()
        sink.write(flags(1))
        assert sink.flush(WAIT_S)
        producer.abort_transaction()
        sink.reset()
        producer.begin_transaction()
        sink.write(flags(3, 4))
        producer.abort_transaction()
        sink.reset()
        assert sink.sent == sink.acknowledged()
        assert sink.flush(0.0)
        producer.begin_transaction()
        sink.write(flags(5))
        producer.commit_transaction()
        assert sink.acknowledged() == sink.sent
    assert [json.loads(record.value)["id"] for record in records(kafka_broker, name, "read_committed")] == ["a.csv/15"]


@pytest.fixture(scope="module")
def own_broker(broker_packages: None) -> Iterator[LocalBroker]:
    """A broker that may be frozen."""
    with LocalBroker() as broker:
        yield broker


def new_topic(bootstrap: str, name: str) -> None:
    with closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        admin.create_topics([NewTopic(name, 1, 1)])


def test_a_broker_that_stands_still_pauses_the_source_and_loses_nothing(own_broker: LocalBroker) -> None:
    kafka_broker, name = own_broker.bootstrap, "paused"
    new_topic(kafka_broker, name)
    kafka = Kafka(bootstrap_servers=(kafka_broker,), client={"request_timeout_ms": 500})
    with ExitStack() as stack:
        producer = stack.enter_context(closing(make_producer(kafka, client_id="test")))
        sink = open_topic(kafka_broker, name, producer, queue_rows=3)
        sink.write(flags(1))
        assert sink.flush(WAIT_S)
        stack.callback(own_broker.thaw)
        own_broker.freeze()
        sink.write(flags(2, 3))
        assert sink.ready()
        sink.write(flags(4))
        assert not sink.ready()
        sink.write(flags(5))  # what comes nevertheless is taken
        start = time.monotonic()
        assert not sink.flush(1.0)  # longer than one request lasts
        assert 1.0 <= time.monotonic() - start < 3.0
        assert (sink.sent, sink.acknowledged()) == (5, 1)
        assert sink.oldest_s() >= 1.0
        own_broker.thaw()
        assert sink.flush(WAIT_S)
        assert (sink.acknowledged(), sink.ready(), sink.trouble(), sink.oldest_s()) == (5, True, None, 0)
        found = [json.loads(record.value)["id"] for record in records(kafka_broker, name)]
        assert found == [f"a.csv/1{number}" for number in (1, 2, 3, 4, 5)]


def test_what_the_producer_gives_up_is_an_error_that_stays(own_broker: LocalBroker) -> None:
    kafka_broker, name = own_broker.bootstrap, "given-up"
    new_topic(kafka_broker, name)
    kafka = Kafka(bootstrap_servers=(kafka_broker,), client={"request_timeout_ms": 300, "delivery_timeout_ms": 600})
    with ExitStack() as stack:
        producer = stack.enter_context(closing(make_producer(kafka, client_id="test")))
        sink = open_topic(kafka_broker, name, producer)
        stack.callback(own_broker.thaw)
        own_broker.freeze()
        sink.write(flags(1))
        for action in (lambda: sink.flush(WAIT_S), sink.acknowledged, sink.ready, sink.oldest_s):
            with pytest.raises(OutputError, match=f"kafka:{name}: cannot be written: KafkaTimeoutError: Expiring"):
                action()
        assert "KafkaTimeoutError" in sink.trouble()
        assert sink.sent == 1


# Blocks


def bits(values: Any) -> list[int | None]:
    return [None if value is None else np.float32(value).view(np.uint32).item() for value in values.to_pylist()]


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=30), st.text(max_size=20))
def test_a_block_gives_back_every_bit(patterns: list[int], name: str) -> None:
    values = np.array(patterns, np.uint32).view(np.float32)
    table = scores(len(values)).set_column(3, "score", pa.array(values, mask=np.isnan(values)))
    keys = pa.array([name] * len(values)).dictionary_encode().cast(pa.dictionary(pa.int32(), pa.string()))
    table = table.set_column(0, SCORES.field(0), keys)
    (record,) = block_records(table, "sensors/2")
    back = read_block(record.value)
    assert back.schema == table.schema == SCORES
    assert back.to_pylist() == table.to_pylist()
    assert bits(back["score"]) == bits(table["score"])


def test_blocks_hold_a_thousand_rows_and_say_where_they_come_from() -> None:
    table = scores(2500)
    blocks = list(block_records(table, "sensors/2"))
    assert [block.rows for block in blocks] == [1000, 1000, 500]
    assert {block.key for block in blocks} == {b"sensors/2"}
    assert dict(blocks[0].headers) == {"schema_version": b"1", "content-type": CONTENT_TYPE, "source": b"sensors/2"}
    back = pa.Table.from_batches([read_block(block.value) for block in blocks])
    assert back.to_pylist() == table.to_pylist()


def test_a_block_with_many_features_stays_below_the_usual_limit() -> None:
    many = tuple(f"feature-{number}" for number in range(100))
    blocks = list(block_records(scores_table(scored(1000, features=many), detail=True), "s/0"))
    assert max(block.size for block in blocks) < 1_000_000
    assert sum(block.rows for block in blocks) == 1000


@pytest.mark.parametrize("value", [b"", b"{}", b"\xff" * 100], ids=["empty", "JSON", "noise"])
def test_bytes_that_are_no_block_are_an_error(value: bytes) -> None:
    with pytest.raises(InputError, match="no block of scores"):
        read_block(value)


# Webhooks


@pytest.fixture
def hook(receiver: Receiver, tmp_path: Path, closed_later: ExitStack) -> Callable[..., WebhookSink]:
    def opened(address: str = "", *, queue_rows: int = 1000, **options: float) -> WebhookSink:
        letters = closed_later.enter_context(
            closing(open_letter_sink(str(tmp_path / "dead.jsonl"), producer=None, settings=Config()))
        )
        options = {"timeout_s": 5.0} | options
        sink = WebhookSink(address or receiver.address, letters, queue_rows=queue_rows, **options)  # type: ignore[arg-type]
        closed_later.callback(sink.close)
        return sink

    return opened


def dead(tmp_path: Path) -> list[Any]:
    path = tmp_path / "dead.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_webhook_gets_a_json_array_and_the_login(receiver: Receiver, hook: Callable[..., WebhookSink]) -> None:
    sink = hook(receiver.address.replace("//", "//ann:p%40ss@"))
    sink.write(flags(1, 3))
    assert sink.flush(WAIT_S)
    headers, rows = receiver.posts[0]
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"ann:p@ss").decode()
    assert [list(row) for row in rows] == [FLAGS.names, FLAGS.names]
    assert receiver.paths[0] == "/hook"


@pytest.mark.parametrize("status", [0, 408, 425, 429, 500, 503])
def test_a_passing_failure_is_tried_again_with_the_same_key(
    receiver: Receiver, hook: Callable[..., WebhookSink], tmp_path: Path, status: int
) -> None:
    receiver.script(status, status)
    sink = hook()
    sink.write(flags(1, 3))
    until(lambda: sink.trouble() is not None)
    assert ("no answer" if status == 0 else f"answers {status}") in str(sink.trouble())
    assert sink.flush(WAIT_S)
    assert [row["id"] for row in receiver.taken] == ["a.csv/11", "a.csv/13"]
    assert len({headers["Idempotency-Key"] for headers, _ in receiver.posts}) == 1
    assert len(receiver.posts) == 3
    assert (sink.trouble(), sink.refused, dead(tmp_path)) == (None, 0, [])


def test_retry_after_is_respected(receiver: Receiver, hook: Callable[..., WebhookSink]) -> None:
    sink = hook()
    for wanted in (lambda: "1", lambda: formatdate(time.time() + 2, usegmt=True)):
        receiver.script(429, Retry_After=wanted())
        start = time.monotonic()
        sink.write(flags(1))
        assert sink.flush(WAIT_S)
        assert time.monotonic() - start >= 0.9  # a date has whole seconds
    receiver.script(429, Retry_After="soon")
    sink.write(flags(3))
    assert sink.flush(WAIT_S)


def test_a_full_queue_says_so_and_empties_when_the_address_is_back(
    receiver: Receiver, hook: Callable[..., WebhookSink]
) -> None:
    back = threading.Event()
    receiver.say = lambda _: (200, {}) if back.is_set() else (503, {})
    sink = hook(queue_rows=3)
    for row in range(1, 4):
        assert sink.ready()
        sink.write(flags(row))
    assert not sink.ready()
    sink.write(flags(4, 5))
    start = time.monotonic()
    assert not sink.flush(0.2)
    assert time.monotonic() - start < 2
    assert sink.acknowledged() == 0
    back.set()
    assert sink.flush(WAIT_S)
    assert sink.ready()
    assert [row["id"] for row in receiver.taken] == [f"a.csv/1{number}" for number in range(1, 6)]


def test_an_address_where_nobody_listens_is_tried_until_somebody_does(hook: Callable[..., WebhookSink]) -> None:
    sink = hook("http://127.0.0.1:9/secret-path?token=secret")
    sink.write(flags(1))
    until(lambda: sink.trouble() is not None)
    assert str(sink.trouble()).startswith("http://127.0.0.1:9/...: no answer")
    assert "secret" not in str(sink.trouble())
    assert sink.acknowledged() == 0


def test_an_address_that_is_slow_is_given_up_and_tried_again(
    receiver: Receiver, hook: Callable[..., WebhookSink]
) -> None:
    release = threading.Event()
    receiver.say = lambda _: (200 if release.wait(WAIT_S) else 500, {})
    sink = hook(timeout_s=0.2)
    sink.write(flags(1))
    until(lambda: len(receiver.posts) > 1)
    assert "ReadTimeoutError" in str(sink.trouble())
    release.set()
    assert sink.flush(WAIT_S)
    assert receiver.taken[-1]["id"] == "a.csv/11"  # the slow answers count as taken twice: at least once


@pytest.mark.parametrize("status", [400, 422])
def test_a_row_that_is_refused_goes_alone_to_the_dead_letters(
    receiver: Receiver, hook: Callable[..., WebhookSink], tmp_path: Path, status: int
) -> None:
    receiver.say = lambda rows: (status if any(row["id"] == "a.csv/15" for row in rows) else 200, {})
    sink = hook()
    sink.write(flags(*range(1, 12)))
    assert sink.flush(WAIT_S)
    others = [f"a.csv/{number}" for number in range(11, 22) if number != 15]
    assert [row["id"] for row in receiver.taken] == others
    (kept,) = dead(tmp_path)
    assert json.loads(kept["text"])["id"] == "a.csv/15"
    assert kept["line"] == 4
    assert kept["reason"].startswith(f"answers {status}")
    assert kept["reason"].endswith("(as told)")
    assert (sink.refused, sink.acknowledged()) == (1, 11)


def test_a_body_too_large_is_divided_from_then_on(receiver: Receiver, hook: Callable[..., WebhookSink]) -> None:
    receiver.say = lambda rows: (413 if len(rows) > 3 else 200, {})
    sink = hook()
    sink.write(flags(*range(1, 13)))
    assert sink.flush(WAIT_S)
    assert [row["id"] for row in receiver.taken] == [f"a.csv/{number}" for number in range(11, 23)]
    before = len(receiver.posts)
    sink.write(flags(*range(1, 4)))
    assert sink.flush(WAIT_S)
    assert [len(rows) for _, rows in receiver.posts[before:]] == [3]
    assert sink.refused == 0


@pytest.mark.parametrize("status", [301, 401, 404])
def test_an_address_that_refuses_everything_does_not_stop_the_daemon(
    receiver: Receiver, hook: Callable[..., WebhookSink], tmp_path: Path, status: int
) -> None:
    good = threading.Event()
    receiver.say = lambda _: (200 if good.is_set() else status, {"Location": "/elsewhere"})
    sink = hook(patience_s=0.3)
    sink.write(flags(1))
    assert not sink.flush(0.05)
    assert sink.flush(WAIT_S)
    assert len(receiver.posts) > 1  # it was tried for a while,
    before = len(receiver.posts)
    sink.write(flags(3, 4))
    assert sink.flush(WAIT_S)
    assert len(receiver.posts) == before + 1  # and from then on once
    assert [json.loads(kept["text"])["id"] for kept in dead(tmp_path)] == ["a.csv/11", "a.csv/13", "a.csv/14"]
    assert (sink.refused, sink.acknowledged()) == (3, 3)
    assert "went to the dead letters" in str(sink.trouble())
    good.set()
    sink.write(flags(5))
    assert sink.flush(WAIT_S)
    assert [row["id"] for row in receiver.taken] == ["a.csv/15"]
    assert sink.trouble() is None


class HeldLetters:
    """Letters that nobody acknowledges until told to."""

    def __init__(self) -> None:
        self.sent = self.done = 0

    def write(self, _: DeadLetter, /) -> None:
        self.sent += 1

    def acknowledged(self) -> int:
        return self.done

    def flush(self, timeout_s: float) -> bool:
        return self.done == self.sent


def test_a_refused_row_counts_when_its_letter_is_safe(receiver: Receiver) -> None:
    receiver.say = lambda rows: (400 if rows[0]["id"] == "a.csv/13" else 200, {})
    letters: Any = HeldLetters()
    with closing(WebhookSink(receiver.address, letters, queue_rows=10, timeout_s=5.0)) as sink:
        for row in (1, 3, 4):
            sink.write(flags(row))
            until(lambda: not sink._queue)
        assert not sink.flush(0.0)
        assert (sink.acknowledged(), letters.sent) == (1, 1)
        letters.done = 1
        assert sink.flush(0.0)
        assert sink.acknowledged() == 3


def test_a_reset_forgets_what_waits(receiver: Receiver, hook: Callable[..., WebhookSink]) -> None:
    receiver.script(*[503] * 3)
    sink = hook()
    sink.write(flags(1, 3))
    until(lambda: sink.trouble() is not None)
    sink.reset()
    assert (sink.sent, sink.acknowledged()) == (0, 0)
    receiver.say = lambda _: (200, {})
    sink.write(flags(4))
    assert sink.flush(WAIT_S)
    assert receiver.taken[-1]["id"] == "a.csv/14"
    assert (sink.sent, sink.acknowledged()) == (1, 1)


def test_the_answer_to_a_post_before_a_reset_takes_no_later_row(
    receiver: Receiver, hook: Callable[..., WebhookSink]
) -> None:
    release = threading.Event()
    receiver.say = lambda _: (200 if release.wait(WAIT_S) else 500, {})
    sink = hook(timeout_s=WAIT_S)
    sink.write(flags(1))
    until(lambda: bool(receiver.posts))
    sink.reset()
    sink.write(flags(4))
    release.set()
    assert sink.flush(WAIT_S)
    assert [row["id"] for row in receiver.taken] == ["a.csv/11", "a.csv/14"]
    assert (sink.sent, sink.acknowledged()) == (1, 1)


def test_closing_does_not_wait_for_the_address(receiver: Receiver, hook: Callable[..., WebhookSink]) -> None:
    receiver.say = lambda _: (503, {"Retry-After": "600"})
    sink = hook()
    sink.write(flags(1))
    until(lambda: sink.trouble() is not None)
    start = time.monotonic()
    sink.close()
    assert time.monotonic() - start < 5
    assert not sink._thread.is_alive()
    assert sink.acknowledged() == 0


def test_a_webhook_goes_through_the_proxy_of_the_environment(
    receiver: Receiver, hook: Callable[..., WebhookSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", receiver.address.replace("//", "//u:pw@").removesuffix("/hook"))
    monkeypatch.setenv("no_proxy", "localhost")
    sink = hook("http://alerts.example/in")
    sink.write(flags(1))
    assert sink.flush(WAIT_S)
    assert receiver.paths == ["http://alerts.example/in"]
    assert receiver.posts[0][0]["Proxy-Authorization"] == "Basic " + base64.b64encode(b"u:pw").decode()


def test_a_fault_of_the_sender_is_an_error_that_stays(
    hook: Callable[..., WebhookSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = hook()
    monkeypatch.setattr(sink, "_post", lambda _: 1 / 0)
    sink.write(flags(1))
    for action in (lambda: sink.flush(WAIT_S), sink.acknowledged, sink.ready):
        with pytest.raises(OutputError, match="the sender has failed: ZeroDivisionError"):
            action()


# Addresses


@pytest.mark.parametrize(
    ("address", "error", "text"),
    [
        ("scores.parquet", UsageError, "a Parquet file cannot be appended to"),
        ("flags.csv.gz", UsageError, "leave the compression out"),
        ("flags.txt", UsageError, "is no place to write to"),
        ("kafka:", ConfigError, "a topic's name has 1 to 249"),
        ("kafka:a b", ConfigError, "a topic's name has 1 to 249"),
        ("http://", ConfigError, "is no address"),
        ("https://u:secret@host:99999/secret", ConfigError, r"https://host:99999/\.\.\.: is no address"),
        ("http://u:secret@[::1/x", ConfigError, "is no address"),
        ("https:u:secret@host", ConfigError, "is no address"),
        ("no/such/folder/flags.csv", OutputError, "create the folder first"),
    ],
)
def test_an_impossible_address_is_refused_in_words(address: str, error: type[Exception], text: str) -> None:
    letters = open_letter_sink("unused", producer=None, settings=Config())
    with pytest.raises(error, match=text) as caught:
        open_delivery_sink(address, FLAGS, producer=None, settings=Config(), letters=letters)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("address", ["-", "", "https://u:secret@host/", "kafka:a b"])
def test_dead_letters_go_to_a_file_or_a_topic(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_letter_sink(address, producer=None, settings=Config())
    assert "secret" not in str(caught.value)


def outputs(mode: str = "at_least_once", **named: str) -> Config:
    return Config.model_validate({"outputs": named, "delivery": {"mode": mode}})


def test_outputs_are_checked_by_key() -> None:
    with pytest.raises(ConfigError, match=r"outputs\.scores: s\.parquet: a Parquet file"):
        check_outputs(outputs(scores="s.parquet"))
    with pytest.raises(ConfigError, match=r"outputs\.episodes: a\.csv is the place of outputs\.flags already"):
        check_outputs(outputs(flags="a.csv", episodes="a.csv"))
    with pytest.raises(ConfigError, match=r"outputs\.dead_letters: '-'"):
        check_outputs(outputs(dead_letters="-"))
    check_outputs(outputs(flags="https://host/a", episodes="https://host/a", scores="kafka:s"))


@pytest.mark.parametrize("address", ["-", "flags.csv", "https://u:secret@host/a"])
def test_exactly_once_wants_topics_alone(address: str) -> None:
    with pytest.raises(ConfigError, match=r"outputs\.flags: .* cannot take part in a transaction") as caught:
        check_exactly_once(outputs("exactly_once", flags=address, dead_letters="kafka:dead"))
    assert "secret" not in str(caught.value)
    assert not transactional(address)
    with pytest.raises(ConfigError, match=r"outputs\.dead_letters: dead-letters\.jsonl cannot"):
        check_exactly_once(outputs("exactly_once"))
    check_exactly_once(outputs("exactly_once", flags="kafka:f", dead_letters="kafka:dead"))


def test_a_producer_is_needed_for_topics_alone() -> None:
    assert not needs_producer(Outputs())
    assert not needs_producer(Outputs(flags="a.csv"))
    assert needs_producer(Outputs(flags="a.csv", dead_letters="kafka:d"))


def test_an_address_is_printed_without_its_secrets() -> None:
    assert hidden("https://u:p@host:8443/services/T0/B0?token=x") == "https://host:8443/..."
    assert hidden("HTTPS://host") == "HTTPS://host"
    assert hidden("https://host?token=x") == "https://host/..."
    assert hidden("kafka:flags") == "kafka:flags"


def test_a_shortened_letter_keeps_what_it_can() -> None:
    (record,) = letter_records(DeadLetter("s/0", 1, "r" * 9000, "", b"k" * 9000, os.urandom(9000)))
    (short,) = record.smaller()
    assert (len(short.key or b""), len(short.value or b""), short.smaller()) == (1000, 1000, [])
    assert short.size < 5000
