"""Benchmark `process`: one event through `Detector.process` with a list of floats, everything on."""

from itertools import cycle
from pathlib import Path

from bench.agreement import Disagreement
from bench.catalog import OURS, numbers
from bench.step import check_step, step_call
from bench.timing import seconds_per_call

_KEYS, _MINUTES = 16, 64  # streams, and readings of each that come again and again, back and forth
_TICK_NS = 60 * 10**9


def prepare(case: str, folder: Path) -> None:
    """Checks ours against ONNX Runtime; writes the model; Disagreement unless its detector is live and finite."""
    from bench.fitted import back_and_forth, readings, saved_detector, write_model

    check_step(case)
    size = numbers(case)
    write_model(folder, size["I"], size["H"])
    detector = saved_detector(folder, size["I"], size["H"])
    for n, values in enumerate(readings(back_and_forth(50), size["I"], seed=1).tolist()):
        scored = detector.process("sensor-0000", n * _TICK_NS, values)
        if not scored.score >= 0 or (n and not scored.severity >= 0):
            raise Disagreement(f"{case}: event {n} has score {scored.score}, severity {scored.severity}; not timed")


def measure(case: str, contender: str, folder: Path) -> dict[str, float]:
    """Nanoseconds per event; the peer's is its bare step."""
    if contender != OURS:
        return {"ns/event": 1e9 * seconds_per_call(step_call(case, contender))}
    from bench.fitted import back_and_forth, readings, saved_detector

    size = numbers(case)
    detector = saved_detector(folder, size["I"], size["H"])
    events = readings(back_and_forth(_MINUTES), size["I"], seed=1).tolist()
    turns = cycle([(f"sensor-{n:04}", values) for values in events for n in range(_KEYS)])
    time = 0

    def call() -> None:
        nonlocal time
        time += _TICK_NS // _KEYS
        key, values = next(turns)
        detector.process(key, time, values)

    return {"ns/event": 1e9 * seconds_per_call(call)}
