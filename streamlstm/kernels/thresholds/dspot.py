"""`dspot`: `spot` on what a score exceeds its own local mean by, for scores that drift.

After Siffer et al. (KDD 2017). Their local mean is that of the last d values that were no alarms; ours is an exponential
average of span `depth_rows`, which needs one number instead of d. It stands still in an episode.
"""

import numpy as np

from streamlstm.kernels.calls import ABSORB, LIMIT_OF
from streamlstm.kernels.compiling import c_function
from streamlstm.kernels.layout import ACCEPTED, DEPTH_ROWS, INSIDE, OPENED, SPOT_PEAKS
from streamlstm.kernels.thresholds import spot

MEAN = spot.PEAKS + SPOT_PEAKS


@c_function(ABSORB)
def absorb(row, lesson, score, tail, params):
    """Writes one score into the local mean, and what it exceeds it by into level and peaks."""
    if lesson == ACCEPTED:
        spot.forget(row)
    if lesson != INSIDE:
        if row[spot.ROWS] == 0.0:
            row[MEAN] = score
        spot.learn(row, lesson, np.float64(score) - row[MEAN], np.float64(row[MEAN]), params)
        if lesson != OPENED:
            weight = max(1.0 / row[spot.ROWS], 2.0 / (params[DEPTH_ROWS] + 1.0))
            row[MEAN] += weight * (np.float64(score) - row[MEAN])


@c_function(LIMIT_OF)
def limit(row, tail, params):
    """The local mean plus the excess that opens an episode `tail` times per record."""
    mean = np.float64(row[MEAN])
    return mean + spot.bound(row, tail, mean)
