"""float64 values from decimal text: rounded exactly as Python rounds them, or declined.

A number of at most 2^53 times a power of ten up to 10^22 takes one correctly rounded operation (Clinger 1990); others the
128-bit product of Lemire, "Number Parsing at a Gigabyte per Second" (2021), sections 5 and 6. Declined are subnormal
results and numbers of more than 19 digits whose rounding depends on the digits beyond.
"""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.decode.words import byte, float64_of, leading_zeros, load, product_high

OK, NOT_A_NUMBER, UNCERTAIN = 0, 1, 2
"""Status of a number: its value is certain; the text is none; the careful reading decides."""
LONGEST = 4300
"""Characters of the longest number that any schema allows."""

LEAST_POWER, MOST_POWER = -342, 308


def _power_words():
    """128 bits of 5^q for each q, normalised to begin with a one; truncated, but rounded up for q of -27 to -1."""
    high, low = [], []
    for q in range(LEAST_POWER, MOST_POWER + 1):
        if q >= 0:
            power = 5**q
            shift = power.bit_length() - 128
            bits = power >> shift if shift > 0 else power << -shift
        else:
            power = 5**-q
            bits = (1 << (power.bit_length() + 127)) // power + (q >= -27)
        high.append(bits >> 64)
        low.append(bits & (2**64 - 1))
    return np.array(high, np.uint64), np.array(low, np.uint64)


_HIGH, _LOW = _power_words()
_TENS = np.array([float(10**k) for k in range(23)])
_U0, _U1, _U2, _U3, _U4, _U8, _U10, _U16, _U32, _U63 = (np.uint64(n) for n in (0, 1, 2, 3, 4, 8, 10, 16, 32, 63))
_EXACT = np.uint64(2**53)
_HIDDEN, _OVERFLOWN = np.uint64(2**52), np.uint64(2**53)
_NINE_BITS = np.uint64(0x1FF)
_ALL = np.uint64(2**64 - 1)
_SIGN = np.uint64(2**63)
_INFINITY_BITS = np.uint64(0x7FF << 52)
_EXPONENT_SHIFT = np.uint64(52)
_ROOM_FOR_ONE, _ROOM_FOR_EIGHT = np.uint64(10**18), np.uint64(10**11)
_TEN_8 = np.uint64(10**8)
_HIGH_NIBBLES, _SIXES, _THREES = (
    np.uint64(0xF0F0F0F0F0F0F0F0),
    np.uint64(0x0606060606060606),
    np.uint64(0x3333333333333333),
)
_ZEROS = np.uint64(0x3030303030303030)
_PAIRS = np.uint64(0x000000FF000000FF)
_MILLIONS, _UNITS = np.uint64(0x000F424000000064), np.uint64(0x0000271000000001)
_NAN = np.nan
_EXPONENT_BOUND = 100_000  # far beyond any float64, also after 4300 digits


@jit(inline=True)
def is_digit(code):
    """Whether an ASCII code is one of 0 to 9."""
    return np.uint8(code - np.uint8(48)) <= 9


@jit(inline=True)
def digits(data, at, end, mantissa):
    """Appends the digits from `at` on to `mantissa` uint64 while it has room for 19.

    Returns the place after the digits, the mantissa, how many digits it took, and whether it left out one that is not 0.
    """
    taken = 0
    while at + 8 <= end and mantissa < _ROOM_FOR_EIGHT:
        word = load(data, at)
        if ((word & _HIGH_NIBBLES) | (((word + _SIXES) & _HIGH_NIBBLES) >> _U4)) != _THREES:
            break
        word -= _ZEROS
        word = word * _U10 + (word >> _U8)
        eight = ((word & _PAIRS) * _MILLIONS + ((word >> _U16) & _PAIRS) * _UNITS) >> _U32
        mantissa = mantissa * _TEN_8 + eight
        taken += 8
        at += 8
    inexact = False
    while at < end and is_digit(byte(data, at)):
        if mantissa < _ROOM_FOR_ONE:
            mantissa = mantissa * _U10 + np.uint64(byte(data, at) - np.uint8(48))
            taken += 1
        elif byte(data, at) != 48:
            inexact = True
        at += 1
    return at, mantissa, taken, inexact


@jit(inline=True)
def exponent_part(data, at, end):
    """The exponent whose e or E stands at `at`, clamped to +-100 000, and the place after it, -1 if there is none."""
    at += 1
    negative = False
    if at < end and (byte(data, at) == 43 or byte(data, at) == 45):
        negative = byte(data, at) == 45
        at += 1
    if at >= end or not is_digit(byte(data, at)):
        return 0, -1
    value = 0
    while at < end and is_digit(byte(data, at)):
        value = min(value * 10 + np.int64(byte(data, at) - np.uint8(48)), _EXPONENT_BOUND)
        at += 1
    return (-value if negative else value), at


@jit(inline=True)
def scan_number(data, at, end):
    """A number of the JSON grammar that begins at `at`: value = +-mantissa 10^exponent.

    Returns the place after it (-1: there is none), negative, mantissa, exponent, inexact, and whether it is an integer.
    """
    negative = at < end and byte(data, at) == 45
    if negative:
        at += 1
    begin = at
    at, mantissa, taken, inexact = digits(data, at, end, _U0)
    count = at - begin
    if count == 0 or (count > 1 and byte(data, begin) == 48):
        return -1, negative, mantissa, 0, inexact, False
    exponent = count - taken
    integer = True
    if at < end and byte(data, at) == 46:
        integer = False
        begin = at + 1
        at, mantissa, taken, dropped = digits(data, begin, end, mantissa)
        if at == begin:
            return -1, negative, mantissa, 0, inexact, False
        exponent -= taken
        inexact = inexact or dropped
    if at < end and (byte(data, at) | np.uint8(32)) == 101:
        integer = False
        power, at = exponent_part(data, at, end)
        exponent += power
    return at, negative, mantissa, exponent, inexact, integer


