"""Truncated back-propagation through time for stacked recurrent layers with a linear readout.

| letter | size |
|---|---|
| T | rows of a window |
| B | lanes trained side by side |
| I, Hp, O | inputs, hidden units and outputs, the last two rounded up to 16 |
| G | gate columns, Hp for each gate of the cell |
| V | values of the cell's further vectors, Hp for each |

All parameters lie in one flat float32 vector theta: per layer W (J + Hp, G), bias (G) and vectors (V), where J is I for
the first layer and Hp above; then the readout V (Hp, O) and its bias (O). Padding starts at zero and its gradient is
exactly zero.
Sums over lanes and rows are chains in a fixed order, one after another: the same bits on any host of a class.
"""

from typing import NamedTuple

import numpy as np

from streamlstm.kernels.calls import call_backward, call_early_backward, call_early_forward, call_forward
from streamlstm.kernels.cells.cell import Cell, Kernels
from streamlstm.kernels.cells.normal import normalise, take_back
from streamlstm.kernels.compiling import jit
from streamlstm.kernels.losses import write_losses
from streamlstm.kernels.matrix import multiply
from streamlstm.types import Float32

_ZERO, _ONE = np.int64(0), np.int64(1)
_F0 = np.float32(0)
_IN_CACHE = np.int64(128)
"""Rows of a window whose share of the gradient is added at once: their gates stay in the cache while all weights meet
them."""


class Work(NamedTuple):
    """Flat float32 scratch of one window: what the way forward leaves for the way back."""

    z: Float32  # (L, T, B, X): a layer's input and old h side by side; X = max(I, Hp) + Hp
    gates: Float32  # (L, T, B, G): sums, then gates, then gradients of the sums
    kept: Float32  # (L, T, B, Hp): what the cell's way forward leaves besides its gates
    extra: Float32  # (L, T, B, Hp)
    top: Float32  # (T, B, Hp): h of the last layer
    outputs: Float32  # (T, B, O): outputs, then the gradient of the loss by them
    upstream: Float32  # (T, B, Hp): gradient of a layer's h from above
    transposed: Float32  # (max(O, 2 G), Hp): transposed weights
    dh: Float32  # (B, Hp)
    product: Float32  # (B, Hp): gradient of the recurrent inputs
    carry: Float32  # (B, Hp)
    zeros: Float32  # (max(G, Hp))
    keep: Float32  # (L, T, B, Hp): what a layer passes on to the next one is multiplied by it, see `draw_masks`
    keep_h: Float32  # (L, B, Hp): the same of its own old h
    instead: Float32  # (L, T, B, Hp): what late gates read in place of h
    d_instead: Float32  # (B, Hp)
    hat: Float32  # (L, T, B, G): sums as layer normalisation leaves them
    normal: Float32  # (L, T, B, gates): what their deviations were divided by, inverse
    linear: Float32  # (T, B, F): what the skip said of the record before, see `draw_feedback`; F is 0 where unused
    feedback: Float32  # (4, F): of each feature unit of its output, bound, mean and inverse deviation of its input


def make_work(cell: Kernels, T: int, B: int, I: int, Hp: int, L: int, O: int, F: int = 0) -> Work:
    """Scratch for windows of T rows and B lanes, whose first F inputs may be the network's own predictions."""
    X, G = max(I, Hp) + Hp, cell.gates * Hp
    sizes = (L * T * B * X, L * T * B * G, L * T * B * Hp, L * T * B * Hp, T * B * Hp, T * B * O, T * B * Hp,
             max(O, 2 * G) * Hp, B * Hp, B * Hp, B * Hp, max(G, Hp))  # fmt: skip
    late = L * T * B * Hp if cell.late else 0, B * Hp if cell.late else 0
    normal = (L * T * B * G, L * T * B * cell.gates) if cell.normal else (0, 0)
    masks = (np.ones(L * T * B * Hp, np.float32), np.ones(L * B * Hp, np.float32))
    further = [np.zeros(size, np.float32) for size in (*late, *normal, T * B * F, 4 * F)]
    return Work._make([*(np.zeros(size, np.float32) for size in sizes), *masks, *further])


