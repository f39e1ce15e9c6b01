"""Runs benchmarks: prepares, checks, then starts each contender in turn, round after round, and takes medians."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from bench.catalog import CATALOG, OURS, TIMES, Benchmark

ROUNDS = 3
_ROOT = Path(__file__).resolve().parent.parent
_LIMIT_S = 1800
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "ARROW_NUM_THREADS")

Row = dict[str, Any]


class BenchmarkError(Exception):
    """A contender failed, or its outputs are not those of the others."""


def run(
    benchmarks: list[Benchmark], rounds: int, report: Callable[[str], None], records: int
) -> tuple[list[Row], dict[str, float], dict[str, Any]]:
    """Rows and ratios of all cases, and what the header has to say of the sessions; `records` go to those.

    Raises BenchmarkError before anything is timed where outputs disagree.
    """
    rows: list[Row] = []
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="streamlstm-bench-") as folder, ExitStack() as sessions:
        for benchmark in benchmarks:
            if benchmark.session:
                module = importlib.import_module(f"bench.{benchmark.name}")
                facts |= sessions.enter_context(module.session(Path(folder), records))
            for case in benchmark.cases:
                report(f"{benchmark.name} {case}: prepare and check")
                _child("prepare", benchmark, case, "-", folder)
            for case in benchmark.cases:
                rows += _run_case(benchmark, case, rounds, folder, report)
    return rows, ratios(rows), facts


def _run_case(benchmark: Benchmark, case: str, rounds: int, folder: str, report: Callable[[str], None]) -> list[Row]:
    found: dict[tuple[str, str], list[float]] = {}
    contenders = benchmark.competing(case)
    for number in range(1 if case in benchmark.once else rounds):
        report(f"{benchmark.name} {case}: round {number + 1}")
        for contender in contenders[:: -1 if number % 2 else 1]:
            for unit, value in _child("measure", benchmark, case, contender, folder).items():
                found.setdefault((contender, unit), []).append(value)
    return [
        {"bench": benchmark.name, "case": case, "contender": contender, "value": median(values), "unit": unit}
        for (contender, unit), values in sorted(found.items(), key=lambda item: contenders.index(item[0][0]))
    ]


def ratios(rows: list[Row]) -> dict[str, float]:
    """Our time over each peer's, by NAME/CASE/ours_vs_PEER; below 1 we are faster."""
    times = {(row["bench"], row["case"], row["contender"]): row["value"] for row in rows if row["unit"] in TIMES}
    return {
        f"{bench}/{case}/ours_vs_{contender}": times[bench, case, OURS] / value
        for (bench, case, contender), value in times.items()
        if contender in CATALOG[bench].peers
    }


def _child(what: str, benchmark: Benchmark, case: str, contender: str, folder: str) -> dict[str, float]:
    """What a child process printed: values by unit."""
    environment = os.environ | dict.fromkeys(_ONE_THREAD, "1")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "bench.contender", what, benchmark.name, case, contender, folder]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"{benchmark.name} {case} {contender}: no result within {_LIMIT_S} s") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        said = lines[-1] if done.returncode == 1 else "\n".join(lines[-20:])
        raise BenchmarkError(f"{benchmark.name} {case} {contender}: {what} failed: {said}")
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]
