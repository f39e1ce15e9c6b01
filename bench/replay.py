"""Benchmark `replay`: files to scores and flags, one thread, and how much memory that takes."""

import gc
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from bench.agreement import Disagreement
from bench.catalog import numbers, words
from bench.fitted import readings, write_model

_HIDDEN, _REPETITIONS = 32, 3
_START_MS, _TICK_MS = 1_700_000_000_000, 60_000
_RARE, _SPIKE = 9973, 6.0  # one record in so many is so far off: there must be flags to write
_CHUNK = 1_000_000  # rows made at a time: the file may be longer than memory


def prepare(case: str, folder: Path) -> None:
    """Writes the model and the case's file: time in epoch ms, key, value; round after round of all streams."""
    write_model(folder, 1, _HIDDEN)
    size = numbers(case)
    streams, events = size["streams"], size["events"]
    schema = pa.schema([("timestamp", pa.int64()), ("key", pa.string()), ("f0", pa.float64())])
    path = _path(folder, case)
    names = pa.array([f"sensor-{n:04}" for n in range(streams)])
    parquet = words(case)["format"] == "parquet"
    writer = pa.parquet.ParquetWriter(path, schema) if parquet else pa.csv.CSVWriter(path, schema)
    with writer:
        rounds = max(1, _CHUNK // streams)
        for first in range(0, events, rounds):
            count = min(rounds, events - first)
            minutes = np.arange(first, first + count)
            value = readings(minutes[:, None] + 1440 * np.arange(streams) / streams, 1, seed=first)  # (count, S, 1)
            value[(minutes[:, None] * 7 + np.arange(streams) * 13) % _RARE == 0] += _SPIKE
            columns = [
                np.repeat(_START_MS + _TICK_MS * minutes, streams),
                names.take(np.tile(np.arange(streams), count)),
                value.reshape(-1).round(4),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def measure(case: str, contender: str, folder: Path) -> dict[str, float]:
    """Events per second, best of three replays, and the peak memory of this process in MiB."""
    from streamlstm.service.replay import replay

    size = numbers(case)
    expected = size["streams"] * size["events"]
    model = write_model(folder, 1, _HIDDEN)
    best = float("inf")
    repetitions = _REPETITIONS if size["events"] == 1000 else 1
    for _ in range(repetitions):
        gc.collect()
        began = time.perf_counter()
        summary = replay(
            [str(_path(folder, case))],
            model=model,
            flags=str(folder / "flags.parquet"),
            scores=str(folder / "scores.parquet"),
            dead_letters=str(folder / "dead-letters.jsonl"),
        )
        best = min(best, time.perf_counter() - began)
        if summary.records != expected:
            raise Disagreement(f"{case}: {summary.records} records were scored, the file has {expected}")
        if not 0 < summary.flags < expected // 50:
            raise Disagreement(f"{case}: {summary.flags} of {expected} records were flagged; not a usual replay")
    return {"events/s": expected / best, "MiB at the peak": peak_mib()}


def peak_mib() -> float:
    """Largest resident set of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _path(folder: Path, case: str) -> Path:
    return folder / f"events-{numbers(case)['events']}.{words(case)['format']}"
