"""The skips' regressors over a whole stream, for fitting: the same functions that score a record."""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.inputs import (
    BOUND,
    CALENDAR,
    absorb_regressors,
    begin_regressors,
    bounded,
    calendar,
    known_input,
    normalised,
    read_regressors,
)
from streamlstm.kernels.layout import LAGS, REGRESSORS
from streamlstm.types import NO_TIME

_ZERO, _ONE, _NAN = np.float32(0), np.float32(1), np.float32(np.nan)


@jit
def regress_stream(time, x, stat, D, C, clip, row, out_regressors, out_inputs, out_target):
    """Writes what the network reads and should predict at every record of one stream.

    time (n) int64 ns; x (n, I) float64; stat (3 I) float64, mean, variance and spread; C, inputs made of the time; row
    float32 (14 D) scratch; out_regressors (n, 2 P), raw and clipped, out_inputs (n, I), out_target (n, D) float32, NaN
    where the value is missing (the last one then stands in for it).
    """
    n, I = x.shape
    P = out_regressors.shape[1] // 2
    cut, values = REGRESSORS * D, (2 * REGRESSORS - LAGS) * D
    first = last = NO_TIME
    for t in range(n):
        for d in range(D):
            missing = np.isnan(x[t, d])
            z = _ZERO if missing else normalised(x[t, d], stat[d], stat[2 * I + d])
            if t == 0:
                begin_regressors(row, 0, cut, D, d, bounded(z, BOUND), clip)
            out_inputs[t, d] = bounded(row[d], clip)
            out_target[t, d] = _NAN if missing else bounded(z, BOUND)
            row[values + d] = row[d] if missing else z
        regressors = out_regressors[t]
        regressors[0] = regressors[P] = _ONE
        read_regressors(row, 0, cut, D, clip, regressors, 1, P + 1)
        absorb_regressors(row, 0, cut, D, row, values, clip)
        known = 1 + REGRESSORS * D
        for k in range(D, I):
            value = known_input(x[t], stat, I, k, clip)
            out_inputs[t, k] = value
            regressors[known + k - D] = regressors[P + known + k - D] = value
        known += I - D
        if C > 0:
            calendar(time[t], first, last, regressors, known)
            for k in range(CALENDAR):
                regressors[P + known + k] = regressors[known + k]
        if time[t] != NO_TIME:
            first = time[t] if first == NO_TIME else first
            last = max(last, time[t])
