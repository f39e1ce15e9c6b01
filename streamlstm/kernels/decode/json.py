"""Columns from the values of Kafka records that are JSON objects.

| letter | size |
|---|---|
| B | records of a block |
| C | columns: I inputs, the time, then the parts of the key |
| E | names to look for: of fields, and of the objects that hold wanted fields |

A record is decoded only where every byte of it is plainly as it should be; every other one is declined, and the careful
reading of `sources/decoders/json.py` decides.
"""

from typing import NamedTuple

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.decode.numbers import OK, parse_text_number
from streamlstm.kernels.decode.places import place_key, record_time
from streamlstm.kernels.decode.text import is_ascii, is_utf8, unescape
from streamlstm.kernels.decode.times import parse_time
from streamlstm.kernels.decode.values import (
    DEEPEST,
    ESCAPED,
    NAN_WORD,
    NULL,
    NUMBER,
    STRING,
    name_at,
    read_scalar,
    skip_space,
    skip_value,
)
from streamlstm.kernels.decode.words import byte, load
from streamlstm.types import NO_TIME

_ROOT, _NONE = 0, -1
_NO_TIME = int(NO_TIME)
_U0, _U1, _U8 = np.uint64(0), np.uint64(1), np.uint64(8)
_BYTE_MASKS = np.array([(1 << 8 * n) - 1 for n in range(8)], np.uint64)
_MIX, _MIX_SIZE = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_FOLD = np.uint64(40)


class Names(NamedTuple):
    """What to look for, as arrays; made by `sources/decoders/json.py`.

    table    int32 (a power of two), open addressing by `name_hash`, -1 where free, else a name 0 .. E
    prefix   uint64 (E), the first eight bytes of the name
    bytes    uint8, all names one after another
    ends     int32 (E + 1)
    group    int32 (E), 0 in the root, else the number of the object in which the name is looked for
    column   int32 (E), the column of a field of this name, -1 for none
    child    int32 (E), the number of the object of this name, -1 for none
    """

    table: np.ndarray
    prefix: np.ndarray
    bytes: np.ndarray
    ends: np.ndarray
    group: np.ndarray
    column: np.ndarray
    child: np.ndarray


@jit(inline=True)
def prefix_of(data, start, end, limit):
    """The first eight bytes of start .. end, uint64, missing ones 0; bytes up to `limit` may be read."""
    size = end - start
    if size >= 8:
        return load(data, start)
    if start + 8 <= limit:
        return load(data, start) & _BYTE_MASKS[size]
    word = _U0
    for k in range(size):
        word |= np.uint64(byte(data, start + k)) << (np.uint64(k) * _U8)
    return word


@jit(inline=True)
def _hash(data, start, end, prefix, group):
    value = prefix ^ (np.uint64(end - start) * _MIX_SIZE) ^ (np.uint64(group) << _U1)
    if end - start > 8:
        value ^= load(data, end - 8) * _MIX_SIZE
    value *= _MIX
    return value >> _FOLD


@jit
def name_hash(data, start, end, group):
    """The hash of a name, bytes start .. end, in an object of number `group`."""
    return _hash(data, start, end, prefix_of(data, start, end, end), group)


@jit(inline=True)
def _find(data, start, end, limit, group, names):
    """The wanted name that bytes start .. end are, -1 for none."""
    prefix = prefix_of(data, start, end, limit)
    mask = np.uint64(names.table.shape[0] - 1)
    at = _hash(data, start, end, prefix, group) & mask
    while names.table[at] >= 0:
        e = np.int64(names.table[at])
        begin = np.int64(names.ends[e])
        size = end - start
        if names.prefix[e] == prefix and names.ends[e + 1] - begin == size and names.group[e] == group:
            same = True
            for k in range(8, size):
                same = same and names.bytes[begin + k] == byte(data, start + k)
            if same:
                return e
        at = (at + _U1) & mask
    return _NONE


@jit(inline=True)
def _wanted(data, start, end, escaped, limit, group, names, scratch):
    """The wanted name that a string, bytes start .. end, is, -1 for none."""
    if not escaped:
        return _find(data, start, end, limit, group, names)
    if end - start > scratch.shape[0]:
        return _NONE
    size = unescape(data, start, end, scratch, 0)
    return _NONE if size < 0 else _find(scratch, 0, size, size, group, names)


