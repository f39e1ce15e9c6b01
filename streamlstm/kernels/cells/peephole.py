"""The LSTM with peepholes (Gers and Schmidhuber 2000): the gates also see the cell, i and f the old one, o the new one.

Its further vectors are the peepholes of i, f and o.
"""

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
    one, before = e.constant(1.0), units.c()
    ei = units.exp_minus(e.fma(units.vector(0), before, i))
    ef = units.exp_minus(e.fma(units.vector(1), before, f))
    eg = units.exp_minus(g, 2.0)
    ig, f1 = e.mul(e.add(one, ei), e.add(one, eg)), e.add(one, ef)
    cell = e.div(e.fma(before, ig, e.mul(e.sub(one, eg), f1)), e.mul(ig, f1))
    eo = units.exp_minus(e.fma(units.vector(2), cell, o))
    ec = units.exp_minus(cell, 2.0)
    units.write_c(cell)
    units.write_h(e.div(e.sub(one, ec), e.mul(e.add(one, eo), e.add(one, ec))))


@c_function(FORWARD)
def forward(vectors, gates, kept, extra, h, c, B, Hp):
    """Gates over their sums, then c and h; keeps the old c and the new one. See `training`."""
    of_i, of_f, of_o = part(vectors, 0, Hp), part(vectors, Hp, Hp), part(vectors, 2 * Hp, Hp)
    for b in range(B):
        row, g0 = b * Hp, b * 4 * Hp
        i, f = part(gates, g0, Hp), part(gates, g0 + Hp, Hp)
        g, o = part(gates, g0 + 2 * Hp, Hp), part(gates, g0 + 3 * Hp, Hp)
        before, after = part(kept, row, Hp), part(extra, row, Hp)
        cell, out = part(c, row, Hp), part(h, row, Hp)
        for u in range(Hp):
            before[u] = cell[u]
        for u in range(Hp):
            i[u] = sigmoid32(i[u] + of_i[u] * before[u])
        for u in range(Hp):
            f[u] = sigmoid32(f[u] + of_f[u] * before[u])
        for u in range(Hp):
            g[u] = tanh32(g[u])
        for u in range(Hp):
            cell[u] = f[u] * before[u] + i[u] * g[u]
        for u in range(Hp):
            o[u] = sigmoid32(o[u] + of_o[u] * cell[u])
        for u in range(Hp):
            after[u] = cell[u]
        for u in range(Hp):
            out[u] = o[u] * tanh32(cell[u])


@c_function(BACKWARD)
def backward(vectors, gates, kept, extra, dh, carry, out_vectors, B, Hp):
    """Gradients of the sums over the gates; `carry` is that of c. See `training`."""
    of_i, of_f, of_o = part(vectors, 0, Hp), part(vectors, Hp, Hp), part(vectors, 2 * Hp, Hp)
    d_i, d_f, d_o = part(out_vectors, 0, Hp), part(out_vectors, Hp, Hp), part(out_vectors, 2 * Hp, Hp)
    for b in range(B):
        row, g0 = b * Hp, b * 4 * Hp
        i, f = part(gates, g0, Hp), part(gates, g0 + Hp, Hp)
        g, o = part(gates, g0 + 2 * Hp, Hp), part(gates, g0 + 3 * Hp, Hp)
        before, after = part(kept, row, Hp), part(extra, row, Hp)
        up, d = part(dh, row, Hp), part(carry, row, Hp)
        for u in range(Hp):
            tanh = tanh32(after[u])
            do = up[u] * tanh * o[u] * (_ONE - o[u])
            dc = d[u] + up[u] * o[u] * (_ONE - tanh * tanh) + do * of_o[u]
            di = dc * g[u] * i[u] * (_ONE - i[u])
            df = dc * before[u] * f[u] * (_ONE - f[u])
            d[u] = dc * f[u] + di * of_i[u] + df * of_f[u]
            g[u] = dc * i[u] * (_ONE - g[u] * g[u])
            i[u], f[u], o[u] = di, df, do
            up[u] = 0
        for u in range(Hp):
            d_i[u] += i[u] * before[u]
        for u in range(Hp):
            d_f[u] += f[u] * before[u]
        for u in range(Hp):
            d_o[u] += o[u] * after[u]


_GATES = (0, 1, 2, 3)
_STAGE = Stage(_GATES, _finish, inputs=_GATES, h=_GATES)
PEEPHOLE_LSTM = Cell("peephole_lstm", Program(4, 3, (_STAGE,)), forward, backward, forget_gate=1)
