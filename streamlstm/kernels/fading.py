"""What a gap leaves of a stream's short memory."""

import numpy as np

from streamlstm.kernels.compiling import LANES, jit
from streamlstm.kernels.lanes import load, store
from streamlstm.kernels.layout import AT_LAYERS, KEPT, LAST_TIME, LAYERS, PADDED, WINDOW_AT
from streamlstm.kernels.scalars import bits32, exp32, float32_of

_ZERO, _HALF, _UP = np.float32(0), np.float32(0.5), np.float32(2.0**112)
_GONE = np.float32(20)  # e ** -20 is below the last digit of a float32 near 1
_ENDLESS, _SIZE, _SIGN = 0x7C00, 0x7FFF, 0x8000  # bits of a float16
_LEAST_NORMAL, _REBIAS = 0x38800000, 0xFFF - (112 << 23)  # bits of a float32


@jit(inline=True)
def faded(gap_ns, limit_ns):
    """What is left after a gap, float32: exp(1 - gap_ns / limit_ns), both float64, from 1 at the limit on; 0 at the end."""
    beyond = np.float32((gap_ns - limit_ns) / limit_ns)
    return exp32(-beyond) if beyond < _GONE else _ZERO


@jit(inline=True)
def faded_half(half, left):
    """The nearest float16, of two the even one, to a float16 times `left`, from 0 to 1; both by their 16 bits.

    In integers, since not every host or device converts them. What is endless or not a number stays.
    """
    if half & _ENDLESS == _ENDLESS:
        return half
    value = float32_of(np.int32((half & _SIZE) << 13)) * _UP * left
    bits = np.int64(bits32(value))
    if bits < _LEAST_NORMAL:
        size = np.int64(bits32(value + _HALF)) - np.int64(bits32(_HALF))
    else:
        size = (bits + ((bits >> 13) & 1) + _REBIAS) >> 13
    return (half & _SIGN) | size


@jit
def fade_memory(state, mark, time, sizes, limit_ns):
    """Multiplies h and c of a stream, whose next record has this time, by `faded`.

    The regressors stay: the level at which a sensor was last is the best guess after a gap, too. As after any jump of h and
    c, a window that learns online begins anew.
    """
    left = faded(np.float64(time - mark[LAST_TIME]), limit_ns)
    mark[WINDOW_AT] = 0
    at, count = sizes[AT_LAYERS], 2 * sizes[LAYERS] * sizes[KEPT]
    if sizes[KEPT] == sizes[PADDED]:
        for k in range(0, count, LANES):
            store(state, at + k, load(state, at + k) * left)
        return
    for k in range(at, at + count):  # each two float16
        pair = np.int64(bits32(state[k]))
        low, high = faded_half(pair & 0xFFFF, left), faded_half((pair >> 16) & 0xFFFF, left)
        state[k] = float32_of(np.int32((high if high < _SIGN else high - 2 * _SIGN) * 2 * _SIGN + low))