@jit(inline=True)
def _read_column(data, at, end, column, inputs, unit, time, out_parts, out_x):
    """Reads the scalar at `at` for a column (-1: none, only null is right); returns the record's time and the place after.

    The place is -1 where it is declined. Other arguments as in `read_object`.
    """
    kind, first, last, value, at = read_scalar(data, at, end)
    if at < 0 or (column == _NONE and kind != NULL):
        return time, -1
    if column == _NONE:
        return time, at
    if column < inputs:
        status = OK
        if kind == STRING:
            value, status = parse_text_number(data, first, last)
        out_x[column] = value
        return time, (at if status == OK and kind != ESCAPED else -1)
    if column == inputs:
        if kind == NULL:
            return _NO_TIME, at
        time, declined = parse_time(data, first, last, unit)
        return time, (at if declined == 0 and kind in (NUMBER, STRING) else -1)
    part = column - inputs - 1
    out_parts[part, 0], out_parts[part, 1] = first, last
    out_parts[part, 2] = kind if kind in (NULL, ESCAPED) else STRING
    return time, (-1 if kind == NAN_WORD else at)


@jit(inline=True)
def read_object(data, at, end, stamp, names, inputs, unit, seen, visited, scratch, out_parts, out_x):
    """Reads the object of a whole record, bytes at .. end; returns its time and whether it is decoded.

    stamp      a number that no record before had, for seen int64 (C) and visited int64 (groups + 1)
    scratch    uint8, room for a name with escapes
    out_parts  int64 (parts of the key, 3), written: first byte, end and kind of each that is found
    out_x      float64 (I), written: the values found; the others stay
    """
    time = _NO_TIME
    group = _ROOT
    at = skip_space(data, at, end)
    if at >= end or byte(data, at) != 123:
        return time, False
    at = skip_space(data, at + 1, end)
    fresh = True  # an object has just begun and may end at once
    while True:
        if not (fresh and at < end and byte(data, at) == 125):
            start, close, escaped, at = name_at(data, at, end)
            if at < 0:
                return time, False
            e = _wanted(data, start, close, escaped, end, group, names, scratch)
            if e == _NONE:
                at = skip_value(data, at, end, DEEPEST - (1 if group == _ROOT else 2))
            else:
                column, child = np.int64(names.column[e]), np.int64(names.child[e])
                if child != _NONE:
                    if visited[child] == stamp:  # twice: only the last one counts
                        return time, False
                    visited[child] = stamp
                if column != _NONE:
                    if group == _ROOT:
                        seen[column] = stamp
                    elif seen[column] == stamp:  # a field of the root that is named with the dot itself counts
                        return time, False
                elif byte(data, at) == 123:
                    group = child
                    at = skip_space(data, at + 1, end)
                    fresh = True
                    continue
                # A name of both a column and an object is right for both where it is null, and else for one at most.
                time, at = _read_column(
                    data, at, end, column if child == _NONE else _NONE, inputs, unit, time, out_parts, out_x
                )
            if at < 0:
                return time, False
        # After a value, or in an empty object: it ends, perhaps with the one around it, or goes on.
        at = skip_space(data, at, end)
        while at < end and byte(data, at) == 125:
            at = skip_space(data, at + 1, end)
            if group == _ROOT:
                return time, at == end
            group = _ROOT
        if at >= end or byte(data, at) != 44:
            return time, False
        at = skip_space(data, at + 1, end)
        fresh = False


@jit
def decode_json(
    data, values, keys, timestamp, names, inputs, unit, seen, visited, scratch, parts,
    out_time, out_x, out_key_bytes, out_key_ends, out_code,
):  # fmt: skip
    """Writes the columns of B records, each a JSON object, and code 0; or code 1 and an empty key where it declines.

    data, values, keys, timestamp  as in RawBlock
    unit   place of input.time_unit in `times.UNITS`, -1 to take the records' own times
    parts  int64 (parts of the key, 3), scratch; (0, 3) to take the records' own keys
    seen, visited, scratch  as in `read_object`
    """
    used = 0
    out_key_ends[0] = 0
    seen[:] = -1
    visited[:] = -1
    for b in range(values.shape[0]):
        start, end = values[b, 0], values[b, 1]
        out_x[b, :] = np.nan
        for p in range(parts.shape[0]):
            parts[p, 2] = NULL
        time, good = _NO_TIME, start >= 0 and (is_ascii(data, start, end) or is_utf8(data, start, end))
        if good:
            time, good = read_object(data, start, end, b, names, inputs, unit, seen, visited, scratch, parts, out_x[b])
        if unit < 0:
            time, timed = record_time(timestamp[b])
        else:
            timed = time != _NO_TIME
        after = place_key(data, keys[b, 0], keys[b, 1], parts, out_key_bytes, used) if good and timed else -1
        used = max(used, after)
        out_time[b] = time
        out_key_ends[b + 1] = np.int32(used)
        out_code[b] = 0 if after >= 0 else 1
