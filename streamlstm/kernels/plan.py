"""The planner: a block's records in the order of their slots, so that streams can be run side by side in waves.

Wave w of a group of streams holds the w-th record of each stream in the block, in slot order; two records of one stream
never share a wave.
"""

import numpy as np

from streamlstm.kernels.compiling import jit

_RADIX_BITS = 11
_RADIX = 1 << _RADIX_BITS
SPARE = _RADIX + 1


@jit
def plan_batch(slots, out_order, out_starts, spare):
    """Writes the plan of B records and returns U, the number of streams among them.

    slots int32 (B) -> out_order int32 (B), records sorted by slot and, within a slot, by position (radix sort, stable);
    out_starts int32 (B + 1), first U + 1 entries: where each stream's records begin in out_order. spare int32
    (B + SPARE) is scratch.
    """
    B = slots.shape[0]
    largest = np.int32(0)
    ordered = True
    for b in range(B):
        largest = max(largest, slots[b])
        out_order[b] = b
        if b > 0 and slots[b] < slots[b - 1]:
            ordered = False
    if not ordered:
        shift = np.int32(0)
        counts = spare[B : B + SPARE]
        while (largest >> shift) > 0:
            counts[:] = 0
            for b in range(B):
                counts[((slots[b] >> shift) & (_RADIX - 1)) + 1] += 1
            for d in range(_RADIX):
                counts[d + 1] += counts[d]
            for j in range(B):
                b = out_order[j]
                d = (slots[b] >> shift) & (_RADIX - 1)
                spare[counts[d]] = b
                counts[d] += 1
            for j in range(B):
                out_order[j] = spare[j]
            shift += np.int32(_RADIX_BITS)
    U = 0
    for j in range(B):
        if j == 0 or slots[out_order[j]] != slots[out_order[j - 1]]:
            out_starts[U] = j
            U += 1
    out_starts[U] = B
    return U


@jit
def plan_waves(slots, out_order, out_waves, spare):
    """Writes the records of a batch wave by wave, and returns how many waves there are.

    slots int32 (B) -> out_order int32 (B), positions in the batch, those of a wave in slot order; out_waves int32 (B + 1),
    of which the first entries say where each wave begins in out_order, then where the last one ends. spare int32
    (4 B + 1 + SPARE) is scratch.
    """
    B = slots.shape[0]
    order, starts, active = spare[:B], spare[B : 2 * B + 1], spare[2 * B + 1 : 3 * B + 1]
    count = plan_batch(slots, order, starts, spare[3 * B + 1 :])
    for u in range(count):
        active[u] = u
    wave = at = 0
    while count > 0:
        out_waves[wave] = at
        left = 0
        for j in range(count):
            u = active[j]
            out_order[at + j] = order[starts[u] + wave]
            if starts[u] + wave + 1 < starts[u + 1]:
                active[left] = u
                left += 1
        at += count
        count = left
        wave += 1
    out_waves[wave] = at
    return wave
