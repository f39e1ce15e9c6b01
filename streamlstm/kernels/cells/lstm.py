"""The LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers and others 2000), gates i, f, g, o."""

import numpy as np

from streamlstm.kernels.cells.cell import Cell
from streamlstm.kernels.cells.program import Program, Stage, Units
from streamlstm.kernels.cells.training import BACKWARD, FORWARD, part
from streamlstm.kernels.compiling import c_function
from streamlstm.kernels.scalars import sigmoid32, tanh32

_ONE = np.float32(1)


def _finish(units: Units) -> None:
    e = units.e
    i, f, g, o = units.gates
    one = e.constant(1.0)
    ei, ef, eo, eg = units.exp_minus(i), units.exp_minus(f), units.exp_minus(o), units.exp_minus(g, 2.0)
    # sigmoid(f) c + sigmoid(i) tanh(g) over one denominator: one division instead of three.
    ig, f1 = e.mul(e.add(one, ei), e.add(one, eg)), e.add(one, ef)
    cell = e.div(e.fma(units.c(), ig, e.mul(e.sub(one, eg), f1)), e.mul(ig, f1))
    ec = units.exp_minus(cell, 2.0)
    units.write_c(cell)
    units.write_h(e.div(e.sub(one, ec), e.mul(e.add(one, eo), e.add(one, ec))))


@c_function(FORWARD)
def forward(vectors, gates, kept, extra, h, c, B, Hp):
    """Gates over their sums, then c and h; keeps the old c and the tanh of the new one. See `training`.

    Rows are views and one loop does one thing: else LLVM does not vectorise (4 360 against 250 ns a row of 64 units).
    """
    for b in range(B):
        row, g0 = b * Hp, b * 4 * Hp
        i, f = part(gates, g0, Hp), part(gates, g0 + Hp, Hp)
        g, o = part(gates, g0 + 2 * Hp, Hp), part(gates, g0 + 3 * Hp, Hp)
        before, tanh = part(kept, row, Hp), part(extra, row, Hp)
        cell, out = part(c, row, Hp), part(h, row, Hp)
        for u in range(Hp):
            before[u] = cell[u]
        for u in range(Hp):
            i[u] = sigmoid32(i[u])
        for u in range(Hp):
            f[u] = sigmoid32(f[u])
        for u in range(Hp):
            g[u] = tanh32(g[u])
        for u in range(Hp):
            o[u] = sigmoid32(o[u])
        for u in range(Hp):
            cell[u] = f[u] * before[u] + i[u] * g[u]
        for u in range(Hp):
            tanh[u] = tanh32(cell[u])
        for u in range(Hp):
            out[u] = o[u] * tanh[u]


@c_function(BACKWARD)
def backward(vectors, gates, kept, extra, dh, carry, out_vectors, B, Hp):
    """Gradients of the sums over the gates; `carry` is that of c. See `training`."""
    for b in range(B):
        row, g0 = b * Hp, b * 4 * Hp
        i, f = part(gates, g0, Hp), part(gates, g0 + Hp, Hp)
        g, o = part(gates, g0 + 2 * Hp, Hp), part(gates, g0 + 3 * Hp, Hp)
        before, tanh = part(kept, row, Hp), part(extra, row, Hp)
        up, d = part(dh, row, Hp), part(carry, row, Hp)
        for u in range(Hp):
            d[u] += up[u] * o[u] * (_ONE - tanh[u] * tanh[u])
        for u in range(Hp):
            o[u] = up[u] * tanh[u] * o[u] * (_ONE - o[u])
        for u in range(Hp):
            up[u] = d[u] * f[u]  # the cell's gradient one row earlier, until d may take it
        for u in range(Hp):
            f[u] = d[u] * before[u] * f[u] * (_ONE - f[u])
        for u in range(Hp):
            before[u] = d[u] * g[u] * i[u] * (_ONE - i[u])  # the old cell has done its work
        for u in range(Hp):
            g[u] = d[u] * i[u] * (_ONE - g[u] * g[u])
        for u in range(Hp):
            i[u] = before[u]
        for u in range(Hp):
            d[u] = up[u]
        for u in range(Hp):
            up[u] = 0


_GATES = (0, 1, 2, 3)
_STAGE = Stage(_GATES, _finish, inputs=_GATES, h=_GATES)
LSTM = Cell("lstm", Program(4, 0, (_STAGE,)), forward, backward, forget_gate=1)
