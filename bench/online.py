"""Benchmark `online`: a detector that learns from every record, and how well it foresees the next value of one stream."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.catalog import OURS, numbers
from bench.problem import Float32

_RECORDS, _TIMED = 100_000, 2  # of each timed call, and how many of them, after one that is not timed
_SETTLED, _JUDGED = 1000, 3000  # records of one stream that are not judged yet, and where judging ends
_TICK_NS = 60 * 10**9


def prepare(case: str, folder: Path) -> None:
    """Nothing: the predictions are judged beside the times."""


def measure(case: str, contender: str, folder: Path) -> dict[str, float]:
    """Nanoseconds per record, and the root mean square error of one step ahead in the signal's deviations."""
    size = numbers(case)
    return (_ours if contender == OURS else _deep_river)(size["H"], size["window"], size["streams"])


def signal(records: int) -> Float32:
    """Two waves, of which one comes and goes, and noise of a tenth: mean 0, variance about 1."""
    t = np.arange(records)
    waves = np.sin(2 * np.pi * t / 40) + np.sin(2 * np.pi * t / 23) * (np.sin(2 * np.pi * t / 700) > 0)
    return (waves / 0.87 + 0.1 * np.random.default_rng(0).standard_normal(records)).astype(np.float32)


def _ours(H: int, window: int, streams: int) -> dict[str, float]:
    from streamlstm import Detector

    def detector() -> Any:
        return Detector({"model": {"hidden_size": H}, "learning": {"window": window, "mode": "online"}})

    few = signal(_JUDGED)
    expected = detector().process_batch(["s"] * _JUDGED, np.arange(_JUDGED) * _TICK_NS, few).expected[:, 0]
    timed = detector()
    x = np.repeat(signal(_RECORDS // streams), streams)
    keys, best = [f"s{n % streams}" for n in range(_RECORDS)], np.inf
    for turn in range(1 + _TIMED):
        times = (turn * _RECORDS + np.arange(_RECORDS)) * _TICK_NS
        began = time.perf_counter()
        timed.process_batch(keys, times, x)
        best = min(best, time.perf_counter() - began) if turn else best
    return {"ns/event": 1e9 * best / _RECORDS, "error": _error(expected, few)}


def _deep_river(H: int, window: int, streams: int) -> dict[str, float]:
    import torch
    from deep_river.regression import RollingRegressor

    torch.set_num_threads(1)

    class Forecaster(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.readout = torch.nn.LSTM(1, H), torch.nn.Linear(H, 1)

        def forward(self, x: Any) -> Any:
            return self.readout(self.layer(x)[0][-1])

    model = RollingRegressor(module=Forecaster(), window_size=window, optimizer_fn="adam", lr=1e-3)
    x = signal(_JUDGED)
    expected = np.zeros(_JUDGED)
    began = time.perf_counter()
    for n in range(1, _JUDGED):
        before = {"value": float(x[n - 1])}
        expected[n] = model.predict_one(before)
        model.learn_one(before, float(x[n]))
    return {"ns/event": 1e9 * (time.perf_counter() - began) / _JUDGED, "error": _error(expected, x)}


def _error(expected: Any, x: Float32) -> float:
    return float(np.sqrt(np.mean((expected - x)[_SETTLED:] ** 2)))
