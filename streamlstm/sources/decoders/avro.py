"""Records in Avro with Confluent's framing: a zero byte, four bytes that number the schema, the record.

The schema is that of a file. Its number is not looked at: without a registry nothing is known by it. A record that another
schema wrote seldom ends where its value ends, and is a dead letter then.
"""

import io
import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from streamlstm.config.schema import Input
from streamlstm.errors import ConfigError, UsageError
from streamlstm.sources.decoders.cells import UnfitError
from streamlstm.sources.decoders.objects import ObjectReading
from streamlstm.sources.decoders.protocol import OnDeadLetter
from streamlstm.types import EventBatch, RawBlock

_FRAME = 5
_NUMBERS = {"int", "long", "float", "double", "boolean", "string", "null"}
_TIMES = _NUMBERS - {"boolean"}
_KEYS = _NUMBERS | {"enum"}
_UNITS = {f"{local}timestamp-{n}s": unit for local in ("", "local-")
          for n, unit in (("milli", "ms"), ("micro", "us"), ("nano", "ns"))}  # fmt: skip


class AvroDecoder:
    """Values that are records of the schema in a file (.avsc); see `protocol.Decoder`.

    Of the logical types the timestamps alone mean anything: they say the unit of the time. A wanted name with a dot means,
    unless a field has just that name, a field of a record in the record.
    """

    def __init__(self, settings: Input, schema_file: str) -> None:
        try:
            from fastavro import parse_schema, schemaless_reader
        except ImportError:
            raise UsageError(
                "messages.format: avro needs the package fastavro; install it with: pip install 'streamlstm[avro]'"
            ) from None
        self._read = schemaless_reader
        self._reading = ObjectReading(settings)
        self.columns = self._reading.columns
        self.infinities = 0
        schema = _loaded(schema_file)
        named: dict[str, Any] = {}
        try:
            parse_schema(schema, named_schemas=named)
            self._schema = parse_schema(_plain(schema))
        except Exception as error:  # of several modules of fastavro, which have no common base
            raise _wrong(schema_file, f"is no Avro schema ({type(error).__name__}: {error})") from None
        kinds = _Kinds(schema_file, parse_schema(schema, named_schemas={}), named)
        for name in self._reading.inputs:
            kinds.require(name, _NUMBERS, "a number")
        for name in self._reading.keys:
            kinds.require(name, _KEYS, "a key")
        self._unit: str = settings.time_unit
        if settings.time is not None:
            self._unit = kinds.require(settings.time, _TIMES, "a time") or settings.time_unit
        self._wanted = (*self._reading.inputs, *self._reading.keys, *((settings.time,) if settings.time else ()))

    def decode(self, block: RawBlock, on_dead_letter: OnDeadLetter) -> EventBatch:
        batch, infinities = self._reading.batch(
            block, lambda at: self._values(block.value(at)), self._unit, on_dead_letter
        )
        self.infinities += infinities
        return batch

    def _values(self, value: bytes | None) -> Mapping[str, Any]:
        if value is None:
            raise UnfitError("has no value")
        if len(value) < _FRAME or value[0] != 0:
            raise UnfitError(
                "does not begin with a zero byte and four bytes that number a schema, as Confluent frames it"
            )
        body = io.BytesIO(value)
        body.seek(_FRAME)
        try:
            record: Any = self._read(body, self._schema, None)
        except Exception as error:  # whatever foreign bytes lead fastavro to
            raise UnfitError(f"is not a record of the schema ({type(error).__name__}: {error})") from error
        if body.tell() != len(value):
            raise UnfitError(f"is not a record of the schema: {len(value) - body.tell()} bytes are left over")
        return {name: _field(record, name) for name in self._wanted}


class _Kinds:
    """Types of a schema's fields."""

    def __init__(self, schema_file: str, schema: Any, named: Mapping[str, Any]) -> None:
        self._file, self._named = schema_file, named
        self._fields = self._of(schema)
        if self._fields is None:
            raise _wrong(schema_file, "must be the schema of a record, with a field per column")

    def require(self, name: str, allowed: set[str], what: str) -> str | None:
        """The unit of time that a field's logical type says, None without one; ConfigError unless it can be `what`."""
        kind = self._kind(name)
        if kind is None:
            names = list(self._names())
            near = get_close_matches(name, names, 1)
            nearest = f"; nearest: {near[0]!r}" if near else ""
            raise _wrong(self._file, f"has no field {name!r}; the fields are {', '.join(names)}{nearest}")
        branches = [self._resolved(branch) for branch in (kind if isinstance(kind, list) else [kind])]
        for branch in branches:
            if _name(branch) not in allowed:
                raise _wrong(self._file, f"field {name!r} is of type {_name(branch)}, which cannot hold {what}")
        units = (_UNITS.get(str(branch.get("logicalType"))) for branch in branches if isinstance(branch, dict))
        return next((unit for unit in units if unit is not None), None)

    def _kind(self, name: str) -> Any:
        assert self._fields is not None
        if name in self._fields:
            return self._fields[name]
        parent, _, child = name.partition(".")
        return (self._of(self._fields.get(parent)) or {}).get(child)

    def _names(self) -> Iterator[str]:
        """Names of all fields that can be wanted."""
        for name, kind in (self._fields or {}).items():
            inner = self._of(kind)
            yield from [name] if inner is None else (f"{name}.{child}" for child in inner)

    def _of(self, kind: Any) -> dict[str, Any] | None:
        """The types of the fields of a record type or of its union with null, None of any other."""
        branches = [self._resolved(branch) for branch in (kind if isinstance(kind, list) else [kind])]
        records = [branch for branch in branches if _name(branch) == "record"]
        if len(records) != 1 or any(_name(branch) not in ("record", "null") for branch in branches):
            return None
        return {field["name"]: field["type"] for field in records[0]["fields"]}

    def _resolved(self, kind: Any) -> Any:
        return self._named.get(kind, kind) if isinstance(kind, str) else kind


def _name(kind: Any) -> str:
    return str(kind["type"] if isinstance(kind, dict) else kind)


def _plain(schema: Any) -> Any:
    """The schema without logical types, so that a timestamp is read as the number it is."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items() if key != "logicalType"}
    return schema


def _field(record: Mapping[str, Any], name: str) -> Any:
    if name in record:
        return record[name]
    parent, _, child = name.partition(".")
    inner = record.get(parent)
    return None if inner is None else inner[child]


def _loaded(schema_file: str) -> Any:
    try:
        return json.loads(Path(schema_file).read_text(encoding="utf-8"))
    except OSError as error:
        raise _wrong(schema_file, f"cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise _wrong(schema_file, f"is not JSON: {error}") from None


def _wrong(schema_file: str, what: str) -> ConfigError:
    return ConfigError(f"config: messages.schema_file: {schema_file}: {what}")
