"""Fit from files: ridge for the skip, truncated BPTT for the LSTM on what it leaves over, then where each stream stands."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamlstm.config import Config
from streamlstm.detect.engine import Engine
from streamlstm.errors import InputError
from streamlstm.kernels.inputs import spread_of
from streamlstm.kernels.layout import (
    AT_THRESHOLD,
    CALIBRATING_ROWS,
    KIND,
    OUT_EXPECTED,
    PADDED,
    REGRESSORS,
    SCORED,
    THRESHOLD_WIDTHS,
)
from streamlstm.kernels.regress import regress_stream
from streamlstm.kernels.ridge import add_moments, solve_ridge
from streamlstm.kernels.score import wished_tail
from streamlstm.kernels.thresholds import limit
from streamlstm.learn.bptt import Progress, Series, train_lstm
from streamlstm.model.layout import Layout, make_layout
from streamlstm.model.network import Model, Network, Starts
from streamlstm.model.parameters import theta_network
from streamlstm.state.pool import StreamPool
from streamlstm.types import Float32, Float64, Int64

LEAST_ROWS = 50
"""Records of a stream below which nothing is fitted on it: its spread would be a guess."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One stream's records for a fit: time (n) int64 ns, x (n, I) float64, NaN where missing."""

    time: Int64
    x: Float64


def fit(
    recordings: Mapping[str, Recording],
    config: Config,
    features: tuple[str, ...],
    exogenous: tuple[str, ...] = (),
    on_progress: Callable[[Progress], None] | None = None,
) -> Model:
    """A model of all recordings by key, in one thread and, for one seed, the same bits each time.

    Raises InputError where no recording has `LEAST_ROWS` records, or a feature has no value at all.
    """
    began = time.perf_counter()
    chosen = {key: recording for key, recording in recordings.items() if len(recording.x) >= LEAST_ROWS}
    if not chosen:
        longest = max((len(recording.x) for recording in recordings.values()), default=0)
        raise InputError(f"fit: the longest stream has {longest} records, at least {LEAST_ROWS} are needed")
    D, K = len(features), len(exogenous)
    layout = make_layout(config, D, K, online=False)
    everything = np.concatenate([recording.x for recording in chosen.values()])
    for d, feature in enumerate(features):
        if np.isnan(everything[:, d]).all():
            raise InputError(f"fit: feature {feature!r} has no value in any record; leave it out of input.features")
    pooled = input_statistics(everything, everything)
    stats = np.array([input_statistics(recording.x, everything, pooled) for recording in chosen.values()])
    series = [
        _regress(recording.x, stat, layout, config.model.clip)
        for recording, stat in zip(chosen.values(), stats, strict=True)
    ]
    skip = fit_skip(series, config.training.ridge)
    residuals = [s.target - (s.regressors @ skip).astype(np.float32) for s in series]
    scale = np.maximum(np.sqrt(np.nanmean(np.concatenate(residuals) ** 2, axis=0)), 1e-3).astype(np.float32)
    lanes = [Series(s.inputs, residual / scale) for s, residual in zip(series, residuals, strict=True)]
    theta, summary = train_lstm(lanes, config, layout, on_progress)
    network = theta_network(
        theta, scale, skip, D + K, layout.hidden_size, int(layout.sizes[PADDED]), layout.num_layers, layout.num_outputs
    )
    starts = find_starts(chosen, stats, network, config, layout, features, exogenous)
    rows = sum(len(recording.x) for recording in chosen.values())
    training: dict[str, Any] = {
        "streams": len(chosen),
        "streams_too_short": len(recordings) - len(chosen),
        "rows": rows,
        "seconds": round(time.perf_counter() - began, 3),
        "skip_rms": [float(v) for v in scale],
        **summary,
    }
    usual = np.sqrt((starts.usual.astype(np.float64) ** 2).mean(axis=0)).astype(np.float32)
    return Model(network, features, exogenous, usual, starts, config, training)


