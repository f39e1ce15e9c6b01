"""Matrix products out of register tiles, for the readout and for training.

    out[m, n] = start[m, n] + sum over k < K of a[m, k] * w[k, n]

N is a multiple of 16 and rows of w are contiguous; a has free strides, so that a product with a transposed matrix needs
no copy. Each element is one chain of fma over k: the bits of a row do not depend on M.
"""

from typing import Any

import numpy as np
from numba import types

from streamlstm.kernels.compiling import HAS_AVX512, LANES, intrinsic_with, jit
from streamlstm.kernels.interpreted import NUMBERS
from streamlstm.kernels.vector import I64, Emitter, data


def _tile(rows: int, vectors: int, lanes: int = LANES) -> Any:
    """Intrinsic: the product for `rows` rows and `lanes` x `vectors` columns; all arrays flat float32 with offsets."""
    wide, numbers = vectors * lanes, np.arange(rows)[:, None]

    def twin(a, a0, a_row, a_k, K, w, w0, w_k, start, s0, s_row, out, o0, o_row):
        columns = np.arange(wide)
        sums = start[s0 + numbers * s_row + columns]
        for k in range(K):
            left, right = a[a0 + numbers * a_row + k * a_k], w[w0 + k * w_k : w0 + k * w_k + wide]
            sums = NUMBERS.fma(left, right, sums)
        out[o0 + numbers * o_row + columns] = sums

    @intrinsic_with(twin)
    def tile(
        typing_context: Any, a: Any, a0: Any, a_row: Any, a_k: Any, K: Any, w: Any, w0: Any, w_k: Any,
        start: Any, s0: Any, s_row: Any, out: Any, o0: Any, o_row: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(a, a0, a_row, a_k, K, w, w0, w_k, start, s0, s_row, out, o0, o_row)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a, a0, a_row, a_k, K, w, w0, w_k, start, s0, s_row, out, o0, o_row = arguments
            kinds = signature.args
            e = Emitter(builder, lanes)
            left, right = data(context, builder, kinds[0], a), data(context, builder, kinds[5], w)
            initial, result = data(context, builder, kinds[8], start), data(context, builder, kinds[11], out)
            add, mul = builder.add, builder.mul
            heads = [add(a0, mul(I64(r), a_row)) for r in range(rows)]
            sums = [
                [e.load(initial, add(add(s0, mul(I64(r), s_row)), I64(v * lanes))) for v in range(vectors)]
                for r in range(rows)
            ]
            sums = e.accumulate(
                sums,
                K,
                lambda v, k: e.load(right, add(add(w0, mul(k, w_k)), I64(v * lanes))),
                lambda r, k: e.broadcast(left, add(heads[r], mul(k, a_k))),
            )
            for r in range(rows):
                for v in range(vectors):
                    e.store(sums[r][v], result, add(add(o0, mul(I64(r), o_row)), I64(v * lanes)))
            return context.get_dummy_value()

        return signature, generate

    return tile


# Accumulators that fit the host's registers: 32 of 16 lanes with AVX-512, else 16 of 8 (with 8 rows they spill, and a
# row of 38 features took 2.3 times as long, EPYC, November 2026).
_ROWS_2, _ROWS_1 = (8, 8) if HAS_AVX512 else (2, 4)
_tile_main_2, _tile_1_2, _tile_main_1, _tile_1_1 = _tile(_ROWS_2, 2), _tile(1, 2), _tile(_ROWS_1, 1), _tile(1, 1)
HALF = LANES // 2
_ROWS_HALF = 8
_tile_main_half, _tile_1_half = _tile(_ROWS_HALF, 1, HALF), _tile(1, 1, HALF)
_ONE, _M2, _M1, _MH = np.int64(1), np.int64(_ROWS_2), np.int64(_ROWS_1), np.int64(_ROWS_HALF)


@jit
def multiply(a, a0, a_row, a_k, M, K, w, w0, w_k, N, start, s0, s_row, out, o0, o_row):
    """Writes out (M, N) = start + a w; flat float32 arrays with offset and strides, K >= 1, N HALF or a multiple of 16.

    `s_row` 0 starts every row from the same bias; `start` may be `out` itself, which accumulates.
    """
    n = np.int64(0)
    while n + 2 * LANES <= N:
        m = np.int64(0)
        while m + _M2 <= M:
            _tile_main_2(a, a0 + m * a_row, a_row, a_k, K, w, w0 + n, w_k,
                      start, s0 + m * s_row + n, s_row, out, o0 + m * o_row + n, o_row)  # fmt: skip
            m += _M2
        while m < M:
            _tile_1_2(a, a0 + m * a_row, a_row, a_k, K, w, w0 + n, w_k,
                      start, s0 + m * s_row + n, s_row, out, o0 + m * o_row + n, o_row)  # fmt: skip
            m += _ONE
        n += 2 * LANES
    m = np.int64(0)
    if N == HALF:
        while m + _MH <= M:
            _tile_main_half(a, a0 + m * a_row, a_row, a_k, K, w, w0, w_k,
                      start, s0 + m * s_row, s_row, out, o0 + m * o_row, o_row)  # fmt: skip
            m += _MH
        while m < M:
            _tile_1_half(a, a0 + m * a_row, a_row, a_k, K, w, w0, w_k,
                      start, s0 + m * s_row, s_row, out, o0 + m * o_row, o_row)  # fmt: skip
            m += _ONE
    elif n < N:
        while m + _M1 <= M:
            _tile_main_1(a, a0 + m * a_row, a_row, a_k, K, w, w0 + n, w_k,
                      start, s0 + m * s_row + n, s_row, out, o0 + m * o_row + n, o_row)  # fmt: skip
            m += _M1
        while m < M:
            _tile_1_1(a, a0 + m * a_row, a_row, a_k, K, w, w0 + n, w_k,
                      start, s0 + m * s_row + n, s_row, out, o0 + m * o_row + n, o_row)  # fmt: skip
            m += _ONE
