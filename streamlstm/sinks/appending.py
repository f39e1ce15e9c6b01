"""Lines at the end of a file that may be there already, and that other processes may append to as well."""

import fcntl
import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from io import FileIO

import pyarrow as pa

from streamlstm.errors import OutputError
from streamlstm.sinks.failures import named

_CHUNK = 1 << 20
_LOCK_S = 60.0
_LOOK_S = 0.05


class AppendedFile:
    """Appends whole lines to `path`; `header` is the first line of a CSV file, empty for JSON lines.

    What an earlier process left stays, up to its last whole line. The rest of a torn line is cut off: no checkpoint was
    made after it, so its rows come again, and as a line of its own it would be a row of too few fields, or an open quote
    that swallows the rows after it. Quotes are counted from the file's start, a second for each gigabyte of CSV.

    Only a process that is alone with the file cuts: each holds a shared lock as long as the file is open. Each block is
    one write at the file's end, so that lines of several processes do not mix.
    """

    def __init__(self, path: str, header: bytes = b"") -> None:
        self._path = path
        with named(path):
            self._file = FileIO(path, "a+b")
            self._regular = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
        try:
            with named(path):
                self._begin(header)
        except BaseException:
            self._abandon()
            raise

    def write(self, blocks: Iterable[bytes | pa.Buffer]) -> None:
        """Appends blocks of whole lines; they are in the file, though perhaps not on the disk, when this returns."""
        try:
            with named(self._path):
                for block in blocks:
                    rest = memoryview(block)
                    while rest:  # a write may take only a part, on a disk that gets full
                        rest = rest[self._file.write(rest) :]
        except OutputError:
            self._abandon()
            raise

    def sync(self) -> None:
        """Returns when everything written is on the disk."""
        if self._regular:
            with named(self._path):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Lets go of the file."""
        with named(self._path):
            self._file.close()

    def _begin(self, header: bytes) -> None:
        alone = self._regular and self._lock()
        size = os.fstat(self._file.fileno()).st_size
        if alone:
            end = self._whole_lines(size, quoted=bool(header))
            start = os.pread(self._file.fileno(), len(header), 0)
            if end and start != header:
                self._refuse(start)
            if end < size:
                os.ftruncate(self._file.fileno(), end)
            if end == 0:
                self.write([header])
            fcntl.flock(self._file, fcntl.LOCK_SH)
        elif not self._regular:
            self.write([header])
        elif (start := os.pread(self._file.fileno(), len(header), 0)) != header:
            self._refuse(start)

    def _refuse(self, start: bytes) -> None:
        raise OutputError(
            f"{self._path}: begins with {start[:80]!r}, which are not the columns to be written; "
            "move the file away, or choose another path"
        )

    def _lock(self) -> bool:
        """Takes the lock: True for an exclusive one, False for a shared one beside other processes."""
        deadline = time.monotonic() + _LOCK_S
        while True:
            for kind in (fcntl.LOCK_EX, fcntl.LOCK_SH):
                with suppress(BlockingIOError):
                    fcntl.flock(self._file, kind | fcntl.LOCK_NB)
                    return kind == fcntl.LOCK_EX
            if time.monotonic() > deadline:
                raise OutputError(
                    f"{self._path}: is locked by another process since {_LOCK_S:.0f} s; end it, or choose another path"
                )
            time.sleep(_LOOK_S)  # another one has just opened the file and looks at its last line

    def _whole_lines(self, size: int, *, quoted: bool) -> int:
        """Where the last whole line ends; with `quoted` a line break within quotes ends no line."""
        end = self._after_last_break(size)
        while quoted and self._quotes(end) % 2:
            end = self._after_last_break(end - 1)
        return end

    def _after_last_break(self, end: int) -> int:
        """The position after the last line break before `end`, 0 for none."""
        while end > 0:
            start = max(0, end - _CHUNK)
            found = os.pread(self._file.fileno(), end - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
        return 0

    def _quotes(self, end: int) -> int:
        file = self._file.fileno()
        return sum(os.pread(file, min(_CHUNK, end - at), at).count(b'"') for at in range(0, end, _CHUNK))

    def _abandon(self) -> None:
        """Lets go of the file after a failure that is being reported."""
        with suppress(OSError):
            self._file.close()
