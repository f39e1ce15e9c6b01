"""What stands at each place of a record that has no names in it: an array, a line of CSV, packed numbers.

`places` int32 (C) has one entry per place: an index into the record's row of x, or one of the numbers below.
"""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.decode.text import copy_record_key
from streamlstm.kernels.decode.values import write_key
from streamlstm.types import NO_TIME

IGNORED, TIME, KEY = -1, -2, -3
"""KEY - n is part n of the key."""

_MS = 1_000_000
_LATEST_MS = (2**63 - 1) // _MS


@jit(inline=True)
def record_time(timestamp):
    """A record's own time in ns, NO_TIME for none, and whether int64 holds it."""
    if timestamp < 0:
        return np.int64(NO_TIME), True
    return timestamp * _MS, timestamp <= _LATEST_MS


@jit(inline=True)
def place_key(data, start, end, parts, out, at):
    """Writes the key of `parts` int64 (P, 3), or for P = 0 bytes start .. end; returns the place after it, -1 for none."""
    if parts.shape[0] == 0:
        return copy_record_key(data, start, end, out, at)
    return write_key(data, parts, out, at)
