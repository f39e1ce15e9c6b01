"""Stream keys to slots without a Python object per key: an open-addressing hash over the keys' bytes."""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.decode.words import load

_SEED, _PRIME = np.uint64(14695981039346656037), np.uint64(0xD6E8FEB86659FD93)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_FOLD, _BYTE = np.uint64(32), np.uint64(8)
EMPTY = np.int32(-1)


@jit
def key_hash(data, start, end):
    """A hash of bytes start .. end, uint64, eight at a time: 13 bytes took 13 dependent products with FNV-1a."""
    value = _SEED ^ np.uint64(end - start)
    at = start
    while at + 8 <= end:
        value = (value ^ load(data, at)) * _PRIME
        value ^= value >> _FOLD
        at += 8
    rest = np.uint64(0)
    for j in range(at, end):
        rest = (rest << _BYTE) | np.uint64(data[j])
    value = (value ^ rest) * _PRIME
    value ^= value >> _FOLD
    value *= _MIX
    return value ^ (value >> _FOLD)


@jit
def same_bytes(one, a, other, b, count):
    """Whether `count` bytes of `one` from a on and of `other` from b on are the same."""
    at = 0
    while at + 8 <= count:
        if load(one, a + at) != load(other, b + at):
            return False
        at += 8
    while at < count:
        if one[a + at] != other[b + at]:
            return False
        at += 1
    return True


@jit
def insert_slot(table, hashes, slot):
    """Writes `slot` at the first free place of its hash in table int32 (a power of two, never full)."""
    mask = np.uint64(table.shape[0] - 1)
    at = hashes[slot] & mask
    while table[at] != EMPTY:
        at = (at + np.uint64(1)) & mask
    table[at] = slot


@jit
def rebuild_table(table, hashes, count):
    """Writes slots 0 .. count into an empty table."""
    table[:] = EMPTY
    for slot in range(count):
        insert_slot(table, hashes, slot)


@jit
def place_of(data, start, end, value, table, hashes, arena, ends):
    """The place in `table` of the key in bytes start .. end of data with hash `value`, or the free place it would take."""
    mask = np.uint64(table.shape[0] - 1)
    at = value & mask
    while table[at] != EMPTY:
        slot = table[at]
        size = ends[slot + 1] - ends[slot]
        if hashes[slot] == value and size == end - start and same_bytes(arena, ends[slot], data, start, size):
            return at
        at = (at + np.uint64(1)) & mask
    return at


@jit
def find_slot(data, size, table, hashes, arena, ends):
    """The slot of the key in the first `size` bytes of data uint8, or EMPTY."""
    value = key_hash(data, 0, size)
    return table[place_of(data, 0, size, value, table, hashes, arena, ends)]


@jit
def lookup_batch(data, offsets, count, table, hashes, arena, ends, known, out_slots):
    """Writes the slots of `count` keys and returns how many streams are known after it.

    data uint8 and offsets int32 (count + 1): the keys; arena uint8 and ends int64 (>= known + count + 1): bytes of the
    known keys, slot s at ends[s] .. ends[s + 1]; new keys are appended. table and arena must have room for all.
    """
    for j in range(count):
        start, end = np.int64(offsets[j]), np.int64(offsets[j + 1])
        value = key_hash(data, start, end)
        at = place_of(data, start, end, value, table, hashes, arena, ends)
        if table[at] == EMPTY:
            table[at] = np.int32(known)
            hashes[known] = value
            for k in range(end - start):
                arena[ends[known] + k] = data[start + k]
            ends[known + 1] = ends[known] + end - start
            known += 1
        out_slots[j] = table[at]
    return known
