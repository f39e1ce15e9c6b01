"""float64 values from cells of any type that can hold numbers."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streamlstm.types import Float64

MISSING = ("", "NaN", "nan", "null", "NA")
"""Cells of text that mean a missing number."""

# What the parser of whole blocks takes as a number: a shorter list would make a cell's meaning depend on its block.
PATTERN = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:inf|infinity|nan(\(\w*\))?))$"


def holds_text(kind: pa.DataType) -> bool:
    """Whether cells of this type are strings, as such or through a dictionary."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def holds_numbers(kind: pa.DataType) -> bool:
    """Whether cells of this type are numbers without being parsed; a truth value is 1 or 0."""
    types = pa.types
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
        or types.is_boolean(kind)
        or types.is_null(kind)
    )


def floats(cells: pa.Array) -> tuple[Float64, npt.NDArray[np.bool_] | None]:
    """Values (B), NaN where missing, and where (B) a cell is text but no number; None if the type excludes that."""
    if not holds_text(cells.type):
        return np.asarray(_plain(cells).to_numpy(zero_copy_only=False), dtype=np.float64), None
    trimmed = pc.utf8_trim(cells.cast(pa.string()), characters=" \t")
    missing = pc.is_in(trimmed, value_set=pa.array([*MISSING, None], pa.string()))
    good = pc.match_substring_regex(trimmed, PATTERN)
    values = pc.if_else(pc.and_(good, pc.invert(missing)), trimmed, None).cast(pa.float64())
    bad = pc.invert(pc.or_(missing, good.fill_null(False)))
    return values.to_numpy(zero_copy_only=False), bad.to_numpy(zero_copy_only=False)


def _plain(cells: pa.Array) -> pa.Array:
    if pa.types.is_boolean(cells.type):
        cells = cells.cast(pa.int8())
    return cells.cast(pa.float64(), safe=False)  # an integer above 2**53 is rounded, as everywhere else