@jit
def _rounded(mantissa, exponent):
    """Bits of mantissa 10^exponent rounded to even, mantissa > 0, and a status."""
    if exponent < LEAST_POWER:
        return _U0, OK  # below 10^19 10^-343, less than half of the least subnormal
    if exponent > MOST_POWER:
        return _INFINITY_BITS, OK
    zeros = leading_zeros(mantissa)
    factor = mantissa << np.uint64(zeros)
    index = exponent - LEAST_POWER
    low = factor * _HIGH[index]
    high = product_high(factor, _HIGH[index])
    if (high & _NINE_BITS) == _NINE_BITS:
        more = product_high(factor, _LOW[index])
        low += more
        if low < more:
            high += _U1
    if low == _ALL and (exponent < -27 or exponent > 55):
        return _U0, UNCERTAIN
    upper = high >> _U63
    shift = upper + np.uint64(9)
    bits = high >> shift  # 53 bits and one to round by
    power = ((217706 * exponent) >> 16) + 63 + np.int64(upper) - zeros + 1023
    if power <= 0:
        return _U0, UNCERTAIN
    if low <= _U1 and -4 <= exponent <= 23 and (bits & _U3) == _U1 and (bits << shift) == high:
        bits &= ~_U1  # exactly half way: to even
    bits = (bits + (bits & _U1)) >> _U1
    if bits >= _OVERFLOWN:
        bits = _HIDDEN
        power += 1
    if power >= 0x7FF:
        return _INFINITY_BITS, OK
    return (bits & ~_HIDDEN) | (np.uint64(power) << _EXPONENT_SHIFT), OK


@jit(inline=True)
def decimal_value(negative, mantissa, exponent, inexact):
    """+-mantissa 10^exponent as the nearest float64, and a status; `inexact`: the mantissa has been cut short."""
    if mantissa <= _EXACT and -22 <= exponent <= 22 and not inexact:
        value = np.float64(np.int64(mantissa))
        value = value * _TENS[exponent] if exponent >= 0 else value / _TENS[-exponent]
        return (-value if negative else value), OK
    if mantissa == _U0:
        return (-0.0 if negative else 0.0), OK
    bits, status = _rounded(mantissa, exponent)
    if inexact and status == OK:
        above, status = _rounded(mantissa + _U1, exponent)
        if above != bits:
            status = UNCERTAIN
    value = float64_of(bits)
    return (-value if negative else value), status


@jit
def parse_number(data, start, end):
    """The number of the JSON grammar in bytes start .. end, float64, and a status; an integer -0 is 0, as in Python."""
    at, negative, mantissa, exponent, inexact, integer = scan_number(data, start, end)
    if at != end:
        return _NAN, NOT_A_NUMBER
    if end - start > LONGEST:
        return _NAN, UNCERTAIN
    return decimal_value(negative and not (integer and mantissa == _U0), mantissa, exponent, inexact)


@jit(inline=True)
def _is_missing(data, start, end):
    size = end - start
    if size == 2:
        return byte(data, start) == 78 and byte(data, start + 1) == 65
    if size == 3:
        return (
            (byte(data, start) | np.uint8(32)) == 110
            and byte(data, start + 1) == 97
            and byte(data, start + 2) == byte(data, start)
        )
    return (
        size == 4
        and byte(data, start) == 110
        and byte(data, start + 1) == 117
        and byte(data, start + 2) == byte(data, start + 3) == 108
    )


@jit
def parse_text_number(data, start, end):
    """The number that a cell of text means, float64, and a status.

    Blanks around it are trimmed; empty, NaN, nan, null and NA are missing; a sign +, leading zeros and a bare point are
    allowed; infinities and nan(...) are left to the careful reading.
    """
    while start < end and (byte(data, start) == 32 or byte(data, start) == 9):
        start += 1
    while end > start and (byte(data, end - 1) == 32 or byte(data, end - 1) == 9):
        end -= 1
    if start == end or _is_missing(data, start, end):
        return _NAN, OK
    if end - start > LONGEST:
        return _NAN, UNCERTAIN
    negative = byte(data, start) == 45
    at = start + 1 if negative or byte(data, start) == 43 else start
    if at < end and (byte(data, at) | np.uint8(32)) in (105, 110):
        return _NAN, UNCERTAIN
    begin = at
    at, mantissa, taken, inexact = digits(data, at, end, _U0)
    count = at - begin
    exponent = count - taken
    if at < end and byte(data, at) == 46:
        begin = at + 1
        at, mantissa, taken, dropped = digits(data, begin, end, mantissa)
        count += at - begin
        exponent -= taken
        inexact = inexact or dropped
    if count > 0 and at < end and (byte(data, at) | np.uint8(32)) == 101:
        power, at = exponent_part(data, at, end)
        exponent += power
    if count == 0 or at != end:
        return _NAN, NOT_A_NUMBER
    return decimal_value(negative, mantissa, exponent, inexact)