def draw_masks(work: Work, dropout: float, recurrent: float, rng: np.random.Generator | None) -> None:
    """Writes the masks of one window: a share of them 0 and the others so much larger; all 1 without `rng`.

    What passes between layers is drawn for every row (Srivastava and others 2014); of a layer's own h one mask holds for the
    whole window (Gal and Ghahramani 2016).
    """
    for mask, share in ((work.keep, dropout), (work.keep_h, recurrent)):
        if rng is None or share == 0:
            mask[:] = 1
        else:
            mask[:] = (rng.random(len(mask), np.float32) >= share) / np.float32(1 - share)


def draw_feedback(work: Work, linear: Float32, share: float, rng: np.random.Generator | None) -> None:
    """Writes in which rows of a window predictions of the features are read, not the record: a share; none without `rng`.

    linear (T, B, F): what the skip says of the record before, in deviations, NaN where there is no record. The readout's
    share is added to it as in scoring, where a prediction stands in for what is missing. That is scheduled sampling (Bengio
    and others 2015); a row's features are fed back together, and no gradient runs through them.
    """
    work.linear[:] = np.nan
    if rng is not None:
        chosen = rng.random(linear.shape[:2]) < share
        work.linear.reshape(linear.shape)[chosen] = linear[chosen]


@jit
def layer_size(cell, J, Hp):
    """Parameters of a layer of J inputs."""
    return ((J + Hp + 1) * cell.gates + cell.vectors) * Hp


def theta_size(cell: Cell | Kernels, I: int, Hp: int, L: int, O: int) -> int:
    """Length of the flat parameter vector; not compiled, since a `Cell` has the sizes before its functions are."""
    rows = I + Hp + 1 + (L - 1) * (2 * Hp + 1)
    return (rows * cell.gates + L * cell.vectors) * Hp + (Hp + 1) * O


@jit
def copy(values, count, out):
    """Writes the first `count` values."""
    for k in range(count):
        out[k] = values[k]


@jit
def copy_kept(values, keep, count, out):
    """Writes the first `count` values times `keep`."""
    for k in range(count):
        out[k] = values[k] * keep[k]


@jit
def window_gradient(cell, theta, x, target, h, c, T, B, I, Hp, L, D, O, huber, scale, ahead, work, out_gradient):
    """The loss of one window, summed and times `scale`; adds its gradient to `out_gradient` and runs h and c on.

    x (T, B, I) and target (T, B, D + M) flat, NaN where nothing is to be learned, see `losses`; h, c (L, B, Hp) flat: the
    state at the start, which becomes the state at the end. With `out_gradient` of length 0 only loss and state are
    computed.
    """
    X, G, wide = max(I, Hp) + Hp, cell.gates * Hp, D + ahead.targets
    F, readout = work.feedback.shape[0] // 4, layer_size(cell, I, Hp) + (L - 1) * layer_size(cell, Hp, Hp)
    loss = 0.0
    for t in range(T):
        w0, inputs = _ZERO, I
        if F > 0:  # what was said of the record before, over which the outputs of this one are written
            multiply(h, (L - 1) * B * Hp, Hp, _ONE, B, Hp, theta, readout, O, O,
                     theta, readout + Hp * O, _ZERO, work.outputs, t * B * O, O)  # fmt: skip
        for layer in range(L):
            at, state = (layer * T + t) * B, layer * B * Hp
            z = at * X
            for b in range(B):
                row = work.z[z + b * X :]
                if layer == 0:
                    copy(x[(t * B + b) * I :], inputs, row)
                    feed_back(work, (t * B + b) * O, (t * B + b) * F, F, row)
                else:
                    copy_kept(h[state - B * Hp + b * Hp :], work.keep[(at - T * B + b) * Hp :], Hp, row)
                copy_kept(h[state + b * Hp :], work.keep_h[state + b * Hp :], Hp, row[inputs:])
            bias = w0 + (inputs + Hp) * G
            add_up_gates(cell, theta, w0, inputs, z, at, state, h, B, X, Hp, work)
            call_forward(cell.forward, theta, bias + G, work.gates, at * G, work.kept, at * Hp, work.extra, at * Hp,
                         h, state, c, state, B, Hp)  # fmt: skip
            w0, inputs = bias + G + cell.vectors * Hp, Hp
        last, row = (L - 1) * B * Hp, t * B
        copy(h[last:], B * Hp, work.top[row * Hp :])
        multiply(h, last, Hp, _ONE, B, Hp, theta, w0, O, O, theta, w0 + Hp * O, _ZERO, work.outputs, row * O, O)
        for b in range(B):
            y, wish = (row + b) * O, (row + b) * wide
            loss = write_losses(work.outputs[y : y + O], target[wish : wish + wide], D, huber, scale, ahead, loss)
    if out_gradient.shape[0] > 0:
        add_gradient(cell, theta, T, B, I, Hp, L, O, work, out_gradient)
    return loss * scale


