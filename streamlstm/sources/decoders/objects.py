"""Records that are Python objects by name, for decoders without a kernel."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from streamlstm.config.schema import Input
from streamlstm.sources.decoders.cells import (
    UnfitError,
    joined_key,
    key_names,
    key_of_record,
    number_of_text,
    time_of_record,
    time_of_text,
)
from streamlstm.sources.decoders.protocol import Draft, Event, OnDeadLetter, finish
from streamlstm.types import Columns, EventBatch, RawBlock

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBERS: tuple[Any, ...] = (Real, Decimal, np.bool_)
_TRUTH = (bool, np.bool_)


class ObjectReading:
    """What the objects of records mean under the settings `input`."""

    def __init__(self, settings: Input) -> None:
        self.keys = key_names(settings)
        self.inputs = (*settings.features, *settings.exogenous)
        self.columns = Columns(settings.time, "/".join(self.keys) or None, settings.features, settings.exogenous)

    def batch(
        self, block: RawBlock, values: Callable[[int], Mapping[str, Any]], unit: str, on_dead_letter: OnDeadLetter
    ) -> tuple[EventBatch, int]:
        """The good records of a block, and how many infinite values became missing.

        `values` gives the wanted objects of the record at a position, absent or None where missing, or raises UnfitError.
        """

        def careful(at: int) -> Event | str:
            try:
                return self._event(block, at, values(at), unit)
            except UnfitError as error:
                return str(error)

        draft = Draft.empty(len(block), len(self.inputs), 0)
        draft.code[:] = 1
        return finish(block, draft, careful, on_dead_letter)

    def _event(self, block: RawBlock, at: int, values: Mapping[str, Any], unit: str) -> Event:
        timed = self.columns.time
        time = time_of_record(block, at) if timed is None else object_time(timed, values.get(timed), unit)
        if self.keys:
            key = joined_key(self.keys, [object_part(name, values.get(name)) for name in self.keys])
        else:
            key = key_of_record(block, at)
        return Event(time, tuple(object_number(name, values.get(name)) for name in self.inputs), key)


def object_number(name: str, value: Any) -> float:
    """The number that an object means, NaN for None; a truth value is 1 or 0; an infinity where float64 ends."""
    if value is None:
        return float("nan")
    if isinstance(value, str):
        return number_of_text(name, value)
    if not isinstance(value, _NUMBERS):
        raise UnfitError(f"column {name!r}: a {type(value).__name__} is not a number")
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def object_time(name: str, value: Any, unit: str) -> int:
    """Nanoseconds of a number in `unit`, of text, or of a datetime, which without a zone is UTC."""
    if value is None:
        raise UnfitError(f"column {name!r}: has no time")
    if isinstance(value, str):
        return time_of_text(name, value, unit)
    if isinstance(value, datetime):
        zoned = value if value.tzinfo else value.replace(tzinfo=UTC)
        return time_of_text(name, str((zoned - _EPOCH) // timedelta(microseconds=1)), "us")
    if isinstance(value, _TRUTH) or not isinstance(value, Real):
        raise UnfitError(f"column {name!r}: a {type(value).__name__} is not a time")
    number = object_number(name, value)
    if not abs(number) < 2.0**63:
        raise UnfitError(f"column {name!r}: {number!r} lies outside the years 1678 to 2261 in every unit")
    return time_of_text(name, str(value), unit)


def object_part(name: str, value: Any) -> str | None:
    """The text of a key or a part of one; None where there is none."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, _TRUTH):
        return "true" if value else "false"
    if isinstance(value, Real):
        return str(value)
    raise UnfitError(f"column {name!r}: a {type(value).__name__} is no key; keys are text or numbers")
