"""Stream keys to slots without a Python object per key: an open-addressing hash over the keys' bytes."""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.decode.words import load

_SEED, _PRIME = np.uint64(14695981039346656037), np.uint64(0xD6E8FEB86659FD93)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_FOLD, _BYTE = np.uint64(32), np.uint64(8)
EMPTY, FORGOTTEN = np.int32(-1), np.int32(-2)


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
def forget_slots(table, hashes, slots):
    """Marks the places of `slots` int32 as forgotten: a search goes on behind them, a new key takes none of them."""
    mask = np.uint64(table.shape[0] - 1)
    for slot in slots:
        at = hashes[slot] & mask
        while table[at] != slot:
            at = (at + np.uint64(1)) & mask
        table[at] = FORGOTTEN


@jit
def gather_bytes(arena, spans, slots, out_ends, out_data):
    """Writes the keys of `slots` int32 (n) side by side, and where each begins in out_ends int64 (n + 1)."""
    out_ends[0] = 0
    for j in range(slots.shape[0]):
        start, end = spans[slots[j], 0], spans[slots[j], 1]
        for k in range(end - start):
            out_data[out_ends[j] + k] = arena[start + k]
        out_ends[j + 1] = out_ends[j] + end - start


@jit
def place_of(data, start, end, value, table, hashes, arena, spans):
    """The place in `table` of the key in bytes start .. end of data with hash `value`, or the free place it would take."""
    mask = np.uint64(table.shape[0] - 1)
    at = value & mask
    while table[at] != EMPTY:
        slot = table[at]
        if slot != FORGOTTEN and hashes[slot] == value:
            size = spans[slot, 1] - spans[slot, 0]
            if size == end - start and same_bytes(arena, spans[slot, 0], data, start, size):
                return at
        at = (at + np.uint64(1)) & mask
    return at


@jit
def find_batch(data, offsets, count, table, hashes, arena, spans, out_slots):
    """Writes the slot of each of `count` keys, EMPTY where it is not known; data uint8 and offsets int32 (count + 1)."""
    for j in range(count):
        start, end = np.int64(offsets[j]), np.int64(offsets[j + 1])
        value = key_hash(data, start, end)
        out_slots[j] = table[place_of(data, start, end, value, table, hashes, arena, spans)]


@jit
def lookup_batch(data, offsets, count, table, hashes, arena, spans, free, known, used, out_slots):
    """Writes the slots of `count` keys; returns how many slots were ever given, the arena's bytes in use, what `free` gave.

    data uint8 and offsets int32 (count + 1): the keys; spans int64 (n, 2): where the bytes of each slot's key lie in arena
    uint8. A new key takes the next of `free` int32, then the next slot beyond the `known` ones; table, spans and arena must
    have room for all.
    """
    taken = 0
    for j in range(count):
        start, end = np.int64(offsets[j]), np.int64(offsets[j + 1])
        value = key_hash(data, start, end)
        at = place_of(data, start, end, value, table, hashes, arena, spans)
        if table[at] == EMPTY:
            slot = np.int64(known)
            if taken < free.shape[0]:
                slot = np.int64(free[taken])
                taken += 1
            else:
                known += 1
            table[at] = np.int32(slot)
            hashes[slot] = value
            for k in range(end - start):
                arena[used + k] = data[start + k]
            spans[slot, 0], spans[slot, 1] = used, used + end - start
            used += end - start
        out_slots[j] = table[at]
    return known, used, taken
