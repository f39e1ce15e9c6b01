"""Whether the hook does in this version of kafka-python what the stock class does: tried once, before the first poll."""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from kafka import KafkaConsumer, codec
from kafka.consumer.fetcher import Fetcher
from kafka.record import MemoryRecords
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.structs import TopicPartition

from streamlstm.kafka_client.batches import PartitionBatches
from streamlstm.kafka_client.blocks import frame, from_records
from streamlstm.types import RawBlock

log = logging.getLogger(__name__)
_CODECS = {0: lambda: True, 1: codec.has_gzip, 2: codec.has_snappy, 3: codec.has_lz4, 4: codec.has_zstd}
_RECORDS = tuple(
    (1_700_000_000_000 + at, key, value * 40, [("origin", b"x")] * (at % 2))
    for at, (key, value) in enumerate([(b"a", b"1"), (None, b"22"), (b"c", b""), (b"", b"4444")])
)


@cache
def take_batches() -> type[PartitionBatches] | None:
    """The hook, None where a known batch does not come out of it as it should; then one warning says so."""
    try:
        fault = _fault()
    except Exception as error:  # whatever a changed class raises, records can still be read one by one
        fault = f"{type(error).__name__}: {error}"
    if fault is None:
        return PartitionBatches
    log.warning(
        "kafka-python's fetcher has changed (%s): records are read one by one, about fifteen times slower", fault
    )
    return None


def _fault() -> str | None:
    """What differs between the hook and the stock class, None for nothing."""
    for function, name in ((KafkaConsumer.__init__, "_fetcher"), (Fetcher._parse_fetched_data, "PartitionRecords")):
        if name not in function.__code__.co_names:
            return f"{function.__qualname__} knows no {name}"
    for number in (number for number, is_there in _CODECS.items() if is_there()):
        data = _two_batches(number)
        ours, our_end = _read(PartitionBatches, data)
        theirs, their_end = _read(Fetcher.PartitionRecords, data)
        block, bad = frame("topic/0", ours)
        if bad or not same(block, from_records("topic/0", theirs)):
            return f"codec {number} gives other records"
        if our_end != their_end:
            return f"codec {number} ends at {our_end} instead of {their_end}"
    return None


def same(one: RawBlock, other: RawBlock) -> bool:
    """Whether two blocks hold the same records, wherever their bytes stand."""
    arrays = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("offset", "timestamp"))
    return arrays and all(
        one.key(at) == other.key(at) and one.value(at) == other.value(at) for at in range(len(one.offset))
    )


def _two_batches(codec_number: int) -> bytes:
    data = bytearray()
    for base in (0, 100):
        builder = MemoryRecordsBuilder(magic=2, compression_type=codec_number, batch_size=1 << 16, offset=0)
        for timestamp, key, value, headers in _RECORDS:
            builder.append(timestamp, key, value, headers)
            builder.skip(1)  # as after compaction
        builder.close()
        batch = bytearray(builder.buffer())
        batch[:8] = base.to_bytes(8, "big")  # as the broker does it: not under the checksum
        data += batch
    return bytes(data)


def _read(reader: Callable[..., Any], data: bytes) -> tuple[list[Any], int]:
    """Everything that a PartitionRecords class takes from `data` when asked for the second record, and where it ends."""
    ended: list[Any] = []
    part = reader(2, TopicPartition("topic", 0), MemoryRecords(data), on_drain=ended.append)
    taken = part.take(100)
    if part or ended != [part]:
        raise ValueError("a response was not drained at its end")
    return taken, part.next_fetch_offset
