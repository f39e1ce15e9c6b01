"""Benchmark `fit`: one update of truncated back-propagation through time, forward, backward, clipping and Adam."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.agreement import check_equal
from bench.catalog import CATALOG, OURS, numbers
from bench.problem import Float32, Problem
from bench.timing import seconds_per_call

_TOLERANCE = 1e-5  # of means of 160 000 squares, which PyTorch sums in float32
Data = tuple[Float32, Float32]
"""Inputs and targets of a window, (T, B, I) each."""


def prepare(case: str, folder: Path) -> None:
    """Checks the losses of three updates from the same weights against every peer's."""
    for peer in CATALOG["fit"].peers:
        ours, theirs = (_CONTENDERS[name](*_data(case)) for name in (OURS, peer))
        losses = [np.array([call() for _ in range(3)]) for call in (ours, theirs)]
        check_equal(losses[1], losses[0], f"{case}: losses of three updates", _TOLERANCE)


def measure(case: str, contender: str, folder: Path) -> dict[str, float]:
    """Nanoseconds per row and lane."""
    size = numbers(case)
    call = _CONTENDERS[contender](*_data(case))
    return {"ns/event": 1e9 * seconds_per_call(call) / (size["batch"] * size["window"])}


def _data(case: str) -> tuple[Problem, Data]:
    size = numbers(case)
    x, target = (
        np.random.default_rng(1).standard_normal((2, size["window"], size["batch"], size["I"])).astype(np.float32)
    )
    return Problem.of_case(case), (x, target)


def _ours(threads: int) -> Callable[[Problem, Data], Callable[[], float]]:
    def contender(problem: Problem, data: Data) -> Callable[[], float]:
        from bench.ours import training

        return training(problem, *data, threads)

    return contender


def _torch(problem: Problem, data: Data) -> Callable[[], float]:
    from bench.torch_peer import training

    return training(problem, *data)


_CONTENDERS = {OURS: _ours(1), "two_threads": _ours(2), "torch": _torch}
