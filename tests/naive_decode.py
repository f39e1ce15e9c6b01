"""What a Kafka record with a JSON value means, slowly and obviously: `json.loads` and then one field after another."""

import json
import math
import re
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa

from streamlstm.config.schema import Input
from streamlstm.sources.numbers import MISSING, PATTERN
from streamlstm.sources.times import detect, nanoseconds
from streamlstm.types import NO_TIME


class Expected(NamedTuple):
    """Columns of one record: nanoseconds, bits of the values (infinities are missing), the key, how many infinities."""

    time: int
    bits: tuple[bytes, ...]
    key: str
    infinities: int


class DeadError(Exception):
    """The record is a dead letter."""


def expected(value: bytes | None, key: bytes | None, timestamp: int, settings: Input) -> Expected | None:
    """The columns of a record, None for a dead letter."""
    try:
        if value is None:
            return None
        plain = json.loads(value.decode("utf-8"))
        tokens = json.loads(value.decode("utf-8"), parse_float=Token, parse_int=Token, parse_constant=Token)
        tree = json.loads(value.decode("utf-8"), parse_float=Token, parse_int=Token, object_pairs_hook=Pairs)
        require(isinstance(plain, dict))
        require(levels(tree) <= 64)
        require(longest_number(tree) <= 4300)
        time = time_of(field(tokens, settings.time), settings.time_unit) if settings.time else own_time(timestamp)
        if settings.key is None:
            require(bool(key))
            text = (key or b"").decode("utf-8")
        elif isinstance(settings.key, str):
            text = part(field(tokens, settings.key))
        else:
            parts = [part(field(tokens, name)) for name in settings.key]
            text = "/".join(escaped(p) for p in parts) if len(parts) > 1 else parts[0]
        names = (*settings.features, *settings.exogenous)
        values = [number(field(plain, name)) for name in names]
    except (ValueError, RecursionError, DeadError):  # the first is also that of JSON and of Unicode
        return None
    finite = [math.nan if math.isinf(v) or math.isnan(v) else v for v in values]
    return Expected(time, tuple(struct.pack("<d", v) for v in finite), text, sum(map(math.isinf, values)))


class Token(str):
    """A number as it is written."""


class Pairs(list[tuple[str, Any]]):
    """An object with all its fields, also those that come twice."""


def require(holds: bool) -> None:
    """DeadError unless `holds`."""
    if not holds:
        raise DeadError


def children(value: Any) -> list[Any]:
    return [child for _, child in value] if isinstance(value, Pairs) else value if isinstance(value, list) else []


def levels(value: Any) -> int:
    return 1 + max(map(levels, children(value)), default=0) if isinstance(value, list) else 0


def longest_number(value: Any) -> int:
    return len(value) if isinstance(value, Token) else max(map(longest_number, children(value)), default=0)


def field(record: dict[str, Any], name: str) -> Any:
    if name in record:
        return record[name]
    if "." not in name:
        return None
    parent, child = name.split(".", 1)
    inner = record.get(parent)
    require(inner is None or isinstance(inner, dict))
    return None if inner is None else inner.get(child)


def number(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, str):
        require(len(value) <= 4300)
        text = value.strip(" \t")
        if text in MISSING:
            return math.nan
        require(re.fullmatch(PATTERN.strip("^$"), text, re.ASCII) is not None)
        return math.nan if "nan" in text.lower() else float(text)
    require(isinstance(value, bool | int | float))
    return attempt(lambda: float(value), math.inf if value > 0 else -math.inf)


def attempt(compute: Callable[[], float], otherwise: float) -> float:
    try:
        return compute()
    except OverflowError:
        return otherwise


def own_time(milliseconds: int) -> int:
    require(milliseconds * 10**6 < 2**63)
    return int(NO_TIME) if milliseconds < 0 else milliseconds * 10**6


def time_of(value: Any, unit: str) -> int:
    require(isinstance(value, str) and len(value) <= 4300)
    time_format = detect([value], unit)  # type: ignore[arg-type]
    require(time_format is not None)
    times, bad = nanoseconds(pa.array([value], pa.string()), time_format)  # type: ignore[arg-type]
    require(not bad[0])
    return int(times[0])


def part(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    require(isinstance(value, str) and value != "")
    value.encode("utf-8")
    return str(value)


def escaped(text: str) -> str:
    return text.replace("%", "%25").replace("/", "%2F")
