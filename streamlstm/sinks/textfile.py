"""CSV and JSON lines, plain, compressed or to standard output."""

import gzip
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Literal, Protocol

import pyarrow as pa

from streamlstm.errors import OutputError
from streamlstm.sinks.failures import named
from streamlstm.sinks.rendering import csv_header, csv_lines, json_lines

Kind = Literal["csv", "jsonl"]
Compression = Literal["gzip", "zstd"]


class _Stream(Protocol):
    def write(self, data: bytes | pa.Buffer) -> object: ...
    def close(self) -> None: ...


class TextSink:
    """Writes lines as they come; a plain file is valid up to its last whole line at any moment.

    A compressed file is complete after `close`. `path` "-" is standard output.
    """

    def __init__(self, path: str, schema: pa.Schema, kind: Kind, compression: Compression | None = None) -> None:
        self.rows = 0
        self._path = "standard output" if path == "-" else path
        self._render: Callable[[pa.RecordBatch], Iterable[pa.Buffer]] = csv_lines if kind == "csv" else json_lines
        with named(self._path):
            self._streams = _open(path, compression)
        if kind == "csv":
            self._write([csv_header(schema)])

    def write(self, table: pa.RecordBatch) -> None:
        """Writes one line per row of `table`."""
        self._write(self._render(table))
        self.rows += table.num_rows

    def close(self) -> None:
        """Completes the file. After a failed write there is nothing to complete, and the file is just let go of."""
        with named(self._path):
            while self._streams:
                self._streams.pop().close()

    def _write(self, blocks: Iterable[pa.Buffer]) -> None:
        if not self._streams:
            raise ValueError(f"{self._path}: is closed; open a new sink to write on")
        try:
            with named(self._path):
                for block in blocks:
                    self._streams[-1].write(block)
        except OutputError:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """Lets go of the file after a failure that is being reported: closing would only fail again, less clearly."""
        while self._streams:
            with suppress(OSError):
                self._streams.pop().close()


class _StandardOutput:
    """Standard output, which others go on to use after `close`."""

    def write(self, data: bytes | pa.Buffer) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def close(self) -> None:
        sys.stdout.buffer.flush()


def _open(path: str, compression: Compression | None) -> list[_Stream]:
    """The streams to close, the one to write to last."""
    if path == "-":
        return [_StandardOutput()]
    file = pa.OSFile(path, "wb")  # unbuffered: every block is in the file when `write` returns
    if compression == "gzip":
        # Not pyarrow's, which knows level 9 only (65 536 rows of scores: 787 ms against 165 ms, November 2026).
        # No time in the header, so that equal rows give equal files.
        return [file, gzip.GzipFile(filename="", mode="wb", compresslevel=5, fileobj=file, mtime=0)]
    return [file] if compression is None else [file, pa.CompressedOutputStream(file, compression)]
