"""int64 nanoseconds since 1970 UTC from one cell; `sources/times.py` says what a time is.

The common forms alone: YYYY-MM-DD[T ]HH:MM:SS[.d to .ddddddddd][Z or +-HH:MM] and numbers without an exponent. Everything
else is declined and left to the careful reading.
"""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.decode.numbers import digits, is_digit
from streamlstm.kernels.decode.words import byte

UNITS = ("auto", "iso", "s", "ms", "us", "ns")
"""The settings of `input.time_unit`; kernels take their places in this list."""
_AUTO, _ISO, _S, _NS = 0, 1, 2, 5
_FACTORS = np.array([0, 0, 10**9, 10**6, 10**3, 1], np.int64)
_TENS = np.array([10**k for k in range(10)], np.int64)
_BOUNDS = np.array([0, 0, 10**11, 10**14, 10**17, 2**63 - 1], np.int64)
_LIMIT = 2**63 - 1
_SPACING = 16  # of float64 at 10^17: a number that close below a bound may be rounded up to it
_DAY_NS, _SECOND_NS = 86_400 * 10**9, 10**9
_U0 = np.uint64(0)
_MOST_DIGITS = 18


@jit(inline=True)
def _two(data, at):
    """The number that two digits write, -1 where they are none."""
    if not (is_digit(byte(data, at)) and is_digit(byte(data, at + 1))):
        return -1
    return (np.int64(byte(data, at)) - 48) * 10 + np.int64(byte(data, at + 1)) - 48


@jit(inline=True)
def _days(year, month, day):
    """Days since 1970-01-01 in the Gregorian calendar, which here begins its years in March."""
    if month <= 2:
        year -= 1
        month += 12
    century = year // 100
    return 365 * year + year // 4 - century + century // 4 + (153 * (month - 3) + 2) // 5 + day - 719_469


@jit(inline=True)
def _days_of(year, month):
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


@jit
def _iso(data, start, end):
    century, rest, month, day = _two(data, start), _two(data, start + 2), _two(data, start + 5), _two(data, start + 8)
    hour, minute, second = _two(data, start + 11), _two(data, start + 14), _two(data, start + 17)
    if min(century, rest, month, day, hour, minute, second) < 0:
        return 0, 1
    marks = (
        byte(data, start + 4) == 45
        and byte(data, start + 7) == 45
        and byte(data, start + 13) == 58
        and byte(data, start + 16) == 58
    )
    if not marks or (byte(data, start + 10) != 84 and byte(data, start + 10) != 32):
        return 0, 1
    year = century * 100 + rest
    if year < 1678 or year > 2261 or month < 1 or month > 12 or day < 1 or day > _days_of(year, month):
        return 0, 1
    if hour > 23 or minute > 59 or second > 59:
        return 0, 1
    at = start + 19
    fraction = 0
    if at < end and byte(data, at) == 46:
        begin = at + 1
        at, parsed, taken, _ = digits(data, begin, end, _U0)
        if at == begin or at - begin > 9:
            return 0, 1
        fraction = np.int64(parsed) * _TENS[9 - taken]
    offset = 0
    if at < end and byte(data, at) == 90:
        at += 1
    elif at + 6 == end and (byte(data, at) == 43 or byte(data, at) == 45) and byte(data, at + 3) == 58:
        hours, minutes = _two(data, at + 1), _two(data, at + 4)
        if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
            return 0, 1
        offset = (hours * 60 + minutes) * (60 if byte(data, at) == 43 else -60)
        at = end
    if at != end:
        return 0, 1
    seconds = hour * 3600 + minute * 60 + second - offset
    return _days(year, month, day) * _DAY_NS + seconds * _SECOND_NS + fraction, 0


@jit
def parse_time(data, start, end, unit):
    """The time in bytes start .. end, int64 nanoseconds, and 0; or 0 and 1 where it is declined.

    `unit` is a place in UNITS; with auto a cell decides by itself: ISO 8601, or a number by its magnitude.
    """
    if end - start >= 19 and byte(data, start + 4) == 45:
        return _iso(data, start, end) if unit <= _ISO else (0, 1)
    if unit == _ISO or start >= end:
        return 0, 1
    negative = byte(data, start) == 45
    begin = start + 1 if negative else start
    at, mantissa, taken, _ = digits(data, begin, end, _U0)
    if taken == 0 or at - begin > _MOST_DIGITS:
        return 0, 1
    whole = np.int64(mantissa)
    fraction, decimals = 0, 0
    if at < end and byte(data, at) == 46:
        begin = at + 1
        at, mantissa, decimals, _ = digits(data, begin, end, _U0)
        if decimals == 0 or at - begin > 9:
            return 0, 1
        fraction = np.int64(mantissa)
    if at != end:
        return 0, 1
    if unit == _AUTO:
        unit = _S
        while whole >= _BOUNDS[unit]:
            unit += 1
        if unit < _NS and whole >= _BOUNDS[unit] - _SPACING:
            return 0, 1
    factor = _FACTORS[unit]
    fraction *= _TENS[9 - decimals]  # now billionths of the unit
    if fraction % (_SECOND_NS // factor) != 0 or whole >= _LIMIT // factor:
        return 0, 1
    value = whole * factor + fraction // (_SECOND_NS // factor)
    return (-value if negative else value), 0
