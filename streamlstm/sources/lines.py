"""Text files and standard input, plain or compressed, as blocks of whole lines."""

import select
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa

from streamlstm.errors import InputError

BLOCK_BYTES = 2 << 20
MAX_LINE_BYTES = 32 << 20
PIECE_BYTES = 256 << 10
TAIL_BYTES = 1 << 20
TAIL_PIECE_BYTES = 512
FIRST_LINES = 1001
"""Lines that are waited for even on a slow pipe: the header and what columns and formats are found from."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


class DamagedError(InputError):
    """The bytes end or break in the middle; whoever counts the rows says after how many."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Whole lines: `data` ends with a newline, its first line has the 1-based number `first` in the file."""

    data: bytes
    first: int

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Number and bytes of each line that is not empty."""
        for number, line in enumerate(self.data.split(b"\n")[:-1], self.first):
            bare = line.removesuffix(b"\r")
            if bare:
                yield number, bare

    def count(self) -> int:
        """Number of lines that are not empty; takes no Python step per line."""
        data = self.data
        if data[:1] not in b"\r\n" and b"\n\n" not in data and b"\n\r\n" not in data:
            return data.count(b"\n")
        octets = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(octets == 10)
        lengths = np.diff(ends, prepend=-1) - 1
        returned = (lengths > 0) & (octets[ends - 1] == 13)
        return int(np.count_nonzero(lengths - returned))

    def is_text(self) -> bool:
        """Whether all is UTF-8 and a carriage return stands only before a newline."""
        if self.data.count(b"\r") != self.data.count(b"\r\n"):
            return False
        if self.data.isascii():
            return True
        try:
            self.data.decode("utf-8")
        except UnicodeDecodeError:
            return False
        return True


def locator(lines: Sequence[tuple[int, bytes]]) -> Callable[[int], tuple[int, str]]:
    """Looks up number and text of the record at a position."""
    return lambda position: (lines[position][0], lines[position][1].decode("utf-8"))


class LineBlocks:
    """Iterates over a stream's `Lines` once. Good lines before a damage are yielded before DamagedError is raised.

    Of a pipe, whose writer may be slow, the lines that are there are yielded before there is a block of them.
    """

    def __init__(
        self, stream: Any, source: str, compression: str | None = None, size: int = 0, *, pipe: bool = False
    ) -> None:
        self._raw = stream
        self._source = source
        self._compression = compression
        self._size = size
        self._pipe = pipe
        self._stream = stream if compression is None else pa.CompressedInputStream(stream, compression)
        self._read = 0
        self._head = b""
        self._damage: str | None = None

    @classmethod
    def open(cls, path: str) -> "LineBlocks":
        """Of a file; its last suffix says how it is compressed."""
        try:
            raw = pa.OSFile(path, "rb")
        except OSError as error:
            raise InputError(f"{path}: cannot be opened ({error})") from error
        return cls(raw, path, COMPRESSIONS.get(PurePath(path).suffix.lower()), raw.size())

    def progress(self) -> int:
        """Bytes read from disk."""
        return self._read

    def first_byte(self) -> bytes:
        """The first byte that is not blank, without consuming it; none if there is no such byte."""
        while not self._head.removeprefix(BYTE_ORDER_MARK).strip() and (piece := self._piece()):
            self._head += piece
        return self._head.removeprefix(BYTE_ORDER_MARK).strip()[:1]

    def __iter__(self) -> Iterator[Lines]:
        first = 1
        for data in self._blocks():
            if first == 1:
                if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
                    raise InputError(f"{self._source}: is UTF-16 text; only UTF-8 is read: convert it, e.g. with iconv")
                data = data.removeprefix(BYTE_ORDER_MARK)
            yield Lines(data, first)
            first += data.count(b"\n")

    def _blocks(self) -> Iterator[bytes]:
        pending: list[bytes] = []
        size = lines = 0
        for piece in chain([self._head] if self._head else [], iter(self._piece, b"")):
            pending.append(piece)
            size += len(piece)
            if size < BLOCK_BYTES:
                lines += piece.count(b"\n") if self._pipe else 0
                if lines < FIRST_LINES or not self._would_wait():
                    continue
            data = b"".join(pending)
            cut = data.rfind(b"\n") + 1
            if cut:
                yield data[:cut]
            elif size > MAX_LINE_BYTES:
                raise InputError(
                    f"{self._source}: a line is longer than {MAX_LINE_BYTES} bytes, the most that is read; "
                    "is this a text file with one record per line?"
                )
            pending = [data[cut:]]
            size -= cut
        rest = b"".join(pending)
        if self._damage is not None:
            rest = rest[: rest.rfind(b"\n") + 1]
        elif rest and not rest.endswith(b"\n"):
            rest += b"\n"
        if rest:
            yield rest
        if self._damage is not None:
            raise DamagedError(self._damage)

    def _piece(self) -> bytes:
        """The next bytes; none at the end and after a damage."""
        try:
            read = self._stream.read1 if self._pipe else self._stream.read
            piece: bytes = read(self._piece_bytes())
        except (OSError, pa.ArrowException) as error:
            self._damage = str(error)
            return b""
        self._read = self._raw.tell() if self._size else self._read + len(piece)
        return piece

    def _would_wait(self) -> bool:
        """Whether the next piece of a pipe is yet to be written."""
        try:
            return not select.select([self._raw], [], [], 0)[0]
        except (OSError, ValueError):  # nothing that can be waited for
            return False

    def _piece_bytes(self) -> int:
        if self._compression is None:
            return BLOCK_BYTES
        # A failing read loses all it had decompressed. Close to the end, where a truncated file fails, it had little.
        return TAIL_PIECE_BYTES if self._size - self._raw.tell() < TAIL_BYTES else PIECE_BYTES
