"""Reading what a replay wrote: flags, episodes or scores as CSV, JSON lines or Parquet, in the types they were made of."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from streamlstm.errors import InputError

Kind = Literal["flags", "episodes", "scores"]

_TIME = pa.timestamp("ns", tz="UTC")
_TYPES = {
    **dict.fromkeys(("key", "id", "cause", "state", "stage", "model", "config"), pa.string()),
    **dict.fromkeys(("time", "opened", "closed", "peak_time"), _TIME),
    **dict.fromkeys(("score", "threshold", "severity", "peak_severity"), pa.float32()),
    **dict.fromkeys(("row", "events", "first", "last"), pa.int64()),
    "flag": pa.bool_(),
}
_WANTED: dict[Kind, tuple[str, ...]] = {
    "episodes": ("id", "key", "opened", "closed", "peak_time", "peak_severity", "first", "last"),
    "flags": ("id", "key", "time", "row", "severity"),
    "scores": ("key", "time", "row", "score", "threshold", "severity", "flag", "stage"),
}


def read_output(path: str) -> tuple[Kind | None, pa.Table]:
    """What kind of output a file is and its rows; None for JSON lines without any, which may be of each kind.

    InputError where it cannot be read or is none of ours.
    """
    try:
        table = _read(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
    if table is None:
        return None, pa.table({})
    names = set(table.column_names)
    for kind, wanted in _WANTED.items():
        if names.issuperset(wanted):
            return kind, table
    raise InputError(
        f"{path}: is not an output of `streamlstm replay`: its columns are {', '.join(table.column_names[:6])}; "
        "name a file of --flags, --episodes or --scores"
    )


def _read(path: str) -> pa.Table | None:
    file = Path(path)
    if file.name.endswith(".parquet"):
        return _as_made(pq.read_table(file))
    suffix = file.suffix
    packing = {".gz": "gzip", ".zst": "zstd"}.get(suffix)
    name = file.name.removesuffix(suffix) if packing else file.name
    if not name.endswith((".csv", ".jsonl", ".ndjson")):
        raise InputError(
            f"{path}: the suffix does not say what it holds; must be .csv, .jsonl or .ndjson (also with .gz or .zst) "
            "or .parquet"
        )
    data: Any = BytesIO(file.read_bytes())
    if packing:
        data = BytesIO(pa.CompressedInputStream(data, packing).read())
    if name.endswith(".csv"):
        options = pa_csv.ConvertOptions(column_types=_TYPES)
        parse = pa_csv.ParseOptions(newlines_in_values=True)
        return pa_csv.read_csv(data, parse_options=parse, convert_options=options)
    first = data.readline()
    if not first:
        return None
    data.seek(0)
    try:
        row = json.loads(first)  # each line has the same keys
    except ValueError as error:
        raise InputError(f"{path}: line 1 is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise InputError(f"{path}: line 1 is no JSON object")
    schema = pa.schema([(name, _TYPES[name]) for name in row if name in _TYPES])
    return pa_json.read_json(data, parse_options=pa_json.ParseOptions(explicit_schema=schema))


def _as_made(table: pa.Table) -> pa.Table:
    """The table with the types of `_TYPES`, where Parquet has dictionaries instead of text."""
    for at, field in enumerate(table.schema):
        kind = _TYPES.get(field.name, field.type)
        if field.type != kind:
            table = table.set_column(at, field.name, table.column(at).cast(kind))
    return table
