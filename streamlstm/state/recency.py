"""In which order streams had their last records, so that the one whose last lies furthest back can be forgotten."""

import numpy as np
import pyarrow as pa

from streamlstm.state.keys import KeyTable
from streamlstm.types import Int32, Int64

_QUEUED = 4096
"""Streams looked out at once: choosing them looks at all, and they stay the first to go until they have a record."""


class Recency:
    """Decides which of the streams of `keys` are forgotten, so that no more than `most` are known.

    last  int64, by stream: number of its last record among all records so far
    """

    def __init__(self, keys: KeyTable, most: int) -> None:
        self.last: Int64 = np.zeros(0, np.int64)
        self._keys, self._most = keys, most
        self._records = 0
        self._queue: Int32 = np.zeros(0, np.int32)
        self._queued: Int64 = np.zeros(0, np.int64)  # what `last` was

    def touch(self, streams: Int32) -> None:
        """Notes the next records, one for each of `streams` (B) in their order."""
        self._grow()
        self.last[streams] = np.arange(self._records, self._records + len(streams))  # of a repeated one the last stays
        self._records += len(streams)

    def restore(self, first: int, last: Int64) -> None:
        """Takes what a snapshot says of the streams from `first` on."""
        self._grow()
        self.last[first : first + len(last)] = last
        self._records = max(self._records, int(last.max(initial=-1)) + 1)

    def take(self, batch: pa.DictionaryArray | pa.StringArray) -> tuple[int, Int32]:
        """How many of the first records of `batch` (B keys) can be scored now, and the streams to be forgotten before.

        Each goes at just the record that exceeds the bound. Where it had a record in this batch before, or has one later,
        what comes first is scored first: a stream that is forgotten within one call would have two rows there.
        """
        if not pa.types.is_dictionary(batch.type):
            batch = batch.dictionary_encode()
        streams = self._keys.known(batch)
        new = np.flatnonzero(streams < 0)
        codes = batch.indices.to_numpy(zero_copy_only=False)[new]
        firsts = np.sort(new[np.unique(codes, return_index=True)[1]])
        room = self._most - self._keys.count
        if len(firsts) <= room:
            return len(batch), np.zeros(0, np.int32)
        if firsts[max(room, 0)] > 0:
            return int(firsts[max(room, 0)]), np.zeros(0, np.int32)
        oldest = self._oldest(min(len(firsts), self._keys.count))
        end = int(firsts[len(oldest)]) if len(firsts) > len(oldest) else len(batch)
        again = np.flatnonzero(np.isin(streams[:end], oldest))
        if len(again):
            end = int(again[0])
        return end, oldest[: int(np.searchsorted(firsts, end))]

    def _oldest(self, count: int) -> Int32:
        """The `count` streams whose last records lie furthest back, in this order."""
        still = self.last[self._queue] == self._queued
        if int(still.sum()) < count:
            last = self.last[: self._keys.count]
            wanted = min(max(count, _QUEUED), len(last))
            some = np.argpartition(last, wanted - 1)[:wanted]
            self._queue = some[np.argsort(last[some])].astype(np.int32)
        else:
            self._queue = self._queue[still]
        self._queued = self.last[self._queue]
        return self._queue[:count]

    def _grow(self) -> None:
        count = self._keys.count
        if count > len(self.last):  # doubled, so that a stream's first record costs a constant on average
            self.last = np.concatenate([self.last, np.zeros(2 * count - len(self.last), np.int64)])
