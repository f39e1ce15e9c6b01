"""The adding problem (Hochreiter and Schmidhuber 1997) over 200 records: cells with gates learn it, one without does not."""

import math
from typing import Any

import numpy as np
import pytest

from streamlstm.kernels.bptt import make_work, window_gradient
from streamlstm.kernels.cells import CELLS
from streamlstm.kernels.losses import Ahead
from streamlstm.kernels.optimisers import ADAM, clip_gradient, update_parameters
from streamlstm.model.parameters import initial_theta

pytestmark = pytest.mark.slow

T, H, O = 200, 32, 16
SEQUENCES, HELD_OUT, UPDATES, LOOK_EVERY = 32, 1000, 5000, 250
ALWAYS_ONE = 1 / 6
"""Squared error of one who always says 1, the mean of the sum of two numbers between 0 and 1."""
NOTHING = Ahead(0, np.zeros(0, np.float32), 0.0)


def draw(count: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Inputs (T, count, 2), numbers and where two are marked, one in each half; the sum of these (T, count, 1) at the end."""
    x = np.zeros((T, count, 2), np.float32)
    x[:, :, 0] = rng.random((T, count))
    lanes, marked = np.arange(count), (rng.integers(0, T // 2, count), rng.integers(T // 2, T, count))
    target = np.full((T, count, 1), np.nan, np.float32)
    target[-1, :, 0] = sum(x[rows, lanes, 0] for rows in marked)
    for rows in marked:
        x[rows, lanes, 1] = 1
    return x, target


class Learner:
    """One layer of a cell under the kernels of training; every sequence is a window whose state begins at zero."""

    def __init__(self, name: str) -> None:
        self.cell = CELLS[name].kernels(H)
        self.theta = initial_theta(CELLS[name], 2, H, H, 1, O, seed=0)
        self.first, self.second, self.gradient, self.decay = np.zeros((4, len(self.theta)), np.float32)
        self.works = {count: make_work(self.cell, T, count, 2, H, 1, O) for count in (SEQUENCES, HELD_OUT)}

    def error(self, x: Any, target: Any, out: Any) -> float:
        """Mean squared error at the end; adds the gradient of half of it to `out`."""
        count = x.shape[1]
        h, c = np.zeros((2, count * H), np.float32)
        return 2 * window_gradient(self.cell, self.theta, x.reshape(-1), target.reshape(-1), h, c, T, count, 2, H, 1, 1, O,
                                   math.inf, 1 / count, NOTHING, self.works[count], out)  # fmt: skip

    def update(self, number: int, x: Any, target: Any) -> None:
        """One step of Adam."""
        self.gradient[:] = 0
        self.error(x, target, self.gradient)
        clip_gradient(self.gradient, 1.0, math.inf)
        update_parameters(ADAM, self.theta, self.gradient, self.first, self.second, self.decay, number, 0.01)


@pytest.mark.parametrize(
    ("name", "learned"), [("lstm", True), ("peephole_lstm", True), ("gru", True), ("rnn_tanh", False)]
)
def test_what_is_needed_at_the_end_is_kept_over_200_records(name: str, learned: bool) -> None:
    learner, rng = Learner(name), np.random.default_rng(0)
    held_out, nothing = draw(HELD_OUT, np.random.default_rng(1)), np.zeros(0, np.float32)
    errors = []
    for update in range(1, UPDATES + 1):
        learner.update(update, *draw(SEQUENCES, rng))
        if update % LOOK_EVERY == 0:
            errors.append(learner.error(*held_out, nothing))
            if errors[-1] < 0.01:
                break
    print(name, len(errors) * LOOK_EVERY, errors[-1])
    if learned:
        assert errors[-1] < 0.02, errors
    else:
        assert min(errors) > 0.9 * ALWAYS_ONE, errors
