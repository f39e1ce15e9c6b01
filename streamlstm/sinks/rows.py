"""Rows of a table as JSON objects that stand alone: records of a topic, elements of a webhook's array.

The bytes are those of `rendering.json_lines`, which works on whole columns; this is made for the few flags of a round.
All numbers of one type are turned into text at once, since a call of pyarrow costs 10 to 20 us however short the column:
3 rows of 8 features took 3.0 ms column by column and take 0.4 ms so (two shared cores, November 2026).
"""

import json
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pyarrow as pa

from streamlstm.sinks.rendering import plain_text

_encoded = json.JSONEncoder(ensure_ascii=False).encode


def json_rows(table: pa.RecordBatch) -> list[bytes]:
    """Each row as a JSON object."""
    columns = table.columns
    texts: list[list[str]] = [[]] * len(columns)
    floats: dict[pa.DataType, list[int]] = {}
    for at, column in enumerate(columns):
        if pa.types.is_floating(column.type):
            floats.setdefault(column.type, []).append(at)
        else:
            texts[at] = _texts(column)
    count = table.num_rows
    for places in floats.values():
        numbers = _or_null(plain_text(pa.concat_arrays([columns[at] for at in places])))
        for n, at in enumerate(places):
            texts[at] = numbers[n * count : (n + 1) * count]
    form = _form(tuple(table.schema.names))
    return [(form % row).encode() for row in zip(*texts, strict=True)]


@lru_cache(maxsize=64)
def _form(names: tuple[str, ...]) -> str:
    """An object of these fields, with `%s` where the values belong."""
    fields = (_encoded(name).replace("%", "%%") + ":%s" for name in names)
    return "{" + ",".join(fields) + "}"


def _texts(column: pa.Array) -> list[str]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    if pa.types.is_string(column.type):
        return _or_null(column, _encoded)
    if pa.types.is_timestamp(column.type):
        return [
            _time(text) for text in np.datetime_as_string(column.to_numpy(zero_copy_only=False), unit="ns").tolist()
        ]
    return _or_null(plain_text(column))


def _time(text: str) -> str:
    return "null" if text == "NaT" else f'"{text.rstrip("0").rstrip(".")}Z"'


def _or_null(column: pa.Array, shown: Callable[[str], str] = str) -> list[str]:
    return ["null" if text is None else shown(text) for text in column.to_pylist()]
