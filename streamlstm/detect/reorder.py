"""`time.late: reorder`: records wait until their stream's time has gone on, then leave in order of time.

Life of a record that waits: it is put into its stream's list in order of time, behind those of the same time; it leaves
when a record of the stream lies `time.reorder_s` or more after it, or when `MOST_HELD` others of the stream wait and it
is the oldest. One that comes later than what has left its stream leaves at once, and the detector drops and counts it. Which
records leave, in which order, depends on the partition's sequence of records alone. A stream's latest record always
waits, until its stream is given up for another one (`learning.max_known_streams`) or the input ends.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from streamlstm.config import Config
from streamlstm.kernels.reorder import COUNT, FIRST, LAST, LISTS, NOWHERE, release_batch, walk_lists
from streamlstm.state.keys import KeyTable
from streamlstm.types import EventBatch, Int32

MOST_HELD = 4096
"""Records of one stream that wait at most: a stream whose records are that dense loses nothing but some of its window."""
_NO_BOUND = -1


class Reorder:
    """The records of one partition that wait; its length is how many. `make_reorder` makes one where the settings ask for it.

    A record takes 8 I + 37 bytes, a stream 24 and its key.
    """

    def __init__(self, window_s: float, most_streams: int | None = None, most_held: int = MOST_HELD) -> None:
        self._window_ns = max(1, round(window_s * 1e9))
        self._most_held, self._most_streams = most_held, _NO_BOUND if most_streams is None else most_streams
        self._sources: dict[str, int] = {}  # their numbers
        self._labelled = False
        self._clear(0)

    def _clear(self, inputs: int) -> None:
        self._keys = KeyTable()
        self._lists = _empty_lists(0)
        self._columns: dict[str, Any] = {
            "time": np.zeros(0, np.int64), "row": np.zeros(0, np.int64), "x": np.zeros((0, inputs)),
            "label": np.zeros(0, np.uint8), "source": np.zeros(0, np.int32), "stream": np.zeros(0, np.int32),
        }  # fmt: skip
        self._links: Int32 = np.zeros((0, 2), np.int32)
        self._free: Int32 = np.zeros(0, np.int32)  # a stack of places, `_room` high
        self._room = 0

    def __len__(self) -> int:
        return len(self._free) - self._room

    def release(self, batch: EventBatch) -> list[EventBatch]:
        """Takes the next records and gives those that are to be scored now, in their order, each batch of one source.

        At least one batch, which may be empty.
        """
        return self._take(batch, self._most_held) or [batch.part(0, 0)]

    def hold(self, batch: EventBatch) -> None:
        """Takes records that `held` gave, in that order."""
        self._take(batch, 0)

    def held(self) -> list[EventBatch]:
        """The records that wait, stream after stream, the one whose latest record came longest ago first."""
        order = np.empty(len(self), np.int32)
        walk_lists(self._links, self._lists, order)
        return self._batches(order)

    def release_all(self) -> list[EventBatch]:
        """The same, which wait no longer: what comes next finds nothing that was before."""
        batches = self.held()
        self._clear(0)
        return batches

    def _take(self, batch: EventBatch, most: int) -> list[EventBatch]:
        if not len(self._free):
            self._clear(batch.x.shape[1])
        streams = self._keys.slots_of(batch.keys)
        places = self._places(len(batch))
        values = {"time": batch.time, "row": batch.row, "x": batch.x, "stream": streams,
                  "source": self._sources.setdefault(batch.source, len(self._sources))}  # fmt: skip
        self._labelled = batch.label is not None
        if self._labelled:
            values["label"] = batch.label
        for name, value in values.items():
            self._columns[name][places] = value
        if self._keys.count >= len(self._lists):
            more = _empty_lists(2 * self._keys.count)
            more[: len(self._lists)] = self._lists
            self._lists = more
        order, gone = np.empty(len(self), np.int32), np.empty(len(batch), np.int32)
        released, left = release_batch(
            streams, places, self._columns["time"], self._links, self._lists, self._window_ns, most, self._most_streams,
            order, gone,
        )  # fmt: skip
        order = order[:released]
        batches = self._batches(order)
        self._free[self._room : self._room + released] = order
        self._room += released
        idle = np.unique(np.concatenate([gone[:left], streams]))  # of streams that have nothing here, no key either
        self._keys.forget(idle[self._lists[idle + 1, COUNT] == 0])
        return batches

    def _places(self, count: int) -> Int32:
        """Takes places for so many records."""
        if count > self._room:
            size = len(self._free)
            more = max(size, count)
            for name, column in self._columns.items():
                self._columns[name] = np.concatenate([column, np.zeros((more, *column.shape[1:]), column.dtype)])
            self._links = np.concatenate([self._links, np.zeros((more, 2), np.int32)])
            free = np.empty(size + more, np.int32)
            free[: self._room] = self._free[: self._room]
            free[self._room : self._room + more] = np.arange(size, size + more)
            self._free, self._room = free, self._room + more
        self._room -= count
        return self._free[self._room : self._room + count].copy()

    def _batches(self, order: Int32) -> list[EventBatch]:
        """The records at places `order`, a batch for each run of one source."""
        if not len(order):
            return []
        time, row, x, label, source, stream = (column[order] for column in self._columns.values())
        streams, codes = np.unique(stream, return_inverse=True)
        keys = pa.DictionaryArray.from_arrays(codes.astype(np.int32), self._keys.strings_of(streams).cast(pa.string()))
        whole = EventBatch(keys, time, x, row, "", label if self._labelled else None)
        names = list(self._sources)
        cuts = [0, *(np.flatnonzero(np.diff(source)) + 1).tolist(), len(order)]
        return [replace(whole.part(first, end), source=names[source[first]]) for first, end in pairwise(cuts)]


def make_reorder(config: Config) -> Reorder | None:
    """What `time` asks for, None where records do not wait."""
    if config.time.reorder_s is None:
        return None
    return Reorder(config.time.reorder_s, config.learning.max_known_streams)


def reordered(batches: Iterable[EventBatch], config: Config, *, apart: bool = False) -> Iterator[EventBatch]:
    """The records of `batches` as they are to be scored, and at the end those that still wait.

    They are one partition, or one for each source where they stand `apart`.
    """
    window_s = config.time.reorder_s
    if window_s is None:
        yield from batches
        return
    waiting: dict[str, Reorder] = {}
    for batch in batches:
        partition = batch.source if apart else ""
        if partition not in waiting:
            waiting[partition] = Reorder(window_s, config.learning.max_known_streams)
        yield from filter(len, waiting[partition].release(batch))
    for reorder in waiting.values():
        yield from reorder.release_all()


def columns_of(batch: EventBatch) -> dict[str, Any]:
    """A batch as named arrays, for snapshots."""
    _, offsets, data = batch.keys.cast(pa.large_string()).buffers()
    columns = {
        "time": batch.time, "row": batch.row, "x": batch.x, "source": np.frombuffer(batch.source.encode(), np.uint8),
        "key_offsets": np.frombuffer(offsets, np.int64), "key_bytes": np.frombuffer(data or b"", np.uint8),
    }  # fmt: skip
    return columns if batch.label is None else columns | {"label": batch.label}


def batch_of(columns: Mapping[str, Any]) -> EventBatch:
    """The batch of these arrays."""
    buffers = (pa.py_buffer(columns["key_offsets"]), pa.py_buffer(columns["key_bytes"]))
    keys = pa.LargeStringArray.from_buffers(len(columns["row"]), *buffers).cast(pa.string()).dictionary_encode()
    time, x, row = (columns[name] for name in ("time", "x", "row"))
    return EventBatch(keys, time, x, row, columns["source"].tobytes().decode(), columns.get("label"))


def _empty_lists(streams: int) -> Int32:
    lists = np.zeros((1 + streams, LISTS), np.int32)
    lists[:, [FIRST, LAST]] = NOWHERE
    return lists
