"""Record batches: the hook and the framing kernel against kafka-python's own reading of the same bytes."""

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.record.util import calc_crc32c
from kafka.structs import TopicPartition

from streamlstm.kafka_client import BadBatch, Batch, CorruptBatchError, frame, from_records
from streamlstm.kafka_client.batches import PartitionBatches
from streamlstm.kafka_client.selftest import same
from streamlstm.kernels.decode.records import FAULTS
from streamlstm.types import RawBlock

ROOT = Path(__file__).parent.parent
PLACE = TopicPartition("topic", 0)
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
NO_CODEC = 5
APPEND_TIME, TRANSACTIONAL, CONTROL = 0x08, 0x10, 0x20
HEADER = DefaultRecordBatch.HEADER_STRUCT
COUNT_AT, RECORDS_AT = HEADER.size - 4, HEADER.size
Records = list[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]]
SOME: Records = [
    (1_000, b"key", b"value", []),
    (999, None, b"{}", [("origin", b"a"), ("none", None)]),
    (1_500, b"", b"", []),
    (1_500, b"k" * 200, None, [("", b"")]),
    (2_000, None, b"v" * 5_000, []),
]


def batch(
    records: Records = SOME, base: int = 0, codec: int = 0, gap: int = 0, magic: int = 2, **state: Any
) -> bytearray:
    """One batch as a broker has it: its first offset is `base`, and `gap` records are missing after each."""
    builder = MemoryRecordsBuilder(magic=magic, compression_type=codec, batch_size=1 << 24, **state)
    for timestamp, key, value, headers in records:
        builder.append(timestamp, key, value, headers)
        builder.skip(gap)
    builder.close()
    data = bytearray(builder.buffer())
    data[:8] = base.to_bytes(8, "big", signed=True)
    return data


def sealed(data: bytearray, *, attributes: int = 0, codec: int | None = None) -> bytearray:
    """The batch with more attributes and the length and checksum that it should have."""
    at = DefaultRecordBatch.ATTRIBUTES_OFFSET
    (before,) = struct.unpack_from(">h", data, at)
    struct.pack_into(">h", data, at, before | attributes if codec is None else before & ~7 | codec)
    struct.pack_into(">i", data, 8, len(data) - 12)
    struct.pack_into(">I", data, DefaultRecordBatch.CRC_OFFSET, calc_crc32c(memoryview(data)[at:]))
    return data


def control(base: int, producer: int, kind: int) -> bytearray:
    """The end of a transaction: 0 aborted, 1 committed."""
    records: Records = [(0, struct.pack(">hh", 0, kind), b"\0" * 6, [])]
    marker = batch(records, base, producer_id=producer, producer_epoch=0, base_sequence=0, transactional=True)
    return sealed(marker, attributes=CONTROL)


def of_transaction(base: int, producer: int) -> bytearray:
    return batch(SOME, base, producer_id=producer, producer_epoch=0, base_sequence=0, transactional=True)


def taken(reader: Callable[..., Any], data: bytes, fetch: int = 0, **settings: Any) -> tuple[list[Any], int]:
    """Everything in the response that a PartitionRecords class gives, and the position after it."""
    part = reader(fetch, PLACE, MemoryRecords(data), **settings)
    found = part.take(1_000_000)
    if part:
        part.take(1)  # raises what came after the records
    assert not part  # drained: else the fetcher would ask it for ever
    return found, part.next_fetch_offset


def stock(data: bytes, fetch: int = 0, **settings: Any) -> tuple[RawBlock, int]:
    found, position = taken(Fetcher.PartitionRecords, data, fetch, **settings)
    return from_records("topic/0", found), position


def ours(data: bytes, fetch: int = 0, **settings: Any) -> tuple[RawBlock, list[BadBatch], int]:
    found, position = taken(PartitionBatches, data, fetch, **settings)
    block, bad = frame("topic/0", [item for item in found if isinstance(item, Batch)])
    return block, [item for item in found if isinstance(item, BadBatch)] + bad, position


