"""`sigma`: mean plus a number of standard deviations of the stream's own scores, older scores fading exponentially."""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.layout import LEARN, MEMORY_ROWS, OPENED, SIGMAS

COUNT, MEAN, VARIANCE = range(3)


@jit(inline=True)
def absorb(row, lesson, score, params):
    """Writes count, mean and variance (West's update, with a weight that does not fall below 1 / memory)."""
    if lesson != LEARN and lesson != OPENED:
        return
    row[COUNT] = min(row[COUNT] + np.float32(1), np.float32(params[MEMORY_ROWS]))
    weight = 1.0 / row[COUNT]
    difference = score - row[MEAN]
    row[MEAN] += weight * difference
    row[VARIANCE] = (1.0 - weight) * (row[VARIANCE] + weight * difference * difference)


@jit
def limit(row, tail, params):
    """mean + sigmas * standard deviation."""
    return row[MEAN] + params[SIGMAS] * np.sqrt(row[VARIANCE])
