"""The plain recurrent cell (Elman 1990) with h = relu(Wx + Uh + b)."""

import numpy as np

from streamlstm.kernels.cells.cell import Cell
from streamlstm.kernels.cells.program import Program, Stage, Units
from streamlstm.kernels.cells.training import BACKWARD, FORWARD, part
from streamlstm.kernels.compiling import c_function

_ZERO, _MOST = np.float32(0), np.float32(1e6)
"""An output is cut there: a growing recurrence must not end in infinities, which would never leave it again."""


def _finish(units: Units) -> None:
    e, value = units.e, units.gates[0]
    zero, most = e.constant(0.0), e.constant(float(_MOST))
    value = e.choose(e.below(value, zero), zero, value)
    units.write_h(e.choose(e.below(most, value), most, value))


@c_function(FORWARD)
def forward(vectors, gates, kept, extra, h, c, B, Hp):
    """h over its sum, and h. See `training`."""
    sums, out = part(gates, 0, B * Hp), part(h, 0, B * Hp)
    for k in range(B * Hp):
        sums[k] = min(max(sums[k], _ZERO), _MOST)
    for k in range(B * Hp):
        out[k] = sums[k]


@c_function(BACKWARD)
def backward(vectors, gates, kept, extra, dh, carry, out_vectors, B, Hp):
    """The gradient of the sum over h. See `training`."""
    sums, up = part(gates, 0, B * Hp), part(dh, 0, B * Hp)
    for k in range(B * Hp):
        sums[k] = up[k] if _ZERO < sums[k] < _MOST else _ZERO
    for k in range(B * Hp):
        up[k] = 0


_STAGE = Stage((0,), _finish, inputs=(0,), h=(0,))
RNN_RELU = Cell("rnn_relu", Program(1, 0, (_STAGE,)), forward, backward)
