"""The state of all streams: dense rows by slot, what a new stream starts from, and growth.

Life of a slot: a key's first record gives it the next free row, which starts from what the model knows of the key (or,
fitted on one stream, of any key), else empty: the stream then learns its own mean and spread (`learning`), its usual
errors and threshold (`calibrating`), and is `live`. Every later record of the key changes this row alone. A snapshot
holds the rows and the keys in the order of streams, so that after a restore each key finds its row again. Streams are
numbered by their first records; a stream's number is its row, unless memory is bounded and rows move to a file and back.
"""

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamlstm.errors import StateError
from streamlstm.kernels.arguments import Pool
from streamlstm.kernels.layout import (
    AT_THRESHOLD,
    BEGUN,
    CALIBRATING_ROWS,
    FIRST_TIME,
    KIND,
    LAST_ROW,
    LAST_TIME,
    LIMIT,
    MARKS,
    OWN,
    READY,
    SCORED,
    STATE_WIDTH,
    STATS_WIDTH,
    THRESHOLD_WIDTHS,
)
from streamlstm.model.layout import Layout
from streamlstm.model.network import Starts
from streamlstm.state.keys import KeyTable
from streamlstm.state.recency import Recency
from streamlstm.state.spill import Residents
from streamlstm.types import NO_TIME, Int32, Int64, Stage, UInt8

if TYPE_CHECKING:
    from streamlstm.state.device import DeviceRows

Indices = npt.NDArray[np.intp] | Int32
_COPIED = 4096  # streams: some milliseconds
_SCANNED = 16_384
"""Streams whose rows are read at once where not all are in memory."""


