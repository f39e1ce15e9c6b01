"""UTF-8, and strings as JSON writes them."""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.decode.words import byte, copy, load, trailing_zeros

_HIGH_BITS = np.uint64(0x8080808080808080)
_ONES = np.uint64(0x0101010101010101)
_QUOTES, _BACKSLASHES = np.uint64(0x2222222222222222), np.uint64(0x5C5C5C5C5C5C5C5C)
_BLANKS = np.uint64(0x2020202020202020)
_U0 = np.uint64(0)


@jit(inline=True)
def is_ascii(data, start, end):
    """Whether bytes start .. end are all below 128."""
    bits = _U0
    at = start
    while at + 8 <= end:
        bits |= load(data, at)
        at += 8
    while at < end:
        bits |= np.uint64(byte(data, at))
        at += 1
    return (bits & _HIGH_BITS) == _U0


@jit(inline=True)
def _is_tail(data, at, end):
    return at < end and (byte(data, at) & np.uint8(0xC0)) == 0x80


@jit
def is_utf8(data, start, end):
    """Whether bytes start .. end are UTF-8: no overlong form, no surrogate, nothing above U+10FFFF."""
    at = start
    while at < end:
        first = byte(data, at)
        if first < 0x80:
            at += 1
        elif first < 0xC2:
            return False
        elif first < 0xE0:
            if not _is_tail(data, at + 1, end):
                return False
            at += 2
        elif first < 0xF0:
            if not (_is_tail(data, at + 1, end) and _is_tail(data, at + 2, end)):
                return False
            second = byte(data, at + 1)
            if (first == 0xE0 and second < 0xA0) or (first == 0xED and second > 0x9F):
                return False
            at += 3
        else:
            if not (_is_tail(data, at + 1, end) and _is_tail(data, at + 2, end) and _is_tail(data, at + 3, end)):
                return False
            second = byte(data, at + 1)
            if first > 0xF4 or (first == 0xF0 and second < 0x90) or (first == 0xF4 and second > 0x8F):
                return False
            at += 4
    return True


@jit(inline=True)
def copy_record_key(data, start, end, out, at):
    """Writes a record's key, bytes start .. end, to `out` from `at` on; returns the place after it.

    -1 for a key that is absent (start < 0), empty or not UTF-8.
    """
    if start < 0 or start >= end or not (is_ascii(data, start, end) or is_utf8(data, start, end)):
        return -1
    return copy(data, start, end, out, at)


@jit(inline=True)
def hex4(data, at, end):
    """The number that four hexadecimal digits at `at` write, -1 where they are not four."""
    if at + 4 > end:
        return -1
    value = 0
    for k in range(4):
        code = np.int64(byte(data, at + k))
        letter = code | 32
        if 48 <= code <= 57:
            value = value * 16 + code - 48
        elif 97 <= letter <= 102:
            value = value * 16 + letter - 87
        else:
            return -1
    return value


@jit(inline=True)
def _special(word):
    """A one in the highest bit of the first byte that is a quote, a backslash or a control character, or 0.

    Bytes above the first such may be marked wrongly.
    """
    quotes, backslashes = word ^ _QUOTES, word ^ _BACKSLASHES
    found = ((quotes - _ONES) & ~quotes) | ((backslashes - _ONES) & ~backslashes) | ((word - _BLANKS) & ~word)
    return found & _HIGH_BITS


@jit(inline=True)
def string_end(data, at, end):
    """The place of the quote that ends the string whose content begins at `at`, -1 for none; whether it has escapes.

    -1 also for a control character and for an escape that JSON does not have.
    """
    escaped = False
    while True:
        found = _U0
        while at + 8 <= end:
            found = _special(load(data, at))
            if found != _U0:
                at += trailing_zeros(found) >> 3
                break
            at += 8
        while at < end and byte(data, at) >= 32 and byte(data, at) != 34 and byte(data, at) != 92:
            at += 1
        if at >= end or byte(data, at) < 32:
            return -1, escaped
        if byte(data, at) == 34:
            return at, escaped
        escaped = True
        if at + 1 >= end:
            return -1, escaped
        letter = byte(data, at + 1)
        if letter == 117:
            if hex4(data, at + 2, end) < 0:
                return -1, escaped
            at += 6
        elif _plain_escape(letter) >= 0:
            at += 2
        else:
            return -1, escaped


@jit(inline=True)
def _plain_escape(letter):
    """The character that a backslash and `letter` write, -1 where JSON has no such escape."""
    if letter == 34 or letter == 92 or letter == 47:
        return np.int64(letter)
    if letter == 110:
        return 10
    if letter == 116:
        return 9
    if letter == 114:
        return 13
    if letter == 98:
        return 8
    if letter == 102:
        return 12
    return -1


@jit
def unescape(data, start, end, out, at):
    """Writes a string's content, bytes start .. end as `string_end` accepts them, in UTF-8 to `out` from `at` on.

    Returns the place after it, -1 for half a surrogate pair. Never writes more than end - start bytes.
    """
    while start < end:
        if byte(data, start) != 92:
            out[at] = byte(data, start)
            start += 1
            at += 1
            continue
        letter = byte(data, start + 1)
        if letter != 117:
            out[at] = np.uint8(_plain_escape(letter))
            start += 2
            at += 1
            continue
        code = hex4(data, start + 2, end)
        start += 6
        if 0xD800 <= code < 0xE000:
            if code >= 0xDC00 or start + 6 > end or byte(data, start) != 92 or byte(data, start + 1) != 117:
                return -1
            second = hex4(data, start + 2, end)
            if second < 0xDC00 or second >= 0xE000:
                return -1
            code = 0x10000 + ((code - 0xD800) << 10) + second - 0xDC00
            start += 6
        at = _write_character(code, out, at)
    return at


@jit(inline=True)
def _write_character(code, out, at):
    if code < 0x80:
        out[at] = np.uint8(code)
        return at + 1
    if code < 0x800:
        out[at] = np.uint8(0xC0 | (code >> 6))
        out[at + 1] = np.uint8(0x80 | (code & 63))
        return at + 2
    if code < 0x10000:
        out[at] = np.uint8(0xE0 | (code >> 12))
        out[at + 1] = np.uint8(0x80 | ((code >> 6) & 63))
        out[at + 2] = np.uint8(0x80 | (code & 63))
        return at + 3
    out[at] = np.uint8(0xF0 | (code >> 18))
    out[at + 1] = np.uint8(0x80 | ((code >> 12) & 63))
    out[at + 2] = np.uint8(0x80 | ((code >> 6) & 63))
    out[at + 3] = np.uint8(0x80 | (code & 63))
    return at + 4
