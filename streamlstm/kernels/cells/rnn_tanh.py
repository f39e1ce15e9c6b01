"""The plain recurrent cell (Elman 1990) with h = tanh(Wx + Uh + b)."""

import numpy as np

from streamlstm.kernels.cells.cell import Cell
from streamlstm.kernels.cells.program import Program, Stage, Units
from streamlstm.kernels.cells.training import BACKWARD, FORWARD, part
from streamlstm.kernels.compiling import c_function
from streamlstm.kernels.scalars import tanh32

_ONE = np.float32(1)


def _finish(units: Units) -> None:
    e, one = units.e, units.e.constant(1.0)
    exp = units.exp_minus(units.gates[0], 2.0)
    units.write_h(e.div(e.sub(one, exp), e.add(one, exp)))


@c_function(FORWARD)
def forward(vectors, gates, kept, extra, h, c, B, Hp):
    """h over its sum, and h. See `training`."""
    sums, out = part(gates, 0, B * Hp), part(h, 0, B * Hp)
    for k in range(B * Hp):
        sums[k] = tanh32(sums[k])
    for k in range(B * Hp):
        out[k] = sums[k]


@c_function(BACKWARD)
def backward(vectors, gates, kept, extra, dh, carry, out_vectors, B, Hp):
    """The gradient of the sum over h. See `training`."""
    sums, up = part(gates, 0, B * Hp), part(dh, 0, B * Hp)
    for k in range(B * Hp):
        sums[k] = up[k] * (_ONE - sums[k] * sums[k])
    for k in range(B * Hp):
        up[k] = 0


_STAGE = Stage((0,), _finish, inputs=(0,), h=(0,))
RNN_TANH = Cell("rnn_tanh", Program(1, 0, (_STAGE,)), forward, backward)