def assert_same(data: bytes, fetch: int = 0, **settings: Any) -> RawBlock:
    expected, expected_position = stock(data, fetch, **settings)
    actual, bad, position = ours(data, fetch, **settings)
    assert bad == []
    assert position == expected_position
    assert same(actual, expected), (actual, expected)
    assert (np.diff(actual.offset) > 0).all()
    return actual


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_records_are_those_of_the_stock_class(codec: int) -> None:
    many = SOME * 40  # so that the codec is used, and not its result thrown away as too long
    block = assert_same(batch(many, 10, codec) + batch(many[:1], 1_000, codec) + batch(many, 2_000, codec, gap=3))
    assert len(block) == 401
    assert block.key(1) is None
    assert block.value(3) is None
    assert block.key(2) == b""


texts = st.none() | st.binary(max_size=300)
records = st.lists(
    st.tuples(
        st.integers(0, 2**45), texts, texts, st.lists(st.tuples(st.text(max_size=9), texts), max_size=3)
    ),
    min_size=1,
    max_size=20,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(records, st.integers(0, 2**60), st.sampled_from([*CODECS.values()]), st.integers(0, 200), st.integers(0, 30))
def test_any_records_are_those_of_the_stock_class(found: Records, base: int, codec: int, gap: int, behind: int) -> None:
    data = batch(found, base, codec, gap) + batch(found, base + 10_000, codec, gap)
    # Asked for an offset that the batch begins before, the broker sends the whole batch.
    assert_same(data, fetch=base + min(behind, (gap + 1) * len(found) - 1))


def test_a_start_inside_a_batch_leaves_out_what_was_not_asked_for() -> None:
    block = assert_same(batch(base=100) + batch(base=200), fetch=103)
    assert block.offset.tolist() == [103, 104, 200, 201, 202, 203, 204]


def test_records_that_were_compacted_away_leave_gaps_and_move_the_position() -> None:
    data = batch(base=100, gap=2)
    (last,) = struct.unpack_from(">i", data, 23)
    struct.pack_into(">i", data, 23, last + 50)  # also at the end
    _, _, position = ours(sealed(data))
    block = assert_same(data)
    assert block.offset.tolist() == [100, 103, 106, 109, 112]
    assert position == 100 + last + 51


def test_a_batch_without_records_moves_the_position() -> None:
    data = batch(base=100)
    del data[RECORDS_AT:]
    struct.pack_into(">i", data, COUNT_AT, 0)
    block, bad, position = ours(sealed(data))
    assert (len(block), bad, position) == (0, [], 105)


def test_the_brokers_time_is_that_of_the_whole_batch() -> None:
    block = assert_same(sealed(batch(), attributes=APPEND_TIME))
    assert block.timestamp.tolist() == [2_000] * 5


@pytest.mark.parametrize("isolation", [IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED])
def test_transactions(isolation: IsolationLevel) -> None:
    data = b"".join([
        of_transaction(0, 7), of_transaction(10, 8), control(20, 7, 0), batch(base=21), of_transaction(30, 7),
        control(40, 8, 1), control(41, 7, 1),
    ])  # fmt: skip
    aborted = [SimpleNamespace(producer_id=7, first_offset=0)]
    block = assert_same(data, isolation_level=isolation, aborted_transactions=aborted)
    expected = {10, 21, 30} if isolation == IsolationLevel.READ_COMMITTED else {0, 10, 21, 30}
    assert {offset for offset in block.offset.tolist() if offset in (0, 10, 20, 21, 30, 40, 41)} == expected


def test_old_formats_come_from_the_stock_class() -> None:
    old = [batch([(5, b"k", b"v", [])], 0, magic=1), batch([(6, b"k", b"w", [])], 1, magic=0)]
    data = b"".join(
        [batch(base=0), *(bytes((100 + n).to_bytes(8, "big") + o[8:]) for n, o in enumerate(old)), batch(base=200)]
    )
    expected, position = taken(Fetcher.PartitionRecords, data, 2)
    actual, actual_position = taken(PartitionBatches, data, 2)
    assert isinstance(actual[0], Batch)
    assert actual[1:] == expected[3:]
    assert actual_position == position


def test_a_wrong_checksum_is_an_error_that_leaves_nothing_behind() -> None:
    damaged = batch(base=100)
    damaged[-1] ^= 1
    part = PartitionBatches(0, PLACE, MemoryRecords(bytes(batch() + damaged)))
    assert [item.base_offset for item in part.take(10)] == [0]
    assert not part
    assert part.next_fetch_offset == 5
    with pytest.raises(CorruptBatchError, match=r"topic/0: the batch at offset 100 has the wrong checksum"):
        taken(PartitionBatches, bytes(damaged))


@pytest.mark.parametrize("codec", [1, 2, 3, 4, NO_CODEC, 7])
def test_a_batch_that_cannot_be_decompressed_is_given_as_it_is(codec: int) -> None:
    bad = sealed(batch(base=100), codec=codec)  # its records are not compressed at all
    block, found, position = ours(bytes(batch() + bad + batch(base=200)))
    assert block.offset.tolist() == [0, 1, 2, 3, 4, 200, 201, 202, 203, 204]
    assert position == 205
    assert [(item.base_offset, item.next_offset, item.raw) for item in found] == [(100, 105, bytes(bad))]
    assert "compression cannot be undone" in found[0].reason


def malformed() -> dict[str, bytearray]:
    """Batches with the right checksum that are wrong in one place each, by the fault that they should have."""
    data = batch([(0, b"key", b"value", [("h", b"x")])])
    record = bytes(data[RECORDS_AT:])
    assert record == b"\x24\0\0\0\x06key\x0avalue\x02\x02h\x02x"

    def changed(at: int, byte: int) -> bytearray:
        out = bytearray(data)
        out[RECORDS_AT + at] = byte
        return sealed(out)

    def counted(count: int) -> bytearray:
        out = bytearray(data)
        struct.pack_into(">i", out, COUNT_AT, count)
        return sealed(out)

    return {
        "a record runs past the end of the batch": changed(0, 0x26),
        "a length is negative": changed(0, 0x1F),
        "a number runs past the end of its record": changed(4, 0x7E),
        "a record is longer or shorter than it says": changed(14, 0x00),
        "an offset is out of order": changed(3, 0x02),
        "the number of records does not fit the bytes": counted(0),
        "the number of records does not fit the bytes ": counted(2),
        "the number of records does not fit the bytes  ": counted(-1),
        "the number of records does not fit the bytes   ": counted(2**31 - 1),
        "a length is negative ": changed(15, 0x01),  # of a header's name
        "a length is negative  ": changed(14, 0x01),  # number of headers
    }


@pytest.mark.parametrize("fault", malformed())
def test_a_malformed_batch_is_given_as_it_is(fault: str) -> None:
    bad = malformed()[fault]
    if "order" not in fault:  # which the stock class does not look at
        with pytest.raises(CorruptRecordError):
            taken(Fetcher.PartitionRecords, bytes(bad))
    block, found, _ = ours(bytes(batch(base=-50) + bad + batch(base=200)), fetch=-50)
    assert block.offset.tolist() == [-50, -49, -48, -47, -46, 200, 201, 202, 203, 204]
    assert block.value(5) == b"value"
    assert [(item.reason, item.raw) for item in found] == [(fault.strip(), bytes(bad))]


def test_every_fault_has_a_test() -> None:
    assert {fault.strip() for fault in malformed()} == {*FAULTS} - {""}


def mutated(rng: np.random.Generator) -> bytearray:
    data = batch(SOME[: rng.integers(1, 5)], gap=int(rng.integers(3)))
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(COUNT_AT if rng.random() < 0.1 else RECORDS_AT, min(len(data), RECORDS_AT + 60)))
        data[at] = rng.choice([int(rng.integers(256)), 0, 1, 0x7F, 0x80, 0xFF])
    if rng.random() < 0.3:
        del data[int(rng.integers(RECORDS_AT, len(data))) :]
    return sealed(data)


