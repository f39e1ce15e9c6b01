"""Benchmark `step`: many streams, one event each, one thread."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.agreement import check_equal
from bench.catalog import OURS, numbers
from bench.problem import Problem
from bench.timing import seconds_per_call


def prepare(case: str, folder: Path) -> None:
    """Checks ours against ONNX Runtime; writes the model of the compiled call."""
    from bench.fitted import write_model

    check_step(case)
    size = numbers(case)
    write_model(folder, size["I"], size["H"])


def check_step(case: str) -> None:
    """Raises Disagreement unless ours and ONNX Runtime agree over three steps, each from its own state."""
    from bench.ours import OurLstm
    from bench.peers import OnnxLstm

    problem = Problem.of_case(case)
    ours, peer = OurLstm(problem), OnnxLstm(problem)
    h, c = problem.h, problem.c
    for turn in range(3):
        x = np.ascontiguousarray(np.roll(problem.x, turn, axis=1) * np.float32(1 - 0.5 * turn))
        h, c = peer.step(x, h, c)
        our_h, our_c = ours.step(x)
        check_equal(h, our_h, f"{case}: h after step {turn + 1}")
        check_equal(c, our_c, f"{case}: c after step {turn + 1}")


def measure(case: str, contender: str, folder: Path) -> dict[str, float]:
    """Nanoseconds per event."""
    if contender.startswith("compiled_call"):
        from bench.scale import whole_call

        size = numbers(case)
        call = whole_call(folder, size["I"], size["H"], size["batch"], 2 if contender.endswith("two_threads") else 1)
    else:
        call = step_call(case, contender)
    return {"ns/event": 1e9 * seconds_per_call(call) / numbers(case)["batch"]}


def step_call(case: str, contender: str) -> Callable[[], Any]:
    """The bare step by one contender."""
    problem = Problem.of_case(case)
    if contender == OURS:
        from bench.ours import OurLstm

        return OurLstm(problem).call()
    if contender == "sgemm":
        rng = np.random.default_rng(0)
        rows = np.concatenate([problem.x, problem.h], axis=1)
        weights = rng.standard_normal((rows.shape[1], len(problem.bias))).astype(np.float32)
        return partial(np.dot, rows, weights, np.zeros((len(rows), len(problem.bias)), np.float32))
    if contender == "torch":
        from bench.torch_peer import step

        return step(problem)
    from bench.peers import OnnxLstm

    peer = OnnxLstm(problem)
    return peer.bound_call() if contender == "onnxruntime_bound" else peer.call()
