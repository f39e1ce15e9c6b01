"""Benchmark `cells`: the bare step of every cell, as time per multiply-add of its gates."""

from pathlib import Path

from bench.catalog import OURS, numbers
from bench.ours import OurLstm
from bench.problem import Problem
from bench.timing import seconds_per_call

_SUMS = {"lstm": 4, "peephole_lstm": 4, "gru": 3, "gru_before": 3, "rnn_tanh": 1, "rnn_relu": 1}
"""Gates, each a sum over I inputs and H values of h for each of H units."""


def prepare(case: str, folder: Path) -> None:
    """Nothing: `tests/test_cells.py` holds every cell against its reference."""


def measure(case: str, contender: str, folder: Path) -> dict[str, float]:
    """Picoseconds per multiply-add; ours is the LSTM."""
    size, cell = numbers(case), "lstm" if contender == OURS else contender
    sums = size["batch"] * _SUMS[cell] * size["H"] * (size["I"] + size["H"])
    return {"ps/multiply-add": 1e12 * seconds_per_call(OurLstm(Problem.of_case(case), cell).call()) / sums}
