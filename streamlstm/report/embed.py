"""Turns decimated series into JSON that a page decodes: arrays as base64, scaled to what float32 can hold."""

import base64
import json
from collections.abc import Sequence
from math import isnan
from typing import Any

import numpy as np
import numpy.typing as npt

from streamlstm.report.decimate import BoundedSeries
from streamlstm.report.series import MAX_FEATURES, StreamSummary
from streamlstm.types import NO_TIME, Episode, Int64

_MARKED_AT_MOST = 300  # episodes or windows in one picture; more are a solid block, and slow

_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def script_json(content: object) -> str:
    """JSON that may stand inside a script element: it holds neither `<` nor `&`."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPES)


def embed_stream(
    stream: StreamSummary, features: tuple[str, ...], episodes: Sequence[Episode], windows: Int64, caption: str
) -> dict[str, Any]:
    """What the page needs to draw a stream. `windows` is int64 (N, 2) ns; `caption` is shown below the stream's name.

    On the x axis stands time in ms since 1970 UTC or, without times, the number of the record.
    """
    series, buckets = stream.series, stream.series.buckets if stream.series is not None else None
    if series is None or buckets is None:
        raise ValueError(f"no series of stream {stream.key!r} was kept")
    number = series.first + series.width * np.arange(len(buckets), dtype=np.float64)
    chosen = _most_blamed(series)
    worst = sorted(episodes, key=lambda e: -known_peak(e))[:_MARKED_AT_MOST]
    return {
        "key": stream.key,
        "caption": caption,
        "timed": stream.timed,
        "width": series.width,
        "first": series.first,
        "omitted": len(features) - len(chosen),
        "x": _base64((buckets.time / 1e6 if stream.timed else number).astype("<f8")),
        "score": _scaled(buckets.score),
        "threshold": _scaled(buckets.threshold),
        "flags": _base64((buckets.flags > 0).astype("u1")),
        "features": [
            {
                "name": features[f],
                "lowest": _scaled(buckets.lowest[:, f]),
                "highest": _scaled(buckets.highest[:, f]) if series.width > 1 else None,
                "expected": _scaled(buckets.expected[:, f]),
                "low": _scaled(buckets.low[:, f]),
                "high": _scaled(buckets.high[:, f]),
            }
            for f in chosen
        ],
        "episodes": sorted(span(e, stream.timed) for e in worst),
        "windows": (windows[:_MARKED_AT_MOST] / 1e6).tolist() if stream.timed else [],
    }


def span(episode: Episode, timed: bool) -> tuple[float, float]:
    """First and last x of an episode in a picture of its stream."""
    if timed and episode.opened != NO_TIME and episode.closed != NO_TIME:
        return episode.opened / 1e6, episode.closed / 1e6
    return float(episode.first), float(episode.last)


def known_peak(episode: Episode) -> float:
    """The peak severity, -1 for an episode of a stream that was not live, which sorts behind all others."""
    return -1.0 if isnan(episode.peak_severity) else episode.peak_severity


def _most_blamed(series: BoundedSeries) -> list[int]:
    """The features with the largest attribution in flagged records, in their order; the first ones without flags."""
    return sorted(np.argsort(-series.attribution, kind="stable")[:MAX_FEATURES].tolist())


def _scaled(values: npt.NDArray[np.floating]) -> dict[str, Any]:
    """`offset + scale * v` with v float32 within ±1, so that a counter near 1e9 keeps its steps and 1e300 fits."""
    values = values.astype(np.float64)
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    offset = low / 2 + high / 2
    scale = (high / 2 - low / 2) or 1.0
    v = np.where(np.isfinite(values), (np.clip(values, low, high) - offset) / scale, np.nan)
    return {"offset": offset, "scale": scale, "v": _base64(v.astype("<f4"))}


def _base64(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")
