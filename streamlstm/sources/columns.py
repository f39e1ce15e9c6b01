"""Which column means what: from the configuration, else from names and the first records."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches

import numpy as np
import pyarrow as pa

from streamlstm.config import schema
from streamlstm.errors import InputError
from streamlstm.sources.numbers import floats, holds_numbers, holds_text
from streamlstm.sources.protocol import Sample, Wanted
from streamlstm.sources.times import TimeFormat, detect
from streamlstm.types import Columns

TIME_NAMES = ("timestamp", "time")
KEY_NAME = "key"


class NoColumnError(InputError):
    """A file without a column that it must have."""


def choose(
    sample: Sample, source: str, settings: schema.Input, label: str | None, on_note: Callable[[str], None]
) -> Columns:
    """The columns of the first file, which fixes them; InputError if a named one or every feature is absent."""
    names = tuple(sample.columns)
    time = settings.time or next((name for name in TIME_NAMES if name in names), None)
    if isinstance(settings.key, tuple):
        raise InputError(f"{source}: input.key names several fields, which is for messages; a file has one key column")
    key = settings.key or (KEY_NAME if KEY_NAME in names else None)
    taken = {time, key, label, *settings.exogenous}
    if label is not None and label in {settings.time, settings.key, *settings.features, *settings.exogenous}:
        raise InputError(f"{source}: column {label!r} is the label and cannot mean anything else; name it once")
    features = settings.features or tuple(
        name for name in names if name not in taken and _is_feature(name, sample, source, on_note)
    )
    if not features:
        raise InputError(
            f"{source}: no column is a feature; there must be a numeric column beside time, key and label; "
            f"{_listing(names)}"
        )
    columns = Columns(time, key, features, settings.exogenous, label)
    require(columns, sample, source)
    return columns


def require(columns: Columns, sample: Sample, source: str) -> None:
    """Raises InputError unless the sample has all `columns`, in types that can hold what they mean."""
    names = tuple(sample.columns)
    wanted = Wanted(columns, None)
    for name in wanted.names:
        if name not in names:
            near = get_close_matches(name, names, 1)
            nearest = f"; nearest: {near[0]!r}" if near else ""
            raise NoColumnError(f"{source}: no column {name!r}; {_listing(names)}{nearest}")
    for name in wanted.numbers:
        kind = sample.columns[name].type
        if not holds_numbers(kind) and not holds_text(kind):
            raise InputError(f"{source}: column {name!r} is of type {kind}; a feature or label must hold numbers")
    if columns.key is not None and pa.types.is_nested(sample.columns[columns.key].type):
        raise InputError(f"{source}: column {columns.key!r} is nested; a key must be text or a number")


def time_format(columns: Columns, sample: Sample, source: str, settings: schema.Input) -> TimeFormat | None:
    """How this file writes times, None without a time column; InputError if nothing in the sample is a time."""
    if columns.time is None:
        return None
    cells = sample.columns[columns.time]
    if pa.types.is_timestamp(cells.type) or pa.types.is_date(cells.type):
        return TimeFormat("iso", detected=False)
    values = cells.to_pylist()
    found = detect((None if value is None else str(value) for value in values), settings.time_unit)
    if found is None:
        example = next((value for value in values if value is not None and str(value).strip()), "")
        rule = "ISO 8601 or an epoch number" if settings.time_unit == "auto" else f"time_unit {settings.time_unit}"
        raise InputError(
            f"{source}: none of the first {len(values)} cells of column {columns.time!r} is a time, e.g. {example!r}; "
            f"expected {rule}; name the right column and unit under input.time and input.time_unit"
        )
    return found


def _is_feature(name: str, sample: Sample, source: str, on_note: Callable[[str], None]) -> bool:
    if not name:
        on_note(f"{source}: a column without a name is ignored")
        return False
    cells = sample.columns[name]
    if not holds_numbers(cells.type) and not holds_text(cells.type):
        on_note(f"{source}: column {name!r} is of type {cells.type}, not numbers: ignored")
        return False
    values, bad = floats(cells)
    texts = 0 if bad is None else int(np.count_nonzero(bad))
    numbers = int(np.count_nonzero(~np.isnan(values)))
    if texts > numbers:
        on_note(f"{source}: column {name!r} holds text: ignored")
        return False
    if numbers == 0:
        on_note(f"{source}: column {name!r} has no value in the first {len(values)} rows; it is read as a feature")
    return True


def _listing(names: Iterable[str]) -> str:
    return f"the columns are {', '.join(names)}"
