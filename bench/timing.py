"""How long a call takes: warm-up, then the best of several repetitions, each long enough for the clock."""

import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

WARM_UP_S, REPETITION_S, REPETITIONS = 0.2, 0.02, 12


def seconds_per_call(call: Callable[[], Any]) -> float:
    """Seconds of one call: the best of the repetitions, the rest being the machine's other work."""
    call()
    began = time.perf_counter()
    calls = 0
    while time.perf_counter() - began < WARM_UP_S:
        call()
        calls += 1
    number = max(1, round(REPETITION_S * calls / WARM_UP_S))
    return min(_time(call, number) for _ in range(REPETITIONS)) / number


def _time(call: Callable[[], Any], number: int) -> float:
    turns = repeat(None, number)
    began = time.perf_counter()
    for _ in turns:
        call()
    return time.perf_counter() - began
