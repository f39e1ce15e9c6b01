"""Our side: the bare step of one layer, or a sequence of them, in one compiled call; an update of a training."""

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from bench.problem import Float32, Problem
from streamlstm.kernels.cells import CELLS, Layer
from streamlstm.kernels.compiling import padded
from streamlstm.kernels.losses import Ahead
from streamlstm.kernels.optimisers import ADAM, clip_gradient, update_parameters
from streamlstm.kernels.step import step_batch, step_sequence
from streamlstm.learn.windows import Windows
from streamlstm.model.recurrent import RecurrentLayer


class OurLstm:
    """State of B streams, stepped in place; of another cell with weights of its own."""

    def __init__(self, problem: Problem, cell: str = "lstm") -> None:
        B, I = problem.x.shape
        H = problem.h.shape[1]
        kind = CELLS[cell]
        layer = Layer(problem.W_ih, problem.W_hh, problem.bias, np.zeros(0, np.float32))
        if cell != "lstm":
            rng = np.random.default_rng(0)
            layer = Layer(*(0.1 * rng.standard_normal(shape).astype(np.float32) for shape in kind.shapes(I, H)))
        self._layer = RecurrentLayer(cell, kind.tensors(layer), B)
        self._x, self._streams = problem.x, np.arange(B, dtype=np.int32)
        self._h, self._c = (self._layer.state[:, at : at + H] for at in (0, padded(H)))
        self._h[:], self._c[:] = problem.h, problem.c

    def step(self, x: Float32) -> tuple[Float32, Float32]:
        """h and c (B, H) after x (B, I)."""
        return self._layer.step(x, self._streams), self._c.copy()

    def call(self) -> Callable[[], Any]:
        """One compiled call on the problem's x; h and c go on from call to call."""
        return partial(step_batch, *self._layer.arguments(self._x, self._streams))

    def sequence(self, x: Float32) -> Callable[[], Float32]:
        """One compiled call that steps the only stream through x (T, I) and returns h after each step (T, H)."""
        out = np.zeros((len(x), self._layer.hidden), np.float32)
        arguments = self._layer.arguments(x, self._streams)

        def call() -> Float32:
            step_sequence(*arguments, out)
            return out

        return call


def training(problem: Problem, x: Float32, target: Float32, threads: int) -> Callable[[], float]:
    """An update of a layer with a readout that begins at 0, on one window (T, B, I); returns its mean squared error."""
    (T, B, I), H = x.shape, problem.h.shape[1]
    O = padded(I)
    matrix = np.concatenate([problem.W_ih, problem.W_hh], axis=1).T
    theta = np.concatenate([matrix.reshape(-1), problem.bias, np.zeros((H + 1) * O, np.float32)])
    gradient, first, second, decay = np.zeros((4, len(theta)), np.float32)
    nothing, linear = np.zeros((4, 0), np.float32), np.zeros((T, B, 0), np.float32)
    ahead = Ahead(0, np.zeros(0, np.float32), 0.0)
    windows = Windows(CELLS["lstm"].kernels(H), T, (I, H, 1, I, O), np.inf, ahead, threads, nothing)
    h, c = windows.state(B)
    updates = count(1)

    def call() -> float:
        gradient[:] = h[:] = c[:] = 0
        loss = windows.run(theta, x, target, linear, h, c, 2 / (T * B * I), gradient)
        clip_gradient(gradient, 1.0, np.inf)
        update_parameters(ADAM, theta, gradient, first, second, decay, next(updates), 1e-3)
        return loss

    return call