def test_damage_is_found_where_the_stock_class_finds_it() -> None:
    rng = np.random.default_rng(3)
    kept = refused = misread = 0
    for _ in range(3_000):
        data = bytes(mutated(rng))
        block, bad, _ = ours(data, fetch=-(2**31))
        try:
            expected, _ = stock(data, fetch=-(2**31))
        except CorruptRecordError as error:
            # The names of headers, which nobody reads, need not be UTF-8 here.
            refused += bool(bad) or "UnicodeDecodeError" in str(error)
            misread += not bad and "UnicodeDecodeError" not in str(error)
            continue
        if bad:
            assert bad[0].reason == "an offset is out of order", data
            continue
        assert len(block) == len(expected)
        for at in range(len(block)):
            assert (block.key(at), block.value(at)) == (expected.key(at), expected.value(at)), data
        assert block.offset.tolist() == expected.offset.tolist()
        assert block.timestamp.tolist() == expected.timestamp.tolist()
        kept += 1
    assert misread == 0
    assert min(kept, refused) > 300


FUZZ = """
import ctypes, mmap, sys
import numpy as np
sys.path.insert(0, "tests")
from test_records import mutated, RECORDS_AT
from streamlstm.kernels.decode.records import BATCH_FIELDS, frame_records
from streamlstm.types import NO_TIME

PAGE = mmap.PAGESIZE
room = mmap.mmap(-1, 4 * PAGE)
address = ctypes.addressof(ctypes.c_char.from_buffer(room))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mprotect(ctypes.c_void_p(address + 3 * PAGE), PAGE, 0) == 0
pages = np.frombuffer(room, np.uint8, 3 * PAGE)
rng = np.random.default_rng(int(sys.argv[1]))
faults = 0
for turn in range(int(sys.argv[2])):
    if rng.random() < 0.2:
        records, count = rng.integers(0, 256, rng.integers(0, 200), np.uint8), int(rng.integers(-1, 40))
    else:
        data = mutated(rng)
        records, count = np.frombuffer(data, np.uint8)[RECORDS_AT:], int.from_bytes(data[57:61], "big", signed=True)
    data = pages[len(pages) - len(records):]  # it ends where the next byte may not be read
    data[:] = records
    rows = min(max(count, 0), len(records) // 7)
    table = np.array([[0, len(data), count, 0, 1 << 20, 0, NO_TIME, 0]], np.int64)
    assert table.shape[1] == BATCH_FIELDS
    guard = 9
    keys, values = np.full((rows + guard, 2), -7), np.full((rows + guard, 2), -7)
    offset, timestamp, fault = np.full(rows + guard, -7), np.full(rows + guard, -7), np.zeros(1, np.int64)
    found = frame_records(
        data, table, keys[:rows], values[:rows], offset[:rows], timestamp[:rows], fault
    )
    faults += fault[0] != 0
    assert 0 <= found <= rows
    assert (keys[rows:] == -7).all() and (offset[rows:] == -7).all()
    for spans in (keys[:found], values[:found]):
        assert ((spans >= -1) & (spans <= len(data))).all() and (spans[:, 0] <= spans[:, 1]).all()
print(faults)
"""


@pytest.mark.parametrize("turns", [5_000, pytest.param(1_000_000, marks=(pytest.mark.slow, pytest.mark.timeout(3600)))])
def test_nothing_outside_a_batch_is_read_or_written(turns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for checked in ("0", "1"):  # unchecked, a read beyond the end ends the process
        monkeypatch.setenv("NUMBA_BOUNDSCHECK", checked)
        done = subprocess.run(
            [sys.executable, "-c", FUZZ, "11", str(turns)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) > turns // 10
