"""Truncated back-propagation through time for the stacked LSTM with a linear readout.

| letter | size |
|---|---|
| T | rows of a window |
| B | lanes trained side by side |
| I, Hp, O | inputs, hidden units and outputs, the last two rounded up to 16 |
| G | 4 Hp, gate columns i, f, g, o |

All parameters lie in one flat float32 vector theta: per layer W (J + Hp, G) and bias (G), where J is I for the first
layer and Hp above; then the readout V (Hp, O) and its bias (O). Padding starts at zero and its gradient is exactly zero.
Sums over lanes and rows are chains in a fixed order, one after another: the same bits on any host of a class.
"""

from typing import NamedTuple

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.matrix import multiply
from streamlstm.kernels.scalars import sigmoid32, tanh32
from streamlstm.types import Float32

_ZERO, _ONE = np.int64(0), np.int64(1)
_F0, _F1 = np.float32(0), np.float32(1)
_B1, _B2, _EPSILON = np.float32(0.9), np.float32(0.99), np.float32(1e-8)
_SETTLED = 4000  # updates after which 0.99^n is below 1e-17 and the bias correction is 1


class Work(NamedTuple):
    """Flat float32 scratch of one window: what the way forward leaves for the way back."""

    z: Float32  # (L, T, B, X): a layer's input and old h side by side; X = max(I, Hp) + Hp
    gates: Float32  # (L, T, B, G): sums, then gates, then gradients of the sums
    cells: Float32  # (L, T, B, Hp): before the step
    tanhs: Float32  # (L, T, B, Hp): of the cell after the step
    top: Float32  # (T, B, Hp): h of the last layer
    outputs: Float32  # (T, B, O): outputs, then the gradient of the loss by them
    upstream: Float32  # (T, B, Hp): gradient of a layer's h from above
    transposed: Float32  # (max(O, 2 G), Hp): transposed weights
    dh: Float32  # (B, Hp)
    dc: Float32  # (B, Hp)
    zeros: Float32  # (Hp)


def make_work(T: int, B: int, I: int, Hp: int, L: int, O: int) -> Work:
    """Scratch for windows of T rows and B lanes."""
    X, G = max(I, Hp) + Hp, 4 * Hp
    sizes = (L * T * B * X, L * T * B * G, L * T * B * Hp, L * T * B * Hp, T * B * Hp, T * B * O, T * B * Hp,
             max(O, 2 * G) * Hp, B * Hp, B * Hp, Hp)  # fmt: skip
    return Work(*(np.zeros(size, np.float32) for size in sizes))


@jit
def theta_size(I, Hp, L, O):
    """Length of the flat parameter vector."""
    return (I + Hp + 1) * 4 * Hp + (L - 1) * (2 * Hp + 1) * 4 * Hp + (Hp + 1) * O


@jit
def step_gates(gates, g0, cells, tanhs, at, h, c, state, B, Hp):
    """Writes gates (B, G) over their sums at g0, the tanh of the new cell (at), and the new h and c (B, Hp) at `state`.

    Rows are views: an index that starts from an offset may be negative, as far as the compiler knows, and such a loop
    is not vectorised (4 360 against 250 ns a row of 64 units).
    """
    for b in range(B):
        a, row, s = gates[g0 + b * 4 * Hp :], at + b * Hp, state + b * Hp
        i, f, g, o = a[:Hp], a[Hp : 2 * Hp], a[2 * Hp : 3 * Hp], a[3 * Hp : 4 * Hp]
        before, tanh, new, out = cells[row : row + Hp], tanhs[row : row + Hp], c[s : s + Hp], h[s : s + Hp]
        for u in range(Hp):
            i[u] = sigmoid32(i[u])
        for u in range(Hp):
            f[u] = sigmoid32(f[u])
        for u in range(Hp):
            g[u] = tanh32(g[u])
        for u in range(Hp):
            o[u] = sigmoid32(o[u])
        for u in range(Hp):
            new[u] = f[u] * before[u] + i[u] * g[u]
        for u in range(Hp):
            tanh[u] = tanh32(new[u])
        for u in range(Hp):
            out[u] = o[u] * tanh[u]


