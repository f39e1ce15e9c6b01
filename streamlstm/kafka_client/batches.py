"""The hook behind the consumer's fetcher: whole record batches instead of an object per record.

kafka-python makes a `PartitionRecords` for each partition of each response and takes records from it. Ours gives whole
batches and leaves group, offsets, pausing and metrics alone. It does what the stock class does between the bytes and the
records: checksum, control batches, aborted transactions, positions behind compacted records. Format 0 and 1 go to the
stock class and come out as ConsumerRecords.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel

from streamlstm.types import NO_TIME


@dataclass(frozen=True, slots=True)
class Batch:
    """The records of one batch of format 2, decompressed and not looked at.

    records      from the first record's length to the end of the last
    count        number of records
    base_offset, next_offset
                 first offset of the batch, and the one after its last, compacted away or not
    first_time   timestamp, ms, that those of the records are relative to
    append_time  timestamp, ms, that the broker gave to all of them; NO_TIME where they have their own
    from_offset  offset that was asked for: records below it are not wanted
    raw          the batch as it came
    """

    records: memoryview
    count: int
    base_offset: int
    next_offset: int
    first_time: int
    append_time: int
    from_offset: int
    raw: memoryview


@dataclass(frozen=True, slots=True)
class BadBatch:
    """A batch with a right checksum whose records cannot be had: its offsets, why, and its bytes."""

    base_offset: int
    next_offset: int
    reason: str
    raw: bytes


class CorruptBatchError(CorruptRecordError):  # type: ignore[misc]
    """A batch whose checksum is wrong, so that not even its offsets can be trusted."""

    def __init__(self, place: Any, offset: int) -> None:
        super().__init__(f"{place.topic}/{place.partition}: the batch at offset {offset} has the wrong checksum")
        self.place, self.offset = place, offset


class PartitionBatches(Fetcher.PartitionRecords):  # type: ignore[misc]
    """What one response holds of one partition, as Batch and BadBatch."""

    def _maybe_skip_record(self, record: Any) -> bool:
        """Of a batch the unwanted records are left out later."""
        return not isinstance(record, Batch | BadBatch) and super()._maybe_skip_record(record)

    def _unpack_records(self, tp: Any, records: Any, key_deserializer: Any, value_deserializer: Any) -> Iterator[Any]:
        try:
            yield from self._batches(tp, records, key_deserializer, value_deserializer)
        except Exception:
            self.drain()  # else the stock fetcher (3.0.12) takes nothing from the exhausted iterator for ever
            raise
        self.drain()

    def _batches(self, tp: Any, records: Any, key_deserializer: Any, value_deserializer: Any) -> Iterator[Any]:
        while (batch := records.next_batch()) is not None:
            if batch.magic != 2:
                yield from super()._unpack_records(tp, _Rest(batch, records), key_deserializer, value_deserializer)
                return
            if self.check_crcs and not batch.validate_crc():
                raise CorruptBatchError(tp, batch.base_offset)
            self.leader_epoch = batch.leader_epoch
            wanted = self._is_wanted(batch)
            self.next_fetch_offset = batch.next_offset
            if wanted:
                found = self._opened(batch)
                self.records_read += batch.records_count
                self.bytes_read += batch.size_in_bytes
                yield found

    def _is_wanted(self, batch: Any) -> bool:
        """False for control batches and, reading committed records alone, those of aborted transactions."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return False
        return not batch.is_control_batch

    def _opened(self, batch: Any) -> Batch | BadBatch:
        raw = memoryview(batch._buffer)
        try:
            batch._maybe_uncompress()
        except Exception as error:  # each codec's library has exceptions of its own
            reason = f"its {_CODECS.get(batch.compression_type, 'unknown')} compression cannot be undone: {error}"
            return BadBatch(batch.base_offset, batch.next_offset, reason, bytes(raw))
        return Batch(
            memoryview(batch._buffer)[batch._pos :],
            batch.records_count,
            batch.base_offset,
            batch.next_offset,
            batch.first_timestamp,
            batch.max_timestamp if batch.timestamp_type == batch.LOG_APPEND_TIME else NO_TIME,
            self.fetch_offset,
            raw,
        )


_CODECS = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}


class _Rest:
    """The batches of a response from one that was taken on."""

    def __init__(self, first: Any, others: Any) -> None:
        self._first, self._others = first, others

    def next_batch(self) -> Any:
        """The next batch, None after the last."""
        first, self._first = self._first, None
        return first if first is not None else self._others.next_batch()
