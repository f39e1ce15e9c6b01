"""The plain recurrent cell (Elman 1990) with h = tanh(Wx + Uh + b)."""

import numpy as np

from streamlstm.kernels.cells.cell import Cell
from streamlstm.kernels.cells.tile import STEP, Units, make_step
from streamlstm.kernels.cells.training import BACKWARD, FORWARD, part
from streamlstm.kernels.compiling import c_function
from streamlstm.kernels.scalars import tanh32

_ONE = np.float32(1)


def _finish(units: Units) -> None:
    e, b = units.e, units.e.builder
    one, exp = e.constant(1.0), units.exp_minus(units.gates[0], 2.0)
    units.write_h(b.fdiv(b.fsub(one, exp), b.fadd(one, exp)))


_step = make_step(1, 0, _finish)


@c_function(STEP)
def step(weights, I, H, z, ldz, slots, count, state, lds, h0, c0):
    """One step of the cell, see `tile`."""
    _step(weights, I, H, z, ldz, slots, count, state, lds, h0, c0)


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


RNN_TANH = Cell("rnn_tanh", 1, step, forward, backward, input_gates=(0,), recurrent_gates=(0,))
