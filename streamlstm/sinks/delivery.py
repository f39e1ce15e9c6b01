"""The daemon's outputs: which sink an address asks for, and which addresses a configuration may name."""

import re
import time
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import pyarrow as pa

from streamlstm.config import Config
from streamlstm.config.schema import Outputs
from streamlstm.errors import ConfigError, UsageError
from streamlstm.sinks.appending import AppendedFile
from streamlstm.sinks.blocks import block_records
from streamlstm.sinks.deadletters import DeadLetterFile
from streamlstm.sinks.files import COMPRESSIONS, TEXT
from streamlstm.sinks.flagged import Flagged, table_of
from streamlstm.sinks.records import Record, json_records, letter_records
from streamlstm.sinks.rendering import csv_header, csv_lines, json_lines
from streamlstm.sinks.sink import Delivering, DeliverySink, LetterSink
from streamlstm.sinks.textfile import TextSink
from streamlstm.sinks.topic import TopicSink, record_limit
from streamlstm.sinks.webhook import WebhookSink, parsed, shown

__all__ = [
    "Delivering",
    "DeliverySink",
    "LetterSink",
    "check_exactly_once",
    "check_outputs",
    "hidden",
    "needs_producer",
    "open_delivery_sink",
    "open_letter_sink",
    "transactional",
]

T = TypeVar("T")

_SYNC_S = 0.2
"""Between two syncs at least: the loop asks some hundred times a second, and a disk takes milliseconds."""
_TOPIC = "kafka:"
_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_HTTP = re.compile("https?:", re.IGNORECASE)


class DirectSink(Generic[T]):
    """Delivers each item before `write` returns, to a file or standard output; acknowledged is what `sync` made last."""

    def __init__(self, put: Callable[[T], int], sync: Callable[[], None], close: Callable[[], None]) -> None:
        self.sent = 0
        self.close = close
        self._put, self._sync = put, sync
        self._synced, self._synced_at = 0, -_SYNC_S

    def write(self, item: T, /, source: str = "") -> None:
        """Delivers the rows of `item`."""
        self.sent += self._put(item)

    def ready(self) -> bool:
        return True

    def acknowledged(self) -> int:
        if self._synced < self.sent and time.monotonic() >= self._synced_at + _SYNC_S:
            self.flush(0.0)
        return self._synced

    def flush(self, timeout_s: float) -> bool:
        self._sync()
        self._synced, self._synced_at = self.sent, time.monotonic()
        return True

    def reset(self) -> None:
        """Does nothing: all is delivered."""

    def oldest_s(self) -> float:
        return 0.0

    def trouble(self) -> str | None:
        return None


def open_delivery_sink(
    address: str, schema: pa.Schema, *, producer: Any, settings: Config, letters: LetterSink
) -> DeliverySink:
    """The sink of an address: `-`, a .csv, .jsonl or .ndjson file to append to, `kafka:TOPIC`, or an http(s) address.

    Scores go to a topic in blocks, flags and episodes row by row; `schema` tells them apart. A topic uses `producer`,
    which stays the caller's; an http address gives `letters` what it refuses. ConfigError or UsageError for other
    addresses, OutputError for one that cannot be written.
    """
    _check_address(address)
    if address == "-":
        text = TextSink(address, schema, "csv")
        return DirectSink(lambda table: _put(text.write, table), _nothing, text.close)
    if topic := _topic(address):
        render = json_records if "id" in schema.names else block_records
        return _topic_sink(topic, producer, render, settings)
    outputs = settings.outputs
    if _HTTP.match(address):
        return WebhookSink(address, letters, queue_rows=outputs.queue_rows, timeout_s=outputs.timeout_s)
    kind = next(kind for suffix, kind in TEXT.items() if address.lower().endswith(suffix))
    file = AppendedFile(address, csv_header(schema) if kind == "csv" else b"")
    lines = csv_lines if kind == "csv" else json_lines
    return DirectSink(lambda table: _put(lambda rows: file.write(lines(rows)), table), file.sync, file.close)


