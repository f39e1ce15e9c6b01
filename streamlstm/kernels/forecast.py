"""What a stream's row says of the records to come: one step of the network on a copy of the row, and a readout of its own."""

import numpy as np

from streamlstm.kernels.arguments import Pool, Records, Setup, Tap
from streamlstm.kernels.compiling import jit
from streamlstm.kernels.layout import *
from streamlstm.kernels.losses import log_scale
from streamlstm.kernels.matrix import multiply
from streamlstm.kernels.scalars import exp32
from streamlstm.kernels.score import prepare_row
from streamlstm.kernels.wave import step_network

_ZERO, _ONE = np.int64(0), np.int64(1)


@jit
def forecast_row(
    sizes, params, weights, usual, state, stats, marks, slots, time, x, row, scratch, readout, skip, unit, gaussian, out
):  # fmt: skip
    """Writes what is expected of the M targets of a forecast (see `losses`), in deviations of the inputs: out (Q M) float32.

    state, stats and marks are a copy of the stream's row, which is stepped on, as by a record of which x (1, I) float64
    tells the known inputs and time (1) the calendar; slots (1) and row (1) are zeros. scratch float32, `scratch_size` and
    two rows of outputs; readout (1 + H, columns), bias first, and skip (P, columns), flat and rounded up to whole vectors;
    unit (M). With `gaussian` the second M are scales.
    """
    setup, pool = Setup(sizes, params, weights, usual), Pool(state, stats, marks)
    records = Records(slots, time, x, row, _ZERO, _ZERO, _ZERO)
    tap = Tap(state, state, state, state, slots)  # never read: weights are frozen
    H, Hp, O, P = sizes[HIDDEN], sizes[PADDED], sizes[OUTPUTS], sizes[N_REGRESSORS]
    z0 = _ZERO
    r0 = z0 + TILE * sizes[LDZ]
    n0 = r0 + TILE * sizes[LDR]
    p0 = n0 + TILE * O
    prepare_row(_ZERO, _ZERO, setup, pool, records, tap, scratch, z0, scratch, r0)
    step_network(slots, _ZERO, _ONE, setup, state, scratch, z0, r0, n0, p0, _ZERO)
    columns, wide, M = readout.shape[0] // (1 + H), skip.shape[0] // P, unit.shape[0]
    y0 = p0 + TILE * O
    s0 = y0 + columns
    multiply(scratch, r0, _ONE, _ONE, _ONE, H, readout, columns, columns, columns,
             readout, _ZERO, _ZERO, scratch, y0, columns)  # fmt: skip
    scratch[s0 : s0 + wide] = np.float32(0)
    multiply(scratch, r0 + Hp, _ONE, _ONE, _ONE, P, skip, _ZERO, wide, wide,
             scratch, s0, wide, scratch, s0, wide)  # fmt: skip
    for j in range(out.shape[0]):
        m = j % M
        y = scratch[y0 + j]
        out[j] = unit[m] * exp32(log_scale(y)) if gaussian and j >= M else scratch[s0 + m] + unit[m] * y
