"""What a poll returned of one partition as one `RawBlock`, from whole batches or from single records."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamlstm.kafka_client.batches import BadBatch, Batch
from streamlstm.kernels.decode.records import BATCH_FIELDS, FAULTS, SMALLEST_RECORD, frame_records
from streamlstm.types import RawBlock


def frame(source: str, batches: Sequence[Batch]) -> tuple[RawBlock, list[BadBatch]]:
    """The wanted records of one partition's batches, and the batches whose records are malformed."""
    pieces = [batch.records for batch in batches]
    data = np.frombuffer(pieces[0] if len(pieces) == 1 else bytearray().join(pieces), np.uint8)
    table = np.empty((len(batches), BATCH_FIELDS), np.int64)
    end = rows = 0
    for n, batch in enumerate(batches):
        start, end = end, end + len(batch.records)
        rows += min(max(batch.count, 0), len(batch.records) // SMALLEST_RECORD)
        table[n] = (
            start, end, batch.count, batch.base_offset, batch.next_offset,
            batch.first_time, batch.append_time, batch.from_offset,
        )  # fmt: skip
    keys, values = np.empty((rows, 2), np.int64), np.empty((rows, 2), np.int64)
    offset, timestamp = np.empty(rows, np.int64), np.empty(rows, np.int64)
    fault = np.empty(len(batches), np.int64)
    count = frame_records(data, table, keys, values, offset, timestamp, fault)
    bad = [
        BadBatch(batches[n].base_offset, batches[n].next_offset, FAULTS[fault[n]], bytes(batches[n].raw))
        for n in map(int, np.flatnonzero(fault))
    ]
    return RawBlock(source, data, keys[:count], values[:count], offset[:count], timestamp[:count]), bad


def from_records(source: str, records: Sequence[Any]) -> RawBlock:
    """The same of ConsumerRecords: the bytes of each record's key and value one after the other."""
    data = bytearray()
    spans = []
    for record in records:
        for field in (record.key, record.value):
            spans.append((-1, -1) if field is None else (len(data), len(data) + len(field)))
            data += field or b""
    places = np.array(spans, np.int64).reshape(-1, 2, 2)
    return RawBlock(
        source,
        np.frombuffer(data, np.uint8),
        np.ascontiguousarray(places[:, 0]),
        np.ascontiguousarray(places[:, 1]),
        np.array([record.offset for record in records], np.int64),
        np.array([record.timestamp for record in records], np.int64),
    )
