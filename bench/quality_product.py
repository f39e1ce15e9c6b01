"""The product on recordings in memory: `fit` on the train part, then `Detector.process_batch` on the rest, causal."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.quality_data import NabFile, read_stream
from bench.quality_floors import floors
from bench.quality_normal import FIT_DAYS, ROWS_PER_DAY, normal_stream
from streamlstm.config import Config, load
from streamlstm.detect.detector import Detector
from streamlstm.evaluate import Evaluation, Quality, metrics
from streamlstm.learn.fit import Recording, fit
from streamlstm.types import NO_TIME, Change, Float64, Int64, ScoredBatch, UInt8

Overrides = Mapping[str, Any]

LINEAR, LSTM, BOTH = "linear skip alone", "LSTM alone", "linear skip and LSTM"
VARIANTS: dict[str, Overrides] = {LINEAR: {"training.updates": 0}, LSTM: {"score.heads": ["none"]}, BOTH: {}}
_HEADS = ("raw", "clipped", "none")
ABLATION: dict[str, Overrides] = {
    **{f"without head {head}": {"score.heads": [other for other in _HEADS if other != head]} for head in _HEADS},
    **{f"head {head} alone": {"score.heads": [head]} for head in _HEADS[:2]},
    "without variability": {"score.variability": 0},
    "without range": {"score.range": 0},
    "without adaptive error scale": {"score.scale_span": 1e9},
    "without smoothing": {"score.span": 1},
}
REFRACTORY_ROWS = 150  # a fifth of NAB's longest probation
NAB_PRESET = "online"  # its constants were chosen on these files


@dataclass(frozen=True, slots=True)
class Job:
    """One stream's file under one method; no overrides means the floors."""

    path: Path
    method: str
    overrides: Overrides | None
    seed: int


@dataclass(frozen=True, slots=True)
class Judged:
    """What one method said of one stream. `days` are 1440 rows outside labels each; a floor has no flags."""

    group: str
    stream: str
    method: str
    seed: int
    rows: int
    days: float
    vus_pr: float
    auc_pr: float
    true: int | None = None
    false: int | None = None
    missed: int | None = None
    flagged: int | None = None


def configuration(overrides: Overrides, seed: int, preset: str = "default") -> Config:
    """A preset, whatever the environment says, but for `overrides`."""
    return load(preset, overrides={"training.seed": seed, **overrides}, environ={})


def judge(job: Job) -> list[Judged]:
    """The outcome of a job, of each floor if it is about those."""
    stream = read_stream(job.path)
    days = float((stream.label == 0).sum()) / ROWS_PER_DAY
    about: dict[str, Any] = {
        "group": stream.group, "stream": stream.name, "seed": job.seed, "rows": len(stream.label), "days": days,
    }  # fmt: skip

    def areas(score: Float64) -> dict[str, Any]:
        return {
            "vus_pr": metrics.vus_pr(stream.label, score),
            "auc_pr": metrics.average_precision(stream.label, score),
        }

    if job.overrides is None:
        return [Judged(method=name, **about, **areas(score)) for name, score in floors(stream, job.seed)]
    config = configuration(job.overrides, job.seed)
    time = np.full(len(stream.train) + len(stream.test), NO_TIME)
    T = len(stream.train)
    batch, quality = _fitted(stream.train, time[:T], stream.test, time[T:], stream.features, config, stream.label)
    return [
        Judged(
            method=job.method, **about, **areas(batch.score.astype(np.float64)),
            true=quality.true, false=quality.false, missed=quality.missed, flagged=quality.flagged,
        )
    ]  # fmt: skip


def _fitted(
    train: Float64, train_time: Int64, test: Float64, time: Int64, D: int, config: Config, label: UInt8
) -> tuple[ScoredBatch, Quality]:
    """Every row of `test` scored by a model of `train`; the first D columns are predicted."""
    names = tuple(f"x{n}" for n in range(train.shape[1]))
    model = fit({"stream": Recording(train_time, train)}, config, names[:D], names[D:])
    return _scored(Detector(model=model), time, test, label)


def _scored(detector: Detector, time: Int64, x: Float64, label: UInt8) -> tuple[ScoredBatch, Quality]:
    batch = detector.process_batch(["stream"] * len(x), time, x)
    evaluation = Evaluation(None)
    evaluation.add(batch, label)
    for episode in [*detector.closed_episodes(), *detector.open_episodes()]:
        evaluation.add_episode(episode)
    (quality,) = evaluation.result().streams
    return batch, quality


def nab_scores(file: NabFile, overrides: Overrides, seed: int) -> dict[str, Float64]:
    """Scores from 0 to 1 of a file's rows (U), learned online: of alarms, and without episodes of every row's severity."""
    batch = _nab_run(file, overrides, seed)
    return {
        "default: alarms": _opened(_nab_run(file, overrides, seed, "default")),
        f"{NAB_PRESET}: alarms": _opened(batch),
        f"{NAB_PRESET}: alarms, then {REFRACTORY_ROWS} rows of rest": _opened(
            _nab_run(file, {"episodes.refractory_rows": REFRACTORY_ROWS, **overrides}, seed)
        ),
        f"{NAB_PRESET}: every row's severity": _level(batch),
    }


def _nab_run(file: NabFile, overrides: Overrides, seed: int, preset: str = NAB_PRESET) -> ScoredBatch:
    detector = Detector(configuration(overrides, seed, preset), features=("value",))
    return detector.process_batch(["stream"] * len(file.x), file.time, file.x)


def _opened(batch: ScoredBatch) -> Float64:
    return np.where(batch.change == Change.OPENED, _level(batch), 0.0)


def _level(batch: ScoredBatch) -> Float64:
    """Severity s as s / (1 + s), 0 before a stream is live: a severity of 1 is 0.5."""
    severity = np.nan_to_num(batch.severity.astype(np.float64))
    level: Float64 = severity / (1 + severity)
    return level


@dataclass(frozen=True, slots=True)
class Normal:
    """Alarms on one stream without anomalies, all of them false; `days` are those in which it was live."""

    kind: str
    stream: int
    mode: str
    days: float
    alarms: int


def count_alarms(number: int, overrides: Overrides, seed: int) -> list[Normal]:
    """Alarms on a normal stream, fitted on its first days and judged on the rest, and learned online from its start."""
    kind, x = normal_stream(number)
    time = np.arange(len(x), dtype=np.int64) * 60 * 10**9
    config, T = configuration(overrides, seed), FIT_DAYS * ROWS_PER_DAY
    fitted = _fitted(x[:T], time[:T], x[T:], time[T:], x.shape[1], config, np.zeros(len(x) - T, np.uint8))[1]
    features = tuple(f"x{n}" for n in range(x.shape[1]))
    online = _scored(Detector(config, features=features), time, x, np.zeros(len(x), np.uint8))[1]
    return [
        Normal(kind, number, mode, quality.live / ROWS_PER_DAY, quality.episodes)
        for mode, quality in (("fitted on 5 days", fitted), ("online", online))
    ]
