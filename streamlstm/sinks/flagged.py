"""The flagged records of a batch before they are rendered: a file wants a table of them, a topic each as JSON.

A round of the daemon mostly has a handful of flags, and a call of pyarrow costs 5 to 20 us however few they are: 3 flags of 1
and of 38 features take 27 and 70 us so, 560 and 4 600 by way of a table that is rendered column by column (EPYC, November
2026). Numbers read alike in both and are not always written alike: 20.0 here, 20 there.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from streamlstm.sinks.rendering import json_lines
from streamlstm.sinks.schemas import SCHEMA_VERSION, flags_schema
from streamlstm.sinks.tables import STAGES, cause_texts, feature_values, flags_table
from streamlstm.types import ScoredBatch


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
        return [self.batch.keys[at].as_py() for at in np.flatnonzero(self.batch.flag).tolist()]

    def json_rows(self, keys: list[str]) -> list[bytes]:
        """Each flag as a JSON object, with the fields and values of `json_lines` of the table; `keys` are those of `keys()`."""
        batch = self.batch
        rows = np.flatnonzero(batch.flag)
        numbers = batch.row[rows].tolist()
        columns = [
            keys,
            _iso(batch.time[rows].view("M8[ns]")),
            numbers,
            *(column[rows] for column in (batch.score, batch.threshold, batch.severity)),
            repeat(True),
            [STAGES[stage] for stage in batch.stage[rows].tolist()],
            [f"{self.source}/{number}" for number in numbers],
            cause_texts(batch, rows),
            *feature_values(batch, rows).tolist(),
            *map(repeat, (self.model, self.config, SCHEMA_VERSION)),
        ]
        names = _names(batch.features)
        return [
            orjson.dumps(dict(zip(names, row, strict=True)), option=orjson.OPT_SERIALIZE_NUMPY)
            for row in zip(*columns, strict=False)  # of constants there are any number
        ]


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
def _names(features: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(flags_schema(features).names)


def _iso(times: npt.NDArray[np.datetime64]) -> list[str | None]:
    """Times as text: with the fraction's digits up to the last one that is not 0, None for NaT."""
    texts = np.datetime_as_string(times, unit="ns").tolist()
    return [None if text == "NaT" else f"{text.rstrip('0').rstrip('.')}Z" for text in texts]
