"""The gradient of one window in tiles of lanes, which several threads share: no bit depends on how many."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from streamlstm.kernels.bptt import Work, draw_masks, make_work, window_gradient
from streamlstm.kernels.cells.cell import Kernels
from streamlstm.kernels.losses import Ahead
from streamlstm.types import Float32

LANES_PER_TILE = 32
"""Half of a batch of 64 for each of two threads; 16 lanes take 1.1 times the time per row."""


class Windows:
    """Runs windows of T rows of a network; `sizes` are I, Hp, L, D, O, as in `kernels.bptt`."""

    def __init__(
        self, cell: Kernels, T: int, sizes: tuple[int, int, int, int, int], huber: float, ahead: Ahead, threads: int
    ) -> None:
        self._cell, self._T, self._sizes, self._huber, self._ahead = cell, T, sizes, huber, ahead
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._works: dict[tuple[int, int], Work] = {}
        self._gradients: list[Float32] = []

    def run(
        self, theta: Float32, x: Float32, target: Float32, h: Float32, c: Float32, scale: float, out: Float32,
        drops: tuple[float, float, np.random.Generator | None] = (0.0, 0.0, None),
    ) -> float:  # fmt: skip
        """Loss of a window x (T, B, I), target (T, B, D + M); adds its gradient to `out`, if that has a length.

        h and c are flat: tile after tile, (L, lanes, Hp) each. `drops`: dropout, recurrent dropout, and who draws them.
        """
        B, (_, Hp, L, _, _) = x.shape[1], self._sizes
        starts = range(0, B, LANES_PER_TILE)
        while len(self._gradients) < len(starts) > 1:
            self._gradients.append(np.zeros_like(theta))
        jobs = []
        for n, first in enumerate(starts):
            end = min(first + LANES_PER_TILE, B)
            work = self._work(n, end - first)
            if drops[0] + drops[1] > 0:
                draw_masks(work, *drops)
            state = slice(first * L * Hp, end * L * Hp)
            gradient = out
            if len(starts) > 1 and len(out):
                gradient = self._gradients[n]
                gradient[:] = 0
            jobs.append((theta, x[:, first:end], target[:, first:end], h[state], c[state], scale, work, gradient))
        each = map if self._pool is None or len(jobs) == 1 else self._pool.map
        loss = sum(each(self._tile, jobs))
        if len(starts) > 1 and len(out):
            for gradient in self._gradients[: len(starts)]:
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

    def _work(self, tile: int, lanes: int) -> Work:
        """Scratch of one tile, which no other thread has."""
        if (tile, lanes) not in self._works:
            I, Hp, L, _, O = self._sizes
            self._works[tile, lanes] = make_work(self._cell, self._T, lanes, I, Hp, L, O)
        return self._works[tile, lanes]
