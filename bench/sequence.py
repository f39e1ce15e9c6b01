"""Benchmark `sequence`: one stream through 10 000 steps of one layer in one call."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.agreement import check_equal
from bench.catalog import CATALOG, OURS, numbers
from bench.problem import Float32, Problem
from bench.timing import seconds_per_call

_AGREEING = 200  # steps over which all must agree; later ones have forgotten the first


def prepare(case: str, folder: Path) -> None:
    """Checks ours against every peer."""
    problem, x = _sequence(case)
    x = x[:_AGREEING]
    ours = _ours(problem, x)()
    for peer in CATALOG["sequence"].peers:
        check_equal(_CONTENDERS[peer](problem, x)(), ours, f"{case}: h of each step")


def measure(case: str, contender: str, folder: Path) -> dict[str, float]:
    """Nanoseconds per step."""
    call = _CONTENDERS[contender](*_sequence(case))
    return {"ns/event": 1e9 * seconds_per_call(call) / numbers(case)["steps"]}


def _sequence(case: str) -> tuple[Problem, Float32]:
    """One stream's layer, and its inputs (steps, I)."""
    size = numbers(case)
    problem = Problem.of_case(f"I={size['I']},H={size['H']},batch=1")
    return problem, np.random.default_rng(1).standard_normal((size["steps"], size["I"])).astype(np.float32)


def _ours(problem: Problem, x: Float32) -> Callable[[], Float32]:
    from bench.ours import OurLstm

    return OurLstm(problem).sequence(x)


def _onnxruntime(problem: Problem, x: Float32) -> Callable[[], Float32]:
    from bench.peers import sequence

    return sequence(problem, x)


def _torch(problem: Problem, x: Float32) -> Callable[[], Float32]:
    from bench.torch_peer import sequence

    return sequence(problem, x)


_CONTENDERS = {OURS: _ours, "onnxruntime": _onnxruntime, "torch": _torch}
