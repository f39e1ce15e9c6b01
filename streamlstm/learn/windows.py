"""The gradient of one window in tiles of lanes, which several threads share: no bit depends on how many."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from streamlstm.kernels.bptt import Work, draw_feedback, draw_masks, make_work, window_gradient
from streamlstm.kernels.cells.cell import Kernels
from streamlstm.kernels.losses import Ahead
from streamlstm.types import Float32

LANES_PER_TILE = 32
"""Half of a batch of 64 for each of two threads; 16 lanes take 1.1 times the time per row."""


class Draws(NamedTuple):
    """Shares of what is drawn for a window: dropout, recurrent dropout, predictions fed back; nothing without `rng`."""

    dropout: float
    recurrent: float
    feedback: float
    rng: np.random.Generator | None


NO_DRAWS = Draws(0.0, 0.0, 0.0, None)


class Windows:
    """Runs windows of T rows of a network; `sizes` are I, Hp, L, D, O, and feedback (4, F) is as in `kernels.bptt`."""

    def __init__(
        self, cell: Kernels, T: int, sizes: tuple[int, int, int, int, int], huber: float, ahead: Ahead, threads: int,
        feedback: Float32,
    ) -> None:  # fmt: skip
        self._cell, self._T, self._sizes, self._huber, self._ahead = cell, T, sizes, huber, ahead
        self._feedback = feedback
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._works: dict[tuple[int, int], Work] = {}
        self._gradients: list[Float32] = []

    def state(self, B: int) -> tuple[Float32, Float32]:
        """h and c of B lanes at their start, flat: tile after tile, (L, lanes, Hp) each."""
        _, Hp, L, _, _ = self._sizes
        return np.zeros(B * L * Hp, np.float32), np.zeros(B * L * Hp, np.float32)

    def top(self, B: int) -> Float32:
        """h of the last layer (T, B, Hp) in the last window of B lanes."""
        return np.concatenate([self._work(n, lanes).top.reshape(self._T, lanes.stop - lanes.start, -1)
                               for n, lanes in enumerate(_tiles(B))], axis=1)  # fmt: skip

    def run(
        self, theta: Float32, x: Float32, target: Float32, linear: Float32, h: Float32, c: Float32, scale: float, out: Float32,
        draws: Draws = NO_DRAWS,
    ) -> float:  # fmt: skip
        """Loss of a window x (T, B, I), target (T, B, D + M), linear (T, B, F); adds its gradient to `out`, if that has a
        length. h and c are as `state` gave them, and run on."""
        _, Hp, L, _, _ = self._sizes
        tiles = _tiles(x.shape[1])
        while len(self._gradients) < len(tiles) > 1:
            self._gradients.append(np.zeros_like(theta))
        jobs = []
        for n, lanes in enumerate(tiles):
            work = self._work(n, lanes)
            if draws.dropout + draws.recurrent > 0:
                draw_masks(work, draws.dropout, draws.recurrent, draws.rng)
            if self._feedback.size:
                work.feedback[:] = self._feedback.reshape(-1)
                draw_feedback(work, linear[:, lanes], draws.feedback, draws.rng)
            state = slice(lanes.start * L * Hp, lanes.stop * L * Hp)
            gradient = out
            if len(tiles) > 1 and len(out):
                gradient = self._gradients[n]
                gradient[:] = 0
            jobs.append((theta, x[:, lanes], target[:, lanes], h[state], c[state], scale, work, gradient))
        each = map if self._pool is None or len(jobs) == 1 else self._pool.map
        loss = sum(each(self._tile, jobs))
        if len(tiles) > 1 and len(out):
            for gradient in self._gradients[: len(tiles)]:
                out += gradient
        return loss

    def _tile(self, job: tuple[Any, ...]) -> float:
        theta, x, target, h, c, scale, work, gradient = job
        I, Hp, L, D, O = self._sizes
        return float(
            window_gradient(
                self._cell, theta, np.ascontiguousarray(x).reshape(-1), np.ascontiguousarray(target).reshape(-1), h, c,
                self._T, x.shape[1], I, Hp, L, D, O, self._huber, scale, self._ahead, work, gradient,
            )
        )  # fmt: skip

    def _work(self, tile: int, lanes: slice) -> Work:
        """Scratch of one tile, which no other thread has."""
        key = tile, lanes.stop - lanes.start
        if key not in self._works:
            I, Hp, L, _, O = self._sizes
            self._works[key] = make_work(self._cell, self._T, key[1], I, Hp, L, O, self._feedback.shape[1])
        return self._works[key]


def _tiles(B: int) -> list[slice]:
    return [slice(first, min(first + LANES_PER_TILE, B)) for first in range(0, B, LANES_PER_TILE)]
