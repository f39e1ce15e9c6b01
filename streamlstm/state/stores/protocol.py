"""What keeps snapshots: named blobs of each partition, whole or not at all, and the seal that tells a damaged one."""

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Protocol

Part = bytes | bytearray | memoryview
Blob = Part | Sequence[Part]
"""Bytes, or the parts whose bytes follow one another, so that arrays need not be copied together first."""

_HEAD = struct.Struct("<4sIQ")
_MAGIC = b"SLS1"
HEAD_BYTES = _HEAD.size


class SnapshotStore(Protocol):
    """Blobs by name for each partition, written as topic/number.

    Whatever ends the process, `load` finds under each name its old or its new blob, whole. Two writers that use
    different names never hurt each other. `put`, `delete` and `flush` come from one thread, `load` from any. After an
    OutputError, all that was not flushed before may be missing: the caller puts it again.
    """

    chunk_bytes: int
    """How large a blob may be and best is."""

    def partitions(self) -> list[str]:
        """Partitions that have blobs, sorted; StateError or BrokerError where that cannot be read."""
        ...

    def load(self, partition: str) -> dict[str, bytes]:
        """All blobs of a partition by name, none for an unknown one, within bounded time.

        StateError for a damaged one, BrokerError where a broker is silent.
        """
        ...

    def put(self, partition: str, name: str, blob: Blob) -> None:
        """Writes a blob, or replaces the one of this name; OutputError where that is impossible."""
        ...

    def delete(self, partition: str, names: Iterable[str]) -> None:
        """Removes blobs; names that do not exist are fine."""
        ...

    def flush(self, timeout_s: float) -> None:
        """Returns when all before it will outlive a loss of power; OutputError where it does not come so far in time."""
        ...

    def close(self) -> None:
        """Gives back connections; what was not flushed may be lost."""
        ...


def parts_of(blob: Blob) -> list[memoryview]:
    """The blob as views of bytes, without a copy; arrays must be contiguous."""
    parts = [memoryview(part) for part in ((blob,) if isinstance(blob, Part) else blob)]
    return [part.cast("B") for part in parts if part.nbytes]  # a view of no bytes cannot be cast


def seal(partition: str, name: str, parts: Iterable[memoryview]) -> bytes:
    """What stands before a blob: its length and a CRC-32 of partition, name and bytes.

    100 MB take 24 ms, with crc32c 8, with BLAKE2b 123 (Xeon at 2.8 GHz, 2026-11-21); this one is Python's own.
    """
    checksum, length = zlib.crc32(f"{partition}\0{name}".encode()), 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
        length += part.nbytes
    return _HEAD.pack(_MAGIC, checksum, length)


def fault(partition: str, name: str, head: bytes, blob: Part) -> str:
    """What is wrong with a blob that was read behind its seal; empty where it is whole."""
    if len(head) < HEAD_BYTES:
        return "truncated in its header"
    magic, _, length = _HEAD.unpack(head)
    if magic != _MAGIC:
        return "not a snapshot of streamlstm"
    if length != len(blob):
        return f"truncated: {len(blob)} of {length} bytes"
    return "" if seal(partition, name, [memoryview(blob)]) == head else "damaged: its checksum does not fit"
