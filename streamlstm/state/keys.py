"""Stream keys and their slots. A slot is a row of the pool; it is given at the key's first record, until it is forgotten."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from streamlstm.kernels.keys import EMPTY, find_batch, forget_slots, gather_bytes, lookup_batch, rebuild_table
from streamlstm.types import Int32, Int64, UInt8


class KeyTable:
    """A growing map from keys (UTF-8 strings) to slots 0, 1, 2, ... in the order of first appearance.

    count  slots that were ever given
    """

    def __init__(self) -> None:
        self.count = 0
        self._free: Int32 = np.zeros(0, np.int32)
        self._forgotten = 0  # places of the table
        self._used = self._unused = 0  # bytes of the arena, and those of them that are of forgotten keys
        self._table = np.full(256, EMPTY, np.int32)
        self._hashes = np.zeros(128, np.uint64)
        self._arena: UInt8 = np.zeros(4096, np.uint8)
        self._spans: Int64 = np.zeros((128, 2), np.int64)

    def slots(self, keys: pa.Array) -> Int32:
        """Slots int32 (n) of n distinct or repeated keys (string array without nulls); unknown ones get the next slots."""
        count, data, offsets = _buffers(keys)
        self._reserve(count, int(offsets[-1] - offsets[0]))
        out = np.empty(count, np.int32)
        self.count, self._used, taken = lookup_batch(
            data, offsets, count, self._table, self._hashes, self._arena, self._spans, self._free, self.count,
            self._used, out,
        )  # fmt: skip
        self._free = self._free[taken:]
        return out

    def slots_of(self, keys: pa.DictionaryArray | pa.StringArray) -> Int32:
        """Slots int32 (B) of `keys` (B); entries of a dictionary that no record uses stay unknown."""
        return self._of_used(keys, self.slots)

    def known(self, keys: pa.DictionaryArray | pa.StringArray) -> Int32:
        """The same, -1 for keys that are not known; nothing is added."""
        return self._of_used(keys, self._find)

    def find(self, key: str) -> int:
        """The slot of a key, -1 where it is not known; nothing is added."""
        return int(self._find(pa.array([key], pa.string()))[0])

    def forget(self, slots: Int32) -> None:
        """Forgets the keys of `slots` (n), all different; the next new keys take these slots, in this order."""
        forget_slots(self._table, self._hashes, slots)
        self._unused += self._bytes_of(slots)
        self._spans[slots] = -1
        self._free = np.concatenate([self._free, slots])
        self._forgotten += len(slots)
        if self._forgotten > len(self._table) // 4:  # a search must find an empty place soon
            self._rebuild()

    def strings(self, first: int = 0, end: int | None = None) -> pa.Array:
        """The keys of slots first .. end (all), a large_string array that shares no memory with the table."""
        return self.strings_of(np.arange(first, self.count if end is None else end, dtype=np.int32))

    def strings_of(self, slots: Int32) -> pa.Array:
        """The keys of `slots` (n), likewise."""
        ends, data = np.zeros(len(slots) + 1, np.int64), np.empty(self._bytes_of(slots), np.uint8)
        gather_bytes(self._arena, self._spans, slots, ends, data)
        return pa.LargeStringArray.from_buffers(len(slots), pa.py_buffer(ends), pa.py_buffer(data))

    def key(self, slot: int) -> str:
        """The key of one slot."""
        start, end = self._spans[slot]
        return self._arena[start:end].tobytes().decode()

    def _of_used(self, keys: pa.DictionaryArray | pa.StringArray, slots_of: Callable[[pa.Array], Int32]) -> Int32:
        if not pa.types.is_dictionary(keys.type):
            return slots_of(keys)
        indices: Int32 = keys.indices.to_numpy(zero_copy_only=False)
        used = np.bincount(indices, minlength=len(keys.dictionary)) > 0
        if used.all():
            return slots_of(keys.dictionary)[indices]
        slots = np.zeros(len(used), np.int32)
        slots[used] = slots_of(keys.dictionary.filter(pa.array(used)))
        return slots[indices]

    def _find(self, keys: pa.Array) -> Int32:
        count, data, offsets = _buffers(keys)
        out = np.empty(count, np.int32)
        find_batch(data, offsets, count, self._table, self._hashes, self._arena, self._spans, out)
        return out

    def _bytes_of(self, slots: Int32) -> int:
        return int((self._spans[slots, 1] - self._spans[slots, 0]).sum())

    def _rebuild(self) -> None:
        rebuild_table(self._table, self._hashes, self.count)
        forget_slots(self._table, self._hashes, self._free)
        self._forgotten = len(self._free)

    def _reserve(self, keys: int, size: int) -> None:
        wanted = self.count + keys
        if wanted > len(self._hashes):
            capacity = 1 << (wanted - 1).bit_length()
            more = capacity - len(self._hashes)
            self._hashes = np.concatenate([self._hashes, np.zeros(more, np.uint64)])
            self._spans = np.concatenate([self._spans, np.zeros((more, 2), np.int64)])
            self._table = np.full(2 * capacity, EMPTY, np.int32)
            self._rebuild()
        if self._used + size > len(self._arena):
            if 2 * self._unused > self._used:
                self._close_up()
            if self._used + size > len(self._arena):
                grown = np.zeros(2 * (self._used + size), np.uint8)
                grown[: self._used] = self._arena[: self._used]
                self._arena = grown

    def _close_up(self) -> None:
        """Lets the bytes of forgotten keys go."""
        ends, data = np.zeros(self.count + 1, np.int64), np.zeros(len(self._arena), np.uint8)
        gather_bytes(self._arena, self._spans, np.arange(self.count, dtype=np.int32), ends, data)
        self._spans[: self.count, 0], self._spans[: self.count, 1] = ends[:-1], ends[1:]
        self._spans[self._free] = -1
        self._arena, self._used, self._unused = data, int(ends[-1]), 0


def _buffers(keys: pa.Array) -> tuple[int, UInt8, Int32]:
    """How many keys, their bytes and where each of them begins, one offset more than keys."""
    keys = keys.cast(pa.string())
    count, buffers = len(keys), keys.buffers()
    offsets = np.frombuffer(buffers[1], np.int32)[keys.offset : keys.offset + count + 1]
    data = np.frombuffer(buffers[2], np.uint8) if buffers[2] is not None else np.zeros(0, np.uint8)
    return count, data, offsets
