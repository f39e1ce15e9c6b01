"""Fit from files: ridge for the skip, truncated BPTT for the LSTM on what it leaves over, then where each stream stands."""

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamlstm.config import Config
from streamlstm.detect.engine import Engine
from streamlstm.errors import ConfigError, InputError
from streamlstm.kernels.absorb import wished_tail
from streamlstm.kernels.inputs import spread_of
from streamlstm.kernels.layout import (
    ADAPT,
    AT_RANGE,
    AT_THRESHOLD,
    AT_USUAL,
    BARE,
    CALIBRATING_ROWS,
    CALIBRATION,
    CLIPPED,
    ERRORS,
    HEADS,
    KIND,
    LEAST_PART_WEIGHT,
    LEAST_WEIGHT,
    PADDED,
    RAW,
    RESET_NS,
    SCORED,
    THRESHOLD,
    THRESHOLD_WIDTHS,
)
from streamlstm.kernels.regress import regress_scratch, regress_stream
from streamlstm.kernels.ridge import add_moments, solve_ridge
from streamlstm.kernels.thresholds import limit
from streamlstm.learn.bptt import Progress, Series, outputs, train_lstm
from streamlstm.learn.outlook import outlook_of, take_aim
from streamlstm.model.layout import Layout, make_layout
from streamlstm.model.network import Model, Network, Starts
from streamlstm.model.outlook import Outlook
from streamlstm.model.parameters import theta_network
from streamlstm.state.pool import StreamPool
from streamlstm.types import NO_TIME, Float32, Float64, Int64

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
    checkpoint: str | Path | None = None,
) -> Model:
    """A model of all recordings by key, in one thread and, for one seed, the same bits each time.

    `checkpoint` is a file where an interrupted training is kept, from which the next call goes on.

    Raises InputError where no recording has `LEAST_ROWS` records, or a feature has no value at all.
    """
    began = time.perf_counter()
    if config.training.input_norm and config.model.layer_norm:
        raise ConfigError("config: training.input_norm: there is no such thing with model.layer_norm; set one of them")
    if config.forecast.horizons and config.model.weights == "per_stream":
        raise ConfigError("config: forecast.horizons: a forecast needs model.weights: shared; leave one of them out")
    chosen = {key: recording for key, recording in recordings.items() if len(recording.x) >= LEAST_ROWS}
    longest = max((len(recording.x) for recording in recordings.values()), default=0)
    horizons = config.forecast.horizons
    if longest < LEAST_ROWS + horizons:
        wanted = f"at least {LEAST_ROWS + horizons} are needed" + (f" for {horizons} horizons" if horizons else "")
        raise InputError(f"fit: the longest stream has {longest} records, {wanted}")
    D = len(features)
    layout = make_layout(config, features, len(exogenous), online=False)
    everything = np.concatenate([recording.x for recording in chosen.values()])
    for d, feature in enumerate(features):
        if np.isnan(everything[:, d]).all():
            raise InputError(f"fit: feature {feature!r} has no value in any record; leave it out of input.features")
    pooled = input_statistics(everything, D)
    stats = np.array([input_statistics(recording.x, D, pooled) for recording in chosen.values()])
    series = [
        _regress(recording, stat, layout, config.model.clip)
        for recording, stat in zip(chosen.values(), stats, strict=True)
    ]
    trained = _train(series, features, config, layout, on_progress, checkpoint)
    own = _train_each(series, features, config, layout, on_progress) if config.model.weights == "per_stream" else ()
    starts = find_starts(chosen, stats, trained.network, trained.outlook, own, config, layout, features, exogenous)
    rows = sum(len(recording.x) for recording in chosen.values())
    training: dict[str, Any] = {
        "streams": len(chosen),
        "streams_too_short": len(recordings) - len(chosen),
        "rows": rows,
        "seconds": round(time.perf_counter() - began, 3),
        **trained.summary,
    }
    usual = np.sqrt((starts.known[:, : HEADS * D].astype(np.float64) ** 2).mean(axis=0)).astype(np.float32)
    return Model(trained.network, features, exogenous, usual, starts, config, training, trained.outlook, own)


@dataclass(frozen=True, slots=True)
class _Trained:
    network: Network
    outlook: Outlook | None
    summary: dict[str, Any]


