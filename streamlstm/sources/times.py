"""Which format the times of a file have, and int64 nanoseconds since 1970 UTC from cells in it."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streamlstm.types import Int64

Kind = Literal["iso", "iso_zone", "s", "ms", "us", "ns"]
Setting = Literal["auto", "iso", "s", "ms", "us", "ns"]
Mask = npt.NDArray[np.bool_]

NAMES: dict[Kind, str] = {
    "iso": "ISO 8601 without a zone, read as UTC",
    "iso_zone": "ISO 8601 with a zone",
    "s": "epoch seconds",
    "ms": "epoch milliseconds",
    "us": "epoch microseconds",
    "ns": "epoch nanoseconds",
}
DECIMALS: dict[Kind, int] = {"s": 9, "ms": 6, "us": 3, "ns": 0}
"""Decimals of a unit down to a nanosecond: a number with that scale, without its point, counts nanoseconds."""

LEAST_AUTO_NS = 10**17
"""Detected ms, us and ns begin at 1e11, 1e14 and 1e17 of them, all 1973-03-03; a smaller number is another unit."""

ISO_PATTERN = r"^\d{4}-[01]\d-[0-3]\d([T ]\d\d(:?\d\d(:?\d\d(\.\d{1,9})?)?)?(Z|[+-]\d\d(:?\d\d)?)?)?$"
ZONE_PATTERN = r"[T ][^Z+-]*(Z|[+-][\d:]+)$"
NUMBER_PATTERN = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
PARSED_PATTERN = r"^[+-]?(\d+\.?\d*|\.\d+)([eE]\+?[+-]?\d+)?$"  # Arrow's decimals take 1e+-5 (26.0.1)
_ISO, _ZONE, _NUMBER = (re.compile(p, re.ASCII) for p in (ISO_PATTERN, ZONE_PATTERN, NUMBER_PATTERN))
_INT64 = np.iinfo(np.int64)


@dataclass(frozen=True, slots=True)
class TimeFormat:
    """How a file writes times. `detected`: found from the cells, so another magnitude is another format."""

    kind: Kind
    detected: bool

    @property
    def is_iso(self) -> bool:
        """ISO 8601, with or without a zone."""
        return self.kind in ("iso", "iso_zone")

    @property
    def arrow_type(self) -> pa.DataType:
        """The type that text in this format is parsed as; its integers are nanoseconds."""
        if self.is_iso:
            return pa.timestamp("ns", "UTC" if self.kind == "iso_zone" else None)
        return pa.decimal128(38, DECIMALS[self.kind])


def detect(cells: Iterable[str | None], setting: Setting) -> TimeFormat | None:
    """The format of most of the cells (the first among equals); None if no cell is a time under `setting`."""
    kinds = Counter(kind for cell in cells if cell is not None and (kind := _kind(cell.strip(), setting)) is not None)
    if not kinds:
        return None
    return TimeFormat(kinds.most_common(1)[0][0], detected=setting == "auto")


def _kind(cell: str, setting: Setting) -> Kind | None:
    if _ISO.match(cell):
        if setting in ("auto", "iso"):
            return "iso_zone" if _ZONE.search(cell) else "iso"
        return None
    if setting == "iso" or not _NUMBER.match(cell):
        return None
    if setting != "auto":
        return setting
    size = abs(float(cell))
    return "s" if size < 1e11 else "ms" if size < 1e14 else "us" if size < 1e17 else "ns"


def complaint(cell: str | None, time_format: TimeFormat) -> str:
    """Why `cell` is no time in this format."""
    if cell is None or not cell.strip():
        return "has no time"
    kind = _kind(cell.strip(), "auto")
    if kind is None:
        return f"{cell!r} is not a time; times are ISO 8601 or an epoch number"
    expected = NAMES[time_format.kind]
    if time_format.is_iso == (kind in ("iso", "iso_zone")) and (kind == time_format.kind or not time_format.detected):
        return f"{cell!r} cannot be read as {expected}; days must exist, years be 1678 to 2261, digits end at 1 ns"
    return f"mixed time formats: {cell!r} is {NAMES[kind]}, but the file began with {expected}"


def nanoseconds(cells: pa.Array, time_format: TimeFormat) -> tuple[Int64, Mask]:
    """Times (B) of text, numbers, decimals, dates or timestamps, and where (B) a cell holds none; there they are 0."""
    kind = cells.type
    if pa.types.is_dictionary(kind):
        return nanoseconds(cells.dictionary_decode(), time_format)
    if pa.types.is_date(kind):
        return nanoseconds(cells.cast(pa.timestamp("s" if pa.types.is_date32(kind) else "ms")), time_format)
    if pa.types.is_timestamp(kind):
        return _scaled(cells.cast(pa.int64()), 10 ** {"s": 9, "ms": 6, "us": 3, "ns": 0}[kind.unit])
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        times, bad = _from_text(cells, time_format)
    elif pa.types.is_integer(kind):
        times, bad = _scaled(cells.cast(pa.int64()), 10 ** DECIMALS[time_format.kind])
    elif pa.types.is_floating(kind):
        times, bad = _from_floats(cells, 10 ** DECIMALS[time_format.kind])
    elif kind == time_format.arrow_type:
        times, bad = _from_decimals(cells)
    else:
        times, bad = _from_text(cells.cast(pa.string()), time_format)
    if time_format.detected and time_format.kind in ("ms", "us", "ns"):
        bad |= (times > -LEAST_AUTO_NS) & (times < LEAST_AUTO_NS)
    return times, bad


def _scaled(cells: pa.Array, factor: int) -> tuple[Int64, Mask]:
    units = cells.fill_null(0).to_numpy()
    bad = cells.is_null().to_numpy(zero_copy_only=False)
    limit = _INT64.max // factor
    bad |= (units > limit) | (units < -limit)
    return np.where(bad, 0, units) * np.int64(factor), bad


def _from_floats(cells: pa.Array, factor: int) -> tuple[Int64, Mask]:
    units = cells.cast(pa.float64()).to_numpy(zero_copy_only=False)
    bad = ~(np.abs(units) < _INT64.max // factor)
    fraction, whole = np.modf(np.where(bad, 0.0, units))  # apart, for their product would be rounded to 256 ns
    return whole.astype(np.int64) * np.int64(factor) + np.rint(fraction * factor).astype(np.int64), bad


def _from_decimals(cells: pa.Array) -> tuple[Int64, Mask]:
    words = np.frombuffer(cells.buffers()[1], np.int64)[2 * cells.offset : 2 * (cells.offset + len(cells))]
    low, high = words[::2], words[1::2]  # of 128-bit integers, least significant first
    bad = cells.is_null().to_numpy(zero_copy_only=False) | (high != low >> 63) | (low == _INT64.min)
    return np.where(bad, 0, low), bad


def _from_text(cells: pa.Array, time_format: TimeFormat) -> tuple[Int64, Mask]:
    trimmed = pc.utf8_trim(cells.cast(pa.string()), characters=" \t")
    fitting = pc.match_substring_regex(trimmed, ISO_PATTERN if time_format.is_iso else PARSED_PATTERN)
    parsed = _parsed(pc.if_else(fitting, trimmed, None), time_format.arrow_type)
    if not time_format.is_iso:
        return _from_decimals(parsed)
    return _scaled(parsed.cast(pa.int64()), 1)


def _parsed(cells: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cells as `kind`, null where that is impossible (30 February): found by halving, so a few cost little."""
    try:
        return cells.cast(kind)
    except pa.ArrowInvalid:
        if len(cells) == 1:
            return pa.nulls(1, kind)
    middle = len(cells) // 2
    return pa.concat_arrays([_parsed(cells[:middle], kind), _parsed(cells[middle:], kind)])
