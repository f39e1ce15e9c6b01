"""Rows of idle streams in a local file, so that memory stays bounded and no bit changes.

Life of a row: a stream's first batch gives it a row in memory. When a batch needs more rows than `limit`, the streams
whose last record lies furthest back go to the file, and come back with the batch that names them. A stream's place in
the file is its number, so that nothing is kept about it but four bytes, and a range of streams is read in one call.

Measured on a Xeon at 2.8 GHz, ext4, Linux 6.18, 2026-11-21, rows of 1.1 KB at random places: 1.1 us to read one and 1.5
to 3 us to write one. A shared mapping writes no faster, counts as resident, and turns a full disk into a signal.
"""

import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from streamlstm.errors import OutputError, StateError, UsageError
from streamlstm.kernels.arguments import Pool
from streamlstm.kernels.layout import LAST_ROW, MARKS
from streamlstm.types import Int32, Int64, UInt8

_NEW, _IN_FILE = -2, -1
_PIECE = 1 << 16
"""Bytes of one write: after larger ones Linux keeps the file in large folios, and each later small write took 8 us."""
_FIRST_ROWS = 64
_MOST_AT_ONCE = 4096
"""Streams that go out at once, at most: choosing them looks at all residents, writing them holds up the batch."""


class Residents:
    """Which of the streams 0, 1, 2, ... have a row in memory, and the rows of the others in a file.

    rows    the rows in memory, at most `limit`; replaced by greater arrays as they grow
    limit   may be changed at any time and counts from the next call; arrays that are greater do not shrink

    Not safe for several threads. The file has no name and ends with this object. All methods raise OutputError where
    it cannot be written.
    """

    def __init__(self, state_width: int, stats_width: int, limit: int, folder: str | Path | None = None) -> None:
        self.limit = limit
        self._widths = state_width, stats_width
        self.rows = self._zeros(0)
        self._place: Int32 = np.zeros(0, np.int32)  # by stream: its row, or _NEW, or _IN_FILE
        self._stream: Int32 = np.zeros(0, np.int32)  # by row: its stream, or -1
        self._resident = 0
        self._row_bytes = sum(self._row_sizes())
        self._folder = Path(folder or tempfile.gettempdir())
        try:
            file = tempfile.TemporaryFile(buffering=0, dir=self._folder)  # noqa: SIM115, closed with this object
        except OSError as error:
            raise self._unwritable(error) from error
        self._file = file.fileno()
        weakref.finalize(self, file.close)

    def fits(self, streams: Int32) -> int:
        """How many of the first of `streams` (B) hold no more distinct ones than `limit`: what `rows_for` can take."""
        if len(streams) <= self.limit:
            return len(streams)
        firsts = np.sort(np.unique(streams, return_index=True)[1])
        return len(streams) if len(firsts) <= self.limit else int(firsts[self.limit])

    def rows_for(self, streams: Int32) -> tuple[Int32, Int32]:
        """The row of each of `streams` (B), which may repeat, and the streams that are new, ascending: their rows are zeros.

        Rows of the streams in the batch stay where they are until the next call. Raises UsageError, with nothing moved,
        where the batch has more distinct streams than `limit`.
        """
        self._know(int(streams.max(initial=-1)) + 1)
        rows = self._place[streams]
        absent = rows < 0
        if not absent.any():
            return rows, np.zeros(0, np.int32)
        busy = np.zeros(len(self._stream), np.bool_)
        busy[rows[~absent]] = True
        wanted = np.unique(streams[absent])
        new = wanted[self._place[wanted] == _NEW]
        back = wanted[self._place[wanted] == _IN_FILE]
        distinct = len(wanted) + int(busy.sum())
        if distinct > self.limit:
            raise UsageError(
                f"runtime.max_streams: a batch of {distinct} streams needs as many rows in memory, got {self.limit}; "
                "set it higher, or take fewer records at once"
            )
        if self._resident + len(wanted) > self.limit:
            self._send_out(self._resident + len(wanted) - self.limit, busy)
        self._move_in(back, self._unpacked(self._from_file(back)))
        self._move_in(new, None)
        return self._place[streams], new

    def read(self, streams: Int32) -> Pool:
        """Copies of the rows of `streams` (n) in their order, from memory and file; nothing moves."""
        out, place = self._zeros(len(streams)), self._place[streams]
        here, away = place >= 0, place == _IN_FILE
        _assign(out, here, _part(self.rows, place[here]))
        if away.any():
            stored, index = np.unique(streams[away], return_inverse=True)
            _assign(out, away, _part(self._unpacked(self._from_file(stored)), index))
        return out

    def adopt(self, streams: Int32, rows: Pool) -> None:
        """Takes the rows of a snapshot: of `streams` (n), ascending, that have none yet; into memory while there is room."""
        self._know(int(streams.max(initial=-1)) + 1)
        room = max(0, self.limit - self._resident)
        self._move_in(streams[:room], _part(rows, slice(room)))
        away = streams[room:]
        self._to_file(away, self._packed(_part(rows, slice(room, None))))
        self._place[away] = _IN_FILE

    def forget(self, streams: Int32) -> None:
        """Lets the rows of `streams` (n) go, wherever they are: they are new again."""
        rows = self._place[streams]
        rows = rows[rows >= 0]
        self._stream[rows] = -1
        self._resident -= len(rows)
        self._place[streams] = _NEW

    def _know(self, count: int) -> None:
        if count > len(self._place):  # doubled, so that a stream's first record costs a constant on average
            room = max(_FIRST_ROWS, 2 * count) - len(self._place)
            self._place = np.concatenate([self._place, np.full(room, _NEW, np.int32)])

    def _send_out(self, least: int, busy: Any) -> None:
        """Moves the longest idle residents that are not busy to the file; more than `least`, so that it happens seldom."""
        candidates = np.flatnonzero((self._stream >= 0) & ~busy)
        count = min(max(least, min(self.limit // 16, _MOST_AT_ONCE)), len(candidates))
        last = self.rows.marks[candidates, LAST_ROW]
        edge = np.partition(last, count - 1)[count - 1]
        surely, perhaps = candidates[last < edge], candidates[last == edge]
        perhaps = perhaps[np.argsort(self._stream[perhaps])[: count - len(surely)]]
        out = np.concatenate([surely, perhaps])
        out = out[np.argsort(self._stream[out])]
        streams = self._stream[out]
        self._to_file(streams, self._packed(_part(self.rows, out)))
        self._place[streams] = _IN_FILE
        self._stream[out] = -1
        self._resident -= count

    def _move_in(self, streams: Int32, rows: Pool | None) -> None:
        """Gives free rows to streams that are not resident; zeros where no rows are given."""
        wanted = self._resident + len(streams)
        if wanted > len(self._stream):
            room = max(wanted, min(self.limit, max(_FIRST_ROWS, 2 * wanted))) - len(self._stream)
            grown = self._zeros(len(self._stream) + room)
            _assign(grown, slice(len(self._stream)), self.rows)
            self.rows = grown
            self._stream = np.concatenate([self._stream, np.full(room, -1, np.int32)])
        free = np.flatnonzero(self._stream < 0)[: len(streams)].astype(np.int32)
        _assign(self.rows, free, self._zeros(len(streams)) if rows is None else rows)
        self._stream[free] = streams
        self._place[streams] = free
        self._resident = wanted

    def _zeros(self, count: int) -> Pool:
        state, stats = self._widths
        return Pool(np.zeros((count, state), np.float32), np.zeros((count, stats)), np.zeros((count, MARKS), np.int64))

    def _row_sizes(self) -> list[int]:
        return [of.shape[1] * of.itemsize for of in (self.rows.state, self.rows.stats, self.rows.marks)]

    def _packed(self, rows: Pool) -> UInt8:
        return np.concatenate([np.ascontiguousarray(of).view(np.uint8) for of in rows], axis=1)

    def _unpacked(self, packed: UInt8) -> Pool:
        state, stats, marks = np.split(packed, np.cumsum(self._row_sizes())[:-1], axis=1)
        return Pool(
            np.ascontiguousarray(state).view(np.float32),
            np.ascontiguousarray(stats).view(np.float64),
            np.ascontiguousarray(marks).view(np.int64),
        )

    def _runs(self, streams: Int32) -> Iterator[tuple[int, int, int]]:
        """Start in the packed rows, end there, and start in the file, bytes, of each run of consecutive streams."""
        edges: Int64 = np.flatnonzero(np.diff(streams, prepend=-2, append=-2) != 1)
        starts = streams[edges[:-1]].astype(np.int64) * self._row_bytes
        yield from zip(
            (edges[:-1] * self._row_bytes).tolist(),
            (edges[1:] * self._row_bytes).tolist(),
            starts.tolist(),
            strict=True,
        )

    def _to_file(self, streams: Int32, packed: UInt8) -> None:
        data = packed.data.cast("B") if len(streams) else b""
        try:
            for start, end, at in self._runs(streams):
                done = start
                while done < end:
                    done += os.pwrite(self._file, data[done : min(end, done + _PIECE)], at + done - start)
        except OSError as error:
            raise self._unwritable(error) from error

    def _from_file(self, streams: Int32) -> UInt8:
        packed = np.empty((len(streams), self._row_bytes), np.uint8)
        data = packed.data.cast("B") if len(streams) else memoryview(b"")
        for start, end, at in self._runs(streams):
            done = start
            while done < end:
                got = os.preadv(self._file, (data[done:end],), at + done - start)
                if not got:
                    raise StateError(
                        f"spill file in {self._folder}: ends before its rows; restart from the last snapshot"
                    )
                done += got
        return packed

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(
            f"spill file in {self._folder}: cannot write: {error.strerror}; make room there, name another folder, "
            f"or keep more streams in memory (runtime.max_streams, now {self.limit})"
        )


def _part(rows: Pool, at: Any) -> Pool:
    return Pool(rows.state[at], rows.stats[at], rows.marks[at])


def _assign(to: Pool, at: Any, rows: Pool) -> None:
    to.state[at], to.stats[at], to.marks[at] = rows
