"""JSON values of any kind, one at a time: read where they are wanted, checked and passed over where they are not.

All of it declines what is not plainly right by the place -1.
"""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.decode.numbers import LONGEST, OK, decimal_value, is_digit, scan_number
from streamlstm.kernels.decode.text import string_end, unescape
from streamlstm.kernels.decode.words import byte, copy

DEEPEST = 64
"""Levels of nesting that any schema allows."""
NULL, TRUE, FALSE, NAN_WORD, NUMBER, STRING, ESCAPED = 0, 1, 2, 3, 4, 5, 6
"""Kinds of scalars; a string with a backslash in it is ESCAPED."""
_U0, _U1 = np.uint64(0), np.uint64(1)
_NULL_LETTERS, _TRUE_LETTERS, _FALSE_LETTERS = (np.frombuffer(word, np.uint8) for word in (b"null", b"true", b"false"))


@jit(inline=True)
def skip_space(data, at, end):
    """The place of the first byte from `at` on that is no white space of JSON, at most `end`."""
    while at < end and (byte(data, at) == 32 or byte(data, at) == 10 or byte(data, at) == 13 or byte(data, at) == 9):
        at += 1
    return at


@jit(inline=True)
def _word_end(data, at, end, letters):
    """The place after a word that stands at `at`, -1 if it does not."""
    size = letters.shape[0]
    if at + size > end:
        return -1
    for k in range(size):
        if byte(data, at + k) != letters[k]:
            return -1
    return at + size


@jit(inline=True)
def plain_word(data, at, end):
    """null, true, false or NaN at `at`: which, and the place after it, -1 for none of them."""
    first = byte(data, at)
    if first == 110:
        return NULL, _word_end(data, at, end, _NULL_LETTERS)
    if first == 116:
        return TRUE, _word_end(data, at, end, _TRUE_LETTERS)
    if first == 102:
        return FALSE, _word_end(data, at, end, _FALSE_LETTERS)
    if at + 3 <= end and first == 78 and byte(data, at + 1) == 97 and byte(data, at + 2) == 78:
        return NAN_WORD, at + 3
    return NULL, -1


@jit(inline=True)
def read_scalar(data, at, end):
    """The scalar that begins at `at`: kind, first byte and end of its text, value if it is a number, place after it.

    The value of true is 1, of false 0, of others NaN.
    """
    first = byte(data, at)
    if first == 45 or is_digit(first):
        stop, negative, mantissa, exponent, inexact, integer = scan_number(data, at, end)
        if stop < 0 or stop - at > LONGEST:
            return NUMBER, at, at, np.nan, -1
        minus = negative and not (integer and mantissa == _U0)  # the integer -0 is 0 in Python
        value, status = decimal_value(minus, mantissa, exponent, inexact)
        return NUMBER, at, stop, value, (stop if status == OK else -1)
    if first == 34:
        stop, escaped = string_end(data, at + 1, end)
        return (ESCAPED if escaped else STRING), at + 1, stop, np.nan, (stop + 1 if stop >= 0 else -1)
    kind, stop = plain_word(data, at, end)
    return kind, at, stop, (1.0 if kind == TRUE else 0.0 if kind == FALSE else np.nan), stop


@jit(inline=True)
def name_at(data, at, end):
    """The name whose quote stands at `at`: where its content begins and ends, whether it has escapes, where the value is.

    The last is -1 if no name with a colon and something after it stands there.
    """
    if at >= end or byte(data, at) != 34:
        return 0, 0, False, -1
    start = at + 1
    close, escaped = string_end(data, start, end)
    if close < 0:
        return 0, 0, False, -1
    at = skip_space(data, close + 1, end)
    if at >= end or byte(data, at) != 58:
        return 0, 0, False, -1
    at = skip_space(data, at + 1, end)
    return start, close, escaped, (at if at < end else -1)


@jit
def skip_value(data, at, end, room):
    """The place after the value that begins at `at`, -1 if it is not plainly one of at most `room` levels."""
    depth = 0
    objects = _U0  # a bit per open level, the innermost lowest
    while True:
        at = skip_space(data, at, end)
        if at >= end:
            return -1
        first = byte(data, at)
        opened = False
        if first == 123 or first == 91:
            if depth == room:
                return -1
            depth += 1
            objects = (objects << _U1) | (_U1 if first == 123 else _U0)
            at = skip_space(data, at + 1, end)
            opened = at < end and byte(data, at) != first + 2
        elif first == 34:
            at, _ = string_end(data, at + 1, end)
            if at < 0:
                return -1
            at += 1
        elif first == 45 or is_digit(first):
            begin = at
            at, _, _, _, _, _ = scan_number(data, at, end)
            if at < 0 or at - begin > LONGEST:
                return -1
        else:
            _, at = plain_word(data, at, end)
            if at < 0:
                return -1
        while not opened:
            if depth == 0:
                return at
            at = skip_space(data, at, end)
            if at >= end:
                return -1
            if byte(data, at) == 44:
                at = skip_space(data, at + 1, end)
                opened = True
            elif byte(data, at) == (125 if objects & _U1 else 93):
                depth -= 1
                objects >>= _U1
                at += 1
            else:
                return -1
        if objects & _U1:
            _, _, _, at = name_at(data, at, end)
            if at < 0:
                return -1


@jit
def write_key(data, parts, out, at):
    """Writes the key of its parts (n, 3) to `out` from `at` on; returns the place after it, -1 if a part is missing.

    Several parts are joined by /, and in each % is written %25 and / is written %2F.
    """
    several = parts.shape[0] > 1
    for p in range(parts.shape[0]):
        start, end, kind = parts[p, 0], parts[p, 1], parts[p, 2]
        if kind == NULL or start == end:
            return -1
        if p > 0:
            out[at] = 47
            at += 1
        if not several:
            return copy(data, start, end, out, at) if kind == STRING else unescape(data, start, end, out, at)
        # Behind the room that the part can take, so that it can be read from there while it is written.
        begin = at + 2 * (end - start)
        if kind == STRING:
            stop = copy(data, start, end, out, begin)
        else:
            stop = unescape(data, start, end, out, begin)
            if stop < 0:
                return -1
        for k in range(begin, stop):
            code = out[k]
            if code == 37 or code == 47:
                out[at] = 37
                out[at + 1] = 50
                out[at + 2] = 53 if code == 37 else 70
                at += 3
            else:
                out[at] = code
                at += 1
    return at
