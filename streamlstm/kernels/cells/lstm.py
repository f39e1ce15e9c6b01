"""The LSTM cell: gates i, f, g, o, a step of many streams as one tile of vector code.

| letter | size |
|---|---|
| I, H | inputs of the layer, hidden units |
| K | I + H, the inner sum |
| P | panels: H / 16, rounded up; a panel holds the four gates of 16 units |

Weights of a layer are P panels after one another, each (1 + K, 64) float32: the bias, then a row per k; columns are
gates i, f, g, o of the panel's 16 units. Units beyond H have zero weights and stay exactly zero.
"""

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from streamlstm.kernels.compiling import HAS_AVX512, LANES, jit
from streamlstm.kernels.vector import I64, Emitter, data
from streamlstm.types import Float32

GATES = 4
PANEL = GATES * LANES

# Beyond +-20 a sigmoid differs from 0 or 1 by less than 2.1e-9, a tanh of half that argument rounds to +-1; and a product
# of three exponentials stays below 2^87, far from an overflow.
SATURATION = 20.0

# 6 x 4 accumulators, 4 weights and a broadcast fill 29 of AVX-512's 32 registers; with 16 registers of 8 lanes one row
# fills them.
_ROWS = 6 if HAS_AVX512 else 1


def _tile(count: int) -> Any:
    """Intrinsic: one LSTM step of `count` rows for the 16 units of a panel."""

    @intrinsic
    def tile(
        typing_context: Any, weights: Any, panel: Any, z: Any, z0: Any, ldz: Any, K: Any,
        slots: Any, first: Any, state: Any, lds: Any, h0: Any, c0: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(weights, panel, z, z0, ldz, K, slots, first, state, lds, h0, c0)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            weights, panel, z, z0, ldz, K, slots, first, state, lds, h0, c0 = arguments
            kinds = signature.args
            e = Emitter(builder)
            w, x = data(context, builder, kinds[0], weights), data(context, builder, kinds[2], z)
            s, rows = data(context, builder, kinds[6], slots), data(context, builder, kinds[8], state)
            starts = [builder.add(z0, builder.mul(I64(r), ldz)) for r in range(count)]
            bias = [e.load(w, builder.add(panel, I64(v * LANES))) for v in range(GATES)]
            matrix = builder.add(panel, I64(PANEL))

            def column(v: int, k: Any) -> Any:
                return e.load(w, builder.add(builder.add(matrix, builder.mul(k, I64(PANEL))), I64(v * LANES)))

            def value(r: int, k: Any) -> Any:
                return e.broadcast(x, builder.add(starts[r], k))

            gates = e.accumulate([list(bias) for _ in range(count)], K, column, value)
            one = e.constant(1.0)
            for r in range(count):
                slot = builder.sext(builder.load(builder.gep(s, [builder.add(first, I64(r))])), I64(0).type)
                row = builder.mul(slot, lds)
                at_h, at_c = builder.add(row, h0), builder.add(row, c0)
                i, f, g, o = gates[r]
                minus = e.constant(-1.0)
                ei = e.exp(builder.fmul(e.clamp(i, SATURATION), minus))
                ef = e.exp(builder.fmul(e.clamp(f, SATURATION), minus))
                eo = e.exp(builder.fmul(e.clamp(o, SATURATION), minus))
                eg = e.exp(builder.fmul(e.clamp(g, SATURATION / 2), e.constant(-2.0)))
                # sigmoid(f) c + sigmoid(i) tanh(g) over one denominator: one division instead of three.
                ig = builder.fmul(builder.fadd(one, ei), builder.fadd(one, eg))
                f1 = builder.fadd(one, ef)
                top = e.fma(e.load(rows, at_c), ig, builder.fmul(builder.fsub(one, eg), f1))
                cell = builder.fdiv(top, builder.fmul(ig, f1))
                ec = e.exp(builder.fmul(e.clamp(cell, SATURATION / 2), e.constant(-2.0)))
                bottom = builder.fmul(builder.fadd(one, eo), builder.fadd(one, ec))
                e.store(cell, rows, at_c)
                e.store(builder.fdiv(builder.fsub(one, ec), bottom), rows, at_h)
            return context.get_dummy_value()

        return signature, generate

    return tile


_tile_main, _tile_2, _tile_1 = _tile(_ROWS), _tile(2), _tile(1)
_R = np.int64(_ROWS)


@jit
def step_rows(weights, w0, I, H, z, ldz, slots, first, count, state, h0, c0):
    """One step of one layer for rows `first .. first + count` of `slots`; writes h and c of those slots in `state`.

    weights (flat) float32, the layer's panels from w0 on; z (flat) float32 scratch, row r at r * ldz holds the layer's
    inputs and the old h, I + H values; slots int32; state (S, W) float32 with h at column h0 and c at c0, H rounded up to
    16 columns each. Every row's bits are independent of the other rows.
    """
    K = I + H
    lds = np.int64(state.shape[1])
    panels = (H + LANES - 1) // LANES
    for p in range(panels):
        panel = w0 + p * (K + 1) * PANEL
        h, c = h0 + p * LANES, c0 + p * LANES
        r = np.int64(0)
        while r + _R <= count:
            _tile_main(weights, panel, z, r * ldz, ldz, K, slots, first + r, state, lds, h, c)
            r += _R
        while r + 2 <= count:
            _tile_2(weights, panel, z, r * ldz, ldz, K, slots, first + r, state, lds, h, c)
            r += 2
        if r < count:
            _tile_1(weights, panel, z, r * ldz, ldz, K, slots, first + r, state, lds, h, c)


def pack(W_ih: Float32, W_hh: Float32, bias: Float32) -> Float32:
    """Panels (flat) of a layer from W_ih (4H, I), W_hh (4H, H) and bias (4H), rows in the order i, f, g, o as in PyTorch."""
    H, I = W_hh.shape[1], W_ih.shape[1]
    padded = -(-H // LANES) * LANES
    columns = np.zeros((1 + I + H, GATES, padded), np.float32)
    columns[0, :, :H] = bias.reshape(GATES, H)
    columns[1 : 1 + I, :, :H] = W_ih.reshape(GATES, H, I).transpose(2, 0, 1)
    columns[1 + I :, :, :H] = W_hh.reshape(GATES, H, H).transpose(2, 0, 1)
    panels = columns.reshape(1 + I + H, GATES, padded // LANES, LANES).transpose(2, 0, 1, 3)
    return np.ascontiguousarray(panels).reshape(-1)
