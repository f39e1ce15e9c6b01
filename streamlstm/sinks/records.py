"""Rows and dead letters as the records of a Kafka topic."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from streamlstm.sinks.flagged import Flagged, keyed_rows
from streamlstm.sinks.schemas import SCHEMA_VERSION
from streamlstm.types import DeadLetter

Headers = tuple[tuple[str, bytes], ...]

JSON: Headers = (("schema_version", str(SCHEMA_VERSION).encode()), ("content-type", b"application/json"))
_PER_FEATURE = ("value.", "expected.", "low.", "high.", "attribution.")
_SHORT = 1000  # characters or bytes of a text, in a record that was too large


@dataclass(frozen=True, slots=True)
class Record:
    """What is sent: `rows` rows in one record.

    `smaller` gives the same rows in more or shorter records, where this one is too large for the topic; none when
    nothing can be left out. `shortened` says that something was.
    """

    key: bytes | None
    value: bytes | None
    headers: Headers
    rows: int = 1
    shortened: bool = False
    smaller: Callable[[], list["Record"]] = field(default=list, repr=False)

    @property
    def size(self) -> int:
        """Bytes in the broker's eyes, with all that surrounds them rounded up."""
        texts = [self.key or b"", self.value or b"", *(name.encode() + value for name, value in self.headers)]
        return 100 + sum(10 + len(text) for text in texts)


def json_records(rows: pa.RecordBatch | Flagged, _source: str = "") -> Iterator[Record]:
    """One record per row of flags or episodes: a JSON object, under the stream's key.

    One that is too large goes without its columns per feature, with long texts cut off and `"shortened": true`.
    """
    for key, value in keyed_rows(rows):
        yield Record(key.encode(), value, JSON, smaller=partial(_shortened, key, value))


def letter_records(letter: DeadLetter, _source: str = "") -> Iterator[Record]:
    """The record of a letter: the original key and value bytes; reason and origin in headers.

    The headers are `reason`, then `topic`, `partition` and `offset` of a record of Kafka, else `source` and `line`.
    Of one that is too large the first 1000 bytes stay, and a header `shortened` says how many the value had.
    """
    topic, _, partition = letter.source.rpartition("/")
    known = letter.key is not None or letter.value is not None
    if topic and partition.isdecimal():
        places = {"topic": topic, "partition": partition, "offset": str(letter.line)}
    else:
        places = {"source": letter.source, "line": str(letter.line)}
    headers = tuple((name, _bytes(text)) for name, text in {"reason": letter.reason[:_SHORT], **places}.items())
    key, value = letter.key, letter.value if known else _bytes(letter.text)

    def smaller() -> list[Record]:
        size = ("shortened", str(len(value or b"")).encode())
        return [Record(key and key[:_SHORT], value and value[:_SHORT], (*headers, size), shortened=True)]

    yield Record(key, value, headers, smaller=smaller)


def _shortened(key: str, value: bytes) -> list[Record]:
    row: dict[str, Any] = json.loads(value)
    kept = {name: _cut(text) for name, text in row.items() if not name.startswith(_PER_FEATURE)}
    text = json.dumps(kept | {"shortened": True}, ensure_ascii=False, separators=(",", ":"))
    return [Record(_cut(key).encode(), text.encode(), JSON, shortened=True)]


def _cut(value: Any) -> Any:
    return value[:_SHORT] if isinstance(value, str) else value


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
