"""The skip's regressors over a whole stream, for fitting: the same functions that score a record."""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.inputs import BOUND, absorb_regressors, begin_regressors, bounded, known_input, normalised
from streamlstm.kernels.layout import REGRESSORS

_ZERO, _ONE, _NAN = np.float32(0), np.float32(1), np.float32(np.nan)


@jit
def regress_stream(x, stat, D, clip, row, out_regressors, out_inputs, out_target):
    """Writes what the network reads and should predict at every record of one stream.

    x (n, I) float64; stat (3 I) float64, mean, variance and spread; row float32 (8 D) scratch; out_regressors (n, P),
    out_inputs (n, I), out_target (n, D) float32, NaN where the value is missing (the last one then stands in for it).
    """
    n, I = x.shape
    for t in range(n):
        for d in range(D):
            missing = np.isnan(x[t, d])
            z = _ZERO if missing else normalised(x[t, d], stat[d], stat[2 * I + d])
            if t == 0:
                begin_regressors(row, 0, D, d, bounded(z, BOUND))
            out_inputs[t, d] = bounded(row[d], clip)
            for j in range(REGRESSORS):
                out_regressors[t, 1 + j * D + d] = row[j * D + d]
            out_target[t, d] = _NAN if missing else bounded(z, BOUND)
            absorb_regressors(row, 0, D, d, row[d] if missing else z)
        out_regressors[t, 0] = _ONE
        for k in range(D, I):
            value = known_input(x[t], stat, I, k, clip)
            out_inputs[t, k] = value
            out_regressors[t, 1 + REGRESSORS * D + k - D] = value
