"""The flagged records of a batch before they are rendered: a file wants a table of them, a topic each as JSON.

A round of the daemon mostly has a handful of flags, and a call of numpy or pyarrow costs 5 to 20 us however few they are: 3
flags of 1 and of 38 features take 0.3 and 0.5 ms so, 0.6 and 1.5 ms by way of a table, 1.6 and 13.9 ms by way of a table
and rendering it column by column (two busy cores, November 2026).
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamlstm.sinks.rendering import json_lines
from streamlstm.sinks.schemas import SCHEMA_VERSION, flags_schema
from streamlstm.sinks.tables import STAGES, cause_texts, feature_values, flags_table
from streamlstm.types import ScoredBatch

_encoded = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Flagged:
    """The flags among `batch`, which came from `source`; `model` and `config` are hashes or names."""

    batch: ScoredBatch
    source: str
    model: str
    config: str

    def table(self) -> pa.RecordBatch:
        """One row per flag, columns as in `flags_schema`."""
        return flags_table(self.batch, source=self.source, model=self.model, config=self.config)

    def keys(self) -> list[str]:
        """The key of each flag."""
        taken = self.batch.keys.take(pa.array(np.flatnonzero(self.batch.flag)))
        keys: list[str] = taken.cast(pa.string()).to_pylist()
        return keys

    def json_rows(self, keys: list[str]) -> list[bytes]:
        """Each flag as a JSON object, the bytes of `json_lines` of the table; `keys` are those of `keys()`."""
        batch = self.batch
        rows = np.flatnonzero(batch.flag)
        scores = np.stack([batch.score[rows], batch.threshold[rows], batch.severity[rows]])
        numbers = batch.row[rows]
        columns = [
            map(_encoded, keys),
            _iso(batch.time[rows].view("M8[ns]")),
            numbers.tolist(),
            *_number_texts(scores),
            repeat("true"),
            [f'"{STAGES[stage]}"' for stage in batch.stage[rows].tolist()],
            [_encoded(f"{self.source}/{number}") for number in numbers.tolist()],
            map(_encoded, cause_texts(batch, rows)),
            *_number_texts(feature_values(batch, rows)),
            *map(repeat, (_encoded(self.model), _encoded(self.config), SCHEMA_VERSION)),
        ]
        form = _form(tuple(flags_schema(batch.features).names))
        return [(form % row).encode() for row in zip(*columns, strict=False)]  # of constants there are any number


def table_of(rows: pa.RecordBatch | Flagged) -> pa.RecordBatch:
    """What a sink was given, as a table."""
    return rows.table() if isinstance(rows, Flagged) else rows


def keyed_rows(rows: pa.RecordBatch | Flagged) -> list[tuple[str, bytes]]:
    """What a sink was given, as JSON objects with the keys of their streams."""
    if isinstance(rows, Flagged):
        keys = rows.keys()
        return list(zip(keys, rows.json_rows(keys), strict=True))
    lines = (line for block in json_lines(rows) for line in block.to_pybytes().split(b"\n")[:-1])
    return list(zip(rows["key"].cast(pa.string()).to_pylist(), lines, strict=True))


@lru_cache(maxsize=64)
def _form(names: tuple[str, ...]) -> str:
    """An object of these fields, with `%s` where the values belong."""
    fields = (_encoded(name).replace("%", "%%") + ":%s" for name in names)
    return "{" + ",".join(fields) + "}"


def _iso(times: npt.NDArray[np.datetime64]) -> list[str]:
    """Times as JSON: with the fraction's digits up to the last one that is not 0, null for NaT."""
    texts = np.datetime_as_string(times, unit="ns").tolist()
    return ["null" if text == "NaT" else f'"{text.rstrip("0").rstrip(".")}Z"' for text in texts]


def _number_texts(values: npt.NDArray[np.floating]) -> list[list[str]]:
    """The numbers of each row of `values` (columns, flags) as pyarrow writes them, null for what is not finite."""
    flat = values.reshape(-1)
    finite = np.isfinite(flat)
    texts = pa.array(flat, mask=~finite).cast(pa.string()).to_pylist()
    if not finite.all():
        texts = ["null" if text is None else text for text in texts]
    count = values.shape[1]
    return [texts[n * count : (n + 1) * count] for n in range(len(values))]
