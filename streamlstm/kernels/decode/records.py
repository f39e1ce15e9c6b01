"""Record batches of Kafka's format 2, after decompression, into the places of their keys and values.

Nothing outside a batch is ever read: each read is compared with the batch's end, and each length before it is added.
The format: https://kafka.apache.org/documentation/#recordbatch
"""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.types import NO_TIME

START, END, COUNT, BASE_OFFSET, NEXT_OFFSET, FIRST_TIME, APPEND_TIME, FROM_OFFSET, BATCH_FIELDS = range(9)
"""Columns of `batches`: first byte and end of the records, their number, the batch's first and next offset, its first
timestamp, the broker's timestamp for all of them or NO_TIME, and the offset below which records are left out."""

SMALLEST_RECORD = 7
"""Bytes: length, attributes, timestamp, offset, key and value lengths, number of headers."""

FAULTS = (
    "",
    "a number runs past the end of its record",
    "a record runs past the end of the batch",
    "a record is longer or shorter than it says",
    "a length is negative",
    "an offset is out of order",
    "the number of records does not fit the bytes",
)
"""What the codes of `out_fault` mean."""
_, TRUNCATED, TOO_LONG, WRONG_LENGTH, NEGATIVE, DISORDER, WRONG_COUNT = range(len(FAULTS))

_SEVEN, _ONE = np.uint64(7), np.uint64(1)


@jit(inline=True)
def read_varint(data, at, end):
    """A zigzag varint of at most ten bytes: its value and the place after it, which is -1 where it does not end."""
    if at < end and data[at] < 128:
        small = np.int64(data[at])
        return (small >> 1) ^ -(small & 1), at + 1
    value, shift = np.uint64(0), np.uint64(0)
    while at < end and shift < np.uint64(64):
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(127)) << shift
        if byte < np.uint64(128):
            return np.int64(value >> _ONE) ^ -np.int64(value & _ONE), at
        shift += _SEVEN
    return np.int64(0), np.int64(-1)


@jit(inline=True)
def read_span(data, at, end):
    """First byte and end of a field that its length stands before, at most `end`; -1, place after for a null field.

    The end is -1 where the field does not fit.
    """
    size, at = read_varint(data, at, end)
    if at < 0 or size > end - at:
        return np.int64(-1), np.int64(-1)
    if size < 0:
        return np.int64(-1), at
    return at, at + size


@jit(inline=True)
def skip_headers(data, at, end):
    """The place after a record's headers, or minus a fault: TRUNCATED, NEGATIVE. Their bytes are not looked at."""
    count, at = read_varint(data, at, end)
    if at < 0:
        return np.int64(-TRUNCATED)
    if count < 0:
        return np.int64(-NEGATIVE)
    for _ in range(min(count, end - at)):  # a header has two bytes or more
        name, at = read_span(data, at, end)
        if at < 0:
            return np.int64(-TRUNCATED)
        if name < 0:
            return np.int64(-NEGATIVE)
        _, at = read_span(data, at, end)
        if at < 0:
            return np.int64(-TRUNCATED)
        count -= 1
    return at if count == 0 else np.int64(-TRUNCATED)


@jit
def frame_batch(data, batch, count, out_keys, out_values, out_offset, out_timestamp):
    """Writes the records of one batch from row `count` on; returns the row after the last, or minus a fault."""
    at, end = batch[START], batch[END]
    if batch[COUNT] < 0 or batch[COUNT] > (end - at) // SMALLEST_RECORD:
        return np.int64(-WRONG_COUNT)
    last = batch[BASE_OFFSET] - 1
    for _ in range(batch[COUNT]):
        if at == end:
            return np.int64(-WRONG_COUNT)
        length, at = read_varint(data, at, end)
        if at < 0:
            return np.int64(-TRUNCATED)
        if length > end - at:
            return np.int64(-TOO_LONG)
        if length < 0:
            return np.int64(-NEGATIVE)
        stop = at + length
        _, at = read_varint(data, at, stop)  # attributes, of which none is in use
        if at < 0:
            return np.int64(-TRUNCATED)
        time, at = read_varint(data, at, stop)
        if at < 0:
            return np.int64(-TRUNCATED)
        delta, at = read_varint(data, at, stop)
        if at < 0:
            return np.int64(-TRUNCATED)
        key, at = read_span(data, at, stop)
        if at < 0:
            return np.int64(-TRUNCATED)
        key_end = at
        value, at = read_span(data, at, stop)
        if at < 0:
            return np.int64(-TRUNCATED)
        value_end = at
        at = skip_headers(data, at, stop)
        if at < 0:
            return at
        if at != stop:
            return np.int64(-WRONG_LENGTH)
        if delta <= last - batch[BASE_OFFSET] or delta >= batch[NEXT_OFFSET] - batch[BASE_OFFSET]:
            return np.int64(-DISORDER)
        last = batch[BASE_OFFSET] + delta
        if last >= batch[FROM_OFFSET]:
            out_keys[count, 0], out_keys[count, 1] = key, key_end if key >= 0 else np.int64(-1)
            out_values[count, 0], out_values[count, 1] = value, value_end if value >= 0 else np.int64(-1)
            out_offset[count] = last
            out_timestamp[count] = batch[FIRST_TIME] + time if batch[APPEND_TIME] == NO_TIME else batch[APPEND_TIME]
            count += 1
    return count if at == end else np.int64(-WRONG_COUNT)


@jit
def frame_records(data, batches, out_keys, out_values, out_offset, out_timestamp, out_fault):
    """Writes the places, offsets and timestamps of the records of N batches; returns how many.

    data uint8; batches int64 (N, BATCH_FIELDS), of ascending offsets. Outputs with a row for each record that fits
    into the bytes: out_keys, out_values int64 (M, 2), first byte and end in `data`, -1, -1 for none; out_offset int64 (M);
    out_timestamp int64 (M), ms. out_fault int64 (N) is 0, or why nothing of that batch was written (`FAULTS`).
    """
    count = np.int64(0)
    for n in range(batches.shape[0]):
        after = frame_batch(data, batches[n], count, out_keys, out_values, out_offset, out_timestamp)
        out_fault[n] = -after if after < 0 else 0
        count = max(count, after)
    return count