@jit
def gate_gradient(dh, dc, gates, g0, cells, tanhs, at, B, Hp):
    """Writes gradients of the sums (B, G) over the gates, from dh and dc (B, Hp); dc becomes that of the row before."""
    for b in range(B):
        a, row = gates[g0 + b * 4 * Hp :], at + b * Hp
        i, f, g, o = a[:Hp], a[Hp : 2 * Hp], a[2 * Hp : 3 * Hp], a[3 * Hp : 4 * Hp]
        before, tanh = cells[row : row + Hp], tanhs[row : row + Hp]
        up, d = dh[b * Hp : (b + 1) * Hp], dc[b * Hp : (b + 1) * Hp]
        for u in range(Hp):
            d[u] += up[u] * o[u] * (_F1 - tanh[u] * tanh[u])
        for u in range(Hp):
            o[u] = up[u] * tanh[u] * o[u] * (_F1 - o[u])
        for u in range(Hp):
            up[u] = d[u] * f[u]  # the cell's gradient one row earlier, until dc may take it
        for u in range(Hp):
            f[u] = d[u] * before[u] * f[u] * (_F1 - f[u])
        for u in range(Hp):
            before[u] = d[u] * g[u] * i[u] * (_F1 - i[u])  # the old cell has done its work
        for u in range(Hp):
            g[u] = d[u] * i[u] * (_F1 - g[u] * g[u])
        for u in range(Hp):
            i[u] = before[u]
        for u in range(Hp):
            d[u] = up[u]


@jit
def copy(values, count, out):
    """Writes the first `count` values."""
    for k in range(count):
        out[k] = values[k]


@jit
def window_gradient(theta, x, target, h, c, T, B, I, Hp, L, D, O, huber, scale, work, out_gradient):
    """The Huber loss of one window, summed and times `scale`; adds its gradient to `out_gradient` and runs h and c on.

    x (T, B, I) and target (T, B, D) flat, NaN where nothing is to be learned; h, c (L, B, Hp) flat: the state at the
    start, which becomes the state at the end. With `out_gradient` of length 0 only loss and state are computed.
    """
    X, G = max(I, Hp) + Hp, 4 * Hp
    loss = 0.0
    for t in range(T):
        w0, inputs = _ZERO, I
        for layer in range(L):
            at, state = (layer * T + t) * B, layer * B * Hp
            z = at * X
            for b in range(B):
                row = work.z[z + b * X :]
                copy(x[(t * B + b) * I :] if layer == 0 else h[state - B * Hp + b * Hp :], inputs, row)
                copy(h[state + b * Hp :], Hp, row[inputs:])
            bias = w0 + (inputs + Hp) * G
            multiply(work.z, z, X, _ONE, B, inputs + Hp, theta, w0, G, G, theta, bias, _ZERO, work.gates, at * G, G)
            copy(c[state:], B * Hp, work.cells[at * Hp :])
            step_gates(work.gates, at * G, work.cells, work.tanhs, at * Hp, h, c, state, B, Hp)
            w0, inputs = bias + G, Hp
        last, row = (L - 1) * B * Hp, t * B
        copy(h[last:], B * Hp, work.top[row * Hp :])
        multiply(h, last, Hp, _ONE, B, Hp, theta, w0, O, O, theta, w0 + Hp * O, _ZERO, work.outputs, row * O, O)
        for b in range(B):
            y, wish = (row + b) * O, (row + b) * D
            work.outputs[y + D : y + O] = _F0
            for d in range(D):
                wished = target[wish + d]
                if np.isnan(wished):
                    work.outputs[y + d] = _F0
                    continue
                e = work.outputs[y + d] - wished
                size = np.float64(abs(e))
                loss += 0.5 * size * size if size <= huber else huber * (size - 0.5 * huber)
                work.outputs[y + d] = np.float32(min(max(np.float64(e), -huber), huber) * scale)
    if out_gradient.shape[0] > 0:
        add_gradient(theta, T, B, I, Hp, L, O, work, out_gradient)
    return loss * scale


