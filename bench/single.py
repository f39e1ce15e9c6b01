"""Benchmark `single`: one event, one call from Python, the bare step of one layer."""

from pathlib import Path

from bench.step import check_step, step_call
from bench.timing import seconds_per_call


def prepare(case: str, folder: Path) -> None:
    """Checks ours against ONNX Runtime."""
    check_step(case)


def measure(case: str, contender: str, folder: Path) -> dict[str, float]:
    """Nanoseconds per event."""
    return {"ns/event": 1e9 * seconds_per_call(step_call(case, contender))}
