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
    size = numbers(case)
    return {"ns/event": 1e9 * seconds_per_call(whole_call(folder, size["I"], size["H"], size["streams"])) / _BATCH}


def whole_call(folder: Path, I: int, H: int, streams: int, threads: int = 1) -> Callable[[], Any]:
    """The engine's call on the next 8192 events: normalise, skip, LSTM, readout, score, threshold and episode of each."""
    detector = saved_detector(folder, I, H)
    slots = detector.pool.slots(detector.pool.streams(pa.array([f"sensor-{n:07}" for n in range(streams)])))
    slots = np.resize(slots, streams + _BATCH)  # goes around, so that every batch is a part of it
    row, between = np.arange(_BATCH), _TICK_NS // streams
    events = cycle(readings(back_and_forth(_MINUTES)[:, None] + 1440 * row / _BATCH, I, seed=1))
    sent = 0

    def call() -> None:
        nonlocal sent
        at, number = sent % streams, sent + row
        detector.engine.score(
            detector.pool.rows, slots[at : at + _BATCH], number * between, next(events), number, 0,
            detail=False, threads=threads,
        )  # fmt: skip
        sent += _BATCH

    return call