def _train(
    series: list["_Regression"],
    features: tuple[str, ...],
    config: Config,
    layout: Layout,
    on_progress: Callable[[Progress], None] | None,
    checkpoint: str | Path | None,
) -> _Trained:
    """Skips, then the LSTM on what they leave over."""
    skip = fit_skips(series, layout.num_calendar, config.training.ridge)
    residuals = [_residuals(s, skip) for s in series]
    squares = np.concatenate(residuals) ** 2
    seen = ~np.isnan(squares).all(axis=0)  # a stream of its own may lack a feature
    scale = np.ones(squares.shape[1], np.float32)
    scale[seen] = np.maximum(np.sqrt(np.nanmean(squares[:, seen], axis=0)), 1e-3)
    D, P = layout.num_features, layout.num_regressors
    aim = take_aim([s.regressors[:, :P] for s in series], [s.target for s in series], config)
    fed = D if config.training.scheduled_sampling > 0 else 0
    lanes = [
        Series(s.inputs, np.concatenate([residual / scale, further], axis=1), _said_before(s, skip[RAW, :, :fed]))
        for s, residual, further in zip(series, residuals, aim.targets, strict=True)
    ]
    theta, summary = train_lstm(lanes, features, scale[:D], aim, config, layout, on_progress, checkpoint)
    H, Hp, O = layout.hidden_size, int(layout.sizes[PADDED]), outputs(aim, layout)
    network = theta_network(layout.cell, theta, scale, skip, D + layout.num_known, H, Hp, layout.num_layers, O)
    readout = theta[-(Hp + 1) * O :].reshape(-1, O)
    outlook = outlook_of(aim, readout[:, HEADS * D : HEADS * D + aim.outputs], H)
    return _Trained(network, outlook, {"skip_rms": [float(v) for v in scale[:D]], **summary})


def _train_each(
    series: list["_Regression"],
    features: tuple[str, ...],
    config: Config,
    layout: Layout,
    on_progress: Callable[[Progress], None] | None,
) -> tuple[Network, ...]:
    """A network for every stream alone; `runtime.threads` of them are trained at once. Progress counts streams."""
    with ThreadPoolExecutor(config.runtime.num_threads) as pool:
        own = []
        for trained in pool.map(lambda one: _train([one], features, config, layout, None, None), series):
            own.append(trained.network)
            if on_progress is not None:
                loss, held = (trained.summary[name] or math.nan for name in ("loss", "held_out_loss"))
                on_progress(Progress(len(own), len(series), loss, held, math.nan, math.nan))
    return tuple(own)