class StreamPool:
    """Rows of state for any number of streams; see `kernels.layout` for their columns.

    limit    rows in memory at most, None for no bound; a batch must not name more streams than that
    device   the rows where they lie in the memory of a GPU, else None; not with a limit
    recency  what decides which streams are forgotten, None where all stay known
    changed  bool, for each 2 ** shift streams: some row has changed since the flag was cleared
    """

    def __init__(
        self,
        layout: Layout,
        starts: Starts | None,
        *,
        keep_thresholds: bool,
        limit: int | None = None,
        most_known: int | None = None,
        device: "DeviceRows | None" = None,
    ) -> None:
        self.layout = layout
        self.device = device
        self.keys = KeyTable()
        self.recency = Recency(self.keys, most_known) if most_known is not None else None
        self.forgotten = 0
        self._begun = 0
        self._renewed: Int32 = np.zeros(0, np.int32)
        self.track(14)
        self._starts = starts
        self._start_slots = {key: n for n, key in enumerate(starts.keys)} if starts else {}
        self._keep_thresholds = keep_thresholds
        widths = int(layout.sizes[STATE_WIDTH]), int(layout.sizes[STATS_WIDTH])
        self._residents = Residents(*widths, limit) if limit is not None else None
        self._rows = Pool(
            np.zeros((0, widths[0]), np.float32), np.zeros((0, widths[1])), np.zeros((0, MARKS), np.int64)
        )

    def __len__(self) -> int:
        return self.keys.count

    @property
    def limit(self) -> int | None:
        """Rows in memory at most, None for no bound; may be changed where there is one."""
        return None if self._residents is None else self._residents.limit

    @limit.setter
    def limit(self, limit: int) -> None:
        assert self._residents is not None, "a pool without a bound keeps all rows in memory"
        self._residents.limit = limit

    @property
    def rows(self) -> "Pool | DeviceRows":
        """The rows where they are scored; those in memory are replaced by others as they grow."""
        return self.device if self.device is not None else self.host

    @property
    def host(self) -> Pool:
        """Those in the host's memory."""
        return self._rows if self._residents is None else self._residents.rows

    def track(self, shift: int) -> None:
        """Watches each 2 ** shift streams together from now on, all of them as changed."""
        self.shift = shift
        self.changed = np.ones((len(self) >> shift) + 64, np.bool_)

    def streams(self, keys: pa.DictionaryArray | pa.StringArray) -> Int32:
        """Numbers int32 (B) of the streams named by `keys` (B); new ones get the next numbers, and rows from `slots`."""
        if self.device is not None and len(self) + len(keys) > self.device.room:  # before any of them is known
            new = keys.filter(pa.array(self.keys.known(keys) < 0))
            self.device.reserve(len(self) + len(new.unique()))
        return self.keys.slots_of(keys)

    def stream(self, key: str) -> int:
        """The number of one stream, which may be new."""
        return int(self.keys.slots(pa.array([key], pa.string()))[0])

    def slots(self, streams: Int32) -> Int32:
        """Rows int32 (B) for the next records, of `streams` (B), good until the next call; those of new streams are begun."""
        count = len(self)
        if self._residents is None:
            slots, new = streams, np.concatenate([self._renewed, np.arange(self._begun, count, dtype=np.int32)])
            self._renewed = new[:0]
            begun = new
            self._reserve(count)
        else:
            slots, new = self._residents.rows_for(streams)
            begun = self._residents.rows_for(new)[0] if len(new) else new
        if len(new):
            if self.device is not None:
                fresh = self._zeros(len(new))
                self._begin(fresh, np.arange(len(new), dtype=np.int32), new)
                self.device.write(new, fresh)
            else:
                self._begin(self.host, begun, new)
            self._begun = count
        if count >> self.shift >= len(self.changed):
            self.changed = np.concatenate([self.changed, np.zeros(count >> self.shift, np.bool_)])
        self.changed[streams >> self.shift] = True
        if self.recency is not None:
            self.recency.touch(streams)
        return slots

    def take(self, batch: pa.DictionaryArray | pa.StringArray) -> int:
        """How many of the first records of `batch` (B keys) can be scored now; forgets the streams that have to go before.

        Their numbers and rows are those of the next new keys.
        """
        if self.recency is None:
            return len(batch)
        end, gone = self.recency.take(batch)
        if len(gone):
            self.keys.forget(gone)
            self.forgotten += len(gone)
            if self._residents is not None:
                self._residents.forget(gone)
            else:
                for of in self._rows if self.device is None else ():
                    of[gone] = 0
                self._renewed = np.concatenate([self._renewed, gone])
        return end

    def _begin(self, rows: Pool, slots: Indices, streams: Int32) -> None:
        """Begins rows `slots`, all zero, of the new `streams`."""
        rows.stats[slots] = np.nan
        rows.marks[slots, LAST_ROW] = -1
        rows.marks[slots, FIRST_TIME] = rows.marks[slots, LAST_TIME] = NO_TIME
        starts = self._starts
        if starts is None:
            return
        if len(starts.keys) == 1:
            self._start_from(rows, slots, np.zeros(len(slots), np.intp), starts)
            return
        known = [(slots[at], n) for at, key in enumerate(self.keys.strings_of(streams).to_pylist())
                 if (n := self._start_slots.get(key)) is not None]  # fmt: skip
        if known:
            some, numbers = np.array(known, np.intp).T
            self._start_from(rows, some, numbers, starts)

    def _reserve(self, count: int) -> None:
        """Room for `count` rows: doubled while that is a small copy, then at once for as many as half the memory holds.

        Zeros that nothing has touched take no memory yet; to copy half a million streams stood still for 1.4 s.
        """
        if self.device is not None:
            self.device.reserve(count)
            return
        before = len(self._rows.state)
        if count <= before:
            return
        room = max(64, 1 << (count - 1).bit_length())
        whole = _memory() // (2 * self.layout.bytes_per_stream) if count > _COPIED else 0
        try:
            grown = self._zeros(max(room, whole))
        except MemoryError:  # where address space is rationed
            grown = self._zeros(room)
        _copy(self._rows, grown, slice(before))
        self._rows = grown

    def _zeros(self, room: int) -> Pool:
        return _mapped(self._rows, lambda of: np.zeros((room, of.shape[1]), of.dtype))

    def _start_from(self, rows: Pool, slots: Indices, numbers: Indices, starts: Starts) -> None:
        """Begins rows `slots` from the model's streams `numbers`."""
        sizes = self.layout.sizes
        state, marks = rows.state, rows.marks
        rows.stats[slots, : starts.stats.shape[1]] = starts.stats[numbers]
        state[np.ix_(slots, self.layout.known_columns)] = starts.known[numbers]
        marks[slots, READY] = 1
        marks[slots, OWN] = starts.own[numbers]
        # At least one: the scale is known, the kernel need not take the model's common one.
        marks[slots, SCORED] = 1
        if self._keep_thresholds:
            column = int(sizes[AT_THRESHOLD])
            state[slots, column : column + THRESHOLD_WIDTHS[int(sizes[KIND])]] = starts.thresholds[numbers]
            state[slots, LIMIT] = starts.limits[numbers]
            marks[slots, SCORED] = np.maximum(1, starts.scored[numbers])

    def copy_of(self, key: str) -> Pool:
        """A pool of one row: a copy of the stream's, or what a new stream of this key would start from."""
        stream = self.keys.find(key)
        if stream >= 0:
            return self.read(stream, stream + 1)
        fresh = StreamPool(self.layout, self._starts, keep_thresholds=self._keep_thresholds)
        fresh.slots(np.array([fresh.stream(key)], np.int32))
        return fresh._rows

    def read(self, first: int, end: int) -> Pool:
        """Copies of the rows of streams first .. end."""
        if self.device is not None:
            return self.device.read(np.arange(first, end, dtype=np.int32))
        if self._residents is not None:
            return self._residents.read(np.arange(first, end, dtype=np.int32))
        return _mapped(self._rows, lambda of: of[first:end].copy())

    def marks(self, slots: Int32) -> Int64:
        """Marks (B, MARKS) of rows `slots` (B)."""
        return self.host.marks[slots] if self.device is None else self.device.read(slots).marks

    def scan(self) -> Iterator[tuple[int, Pool]]:
        """All rows in pieces, in the order of streams: the first stream of each piece, and its rows."""
        if self._residents is None and self.device is None:
            yield 0, _mapped(self._rows, lambda of: of[: len(self)])
            return
        for first in range(0, len(self), _SCANNED):
            yield first, self.read(first, min(first + _SCANNED, len(self)))

    def columns(self, first: int = 0, end: int | None = None) -> dict[str, Any]:
        """Rows and keys of streams first .. end (all) as named arrays that share no memory with the pool."""
        end = len(self) if end is None else end
        offsets, data = (np.frombuffer(buffer, np.uint8) for buffer in self.keys.strings(first, end).buffers()[1:])
        last = {} if self.recency is None else {"pool.last": self.recency.last[first:end].copy()}
        return {
            **{f"pool.{name}": rows for name, rows in self.read(first, end)._asdict().items()},
            **last,
            "pool.key_offsets": offsets.view(np.int64),
            "pool.key_bytes": data,
        }

    def extend(self, columns: dict[str, Any]) -> None:
        """Takes rows of `columns`, all of streams that are new here, in their order."""
        for name, rows in self._rows._asdict().items():
            wide = columns[f"pool.{name}"].shape[1]
            if wide != rows.shape[1]:
                raise StateError(
                    f"snapshot: {name} rows have {wide} columns, this configuration needs {rows.shape[1]}; "
                    "restore with the configuration and model that wrote it"
                )
        first = len(self)
        offsets, data = columns["pool.key_offsets"], columns["pool.key_bytes"]
        count = len(offsets) - 1
        self.keys.slots(pa.LargeStringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(data)))
        if len(self) != first + count:
            raise StateError(f"snapshot: {first + count - len(self)} streams stand in it twice; it is damaged")
        if self.recency is not None:
            self.recency.restore(first, columns["pool.last"])
        taken = Pool(*(columns[f"pool.{name}"] for name in Pool._fields))
        if self._residents is not None:
            self._residents.adopt(np.arange(first, len(self), dtype=np.int32), taken)
        elif self.device is not None:
            self._reserve(len(self))
            self.device.write(np.arange(first, len(self), dtype=np.int32), taken)
        else:
            self._reserve(len(self))
            _copy(taken, self._rows, slice(first, first + count))
        self._begun = len(self)


def stages(rows: Pool, layout: Layout) -> UInt8:
    """The `Stage` that each row's next record will find."""
    marks, calibrating = rows.marks, layout.params[CALIBRATING_ROWS]
    ready = marks[:, READY] == 1
    live = (marks[:, SCORED] >= calibrating) & (marks[:, BEGUN] > calibrating) & (rows.state[:, LIMIT] > 0)
    return np.where(ready, np.where(live, Stage.LIVE, Stage.CALIBRATING), Stage.LEARNING).astype(np.uint8)


def _memory() -> int:
    """Bytes of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _mapped(rows: Pool, change: Callable[[Any], Any]) -> Pool:
    return Pool(*(change(of) for of in rows))


def _copy(rows: Pool, to: Pool, at: slice) -> None:
    """Writes `rows` to the places `at` of `to`."""
    targets: tuple[Any, ...] = to
    for source, target in zip(rows, targets, strict=True):
        target[at] = source