@jit
def feed_back(work, y, at, F, out):
    """Writes the prediction of the record before over the first F inputs, where `Work.linear` has one."""
    for d in range(F):
        linear = work.linear[at + d]
        if not np.isnan(linear):
            bound = work.feedback[F + d]
            z = min(max(linear + work.feedback[d] * work.outputs[y + d], -bound), bound)
            out[d] = (z - work.feedback[2 * F + d]) * work.feedback[3 * F + d]


@jit
def add_up_gates(cell, theta, w0, inputs, z, at, state, h, B, X, Hp, work):
    """Writes a layer's sums of one row; of a cell of two stages the first ones are gates already."""
    G, late = cell.gates * Hp, cell.late * Hp
    bias, own = w0 + (inputs + Hp) * G, cell.gates - cell.late
    if late == 0 and cell.normal == 0:
        multiply(work.z, z, X, _ONE, B, inputs + Hp, theta, w0, G, G, theta, bias, _ZERO, work.gates, at * G, G)
        return
    start, s0 = (theta, bias) if cell.normal == 0 else (work.zeros, _ZERO)
    multiply(work.z, z, X, _ONE, B, inputs, theta, w0, G, G, start, s0, _ZERO, work.gates, at * G, G)
    recurrent = w0 + inputs * G
    multiply(work.z, z + inputs, X, _ONE, B, Hp, theta, recurrent, G, G - late,
             work.gates, at * G, G, work.gates, at * G, G)  # fmt: skip
    gains = theta[bias + G + cell.own * Hp :]
    gates, hat, scale = work.gates[at * G :], work.hat[at * G :], work.normal[at * cell.gates :]
    if cell.normal > 0:
        normalise(cell, gates, hat, scale, 0, own, theta[bias:], gains, B, Hp)
    if late > 0:
        call_early_forward(cell.early_forward, work.gates, at * G, h, state, work.instead, at * Hp, B, Hp)
        instead = work.instead[at * Hp :]
        copy_kept(instead, work.keep_h[state:], B * Hp, instead)
        multiply(work.instead, at * Hp, Hp, _ONE, B, Hp, theta, recurrent + G - late, G, late,
                 work.gates, at * G + G - late, G, work.gates, at * G + G - late, G)  # fmt: skip
        if cell.normal > 0:
            normalise(cell, gates, hat, scale, own, cell.gates, theta[bias:], gains, B, Hp)


