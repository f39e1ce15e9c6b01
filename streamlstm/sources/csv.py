"""CSV: blocks parsed whole; a block that holds a bad line is read line by line to find it."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from streamlstm.errors import InputError
from streamlstm.sources.assemble import KEYS
from streamlstm.sources.lines import LineBlocks, Lines, locator
from streamlstm.sources.numbers import MISSING, PATTERN
from streamlstm.sources.protocol import SAMPLE_ROWS, Block, NoRowsError, QuickBlock, Report, Sample, Wanted, no_record

DELIMITERS = {";": "semicolons", "\t": "tabs"}
HEADERLESS_NAME = "value"


class CsvReader:
    """A CSV file with a header line; see `protocol.Reader`. A record is a line: no newline inside quotes."""

    def __init__(self, blocks: LineBlocks, source: str, report: Report) -> None:
        self.rows = 0
        self._blocks = blocks
        self._source = source
        self._report = report
        self._stream: Iterator[Lines] = iter(())
        self._names: tuple[str, ...] = ()
        self._delimiter = ","
        self._notes: list[str] = []

    def progress(self) -> int:
        return self._blocks.progress()

    def sample(self) -> Sample:
        head = self._begin()
        split = [(number, self._split(line)) for number, line in islice(head, SAMPLE_ROWS)]
        rows = [cells for _, cells in split if not isinstance(cells, str)]
        if not rows:
            raise no_record(self._source, *split[0])
        return Sample(self._columns(rows, self._names), len(rows), tuple(self._notes))

    def blocks(self, wanted: Wanted) -> Iterator[Block | QuickBlock]:
        for lines in self._stream:
            count = lines.count()
            first = self.rows
            self.rows += count
            columns = self._parsed(lines, count, wanted, _types(wanted)) if count else None
            if columns is not None:
                row = np.arange(first, first + count, dtype=np.int64)
                # Called, if at all, while this block is the current one.
                yield QuickBlock(columns, row, lambda: self._careful(lines, count, wanted, first))  # noqa: B023
            elif count:
                yield self._careful(lines, count, wanted, first)

    def _begin(self) -> Lines:
        """Reads the header and returns the first block with records, which stays in the stream."""
        stream = iter(self._blocks)
        for lines in stream:
            body = lines if self._names else self._after_header(lines)
            if body is not None and body.count():
                self._stream = chain((body,), stream)
                return body
        if self._names:
            raise NoRowsError(f"{self._source}: has a header but no rows")
        raise NoRowsError(f"{self._source}: is empty; a CSV file has a header line and then a line per record")

    def _after_header(self, lines: Lines) -> Lines | None:
        """Takes the names from the first line that is not empty; returns what follows it, None without such a line."""
        number, line = next(iter(lines), (0, b""))
        if not number:
            return None
        try:
            header = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{self._source}: the header is not UTF-8 text ({error}); convert the file") from error
        if "," not in header:
            self._delimiter = next((mark for mark in DELIMITERS if mark in header), ",")
        if self._delimiter != ",":
            self._notes.append(f"{self._source}: fields are separated by {DELIMITERS[self._delimiter]}")
        names = [name.strip() for name in next(csv.reader([header], delimiter=self._delimiter))]
        if len(names) == 1 and re.match(PATTERN, names[0]):
            self._notes.append(f"{self._source}: has no header; its only column is called {HEADERLESS_NAME!r}")
            self._names = (HEADERLESS_NAME,)
            return lines
        self._names = self._checked(names)
        kept = lines.data.split(b"\n", number - lines.first + 1)[-1]
        return Lines(kept, number + 1)

    def _checked(self, names: Sequence[str]) -> tuple[str, ...]:
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise InputError(f"{self._source}: the header names {repeated[0]!r} twice; each column needs its own name")
        numbered = [str(number) for number in range(len(names))]  # as data frames write unnamed columns
        if names != numbered and all(re.match(PATTERN, name) for name in names):
            raise InputError(
                f"{self._source}: the first line holds only numbers ({', '.join(names[:4])}); "
                "it must be a header with the names of the columns"
            )
        return tuple(names)

    def _parsed(
        self, lines: Lines, count: int, wanted: Wanted, types: Mapping[str, pa.DataType]
    ) -> dict[str, pa.Array] | None:
        """The columns of all lines at once; None if any line is not plainly a record of these types."""
        if not lines.is_text():
            return None
        try:
            table = pa_csv.read_csv(
                pa.py_buffer(lines.data),
                read_options=pa_csv.ReadOptions(
                    use_threads=False, block_size=len(lines.data) + 1, column_names=self._names
                ),
                parse_options=pa_csv.ParseOptions(delimiter=self._delimiter),
                convert_options=pa_csv.ConvertOptions(
                    column_types=types, include_columns=wanted.names, null_values=MISSING
                ),
            )
        except pa.ArrowInvalid:
            return None  # says only one of the bad lines; the careful reading finds and reports each
        if table.num_rows != count:  # a quote left open joins lines
            return None
        return {name: table.column(name).combine_chunks() for name in wanted.names}

    def _careful(self, lines: Lines, count: int, wanted: Wanted, first: int) -> Block:
        """As text; line by line if some are no records, which are reported."""
        columns = self._parsed(lines, count, wanted, dict.fromkeys(wanted.names, pa.string()))
        if columns is None:
            return self._line_by_line(lines, wanted, first)
        return Block(columns, np.arange(first, first + count, dtype=np.int64), locator(list(lines)))

    def _line_by_line(self, lines: Lines, wanted: Wanted, first: int) -> Block:
        row, kept, rows = [], [], []
        for at, (number, line) in enumerate(lines, first):
            cells = self._split(line)
            if isinstance(cells, str):
                self._report(number, cells, line.decode("utf-8", errors="replace"))
                continue
            row.append(at)
            rows.append(cells)
            kept.append((number, line))
        return Block(self._columns(rows, wanted.names), np.array(row, np.int64), locator(kept))

    def _columns(self, rows: Sequence[Sequence[str]], names: Sequence[str]) -> dict[str, pa.Array]:
        places = {name: self._names.index(name) for name in names}
        return {name: pa.array([row[place] for row in rows], pa.string()) for name, place in places.items()}

    def _split(self, line: bytes) -> list[str] | str:
        """The line's fields, or what is wrong with it."""
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            return f"is not UTF-8 text ({error.reason} at byte {error.start})"
        if "\r" in text:
            return "has a carriage return inside the line; lines end with a newline"
        cells = text.split(self._delimiter)
        if '"' in text:
            try:
                cells = next(csv.reader([text + "\n"], delimiter=self._delimiter))
            except csv.Error as error:
                return f"cannot be split into fields: {error}"
            if cells[-1].endswith("\n"):
                return "has a quote that is not closed in the line"
        if len(cells) != len(self._names):
            return f"has {len(cells)} fields, the header has {len(self._names)}"
        return cells


def _types(wanted: Wanted) -> dict[str, pa.DataType]:
    types = dict.fromkeys(wanted.numbers, pa.float64())
    if wanted.columns.key is not None:
        types[wanted.columns.key] = KEYS
    if wanted.columns.time is not None and wanted.time_format is not None:
        types[wanted.columns.time] = wanted.time_format.arrow_type
    return types