def open_letter_sink(address: str, *, producer: Any, settings: Config) -> LetterSink:
    """The dead letters' sink: a file of JSON lines, or `kafka:TOPIC`. ConfigError for other addresses."""
    _check_letters(address)
    if topic := _topic(address):
        return _topic_sink(topic, producer, letter_records, settings)
    file = DeadLetterFile(address)

    def put(letter: Any) -> int:
        file(letter)
        return 1

    return DirectSink(put, file.sync, file.close)


def transactional(address: str) -> bool:
    """Whether what is sent to an address can be part of a transaction: a topic alone can."""
    return address.startswith(_TOPIC)


def hidden(address: str) -> str:
    """The address as it may be printed: of an http(s) address scheme, host and port."""
    return shown(address) if _HTTP.match(address) else address


def needs_producer(outputs: Outputs) -> bool:
    """Whether any output is a topic."""
    return any(transactional(address) for address in _named(outputs).values())


def check_outputs(config: Config) -> None:
    """Raises ConfigError, naming the key, where an output of the daemon is impossible, alone or beside the others."""
    seen: dict[str, str] = {}
    for key, address in _named(config.outputs).items():
        try:
            (_check_letters if key.endswith("dead_letters") else _check_address)(address)
        except UsageError as error:
            raise ConfigError(f"{key}: {error}") from None
        if address in seen and not _HTTP.match(address):
            raise ConfigError(f"{key}: {address} is the place of {seen[address]} already; give each output its own")
        seen[address] = key


def check_exactly_once(config: Config) -> None:
    """Raises ConfigError, naming the key, for what cannot take part in a transaction."""
    if config.kafka.isolation != "read_committed":
        raise ConfigError(
            "kafka.isolation: must be read_committed with delivery.mode exactly_once, which has to know of open transactions"
        )
    for key, address in _named(config.outputs).items():
        if not transactional(address):
            raise ConfigError(
                f"{key}: {hidden(address)} cannot take part in a transaction; with delivery.mode exactly_once "
                "every output must be a topic, kafka:TOPIC; name one, or choose at_least_once"
            )


def _named(outputs: Outputs) -> dict[str, str]:
    """The outputs that there are, by key."""
    names = ("flags", "scores", "episodes", "dead_letters")
    return {f"outputs.{name}": address for name in names if (address := getattr(outputs, name)) is not None}


def _check_address(address: str) -> None:
    name = address.lower()
    if address == "-" or _topic(address):
        return
    if _HTTP.match(address):
        parsed(address)
    elif name.endswith(".parquet"):
        raise UsageError(
            f"{address}: a Parquet file cannot be appended to, and is readable only once it is complete; "
            "use .csv, .jsonl or kafka:TOPIC, or write Parquet with replay"
        )
    elif name.endswith(tuple(suffix + ending for suffix in TEXT for ending in COMPRESSIONS if ending)):
        raise UsageError(
            f"{address}: a compressed file is readable only once it is complete, which a daemon's never is; "
            "leave the compression out, or compress the file when you rotate it"
        )
    elif not name.endswith(tuple(TEXT)):
        raise UsageError(
            f"{address}: is no place to write to; must be a .csv, .jsonl or .ndjson file, kafka:TOPIC, "
            "an http(s) address, or - for CSV on standard output"
        )


def _check_letters(address: str) -> None:
    if address in ("", "-") or _HTTP.match(address):
        raise ConfigError(f"{hidden(address)!r}: dead letters go to a file or a topic; name a path or kafka:TOPIC")
    _topic(address)


def _topic(address: str) -> str | None:
    """The topic that an address names, None where it names something else."""
    if not address.startswith(_TOPIC):
        return None
    topic = address.removeprefix(_TOPIC)
    if not _TOPIC_NAME.fullmatch(topic) or topic in (".", ".."):
        raise ConfigError(f"{address}: a topic's name has 1 to 249 letters, digits, '.', '_' or '-'; correct it")
    return topic


def _topic_sink(
    topic: str, producer: Any, render: Callable[[T, str], Iterable[Record]], settings: Config
) -> TopicSink[T]:
    limit = record_limit(settings.kafka, topic)
    return TopicSink(topic, producer, render, limit=limit, queue_rows=settings.outputs.queue_rows)


def _put(write: Callable[[pa.RecordBatch], object], given: pa.RecordBatch | Flagged) -> int:
    table = table_of(given)
    write(table)
    rows: int = table.num_rows
    return rows


def _nothing() -> None:
    pass
