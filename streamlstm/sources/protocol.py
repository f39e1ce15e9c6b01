"""The two faces of this room: `Source` towards the others, `Reader` towards a new file format."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from streamlstm.errors import InputError
from streamlstm.sources.times import TimeFormat
from streamlstm.types import Columns, EventBatch, Int64

SAMPLE_ROWS = 1000
"""Records at the start of a file from which columns and the time format are found."""


class NoRowsError(InputError):
    """A file without a single record: an error alone, a note among others."""


def no_record(source: str, line: int, reason: object) -> InputError:
    """The error of a file none of whose first lines is a record; `reason` is that of `line`, the first."""
    return InputError(f"{source}: none of the first lines is a record; line {line} {reason}")


class Source(Protocol):
    """Records of one partition in their order, as batches that never mix two files."""

    columns: Columns

    def __iter__(self) -> Iterator[EventBatch]: ...

    def progress(self) -> tuple[int, int]:
        """Bytes read of the files as they lie on disk, and all bytes; the latter is 0 when unknown."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to read of a file: the columns by meaning and the format of its time."""

    columns: Columns
    time_format: TimeFormat | None

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the columns that hold numbers: features, exogenous columns, the label."""
        label = () if self.columns.label is None else (self.columns.label,)
        return (*self.columns.features, *self.columns.exogenous, *label)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns to read."""
        return tuple(name for name in (self.columns.time, self.columns.key) if name is not None) + self.numbers


@dataclass(frozen=True, slots=True)
class Block:
    """B records in the types in which they were read; what their cells mean is found by `assemble`.

    columns  name -> Array (B), of text, numbers or times
    row      int64 (B), number of the record in its file
    locate   position in the block -> the record's line (or row) and text, called for dead letters only
    """

    columns: Mapping[str, pa.Array]
    row: Int64
    locate: Callable[[int], tuple[int, str]]


@dataclass(frozen=True, slots=True)
class QuickBlock:
    """B records parsed all at once. `careful` reads them again line by line, and is asked as soon as one is bad."""

    columns: Mapping[str, pa.Array]
    row: Int64
    careful: Callable[[], Block]


@dataclass(frozen=True, slots=True)
class Sample:
    """The first records of a file: all its column names in order, and their cells."""

    columns: Mapping[str, pa.Array]
    rows: int
    notes: tuple[str, ...] = ()


Report = Callable[[int, str, str], None]
"""Takes a record that could not be read: line, reason, text."""


class Reader(Protocol):
    """One file, read once from start to end. `rows` counts the records so far, also those that could not be read."""

    rows: int

    def sample(self) -> Sample:
        """The first records, without consuming them; NoRowsError if there are none."""
        ...

    def blocks(self, wanted: Wanted) -> Iterator[Block | QuickBlock]:
        """All records that have the shape of one; the others are reported."""
        ...

    def progress(self) -> int:
        """Bytes read of the file as it lies on disk."""
        ...
