"""Points in time as people write them."""

import re
from datetime import UTC, datetime

from streamlstm.errors import UsageError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BEYOND_MICROSECONDS = re.compile(r"[.,]\d{6}(\d{1,3})")
_INT64 = 2**63 - 1


def parse_time(text: str) -> int:
    """Nanoseconds since 1970 UTC of an ISO 8601 time, read as UTC if it has no offset; ValueError says why not."""
    text = text.strip()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an ISO 8601 time such as 2024-05-01T12:30:00") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    since = moment - _EPOCH
    ns = ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
    digits = _BEYOND_MICROSECONDS.search(text)  # datetime cuts them off, and an inclusive end may need them
    ns += int(digits.group(1).ljust(3, "0")) if digits else 0
    if abs(ns) > _INT64:
        raise ValueError(f"{text!r} is outside the years 1678 to 2261, which 64-bit nanoseconds can hold")
    return ns


def parse_start(text: str, name: str = "start") -> int | float:
    """From when on records count, as `Evaluation` takes it: a fraction 0 to 1 as float, a time in ns as int.

    `name` is what a message calls it.
    """
    try:
        fraction = float(text)
    except ValueError:
        fraction = None
    if fraction is not None and 0 <= fraction < 1:
        return fraction
    try:
        return parse_time(text)
    except ValueError as problem:
        raise UsageError(f"{name}: {problem}; give a time or a fraction of each stream from 0 to below 1") from None
