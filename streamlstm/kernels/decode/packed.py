"""Packed little-endian float32 or float64 values to columns."""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.decode.places import TIME, record_time
from streamlstm.kernels.decode.text import copy_record_key
from streamlstm.kernels.decode.words import float64_of, load
from streamlstm.types import NO_TIME

_ROUND = 6755399441055744.0  # 1.5 * 2**52: a smaller number has no room for its fraction when added to it
_LARGEST = 2**63 - 1


@jit(inline=True)
def read_float(data, at, width):
    """The little-endian number of `width` bytes, 4 or 8, at any address, as float64."""
    if width == 8:
        return float64_of(load(data, at))
    bits = np.uint64(0)
    for k in range(4):
        bits |= np.uint64(data[at + k]) << np.uint64(8 * k)
    return np.float64(np.uint32(bits).view(np.float32))


@jit(inline=True)
def scaled_time(units, factor):
    """`units` of `factor` ns as int64 ns to the nearest, ties to even; NO_TIME where they are NaN or do not fit."""
    if not np.abs(units) < np.float64(_LARGEST // factor):
        return np.int64(NO_TIME)
    whole = np.int64(units)  # apart from the fraction, for their product would be rounded to 256 ns
    fraction = (units - np.float64(whole)) * np.float64(factor) + _ROUND - _ROUND
    return whole * factor + np.int64(fraction)


@jit
def decode_packed(
    data, keys, values, timestamp, width, places, factor, out_time, out_x, out_key_bytes, out_key_ends, out_code
):
    """Writes the columns of B records whose values hold one number of `width` bytes per entry of `places`, and code 0.

    factor: ns of a unit of the time among them, int64. Code 1 and an empty key for a record without a value, of another
    size, with a time that does not fit, or with a key that must be looked at.
    """
    size = places.shape[0] * width
    used = 0
    out_key_ends[0] = 0
    for b in range(values.shape[0]):
        start = values[b, 0]
        time, good = record_time(timestamp[b])
        good = good and start >= 0 and values[b, 1] - start == size
        if good:
            for c in range(places.shape[0]):
                if places[c] >= 0:
                    out_x[b, places[c]] = read_float(data, start + c * width, width)
                elif places[c] == TIME:
                    time = scaled_time(read_float(data, start + c * width, width), factor)
                    good = time != NO_TIME
        after = copy_record_key(data, keys[b, 0], keys[b, 1], out_key_bytes, used) if good else -1
        used = max(used, after)
        out_time[b] = time
        out_key_ends[b + 1] = np.int32(used)
        out_code[b] = 1 if after < 0 else 0