def input_statistics(x: Float64, everything: Float64, pooled: Float64 | None = None) -> Float64:
    """Mean, variance and spread (3 I) of the inputs; pooled ones where a stream has no value of an input.

    The spread is at least a thousandth of the largest value: several columns of real training data are constant.
    """
    inputs = x.shape[1]
    out = np.zeros(3 * inputs)
    for k in range(inputs):
        column = x[:, k][~np.isnan(x[:, k])]
        if len(column) == 0:
            if pooled is not None:
                out[[k, inputs + k, 2 * inputs + k]] = pooled[[k, inputs + k, 2 * inputs + k]]
            else:
                out[2 * inputs + k] = 1e-3
            continue
        centre = column.mean()
        variance = ((column - centre) ** 2).mean()
        largest = np.abs(column).max()
        out[k], out[inputs + k] = centre, variance
        out[2 * inputs + k] = max(spread_of(centre, variance), 1e-3 * largest)
    return out


@dataclass(frozen=True, slots=True)
class _Regression:
    regressors: Float32  # (n, P)
    inputs: Float32  # (n, I)
    target: Float32  # (n, D)


def _regress(x: Float64, stat: Float64, layout: Layout, clip: float) -> _Regression:
    n, D = len(x), layout.num_features
    out = _Regression(
        np.empty((n, layout.num_regressors), np.float32),
        np.empty((n, D + layout.num_known), np.float32),
        np.empty((n, D), np.float32),
    )
    row = np.zeros(REGRESSORS * D, np.float32)
    regress_stream(x, stat, D, np.float32(clip), row, out.regressors, out.inputs, out.target)
    return out


def fit_skip(series: list[_Regression], penalty: float) -> Float64:
    """Ridge weights (P, D) over all streams' rows whose features are all present; zeros where there is no such row."""
    P, D = series[0].regressors.shape[1], series[0].target.shape[1]
    gram, cross, used = np.zeros((P, P)), np.zeros((P, D)), 0
    for s in series:
        used = add_moments(s.regressors, s.target, gram, cross, used)
    weights = np.zeros((P, D))
    if used:
        solve_ridge(gram, cross, penalty, np.zeros((P, P)), weights)
    return weights


def find_starts(
    recordings: Mapping[str, Recording],
    stats: Float64,
    network: Network,
    config: Config,
    layout: Layout,
    features: tuple[str, ...],
    exogenous: tuple[str, ...],
) -> Starts:
    """Usual errors and threshold of every stream, from scoring its own records twice by the compiled call itself."""
    N, D, sizes = len(recordings), layout.num_features, layout.sizes
    width = THRESHOLD_WIDTHS[int(sizes[KIND])]
    usual = np.ones((N, D), np.float32)
    thresholds, limits = np.zeros((N, width), np.float32), np.zeros(N, np.float32)
    scored = np.zeros(N, np.int64)
    unit = np.ones(D, np.float32)
    layout.params[CALIBRATING_ROWS] = np.inf  # of this fit's own layout: no stream becomes live, every score is learned
    engine = Engine(config, layout, Model(network, features, exogenous, unit, None, config))
    for n, recording in enumerate(recordings.values()):
        x = np.ascontiguousarray(recording.x)
        spread = stats[n, 2 * x.shape[1] : 2 * x.shape[1] + D]
        for run in range(2):
            one = slice(n, n + 1)
            known = Starts(("",), stats[one], usual[one], thresholds[one], limits[one], scored[one])
            pool = StreamPool(layout, known, keep_thresholds=False)
            pool.slots(np.array([pool.stream("")], np.int32))
            rows = pool.rows
            out = engine.score(
                rows, np.zeros(len(x), np.int32), recording.time, x, np.arange(len(x)), 0, detail=run == 0
            )
            if run == 0:
                error = np.clip((x[:, :D] - out.details[OUT_EXPECTED]) / spread, -1e6, 1e6)
                present = np.maximum((~np.isnan(error)).sum(axis=0), 1)
                usual[n] = np.maximum(np.sqrt(np.nansum(error**2, axis=0) / present), config.score.floor)
        at = int(sizes[AT_THRESHOLD])
        thresholds[n] = rows.state[0, at : at + width]
        limits[n] = limit(sizes[KIND], thresholds[n], wished_tail(rows.marks[0], layout.params), layout.params)
        scored[n] = rows.marks[0, SCORED]
    return Starts(tuple(recordings), stats, usual, thresholds, limits, scored)
