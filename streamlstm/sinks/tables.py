"""Scored batches, episodes and forecasts as tables. Nothing here costs Python per row: only per feature, cause and episode."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streamlstm.errors import UsageError
from streamlstm.sinks.schemas import (
    KEY,
    SCHEMA_VERSION,
    TIME,
    episodes_schema,
    flags_schema,
    forecasts_schema,
    scores_schema,
)
from streamlstm.types import (
    CAUSE_KIND,
    NO_TIME,
    Cause,
    Episode,
    Float64,
    Forecast,
    Int64,
    ScoredBatch,
    Stage,
    cause_text,
)

Floats = npt.NDArray[np.floating]
Rows = npt.NDArray[np.intp] | slice

STAGES = tuple(stage.name.lower() for stage in Stage)
"""Names of the stages by number."""
_STAGES = pa.array(STAGES)
_ALL = slice(None)


def scores_table(batch: ScoredBatch, *, detail: bool) -> pa.RecordBatch:
    """One row per record, columns as in `scores_schema`; NaN becomes null. `detail` wants every record detailed.

    Columns may share the batch's memory.
    """
    columns = _score_columns(batch, _ALL)
    if detail:
        if not batch.detailed.all():
            missing = len(batch) - np.count_nonzero(batch.detailed)
            raise UsageError(
                f"scores: {missing} of {len(batch)} records carry no expected values; "
                "score with detail for every record, or write the scores without"
            )
        columns += _cut(_side_by_side(_ALL, *_details(batch)))
        columns += [_floats(batch.parts[:, part]) for part in range(batch.parts.shape[1])]
    return pa.RecordBatch.from_arrays(columns, schema=scores_schema(batch.features, detail=detail))


def flags_table(batch: ScoredBatch, *, source: str, model: str, config: str) -> pa.RecordBatch:
    """One row per flagged record, columns as in `flags_schema`; `model` and `config` are hashes or names."""
    if not batch.flag.any():
        return _no_flags(batch.features)
    rows = np.flatnonzero(batch.flag)
    columns = _score_columns(batch, rows)
    columns += [_ids(source, batch.row[rows]), _causes(batch, rows)]
    columns += _cut(feature_values(batch, rows))
    columns += [pa.repeat(model, len(rows)), pa.repeat(config, len(rows))]
    columns += [pa.repeat(pa.scalar(SCHEMA_VERSION, pa.int32()), len(rows))]
    return pa.RecordBatch.from_arrays(columns, schema=flags_schema(batch.features))


def episodes_table(episodes: Sequence[Episode]) -> pa.RecordBatch:
    """One row per episode, in the order given, columns as in `episodes_schema`."""
    schema = episodes_schema()
    columns = []
    for field in schema:
        values = [getattr(episode, field.name) for episode in episodes]
        columns.append(_times(np.array(values, np.int64)) if field.type == TIME else pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def forecast_table(key: str, forecast: Forecast) -> pa.RecordBatch:
    """One row per horizon and feature of one stream, columns as in `forecasts_schema`; NaN becomes null."""
    said = forecast.quantiles if forecast.quantiles is not None else np.array([forecast.mean, forecast.scale])
    horizons, count = said.shape[1], len(forecast.features)
    columns = [
        pa.repeat(key, horizons * count),
        pa.array(np.repeat(np.arange(1, horizons + 1), count)),
        pa.array(list(forecast.features) * horizons, pa.string()),
    ]
    columns += _cut(said.reshape(len(said), -1))
    return pa.RecordBatch.from_arrays(columns, schema=forecasts_schema(forecast.levels))


@lru_cache(maxsize=64)
def _no_flags(features: tuple[str, ...]) -> pa.RecordBatch:
    schema = flags_schema(features)
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


def _score_columns(batch: ScoredBatch, rows: Rows) -> list[pa.Array]:
    keys = batch.keys if isinstance(rows, slice) else batch.keys.take(pa.array(rows))
    return [
        keys if keys.type == KEY else keys.cast(KEY),
        _times(batch.time[rows]),
        pa.array(batch.row[rows]),
        _floats(batch.score[rows]),
        _floats(batch.threshold[rows]),
        _floats(batch.severity[rows]),
        pa.array(batch.flag[rows]),
        pa.DictionaryArray.from_arrays(pa.array(batch.stage[rows].astype(np.int8)), _STAGES),
    ]


def _details(batch: ScoredBatch) -> tuple[Float64, ...]:
    return batch.expected, batch.low, batch.high, batch.attribution


def feature_values(batch: ScoredBatch, rows: Rows) -> Float64:
    """Value, expected value, band and share of each feature: float64 (5 D, rows), in the order of the flags' columns."""
    return _side_by_side(rows, batch.value, *_details(batch))


def _side_by_side(rows: Rows, *sources: Float64) -> Float64:
    """The columns of each source (B, D), those of one feature side by side: (D x sources, rows)."""
    chosen = [source[rows].T for source in sources]  # (D, rows)
    features, count = chosen[0].shape
    values = np.empty((features, len(chosen), count))
    for n, columns in enumerate(chosen):
        values[:, n] = columns
    return values.reshape(features * len(chosen), count)


def _cut(values: Float64) -> list[pa.Array]:
    """A column of each row of `values`, all cut from one array: a call of pyarrow costs more than a short column."""
    columns, count = values.shape
    whole = _floats(values.reshape(-1))
    return [whole.slice(n * count, count) for n in range(columns)]


def _floats(values: Floats) -> pa.Array:
    """`values` with null for NaN: a missing number is empty in CSV and null in JSON."""
    values = np.ascontiguousarray(values)
    missing = np.isnan(values)
    return pa.array(values, mask=missing) if missing.any() else pa.array(values)


def _times(time: Int64) -> pa.Array:
    """`time` as timestamps, null for `NO_TIME`."""
    missing = time == NO_TIME
    return pa.array(time, mask=missing if missing.any() else None).view(TIME)


def _ids(source: str, row: Int64) -> pa.Array:
    return pc.binary_join_element_wise(source, pa.array(row).cast(pa.string()), "/")


def _causes(batch: ScoredBatch, rows: npt.NDArray[np.intp]) -> pa.Array:
    distinct, index = np.unique(_cause_codes(batch, rows), return_inverse=True)
    texts = pa.array([_cause(batch.features, code) for code in distinct.tolist()], pa.string())
    return texts.take(pa.array(index))


def cause_texts(batch: ScoredBatch, rows: npt.NDArray[np.intp]) -> list[str]:
    """Per flagged record its cause and how much its largest feature has part in it; for a handful of flags."""
    return [_cause(batch.features, code) for code in _cause_codes(batch, rows).tolist()]


def _cause_codes(batch: ScoredBatch, rows: npt.NDArray[np.intp]) -> Int64:
    """101 * cause + the percents of the largest share."""
    share: Float64 = np.fmax(batch.attribution[rows], 0.0)  # 0 for NaN
    percent = np.rint(100 * np.minimum(share.max(axis=1), 1)).astype(np.int64)
    codes: Int64 = batch.cause[rows].astype(np.int64) * 101 + percent
    return codes


@lru_cache(maxsize=10_000)
def _cause(features: tuple[str, ...], number: int) -> str:
    code, percent = divmod(number, 101)
    shared = len(features) > 1 and code // CAUSE_KIND != Cause.SILENT
    return cause_text(code, features) + (f" ({percent} %)" if shared else "")
