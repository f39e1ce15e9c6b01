"""Lines of CSV (RFC 4180) to columns: one record per value, cells by their places."""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.decode.numbers import OK, parse_text_number
from streamlstm.kernels.decode.places import KEY, TIME, place_key, record_time
from streamlstm.kernels.decode.text import is_ascii, is_utf8
from streamlstm.kernels.decode.times import parse_time
from streamlstm.kernels.decode.values import STRING

_QUOTE, _NEWLINE, _RETURN = 34, 10, 13


@jit(inline=True)
def _trimmed(data, start, end):
    """The span without blanks around it."""
    while start < end and (data[start] == 32 or data[start] == 9):
        start += 1
    while end > start and (data[end - 1] == 32 or data[end - 1] == 9):
        end -= 1
    return start, end


@jit(inline=True)
def next_cell(data, at, end, separator):
    """Content of the cell that begins at `at`, first byte and end, and the place of the separator or `end` after it.

    The last is -1 for a cell with a doubled quote, text after its closing quote, no closing quote or a line break outside
    quotes, all of which the careful reading judges.
    """
    if at < end and data[at] == _QUOTE:
        start = at + 1
        at = start
        while at < end and data[at] != _QUOTE:
            at += 1
        if at >= end or (at + 1 < end and data[at + 1] != separator):
            return start, at, np.int64(-1)
        return start, at, at + 1
    start = at
    while at < end and data[at] != separator:
        if data[at] == _NEWLINE or data[at] == _RETURN:
            return start, at, np.int64(-1)
        at += 1
    return start, at, at


@jit
def decode_line(data, start, end, separator, places, unit, time, parts, out_x):
    """Writes one record's row of x and the parts of its key (see `write_key`).

    Returns its time, `time` where it stands at no place, and whether the record is decoded.
    """
    if not (is_ascii(data, start, end) or is_utf8(data, start, end)):
        return time, False
    if end > start and data[end - 1] == _NEWLINE:
        end -= 1
        if end > start and data[end - 1] == _RETURN:
            end -= 1
    at = start
    for c in range(places.shape[0]):
        first, last, at = next_cell(data, at, end, separator)
        if at < 0 or (at < end) != (c + 1 < places.shape[0]):
            return time, False
        at += 1
        place = places[c]
        if place >= 0:
            value, status = parse_text_number(data, first, last)
            if status != OK:
                return time, False
            out_x[place] = value
        elif place == TIME:
            first, last = _trimmed(data, first, last)
            time, declined = parse_time(data, first, last, unit)
            if declined != 0:
                return time, False
        elif place <= KEY:
            parts[KEY - place, 0], parts[KEY - place, 1], parts[KEY - place, 2] = first, last, STRING
    return time, True


@jit
def decode_delimited(
    data,
    keys,
    values,
    timestamp,
    separator,
    places,
    unit,
    parts,
    out_time,
    out_x,
    out_key_bytes,
    out_key_ends,
    out_code,
):
    """Writes the columns of B records whose values are lines with one cell per entry of `places`.

    unit: a place in `times.UNITS`. parts int64 (P, 3) is room for a key of P parts (see `write_key`); P = 0 takes the record's
    key. out_code is 0 or, for a record that the careful reading must look at, 1; then its key is empty.
    """
    used = 0
    out_key_ends[0] = 0
    for b in range(values.shape[0]):
        time, good = record_time(timestamp[b])
        good = good and values[b, 0] >= 0
        if good:
            time, good = decode_line(data, values[b, 0], values[b, 1], separator, places, unit, time, parts, out_x[b])
        after = place_key(data, keys[b, 0], keys[b, 1], parts, out_key_bytes, used) if good else -1
        used = max(used, after)
        out_time[b] = time
        out_key_ends[b + 1] = np.int32(used)
        out_code[b] = 1 if after < 0 else 0
