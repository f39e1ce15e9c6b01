"""Columns from the values of Kafka records that are JSON arrays with one item per place.

As with objects, a record is decoded only where every byte of it is plainly as it should be.
"""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.decode.numbers import OK, parse_text_number
from streamlstm.kernels.decode.places import IGNORED, KEY, TIME, place_key, record_time
from streamlstm.kernels.decode.text import is_ascii, is_utf8
from streamlstm.kernels.decode.times import parse_time
from streamlstm.kernels.decode.values import (
    DEEPEST,
    ESCAPED,
    NAN_WORD,
    NULL,
    NUMBER,
    STRING,
    read_scalar,
    skip_space,
    skip_value,
)


@jit
def decode_array(data, start, end, places, unit, time, parts, out_x):
    """Writes one record's row of x and the parts of its key (see `write_key`).

    Returns its time, `time` where it stands at no place, and whether the record is decoded.
    """
    at = skip_space(data, start, end)
    if at >= end or data[at] != 91 or not (is_ascii(data, start, end) or is_utf8(data, start, end)):
        return time, False
    for c in range(places.shape[0]):
        at = skip_space(data, at + 1, end)  # behind the bracket or the comma
        if at >= end:
            return time, False
        place = places[c]
        if place == IGNORED:
            at = skip_value(data, at, end, DEEPEST - 1)
        else:
            kind, first, last, value, at = read_scalar(data, at, end)
            if at < 0:
                return time, False
            if place >= 0:
                if kind == STRING:
                    value, status = parse_text_number(data, first, last)
                    at = at if status == OK else -1
                elif kind == ESCAPED:
                    at = -1
                out_x[place] = value
            elif place == TIME:
                time, declined = parse_time(data, first, last, unit)
                if declined != 0 or kind not in (NUMBER, STRING):
                    return time, False
            elif kind == NAN_WORD:
                return time, False
            else:
                part = KEY - place
                parts[part, 0], parts[part, 1] = first, last
                parts[part, 2] = kind if kind in (NULL, ESCAPED) else STRING
        if at < 0:
            return time, False
        at = skip_space(data, at, end)
        if at >= end or data[at] != (44 if c + 1 < places.shape[0] else 93):
            return time, False
    return time, skip_space(data, at + 1, end) == end


@jit
def decode_arrays(
    data, keys, values, timestamp, places, unit, parts, out_time, out_x, out_key_bytes, out_key_ends, out_code
):
    """Writes the columns of B records whose values are JSON arrays with one item per entry of `places`.

    unit: a place in `times.UNITS`. parts int64 (P, 3) is room for a key of P parts; P = 0 takes the record's key.
    out_code is 0 or, for a record that the careful reading must look at, 1; then its key is empty.
    """
    used = 0
    out_key_ends[0] = 0
    for b in range(values.shape[0]):
        time, good = record_time(timestamp[b])
        good = good and values[b, 0] >= 0
        if good:
            time, good = decode_array(data, values[b, 0], values[b, 1], places, unit, time, parts, out_x[b])
        after = place_key(data, keys[b, 0], keys[b, 1], parts, out_key_bytes, used) if good else -1
        used = max(used, after)
        out_time[b] = time
        out_key_ends[b + 1] = np.int32(used)
        out_code[b] = 1 if after < 0 else 0
