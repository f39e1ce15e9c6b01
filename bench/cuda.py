"""Benchmark `cuda`: on a GPU, the bare step against PyTorch's, the whole call with its copies, and one event."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.agreement import Disagreement, check_equal
from bench.catalog import OURS, numbers, words
from bench.problem import Problem
from bench.timing import seconds_per_call

_LAUNCHES = 20
"""Steps between two waits for the device, which take longer than a small step."""


def prepare(case: str, folder: Path) -> None:
    """Checks our step against the CPU's; writes the model of the whole call. Disagreement where there is no GPU."""
    from streamlstm.kernels.cuda.memory import why_unusable

    missing = why_unusable()
    if missing:
        raise Disagreement(f"{case}: there is no GPU to measure on: {missing}")
    size = numbers(case)
    if words(case)["work"] != "step":
        from bench.fitted import write_model

        write_model(folder, size["I"], size["H"])
        return
    from bench.ours import OurLstm
    from bench.resident import ResidentStep

    problem = Problem.of_case(f"I={size['I']},H={size['H']},batch=1000")
    expected = OurLstm(problem).step(problem.x)
    step = ResidentStep(problem)
    step.launch()
    for name, wished, found in zip("hc", expected, step.state(), strict=True):
        check_equal(wished, found, f"{case}: {name} on the GPU")


def measure(case: str, contender: str, folder: Path) -> dict[str, float]:
    """Nanoseconds per event, and of our step the share of what the device's arithmetic or its memory could do at best."""
    size, work = numbers(case), words(case)["work"]
    if work == "step":
        return _step(case, contender)
    batch = size["batch"]
    if contender == OURS:
        seconds = seconds_per_call(_whole_call(folder, size["I"], size["H"], batch))
    else:
        from bench.scale import whole_call

        seconds, batch = seconds_per_call(whole_call(folder, size["I"], size["H"], batch)), 8192
    return {"ns/event": 1e9 * seconds / batch}


def _step(case: str, contender: str) -> dict[str, float]:
    problem = Problem.of_case(case)
    (B, I), H = problem.x.shape, problem.h.shape[1]
    if contender == "torch_cuda":
        from bench.torch_peer import step_on_gpu

        return {"ns/event": 1e9 * seconds_per_call(step_on_gpu(problem, _LAUNCHES)) / B / _LAUNCHES}
    from bench.resident import ResidentStep, peak_rates
    from streamlstm.kernels.cuda.compiling import cuda

    step = ResidentStep(problem)

    def call() -> None:
        for _ in range(_LAUNCHES):
            step.launch()
        cuda.synchronize()

    seconds = seconds_per_call(call) / _LAUNCHES
    multiply_adds, bytes_per_s = peak_rates()
    least = max(B * 4 * H * (I + H) / multiply_adds, B * 4 * (I + 4 * H) / bytes_per_s)
    return {"ns/event": 1e9 * seconds / B, "% of roofline": 100 * least / seconds}


def _whole_call(folder: Path, I: int, H: int, batch: int) -> Callable[[], Any]:
    """The engine's call on `batch` events of as many streams, from arrays of the host to arrays of the host."""
    import pyarrow as pa

    from bench.fitted import model_path, readings
    from streamlstm.detect.detector import Detector
    from streamlstm.model.files import load_model

    detector = Detector({"runtime": {"backend": "cuda"}}, model=load_model(model_path(folder, I, H)))
    slots = detector.pool.slots(detector.pool.streams(pa.array([f"sensor-{n:07}" for n in range(batch)])))
    row = np.arange(batch)
    x = readings(1440 * row / batch, I, seed=1)
    turn = 0

    def call() -> None:
        nonlocal turn
        time = np.full(batch, turn * 60 * 10**9)
        detector.engine.score(detector.pool.rows, slots, time, x, turn * batch + row, 0, detail=False)
        turn += 1

    return call
