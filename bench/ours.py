"""Our side: the bare step of one layer, or a sequence of them, in one compiled call."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bench.problem import Float32, Problem
from streamlstm.kernels.cells import CELLS, Layer
from streamlstm.kernels.layout import TILE
from streamlstm.kernels.step import step_batch, step_sequence
from streamlstm.model.layout import padded


class OurLstm:
    """State of B streams, stepped in place; of another cell with weights of its own."""

    def __init__(self, problem: Problem, cell: str = "lstm") -> None:
        B, I = problem.x.shape
        self.hidden = H = problem.h.shape[1]
        self._wide = padded(H)
        self._x = problem.x
        kind = CELLS[cell]
        self._step = kind.step.address
        layer = Layer(problem.W_ih, problem.W_hh, problem.bias, np.zeros(0, np.float32))
        if cell != "lstm":
            rng = np.random.default_rng(0)
            layer = Layer(*(0.1 * rng.standard_normal(shape).astype(np.float32) for shape in kind.shapes(I, H)))
        self._weights = kind.pack(layer)
        self._slots = np.arange(B, dtype=np.int32)
        self._scratch = np.zeros(TILE * (I + H + kind.room(H)), np.float32)
        self.state = np.zeros((B, 2 * self._wide), np.float32)  # (B, 2 Hp): h, then c
        self.state[:, :H] = problem.h
        self.state[:, self._wide : self._wide + H] = problem.c

    def step(self, x: Float32) -> tuple[Float32, Float32]:
        """h and c (B, H) after x (B, I)."""
        step_batch(self._step, self._weights, self.hidden, x, self._slots, self.state, self._scratch)
        return self.state[:, : self.hidden].copy(), self.state[:, self._wide : self._wide + self.hidden].copy()

    def call(self) -> Callable[[], Any]:
        """One compiled call on the problem's x; h and c go on from call to call."""
        return partial(
            step_batch, self._step, self._weights, self.hidden, self._x, self._slots, self.state, self._scratch
        )

    def sequence(self, x: Float32) -> Callable[[], Float32]:
        """One compiled call that steps the only stream through x (T, I) and returns h after each step (T, H)."""
        out = np.zeros((len(x), self.hidden), np.float32)

        def call() -> Float32:
            step_sequence(self._step, self._weights, self.hidden, x, self._slots, self.state, self._scratch, out)
            return out

        return call
