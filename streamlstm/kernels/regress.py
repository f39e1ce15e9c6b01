"""The skips' regressors over a whole stream, for fitting: the same functions that score a record."""

import numpy as np

from streamlstm.kernels.block import ERRORS_NOW, Z, block_size, make_block, read_fields, set_element, write_fields
from streamlstm.kernels.compiling import LANES, jit
from streamlstm.kernels.inputs import (
    BOUND,
    absorb_regressors,
    begin_regressors,
    bounded,
    calendar,
    known_input,
    normalised,
    read_clipped,
)
from streamlstm.kernels.lanes import copy_lanes
from streamlstm.kernels.layout import REGRESSORS
from streamlstm.types import NO_TIME

_ZERO, _ONE, _NAN = np.float32(0), np.float32(1), np.float32(np.nan)
_START = np.int64(0)


_FIELDS = ERRORS_NOW  # of a stream's state: its regressors


@jit
def regress_scratch(D, P):
    """float32 values of scratch that `regress_stream` needs."""
    return _FIELDS * D + LANES + 2 * P + LANES + block_size(D)


@jit
def regress_stream(time, x, stat, D, C, clip, scratch, out_regressors, out_inputs, out_target):
    """Writes what the network reads and should predict at every record of one stream.

    time (n) int64 ns; x (n, I) float64; stat (3 I) float64, mean, variance and spread; C, inputs made of the time;
    scratch float32; out_regressors (n, 2 P), raw and clipped, out_inputs (n, I), out_target (n, D) float32, NaN where the
    value is missing (the last one then stands in for it).
    """
    n, I = x.shape
    P = out_regressors.shape[1] // 2
    cut = np.int64(REGRESSORS * D)
    row = scratch[: _FIELDS * D + LANES]
    regressors = scratch[len(row) : len(row) + 2 * P + LANES]
    block = make_block(scratch[len(row) + len(regressors) :], D, 1)
    known = 1 + REGRESSORS * D
    first = last = NO_TIME
    for t in range(n):
        for d in range(D):
            missing = np.isnan(x[t, d])
            z = _ZERO if missing else normalised(x[t, d], stat[d], stat[2 * I + d])
            if t == 0:
                begin_regressors(row, 0, cut, D, d, bounded(z, BOUND), clip)
            out_inputs[t, d] = bounded(row[d], clip)
            out_target[t, d] = _NAN if missing else bounded(z, BOUND)
            set_element(block, Z, d, row[d] if missing else z)
        copy_lanes(row, _START, regressors, _START + 1, REGRESSORS * D)
        for k in range(I - D):
            value = known_input(x[t], stat, I, D + k, clip)
            out_inputs[t, D + k] = regressors[known + k] = value
        if C > 0:
            calendar(time[t], first, last, regressors, known + I - D)
        read_clipped(row, _START, cut, D, clip, regressors, P + 1)
        for k in range(known, P):
            regressors[P + k] = regressors[k]
        regressors[0] = regressors[P] = _ONE
        read_fields(block, 0, D, 0, _FIELDS, row, _START)
        absorb_regressors(block, clip)
        write_fields(block, 0, D, _FIELDS, row, _START)
        if time[t] != NO_TIME:
            first = time[t] if first == NO_TIME else first
            last = max(last, time[t])
        for k in range(2 * P):
            out_regressors[t, k] = regressors[k]
