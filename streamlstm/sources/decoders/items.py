"""What the items of a JSON text mean: the careful reading of objects and arrays, with numbers kept as they are written."""

import json
import re
from typing import Any

from streamlstm.kernels.decode.numbers import LONGEST
from streamlstm.kernels.decode.values import DEEPEST
from streamlstm.sources.decoders.cells import UnfitError, number_of_text, shown, time_of_text

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


class Number(str):
    """A number as it is written."""


class Integer(Number):
    """A number without point and exponent."""


def parsed(value: bytes | None) -> Any:
    """What `json.loads` makes of a value, but numbers as `Number`; UnfitError where it raises or a limit is passed."""
    if value is None:
        raise UnfitError("has no value")
    try:
        text = value.decode("utf-8")
        items = json.loads(
            text,
            parse_float=lambda token: Number(_short(token)),
            parse_int=lambda token: Integer(_short(token)),
            parse_constant=Number,
        )
    except UnicodeDecodeError as error:
        raise UnfitError(f"is not UTF-8 text ({error.reason} at byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise UnfitError(f"is not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise UnfitError(f"nests deeper than {DEEPEST} levels") from None
    if _depth(text) > DEEPEST:
        raise UnfitError(f"nests deeper than {DEEPEST} levels")
    return items


def item_number(name: str, value: Any) -> float:
    """The number that an item means, NaN for null; a truth value is 1 or 0."""
    if value is None:
        return float("nan")
    if isinstance(value, bool | Number):
        number = float(value)
        return number + 0.0 if isinstance(value, Integer) else number  # the integer -0 is 0
    if isinstance(value, str):
        return number_of_text(name, value)
    raise UnfitError(f"column {name!r}: {shown(json.dumps(value))} is not a number")


def item_time(name: str, value: Any, unit: str) -> int:
    """Nanoseconds of an item that is a number or text."""
    if value is None:
        raise UnfitError(f"column {name!r}: has no time")
    if not isinstance(value, str):
        raise UnfitError(f"column {name!r}: {shown(json.dumps(value))} is not a time")
    return time_of_text(name, value, unit)


def item_part(value: Any) -> str | None:
    """The text of a key or a part of one; None where the item is none."""
    if isinstance(value, bool):
        return json.dumps(value)
    return value if isinstance(value, str) else None


def _short(token: str) -> str:
    if len(token) > LONGEST:
        raise UnfitError(f"holds a number of {len(token)} characters; at most {LONGEST} are allowed")
    return token


def _depth(text: str) -> int:
    """Levels of a JSON text."""
    deepest = level = 0
    for mark in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        level += 1 if mark in "[{" else -1
        deepest = max(deepest, level)
    return deepest