@jit
def add_gradient(cell, theta, T, B, I, Hp, L, O, work, out_gradient):
    """Adds to `out_gradient` the gradient of the window whose way forward lies in `work`, layer by layer from the top."""
    X, G, rows, late = max(I, Hp) + Hp, cell.gates * Hp, T * B, cell.late * Hp
    own = cell.gates - cell.late
    w0 = layer_size(cell, I, Hp) + (L - 1) * layer_size(cell, Hp, Hp)
    multiply(work.top, _ZERO, _ONE, Hp, Hp, rows, work.outputs, _ZERO, O, O,
             out_gradient, w0, O, out_gradient, w0, O)  # fmt: skip
    add_column_sums(work.outputs, _ZERO, rows, O, out_gradient, w0 + Hp * O)
    transpose(theta, w0, Hp, O, work.transposed, _ZERO)
    multiply(work.outputs, _ZERO, O, _ONE, rows, O, work.transposed, _ZERO, Hp, Hp,
             work.zeros, _ZERO, _ZERO, work.upstream, _ZERO, Hp)  # fmt: skip
    for layer in range(L - 1, -1, -1):
        inputs = I if layer == 0 else Hp
        w0 -= layer_size(cell, inputs, Hp)
        recurrent = w0 + inputs * G
        transpose(theta, recurrent, Hp, G, work.transposed, _ZERO)
        if layer > 0:
            transpose(theta, w0, Hp, G, work.transposed, G * Hp)
        work.carry[:] = _F0
        work.dh[:] = _F0
        for t in range(T - 1, -1, -1):
            at = (layer * T + t) * B
            above = work.upstream[t * B * Hp : (t + 1) * B * Hp]
            for k in range(B * Hp):
                work.dh[k] += above[k]
            bias = w0 + (inputs + Hp) * G
            vectors, gains = bias + G, bias + G + cell.own * Hp
            gates, hat, scale = work.gates[at * G :], work.hat[at * G :], work.normal[at * cell.gates :]
            call_backward(cell.backward, theta, vectors, work.gates, at * G, work.kept, at * Hp, work.extra, at * Hp,
                          work.dh, _ZERO, work.carry, _ZERO, out_gradient, vectors, B, Hp)  # fmt: skip
            if cell.late > 0:
                if cell.normal > 0:
                    take_back(cell, gates, hat, scale, own, cell.gates, theta[gains:], B, Hp, out_gradient[bias:],
                              out_gradient[gains:])  # fmt: skip
                multiply(work.gates, at * G + G - late, G, _ONE, B, late, work.transposed, (G - late) * Hp, Hp, Hp,
                         work.zeros, _ZERO, _ZERO, work.d_instead, _ZERO, Hp)  # fmt: skip
                copy_kept(work.d_instead, work.keep_h[layer * B * Hp :], B * Hp, work.d_instead)
                call_early_backward(cell.early_backward, work.gates, at * G, work.kept, at * Hp, work.d_instead, _ZERO,
                                    work.dh, _ZERO, B, Hp)  # fmt: skip
            if cell.normal > 0:
                take_back(
                    cell, gates, hat, scale, 0, own, theta[gains:], B, Hp, out_gradient[bias:], out_gradient[gains:]
                )
            multiply(work.gates, at * G, G, _ONE, B, G - late, work.transposed, _ZERO, Hp, Hp,
                     work.zeros, _ZERO, _ZERO, work.product, _ZERO, Hp)  # fmt: skip
            add_kept(work.product, work.keep_h[layer * B * Hp :], B * Hp, work.dh)
        at = layer * rows
        if layer > 0:
            multiply(work.gates, at * G, G, _ONE, rows, G, work.transposed, G * Hp, Hp, Hp,
                     work.zeros, _ZERO, _ZERO, work.upstream, _ZERO, Hp)  # fmt: skip
            copy_kept(work.upstream, work.keep[(at - rows) * Hp :], rows * Hp, work.upstream)
        for first in range(0, rows, _IN_CACHE):
            some, row = min(_IN_CACHE, rows - first), at + first
            multiply(work.z, row * X, _ONE, X, inputs, some, work.gates, row * G, G, G,
                     out_gradient, w0, G, out_gradient, w0, G)  # fmt: skip
            multiply(work.z, row * X + inputs, _ONE, X, Hp, some, work.gates, row * G, G, G - late,
                     out_gradient, recurrent, G, out_gradient, recurrent, G)  # fmt: skip
            if late > 0:
                multiply(work.instead, row * Hp, _ONE, Hp, Hp, some, work.gates, row * G + G - late, G, late,
                         out_gradient, recurrent + G - late, G, out_gradient, recurrent + G - late, G)  # fmt: skip
        if cell.normal == 0:
            add_column_sums(work.gates, at * G, rows, G, out_gradient, w0 + (inputs + Hp) * G)
        clear_unread(cell, inputs, Hp, out_gradient, w0)


@jit
def add_kept(values, keep, count, out):
    """Adds the first `count` values times `keep`."""
    for k in range(count):
        out[k] += values[k] * keep[k]


@jit
def clear_unread(cell, inputs, Hp, out_gradient, w0):
    """Sets to 0 the gradient of weights that stand where a gate does not read the inputs, or does not read h."""
    G = cell.gates * Hp
    for gate in range(cell.gates):
        if cell.reading_inputs >> gate & 1 == 0:
            for k in range(inputs):
                out_gradient[w0 + k * G + gate * Hp : w0 + k * G + (gate + 1) * Hp] = _F0
        if cell.reading_h >> gate & 1 == 0:
            for k in range(inputs, inputs + Hp):
                out_gradient[w0 + k * G + gate * Hp : w0 + k * G + (gate + 1) * Hp] = _F0


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
