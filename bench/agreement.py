"""Correctness before timing: what is not equal is not compared."""

import numpy as np
import numpy.typing as npt

TOLERANCE = 2e-6
"""Largest difference of h and c after three steps: both sides hold about 1e-6 of float64."""

Float32 = npt.NDArray[np.float32]


class Disagreement(Exception):  # noqa: N818 - it names what happened
    """Two contenders do not compute the same thing."""


def check_equal(expected: Float32, actual: Float32, what: str, tolerance: float = TOLERANCE) -> None:
    """Raises Disagreement where any value differs by more than `tolerance` or is not finite."""
    difference = np.abs(expected.astype(np.float64) - actual)
    worst = float(difference.max())
    if not worst <= tolerance:
        raise Disagreement(f"{what}: ours and the peer's differ by {worst:.1e}, allowed are {tolerance:.0e}; not timed")