@jit
def add_gradient(theta, T, B, I, Hp, L, O, work, out_gradient):
    """Adds to `out_gradient` the gradient of the window whose way forward lies in `work`, layer by layer from the top."""
    X, G, rows = max(I, Hp) + Hp, 4 * Hp, T * B
    w0 = (I + Hp + 1) * G + (L - 1) * (2 * Hp + 1) * G
    multiply(work.top, _ZERO, _ONE, Hp, Hp, rows, work.outputs, _ZERO, O, O,
             out_gradient, w0, O, out_gradient, w0, O)  # fmt: skip
    add_column_sums(work.outputs, _ZERO, rows, O, out_gradient, w0 + Hp * O)
    transpose(theta, w0, Hp, O, work.transposed, _ZERO)
    multiply(work.outputs, _ZERO, O, _ONE, rows, O, work.transposed, _ZERO, Hp, Hp,
             work.zeros, _ZERO, _ZERO, work.upstream, _ZERO, Hp)  # fmt: skip
    for layer in range(L - 1, -1, -1):
        inputs = I if layer == 0 else Hp
        w0 -= (inputs + Hp + 1) * G
        recurrent = w0 + inputs * G
        transpose(theta, recurrent, Hp, G, work.transposed, _ZERO)
        if layer > 0:
            transpose(theta, w0, Hp, G, work.transposed, G * Hp)
        work.dc[:] = _F0
        work.dh[:] = _F0
        for t in range(T - 1, -1, -1):
            at = (layer * T + t) * B
            above = work.upstream[t * B * Hp : (t + 1) * B * Hp]
            for k in range(B * Hp):
                work.dh[k] += above[k]
            gate_gradient(work.dh, work.dc, work.gates, at * G, work.cells, work.tanhs, at * Hp, B, Hp)
            multiply(work.gates, at * G, G, _ONE, B, G, work.transposed, _ZERO, Hp, Hp,
                     work.zeros, _ZERO, _ZERO, work.dh, _ZERO, Hp)  # fmt: skip
        at = layer * rows
        if layer > 0:
            multiply(work.gates, at * G, G, _ONE, rows, G, work.transposed, G * Hp, Hp, Hp,
                     work.zeros, _ZERO, _ZERO, work.upstream, _ZERO, Hp)  # fmt: skip
        multiply(work.z, at * X, _ONE, X, inputs + Hp, rows, work.gates, at * G, G, G,
                 out_gradient, w0, G, out_gradient, w0, G)  # fmt: skip
        add_column_sums(work.gates, at * G, rows, G, out_gradient, w0 + (inputs + Hp) * G)


@jit
def add_column_sums(a, a0, rows, columns, out, o0):
    """Adds the sums over rows of a (rows, columns) to out, row after row."""
    total = out[o0 : o0 + columns]
    for r in range(rows):
        row = a[a0 + r * columns : a0 + (r + 1) * columns]
        for j in range(columns):
            total[j] += row[j]


@jit
def transpose(a, a0, rows, columns, out, o0):
    """Writes a (rows, columns) transposed."""
    for j in range(columns):
        column = out[o0 + j * rows : o0 + (j + 1) * rows]
        for r in range(rows):
            column[r] = a[a0 + r * columns + j]


@jit
def adam_step(theta, gradient, first, second, update, rate, clip_norm):
    """One Adam update (beta .9 and .99) of theta in place, the gradient clipped to a global norm; returns that norm.

    first, second float32, moments; update counts from 1. Kingma and Ba, Adam (2015), algorithm 1. A norm that is not
    finite leaves theta as it is.
    """
    total = 0.0
    for p in range(gradient.shape[0]):
        total += np.float64(gradient[p]) * gradient[p]
    norm = np.sqrt(total)
    if not np.isfinite(norm):
        return norm
    shrink = np.float32(min(1.0, clip_norm / norm)) if norm > 0.0 else _F1
    fade_first, fade_second = 1.0, 1.0
    for _ in range(min(update, _SETTLED)):
        fade_first *= 0.9
        fade_second *= 0.99
    pace = np.float32(rate * np.sqrt(1.0 - fade_second) / (1.0 - fade_first))
    for p in range(gradient.shape[0]):
        g = gradient[p] * shrink
        first[p] = _B1 * first[p] + (_F1 - _B1) * g
        second[p] = _B2 * second[p] + (_F1 - _B2) * g * g
        theta[p] -= pace * first[p] / (np.sqrt(second[p]) + _EPSILON)
    return norm
