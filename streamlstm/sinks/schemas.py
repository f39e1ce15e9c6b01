"""Columns of the outputs, so that a sink can be opened before the first batch."""

from functools import lru_cache

import pyarrow as pa

SCHEMA_VERSION = 1
"""Version of the flags' columns; it rises when one changes its name or meaning."""

TIME = pa.timestamp("ns", tz="UTC")
KEY = pa.dictionary(pa.int32(), pa.string())
STAGE = pa.dictionary(pa.int8(), pa.string())

_SCORES = [
    pa.field("key", KEY),
    pa.field("time", TIME),
    pa.field("row", pa.int64()),
    pa.field("score", pa.float32()),
    pa.field("threshold", pa.float32()),
    pa.field("severity", pa.float32()),
    pa.field("flag", pa.bool_()),
    pa.field("stage", STAGE),
]


_PARTS = [pa.field(f"part.{name}", pa.float32()) for name in ("raw", "clipped", "none", "variability", "range")]


def _detail(feature: str) -> list[pa.Field]:
    wide = [pa.field(f"{name}.{feature}", pa.float64()) for name in ("expected", "low", "high")]
    return [*wide, pa.field(f"attribution.{feature}", pa.float64())]


@lru_cache(maxsize=64)
def scores_schema(features: tuple[str, ...], *, detail: bool) -> pa.Schema:
    """Columns of `scores_table`."""
    return pa.schema(
        [*_SCORES, *([*(field for name in features for field in _detail(name)), *_PARTS] if detail else [])]
    )


@lru_cache(maxsize=64)
def flags_schema(features: tuple[str, ...]) -> pa.Schema:
    """Columns of `flags_table`."""
    per_feature = [field for name in features for field in (pa.field(f"value.{name}", pa.float64()), *_detail(name))]
    text = [pa.field(name, pa.string()) for name in ("id", "cause")]
    origin = [pa.field("model", pa.string()), pa.field("config", pa.string()), pa.field("schema_version", pa.int32())]
    return pa.schema([*_SCORES, *text, *per_feature, *origin])


@lru_cache(maxsize=1)
def episodes_schema() -> pa.Schema:
    """Columns of `episodes_table`."""
    return pa.schema(
        [
            ("id", pa.string()),
            ("key", pa.string()),
            ("state", pa.string()),
            ("opened", TIME),
            ("closed", TIME),
            ("peak_time", TIME),
            ("peak_severity", pa.float32()),
            ("events", pa.int64()),
            ("cause", pa.string()),
            ("first", pa.int64()),
            ("last", pa.int64()),
        ]
    )


@lru_cache(maxsize=64)
def forecasts_schema(levels: tuple[float, ...]) -> pa.Schema:
    """Columns of `forecast_table`: mean and scale, or a quantile of each level."""
    place = [pa.field("key", pa.string()), pa.field("horizon", pa.int64()), pa.field("feature", pa.string())]
    names = [f"q{level:g}" for level in levels] or ["mean", "scale"]
    return pa.schema([*place, *(pa.field(name, pa.float64()) for name in names)])
