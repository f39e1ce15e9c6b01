"""The state of all streams: dense rows by slot, what a new stream starts from, and growth.

Life of a slot: a key's first record gives it the next free row, which starts from what the model knows of the key (or,
fitted on one stream, of any key), else empty: the stream then learns its own mean and spread (`learning`), its usual
errors and threshold (`calibrating`), and is `live`. Every later record of the key changes this row alone. A snapshot
holds the rows and the keys in the order of slots, so that after a restore each key finds its row again.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from streamlstm.errors import StateError
from streamlstm.kernels.arguments import Pool
from streamlstm.kernels.layout import (
    AT_RECENT,
    AT_THRESHOLD,
    AT_USUAL,
    FIRST_TIME,
    KIND,
    LAST_ROW,
    LAST_TIME,
    LIMIT,
    MARKS,
    N_FEATURES,
    READY,
    SCORED,
    STATE_WIDTH,
    STATS_WIDTH,
    THRESHOLD_WIDTHS,
)
from streamlstm.model.layout import Layout
from streamlstm.model.network import Starts
from streamlstm.state.keys import KeyTable
from streamlstm.types import NO_TIME, Int32


class StreamPool:
    """Rows of state for any number of streams; see `kernels.layout` for their columns."""

    def __init__(self, layout: Layout, starts: Starts | None, *, keep_thresholds: bool) -> None:
        self.layout = layout
        self.keys = KeyTable()
        self._starts = starts
        self._start_slots = {key: n for n, key in enumerate(starts.keys)} if starts else {}
        self._keep_thresholds = keep_thresholds
        self.rows = Pool(
            np.zeros((0, int(layout.sizes[STATE_WIDTH])), np.float32),
            np.zeros((0, int(layout.sizes[STATS_WIDTH]))),
            np.zeros((0, MARKS), np.int64),
        )

    def __len__(self) -> int:
        return self.keys.count

    def slots(self, keys: pa.DictionaryArray | pa.StringArray) -> Int32:
        """Slots int32 (B) of the streams named by `keys` (B); rows of new streams are begun."""
        known = len(self)
        slots = self.keys.slots_of(keys)
        if len(self) > known:
            self._begin(known)
        return slots

    def slot(self, key: str) -> int:
        """The slot of one stream; its row is begun if it is new."""
        known = len(self)
        slot = int(self.keys.slots(pa.array([key], pa.string()))[0])
        if len(self) > known:
            self._begin(known)
        return slot

    def _begin(self, first: int) -> None:
        count = len(self)
        self._reserve(count)
        new = slice(first, count)
        self.rows.stats[new] = np.nan
        self.rows.marks[new, LAST_ROW] = -1
        self.rows.marks[new, FIRST_TIME] = self.rows.marks[new, LAST_TIME] = NO_TIME
        starts = self._starts
        if starts is None:
            return
        if len(starts.keys) == 1:
            for slot in range(first, count):
                self._start_from(slot, starts, 0)
            return
        for slot in range(first, count):
            n = self._start_slots.get(self.keys.key(slot))
            if n is not None:
                self._start_from(slot, starts, n)

    def _reserve(self, count: int) -> None:
        """Room for `count` rows; doubled, so that a stream's first record costs a constant on average."""
        before = len(self.rows.state)
        if count > before:
            # Zeros that nothing has touched take no memory yet.
            room = max(64, 1 << (count - 1).bit_length())
            grown = Pool(*(np.zeros((room, rows.shape[1]), rows.dtype) for rows in self.rows))
            for old, new in zip(self.rows, grown, strict=True):
                new[:before] = old
            self.rows = grown

    def _start_from(self, slot: int, starts: Starts, n: int) -> None:
        sizes = self.layout.sizes
        D = int(sizes[N_FEATURES])
        self.rows.stats[slot] = starts.stats[n]
        row, mark = self.rows.state[slot], self.rows.marks[slot]
        row[sizes[AT_USUAL] : sizes[AT_USUAL] + D] = starts.usual[n]
        row[sizes[AT_RECENT] : sizes[AT_RECENT] + D] = starts.usual[n]
        mark[READY] = 1
        # At least one: the scale is known, the kernel need not take the model's common one.
        mark[SCORED] = 1
        if self._keep_thresholds:
            width = THRESHOLD_WIDTHS[int(sizes[KIND])]
            row[sizes[AT_THRESHOLD] : sizes[AT_THRESHOLD] + width] = starts.thresholds[n]
            row[LIMIT] = starts.limits[n]
            mark[SCORED] = max(1, starts.scored[n])

    def copy_of(self, key: str) -> Pool:
        """A pool of one row: a copy of the stream's, or what a new stream of this key would start from."""
        slot = self.keys.find(key)
        if slot >= 0:
            one = slice(slot, slot + 1)
            return Pool(self.rows.state[one].copy(), self.rows.stats[one].copy(), self.rows.marks[one].copy())
        fresh = StreamPool(self.layout, self._starts, keep_thresholds=self._keep_thresholds)
        fresh.slot(key)
        return fresh.rows

    def columns(self, first: int = 0, end: int | None = None) -> dict[str, Any]:
        """Rows and keys of slots first .. end (all) as named arrays that share no memory with the pool."""
        end = len(self) if end is None else end
        offsets, data = (np.frombuffer(buffer, np.uint8) for buffer in self.keys.strings(first, end).buffers()[1:])
        return {
            **{f"pool.{name}": rows[first:end].copy() for name, rows in self.rows._asdict().items()},
            "pool.key_offsets": offsets.view(np.int64),
            "pool.key_bytes": data,
        }

    def last_row(self, first: int, end: int) -> int:
        """The largest row number that slots first .. end have absorbed, -1 for none."""
        return int(self.rows.marks[first:end, LAST_ROW].max(initial=-1))

    def extend(self, columns: dict[str, Any]) -> None:
        """Takes rows of `columns`, all of streams that are new here, in their order."""
        for name, rows in self.rows._asdict().items():
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
        self._reserve(len(self))
        for name, rows in self.rows._asdict().items():
            rows[first : first + count] = columns[f"pool.{name}"]
