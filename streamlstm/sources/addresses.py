"""kafka://HOST:PORT[,HOST:PORT]/TOPIC?from=OFFSET|TIME&to=OFFSET|TIME&partition=N in parts."""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

import pyarrow as pa

from streamlstm.errors import UsageError
from streamlstm.sources.times import detect, nanoseconds

SCHEME = "kafka://"
FORM = f"{SCHEME}HOST:PORT[,HOST:PORT]/TOPIC?from=OFFSET|TIME&to=OFFSET|TIME&partition=N"
FIRST_EPOCH_MS = 10**12
"""A whole number from here on is an epoch time (this is September 2001 in ms), below it an offset."""

_ADDRESS = re.compile(r"kafka://(?P<servers>[^/?#]+)/(?P<topic>[^/?#]+)/?(?:\?(?P<query>[^#]*))?", re.ASCII)
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]@\s]+):(\d{1,5})", re.ASCII)
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a range begins or ends: an offset, or milliseconds since 1970 UTC."""

    kind: Literal["offset", "time"]
    number: int


@dataclass(frozen=True, slots=True)
class Address:
    """A range of a topic; None is the first record, the end, all partitions."""

    servers: tuple[str, ...]
    topic: str
    start: Place | None
    stop: Place | None
    partition: int | None


def is_topic(text: str) -> bool:
    """Whether an input names a topic."""
    return text.startswith(SCHEME)


def parse_address(text: str) -> Address:
    """The parts of an address; UsageError saying what is right."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise UsageError(f"{text}: is no address of a topic; write {FORM}")
    servers = tuple(match["servers"].split(","))
    for server in servers:
        found = _SERVER.fullmatch(server)
        if found is None or not 0 < int(found[2]) < 65536:
            raise UsageError(f"{text}: {server!r} is no HOST:PORT; write {FORM}")
    topic = unquote(match["topic"])
    if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        raise UsageError(f"{text}: {topic!r} is no name of a topic; names have letters, digits, '.', '_' and '-'")
    query = _query(text, match["query"] or "")
    return Address(
        servers, topic, _place(text, "from", query), _place(text, "to", query),
        _whole(text, "partition", query["partition"]) if "partition" in query else None,
    )  # fmt: skip


def _query(text: str, query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if name not in ("from", "to", "partition"):
            raise UsageError(f"{text}: unknown part {name!r}; known are from, to and partition")
        if not equals or name in found:
            raise UsageError(
                f"{text}: {name} {'stands there twice' if name in found else 'has no value'}; write {name}=..."
            )
        found[name] = unquote(value)
    return found


def _place(text: str, name: str, query: dict[str, str]) -> Place | None:
    if name not in query:
        return None
    value = query[name]
    if value.isascii() and value.isdigit() and int(value) < FIRST_EPOCH_MS:
        return Place("offset", int(value))
    time_format = detect([value], "auto")
    if time_format is not None:
        times, bad = nanoseconds(pa.array([value]), time_format)
        if not bad[0] and times[0] >= 0 and (time_format.is_iso or time_format.kind != "s"):
            return Place("time", -(-int(times[0]) // 1_000_000))
    raise UsageError(
        f"{text}: {name}={value!r} is neither an offset nor a time; an offset is a whole number below 1e12, "
        f"a time ISO 8601 or epoch milliseconds"
    )


def _whole(text: str, name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value) < 2**31):
        raise UsageError(f"{text}: {name}={value!r} must be a whole number, as {name}=0")
    return int(value)
