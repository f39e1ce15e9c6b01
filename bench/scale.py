"""Benchmark `scale`: the whole compiled call, 8192 events at a time, round robin over more and more streams."""

from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.catalog import numbers
from bench.fitted import back_and_forth, readings, saved_detector, write_model
from bench.timing import seconds_per_call

_BATCH, _MINUTES, _TICK_NS = 8192, 8, 60 * 10**9


def prepare(case: str, folder: Path) -> None:
    """Writes the model."""
    size = numbers(case)
    write_model(folder, size["I"], size["H"])


def measure(case: str, contender: str, folder: Path) -> dict[str, float]:
    """Nanoseconds per event."""
    return {"ns/event": 1e9 * seconds_per_call(_call(case, folder)) / _BATCH}


def _call(case: str, folder: Path) -> Callable[[], Any]:
    size = numbers(case)
    I, S = size["I"], size["streams"]
    detector = saved_detector(folder, I, size["H"])
    slots = detector.pool.slots(detector.pool.streams(pa.array([f"sensor-{n:07}" for n in range(S)])))
    row = np.arange(_BATCH)
    series = readings(back_and_forth(_MINUTES)[:, None] + 1440 * row / _BATCH, I, seed=1)
    events = cycle(series)
    sent = 0

    def call() -> None:
        nonlocal sent
        at = (sent + row) % S
        detector.engine.score(
            detector.pool.rows, slots[at], (sent + row) // S * _TICK_NS, next(events), sent + row, 0, detail=False
        )
        sent += _BATCH

    return call
