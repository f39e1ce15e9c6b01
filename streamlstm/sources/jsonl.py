"""JSON lines: blocks parsed whole; a block that holds a bad line is read line by line to find it."""

import json
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pa_json

from streamlstm.sources.lines import LineBlocks, Lines, locator
from streamlstm.sources.protocol import SAMPLE_ROWS, Block, NoRowsError, QuickBlock, Report, Sample, Wanted, no_record


class JsonLinesReader:
    """A file with one JSON object per line; see `protocol.Reader`. A field that is absent is missing."""

    def __init__(self, blocks: LineBlocks, source: str, report: Report) -> None:
        self.rows = 0
        self._blocks = blocks
        self._source = source
        self._report = report
        self._stream: Iterator[Lines] = iter(())
        self._key_type = pa.string()

    def progress(self) -> int:
        return self._blocks.progress()

    def sample(self) -> Sample:
        stream = iter(self._blocks)
        for head in stream:
            if head.count():
                self._stream = chain((head,), stream)
                parsed = [(number, _parsed(line)) for number, line in islice(head, SAMPLE_ROWS)]
                records = [record for _, record in parsed if not isinstance(record, str)]
                if not records:
                    raise no_record(self._source, *parsed[0])
                names = tuple(dict.fromkeys(name for record in records for name in record))
                return Sample(_columns(records, names, None), len(records))
        raise NoRowsError(f"{self._source}: is empty; a JSON lines file has one object per line")

    def blocks(self, wanted: Wanted) -> Iterator[Block | QuickBlock]:
        for lines in self._stream:
            count = lines.count()
            first = self.rows
            self.rows += count
            table = self._quick(lines, count, wanted) if count else None
            if table is not None:
                columns = {name: table.column(name).combine_chunks() for name in wanted.names}
                row = np.arange(first, first + count, dtype=np.int64)
                # Called, if at all, while this block is the current one.
                yield QuickBlock(columns, row, lambda: self._careful(lines, wanted, first))  # noqa: B023
            elif count:
                yield self._careful(lines, wanted, first)

    def _quick(self, lines: Lines, count: int, wanted: Wanted) -> pa.Table | None:
        """All lines at once, typed; None if any of them is not plainly a record."""
        data = lines.data
        # Arrow's parser takes several objects on a line, an object over several lines, -NaN and Inf, and crashes the
        # process on a first line `null` (pyarrow 26.0.1). None of these gets so far.
        objects = data.count(b"\n{") + data.startswith(b"{")
        if objects != count or b"Inf" in data or b"-NaN" in data or not lines.is_text():
            return None
        table = self._typed(data, wanted)
        if table is None and wanted.columns.key is not None:
            # Keys may be numbers; a number -0 is the text "-0" and the integer 0.
            other = pa.int64() if self._key_type == pa.string() else pa.string()
            self._key_type, before = other, self._key_type
            table = None if b"-0" in data else self._typed(data, wanted)
            if table is None:
                self._key_type = before
        return table if table is not None and table.num_rows == count else None

    def _typed(self, data: bytes, wanted: Wanted) -> pa.Table | None:
        fields = [(name, pa.float64()) for name in wanted.numbers]
        if wanted.columns.key is not None:
            fields.append((wanted.columns.key, self._key_type))
        if wanted.columns.time is not None and wanted.time_format is not None:
            # Text here, since Arrow's JSON parser would take times with and without a zone alike.
            kind = pa.string() if wanted.time_format.is_iso else wanted.time_format.arrow_type
            fields.append((wanted.columns.time, kind))
        try:
            return pa_json.read_json(
                pa.py_buffer(data),
                read_options=pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1),
                parse_options=pa_json.ParseOptions(
                    explicit_schema=pa.schema(fields), unexpected_field_behavior="ignore"
                ),
            )
        except pa.ArrowInvalid:
            return None  # says only one of the bad lines; the careful reading finds and reports each

    def _careful(self, lines: Lines, wanted: Wanted, first: int) -> Block:
        """Line by line; a line that is no record is reported."""
        row, kept, records = [], [], []
        for at, (number, line) in enumerate(lines, first):
            record = _parsed(line)
            if isinstance(record, str):
                self._report(number, record, line.decode("utf-8", errors="replace"))
                continue
            row.append(at)
            records.append(record)
            kept.append((number, line))
        columns = _columns(records, wanted.names, wanted.columns.key)
        return Block(columns, np.array(row, np.int64), locator(kept))


def _parsed(line: bytes) -> dict[str, Any] | str:
    """The line's object with its numbers as they are written, or what is wrong with it."""
    try:
        text = line.decode("utf-8")
        # Numbers stay text: their value is found where that of all text is found.
        record = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    except UnicodeDecodeError as error:
        return f"is not UTF-8 text ({error.reason} at byte {error.start})"
    except json.JSONDecodeError as error:
        return f"is not JSON: {error.msg} at character {error.colno}"
    except RecursionError:
        return "is JSON that is nested too deeply"
    if not isinstance(record, dict):
        return "is JSON, but not an object with a field per column"
    if "\\u" in text:
        try:
            json.dumps(record, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            return "is JSON with half a surrogate pair, which is not a character"
    return record


def _columns(records: Sequence[dict[str, Any]], names: Sequence[str], key: str | None) -> dict[str, pa.Array]:
    return {
        name: pa.array([_text(record.get(name), is_key=name == key) for record in records], pa.string())
        for name in names
    }


def _text(value: Any, *, is_key: bool) -> str | None:
    """A cell as text; true and false are words in a key and numbers elsewhere."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return json.dumps(value) if is_key else str(int(value))
    return None if is_key else json.dumps(value)  # an object or a list: no key, and no number
