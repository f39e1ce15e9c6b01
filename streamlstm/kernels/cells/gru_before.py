"""The GRU as Cho and others 2014 wrote it: the reset gate weighs h before the recurrent weights.

n = tanh(Wx + U(r h) + b), h = (1 - z) n + z h, with r and z as in `gru`; Keras has it with `reset_after=False`, ONNX with
`linear_before_reset=0`. Gates r, z, n.
"""

import numpy as np

from streamlstm.kernels.cells.cell import Cell
from streamlstm.kernels.cells.gru import write_blend
from streamlstm.kernels.cells.program import Program, Stage, Units
from streamlstm.kernels.cells.training import BACKWARD, EARLY_BACKWARD, EARLY_FORWARD, FORWARD, part
from streamlstm.kernels.compiling import c_function
from streamlstm.kernels.scalars import sigmoid32, tanh32

_ONE = np.float32(1)


def _reset(units: Units) -> None:
    e, (r, z) = units.e, units.gates
    units.leave(0, e.div(units.h(), e.add(e.constant(1.0), units.exp_minus(r))))
    units.leave(1, z)


def _finish(units: Units) -> None:
    (n,) = units.gates
    write_blend(units, units.exp_minus(units.left(1)), units.exp_minus(n, 2.0))


@c_function(EARLY_FORWARD)
def early_forward(gates, h, instead, B, Hp):
    """Gates r and z over their sums; r h. See `training`."""
    for b in range(B):
        row, g0 = b * Hp, b * 3 * Hp
        r, z = part(gates, g0, Hp), part(gates, g0 + Hp, Hp)
        before, out = part(h, row, Hp), part(instead, row, Hp)
        for u in range(Hp):
            r[u] = sigmoid32(r[u])
        for u in range(Hp):
            z[u] = sigmoid32(z[u])
        for u in range(Hp):
            out[u] = r[u] * before[u]


@c_function(FORWARD)
def forward(vectors, gates, kept, extra, h, c, B, Hp):
    """The new value over its sum, then h; keeps the old h. See `training`."""
    for b in range(B):
        row, g0 = b * Hp, b * 3 * Hp
        z, n = part(gates, g0 + Hp, Hp), part(gates, g0 + 2 * Hp, Hp)
        before, out = part(kept, row, Hp), part(h, row, Hp)
        for u in range(Hp):
            before[u] = out[u]
        for u in range(Hp):
            n[u] = tanh32(n[u])
        for u in range(Hp):
            out[u] = n[u] + z[u] * (before[u] - n[u])


@c_function(BACKWARD)
def backward(vectors, gates, kept, extra, dh, carry, out_vectors, B, Hp):
    """Gradients of the sums of z and n over the gates; the part of h's gradient that z lets through stays in dh."""
    for b in range(B):
        row, g0 = b * Hp, b * 3 * Hp
        z, n = part(gates, g0 + Hp, Hp), part(gates, g0 + 2 * Hp, Hp)
        before, up = part(kept, row, Hp), part(dh, row, Hp)
        for u in range(Hp):
            through = up[u] * z[u]
            dn = up[u] * (_ONE - z[u]) * (_ONE - n[u] * n[u])
            z[u] = up[u] * (before[u] - n[u]) * z[u] * (_ONE - z[u])
            n[u] = dn
            up[u] = through


@c_function(EARLY_BACKWARD)
def early_backward(gates, kept, d_instead, dh, B, Hp):
    """The gradient of r's sum over r; adds to dh what comes through r h. See `training`."""
    for b in range(B):
        row, r = b * Hp, part(gates, b * 3 * Hp, Hp)
        before, d, up = part(kept, row, Hp), part(d_instead, row, Hp), part(dh, row, Hp)
        for u in range(Hp):
            up[u] += d[u] * r[u]
        for u in range(Hp):
            r[u] = d[u] * before[u] * r[u] * (_ONE - r[u])


_STAGES = Stage((0, 1), _reset, inputs=(0, 1), h=(0, 1)), Stage((2,), _finish, inputs=(2,), h=(), instead=(2,))
GRU_BEFORE = Cell(
    "gru_before", Program(3, 0, _STAGES, left=2), forward, backward, early=(early_forward, early_backward)
)
