"""The GRU (Cho and others 2014) as PyTorch and Keras 3 have it: the reset gate weighs the recurrent part of the new value.

n = tanh(Wx + b + r (Uh + b')), h = (1 - z) n + z h. Four sums: r, z, and the two parts of n, whose weights are zero for the
other's inputs.
"""

from typing import Any

import numpy as np

from streamlstm.kernels.cells.cell import Cell
from streamlstm.kernels.cells.program import Program, Stage, Units
from streamlstm.kernels.cells.training import BACKWARD, FORWARD, part
from streamlstm.kernels.compiling import c_function
from streamlstm.kernels.scalars import sigmoid32, tanh32

_ONE = np.float32(1)


def _finish(units: Units) -> None:
    e = units.e
    r, z, of_x, of_h = units.gates
    one = e.constant(1.0)
    ez = units.exp_minus(z)
    en = units.exp_minus(e.add(of_x, e.div(of_h, e.add(one, units.exp_minus(r)))), 2.0)
    write_blend(units, ez, en)


def write_blend(units: Units, ez: Any, en: Any) -> None:
    """Writes h = (1 - z) tanh(n) + z h over one denominator, from exp(-z) and exp(-2 n)."""
    e, one = units.e, units.e.constant(1.0)
    top = e.fma(units.h(), e.add(one, en), e.mul(e.sub(one, en), ez))
    units.write_h(e.div(top, e.mul(e.add(one, en), e.add(one, ez))))


@c_function(FORWARD)
def forward(vectors, gates, kept, extra, h, c, B, Hp):
    """Gates over their sums and the new value over the first part of its sum, then h; keeps the old h. See `training`."""
    for b in range(B):
        row, g0 = b * Hp, b * 4 * Hp
        r, z = part(gates, g0, Hp), part(gates, g0 + Hp, Hp)
        n, of_h = part(gates, g0 + 2 * Hp, Hp), part(gates, g0 + 3 * Hp, Hp)
        before, out = part(kept, row, Hp), part(h, row, Hp)
        for u in range(Hp):
            before[u] = out[u]
        for u in range(Hp):
            r[u] = sigmoid32(r[u])
        for u in range(Hp):
            z[u] = sigmoid32(z[u])
        for u in range(Hp):
            n[u] = tanh32(n[u] + r[u] * of_h[u])
        for u in range(Hp):
            out[u] = n[u] + z[u] * (before[u] - n[u])


@c_function(BACKWARD)
def backward(vectors, gates, kept, extra, dh, carry, out_vectors, B, Hp):
    """Gradients of the sums over the gates; the part of h's gradient that z lets through stays in dh. See `training`."""
    for b in range(B):
        row, g0 = b * Hp, b * 4 * Hp
        r, z = part(gates, g0, Hp), part(gates, g0 + Hp, Hp)
        n, of_h = part(gates, g0 + 2 * Hp, Hp), part(gates, g0 + 3 * Hp, Hp)
        before, up = part(kept, row, Hp), part(dh, row, Hp)
        for u in range(Hp):
            through = up[u] * z[u]
            dn = up[u] * (_ONE - z[u]) * (_ONE - n[u] * n[u])
            z[u] = up[u] * (before[u] - n[u]) * z[u] * (_ONE - z[u])
            n[u] = dn
            recurrent = dn * r[u]
            r[u] = dn * of_h[u] * r[u] * (_ONE - r[u])
            of_h[u] = recurrent
            up[u] = through


_STAGE = Stage((0, 1, 2, 3), _finish, inputs=(0, 1, 2), h=(0, 1, 3))
GRU = Cell("gru", Program(4, 0, (_STAGE,)), forward, backward)
