"""Elementary functions in plain arithmetic, so that every host with the same arithmetic class gives the same bits.

`exp32`, `sigmoid32` and `tanh32` are the scalar form of `Arithmetic.exp` for training loops, which LLVM vectorises;
`log` is for the few logarithms of a threshold.
"""

import numpy as np
from numba import types

from streamlstm.kernels.arithmetic import EXP_Q, LN2_HIGH, LN2_LOW, LOG2_E, MAGIC
from streamlstm.kernels.compiling import intrinsic_with, jit
from streamlstm.kernels.vector import FLOAT, I32

_ONE, _TWO, _BOUND = np.float32(1), np.float32(2), np.float32(87)
_LOG2_E, _MAGIC = np.float32(LOG2_E), np.float32(MAGIC)
_HIGH, _LOW = np.float32(LN2_HIGH), np.float32(LN2_LOW)
_Q0, _Q1, _Q2, _Q3 = (np.float32(q) for q in EXP_Q)
_BIAS, _SHIFT = np.int32(0x3F800000), np.int32(23)
_LN2 = 0.6931471805599453
_SQRT2 = 1.4142135623730951


@intrinsic_with(lambda x: np.float32(x).view(np.int32))
def bits32(typing_context, x):
    """The int32 with the bits of a float32."""
    return types.int32(types.float32), lambda context, builder, signature, args: builder.bitcast(args[0], I32)


@intrinsic_with(lambda bits: np.int32(bits).view(np.float32))
def float32_of(typing_context, bits):
    """The float32 with the bits of an int32."""
    return types.float32(types.int32), lambda context, builder, signature, args: builder.bitcast(args[0], FLOAT)


@jit(inline=True)
def exp32(x):
    """exp of float32 x, clamped to +-87, within 3 ulp; NaN stays NaN."""
    x = -_BOUND if x < -_BOUND else (_BOUND if x > _BOUND else x)
    shifted = x * _LOG2_E + _MAGIC
    n = shifted - _MAGIC
    r = (x - n * _HIGH) - n * _LOW
    q = _ONE + r * (_ONE + r * (_Q0 + r * (_Q1 + r * (_Q2 + r * _Q3))))
    return q * float32_of(np.int32(np.int32(bits32(shifted) << _SHIFT) + _BIAS))


@jit(inline=True)
def sigmoid32(x):
    """1 / (1 + exp(-x)), within 3e-7."""
    return _ONE / (_ONE + exp32(-x))


@jit(inline=True)
def tanh32(x):
    """tanh x, within 3e-7 absolute."""
    return _ONE - _TWO / (_ONE + exp32(_TWO * x))


@jit
def log(x):
    """Natural logarithm of float64 x > 0, within 1e-9: x = m 2^n, ln m = 2 atanh((m - 1) / (m + 1)) by its series."""
    n = 0
    while x > _SQRT2:
        x *= 0.5
        n += 1
    while x < 0.5 * _SQRT2:
        x *= 2.0
        n -= 1
    s = (x - 1.0) / (x + 1.0)
    t = s * s
    return n * _LN2 + 2.0 * s * (1.0 + t * (1 / 3 + t * (1 / 5 + t * (1 / 7 + t * (1 / 9)))))
