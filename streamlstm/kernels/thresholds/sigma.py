"""`sigma`: mean plus a number of standard deviations of the stream's own scores, older scores fading exponentially."""

import numpy as np

from streamlstm.kernels.calls import ABSORB, LIMIT_OF
from streamlstm.kernels.compiling import c_function
from streamlstm.kernels.layout import LEARN, MEMORY_ROWS, OPENED, SIGMAS

COUNT, MEAN, VARIANCE = range(3)


@c_function(ABSORB)
def absorb(row, lesson, score, tail, params):
    """Writes count, mean and variance (West's update, with a weight that does not fall below 1 / memory)."""
    if lesson != LEARN and lesson != OPENED:
        return
    row[COUNT] = min(row[COUNT] + np.float32(1), np.float32(params[MEMORY_ROWS]))
    weight = 1.0 / row[COUNT]
    difference = score - row[MEAN]
    row[MEAN] += weight * difference
    row[VARIANCE] = (1.0 - weight) * (row[VARIANCE] + weight * difference * difference)


@c_function(LIMIT_OF)
def limit(row, tail, params):
    """mean + sigmas * standard deviation."""
    return row[MEAN] + params[SIGMAS] * np.sqrt(row[VARIANCE])
