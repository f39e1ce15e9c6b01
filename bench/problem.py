"""One LSTM layer and its inputs: the same numbers for every contender."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from bench.catalog import numbers

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Problem:
    """W_ih (4H, I), W_hh (4H, H), bias (4H), gates i, f, g, o; x (B, I); h, c (B, H) before the step; all float32."""

    W_ih: Float32
    W_hh: Float32
    bias: Float32
    x: Float32
    h: Float32
    c: Float32

    @classmethod
    def of_case(cls, case: str) -> Self:
        """Seeded numbers of the size that the case states."""
        size = numbers(case)
        I, H, B = size["I"], size["H"], size["batch"]
        rng = np.random.default_rng(0)

        def normal(scale: float, *shape: int) -> Float32:
            return (scale * rng.standard_normal(shape)).astype(np.float32)

        width = (I + H) ** -0.5
        return cls(
            normal(width, 4 * H, I), normal(width, 4 * H, H), normal(0.1, 4 * H),
            normal(1.0, B, I), normal(0.3, B, H), normal(0.3, B, H),
        )  # fmt: skip
