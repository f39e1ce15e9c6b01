"""Stream keys and their slots. A slot is a row of the pool; it is given at the key's first record and stays for good."""

import numpy as np
import pyarrow as pa

from streamlstm.kernels.keys import EMPTY, find_slot, lookup_batch, rebuild_table
from streamlstm.types import Int32, Int64, UInt8


class KeyTable:
    """A growing map from keys (UTF-8 strings) to slots 0, 1, 2, ... in the order of first appearance."""

    def __init__(self) -> None:
        self.count = 0
        self._table = np.full(256, EMPTY, np.int32)
        self._hashes = np.zeros(128, np.uint64)
        self._arena: UInt8 = np.zeros(4096, np.uint8)
        self._ends: Int64 = np.zeros(129, np.int64)

    def slots(self, keys: pa.Array) -> Int32:
        """Slots int32 (n) of n distinct or repeated keys (string array without nulls); unknown ones get the next slots."""
        keys = keys.cast(pa.string())
        count = len(keys)
        buffers = keys.buffers()
        offsets = np.frombuffer(buffers[1], np.int32)[keys.offset : keys.offset + count + 1]
        data = np.frombuffer(buffers[2], np.uint8) if buffers[2] is not None else np.zeros(0, np.uint8)
        self._reserve(count, int(offsets[-1] - offsets[0]))
        out = np.empty(count, np.int32)
        self.count = lookup_batch(
            data, offsets, count, self._table, self._hashes, self._arena, self._ends, self.count, out
        )
        return out

    def slots_of(self, keys: pa.DictionaryArray | pa.StringArray) -> Int32:
        """Slots int32 (B) of `keys` (B); entries of a dictionary that no record uses stay unknown."""
        if not pa.types.is_dictionary(keys.type):
            return self.slots(keys)
        indices: Int32 = keys.indices.to_numpy(zero_copy_only=False)
        used = np.bincount(indices, minlength=len(keys.dictionary)) > 0
        if used.all():
            return self.slots(keys.dictionary)[indices]
        slots = np.zeros(len(used), np.int32)
        slots[used] = self.slots(keys.dictionary.filter(pa.array(used)))
        return slots[indices]

    def find(self, key: str) -> int:
        """The slot of a key, -1 where it is not known; nothing is added."""
        data = np.frombuffer(key.encode() or b"\0", np.uint8)
        return int(find_slot(data, len(key.encode()), self._table, self._hashes, self._arena, self._ends))

    def strings(self, first: int = 0, end: int | None = None) -> pa.Array:
        """The keys of slots first .. end (all), a large_string array that shares no memory with the table."""
        end = self.count if end is None else end
        start, stop = int(self._ends[first]), int(self._ends[end])
        ends, arena = self._ends[first : end + 1] - start, self._arena[start:stop].copy()
        return pa.LargeStringArray.from_buffers(end - first, pa.py_buffer(ends), pa.py_buffer(arena))

    def key(self, slot: int) -> str:
        """The key of one slot."""
        return self._arena[self._ends[slot] : self._ends[slot + 1]].tobytes().decode()

    def _reserve(self, keys: int, size: int) -> None:
        wanted = self.count + keys
        if wanted > len(self._hashes):
            capacity = 1 << (wanted - 1).bit_length()
            self._hashes = np.concatenate([self._hashes, np.zeros(capacity - len(self._hashes), np.uint64)])
            self._ends = np.concatenate([self._ends, np.zeros(capacity + 1 - len(self._ends), np.int64)])
            self._table = np.full(2 * capacity, EMPTY, np.int32)
            rebuild_table(self._table, self._hashes, self.count)
        used = int(self._ends[self.count])
        if used + size > len(self._arena):
            grown = np.zeros(2 * (used + size), np.uint8)
            grown[:used] = self._arena[:used]
            self._arena = grown