def input_statistics(x: Float64, D: int, pooled: Float64 | None = None) -> Float64:
    """Mean, variance and spread (3 I) of the inputs x (n, I); pooled ones where a stream has no value of an input.

    The spread of a feature is its standard deviation, at least a thousandth of its largest value: several columns of
    real training data are constant. Known inputs are often switches that are rarely on: in standard deviations they
    would be shocks to the LSTM, so their spread is their range, and their size where they are constant (MSL, three
    seeds: .624 instead of .590).
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
        if k < D:
            out[2 * inputs + k] = max(spread_of(centre, variance), 1e-3 * largest)
        else:
            out[2 * inputs + k] = np.ptp(column) or max(largest, 1.0)
    return out


@dataclass(frozen=True, slots=True)
class _Regression:
    regressors: Float32  # (n, 2 P), raw and clipped
    inputs: Float32  # (n, I)
    target: Float32  # (n, D)


def _regress(recording: Recording, stat: Float64, layout: Layout, clip: float) -> _Regression:
    n, D = len(recording.x), layout.num_features
    P, C = layout.num_regressors, layout.num_calendar
    out = _Regression(
        np.empty((n, 2 * P), np.float32), np.empty((n, D + layout.num_known), np.float32), np.empty((n, D), np.float32)
    )
    scratch = np.zeros(regress_scratch(D, P), np.float32)
    regress_stream(
        recording.time, recording.x, stat, D, C, np.float32(clip), scratch, out.regressors, out.inputs, out.target
    )
    out.target[after_gaps(recording.time, layout.params[RESET_NS])] = np.nan
    return out


def after_gaps(time: Int64, gap_ns: float) -> Any:
    """Which records (n) lie more than gap_ns after the latest before them: in use the stream would begin anew there."""
    known = np.where(time == NO_TIME, np.nan, time.astype(np.float64))
    latest = np.fmax.accumulate(known)
    return np.concatenate([[False], known[1:] - latest[:-1] > gap_ns])


def fit_skips(series: list[_Regression], C: int, penalty: float) -> Float64:
    """Ridge weights (3, P, D) of raw and of clipped regressors and of the C last, which are made of the time.

    Over all streams' rows whose features are all present; else zeros.
    """
    P, D = series[0].regressors.shape[1] // 2, series[0].target.shape[1]
    weights = np.zeros((HEADS, P, D))
    for cut in (CLIPPED, RAW):  # the last moments are used again, for the time alone
        gram, cross, used = np.zeros((P, P)), np.zeros((P, D)), 0
        for s in series:
            used = add_moments(s.regressors[:, cut * P : (cut + 1) * P], s.target, gram, cross, used)
        if used:
            solve_ridge(gram, cross, penalty, True, np.zeros((P, P)), weights[cut])
    solve_ridge(gram[P - C :, P - C :], cross[P - C :], penalty, False, np.zeros((C, C)), weights[BARE, P - C :])
    return weights


def _residuals(series: _Regression, skip: Float64) -> Float32:
    """What each head leaves over without the LSTM, (n, 3 D): of raw inputs, of clipped inputs, of the time alone."""
    raw, clipped = np.split(series.regressors, 2, axis=1)
    heads = [
        series.target - (regressors @ weights).astype(np.float32)
        for regressors, weights in zip((raw, clipped, raw), skip, strict=True)
    ]
    return np.concatenate(heads, axis=1)


def _said_before(series: _Regression, weights: Float64) -> Float32:
    """What the raw skip with weights (P, F) said of the record before, (n, F); NaN at the first one."""
    out = np.full((len(series.inputs), weights.shape[1]), np.nan, np.float32)
    out[1:] = series.regressors[:-1, : len(weights)] @ weights
    return out


def find_starts(
    recordings: Mapping[str, Recording],
    stats: Float64,
    network: Network,
    outlook: Outlook | None,
    own: tuple[Network, ...],
    config: Config,
    layout: Layout,
    features: tuple[str, ...],
    exogenous: tuple[str, ...],
) -> Starts:
    """What every stream's row holds after its own records: the compiled call scores them once for each stage.

    First the usual errors, the variability and the range become known, then the calibration of the parts, then the
    threshold. Means are plain ones over all records.
    """
    N, D, sizes = len(recordings), layout.num_features, layout.sizes
    width = THRESHOLD_WIDTHS[int(sizes[KIND])]
    known = np.zeros((N, layout.known_width), np.float32)
    known[:, : HEADS * D] = 1
    thresholds, limits = np.zeros((N, width), np.float32), np.zeros(N, np.float32)
    scored = np.zeros(N, np.int64)
    params = layout.params  # of this fit's own layout
    params[CALIBRATING_ROWS] = np.inf  # no stream becomes live, every score is learned
    params[LEAST_WEIGHT] = params[LEAST_PART_WEIGHT] = 0
    model = Model(network, features, exogenous, known[0, : HEADS * D], None, config, outlook=outlook, own=own)
    weights = np.arange(1, N + 1) if own else np.zeros(N, np.int64)
    engine = Engine(config, layout, model)
    columns, at_threshold = layout.known_columns, int(sizes[AT_THRESHOLD])
    at_range = int(sizes[AT_RANGE] - sizes[AT_USUAL])
    for n, recording in enumerate(recordings.values()):
        one = slice(n, n + 1)
        x = np.ascontiguousarray(recording.x)
        for stage in (ERRORS, CALIBRATION, THRESHOLD):
            params[ADAPT] = stage
            pool = StreamPool(
                layout,
                Starts(("",), stats[one], known[one], thresholds[one], limits[one], scored[one], weights[one]),
                keep_thresholds=False,
            )
            pool.slots(np.array([pool.stream("")], np.int32))
            rows = pool.host
            engine.score(rows, np.zeros(len(x), np.int32), recording.time, x, np.arange(len(x)), 0, detail=False)
            known[n] = rows.state[0, columns]
            if stage == ERRORS:
                known[n, at_range : at_range + 2 * D] = usual_range(x, stats[n], D)
        thresholds[n] = rows.state[0, at_threshold : at_threshold + width]
        limits[n] = limit(engine.sizes, thresholds[n], wished_tail(rows.marks[0], params), params)
        scored[n] = rows.marks[0, SCORED]
    return Starts(tuple(recordings), stats, known, thresholds, limits, scored, weights)


def usual_range(x: Float64, stat: Float64, D: int) -> Float64:
    """The 1 % and 99 % quantiles of z, (2 D); 0 for a feature without a value."""
    inputs = x.shape[1]
    z = (x[:, :D] - stat[:D]) / stat[2 * inputs : 2 * inputs + D]
    seen = ~np.isnan(z).all(axis=0)
    out = np.zeros((2, D))
    out[:, seen] = np.nanquantile(z[:, seen], [0.01, 0.99], axis=0)
    return out.reshape(-1)
