"""Snapshots in memory: for tests, the demo and programs that keep nothing."""

import threading
from collections.abc import Iterable

from streamlstm.state.stores.protocol import Blob, parts_of


class MemoryStore:
    """Blobs in dictionaries; a `SnapshotStore` that outlives whoever writes to it, but not the process."""

    chunk_bytes = 16 << 20

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blobs: dict[str, dict[str, bytes]] = {}

    def partitions(self) -> list[str]:
        with self._lock:
            return sorted(partition for partition, blobs in self._blobs.items() if blobs)

    def load(self, partition: str) -> dict[str, bytes]:
        with self._lock:
            return dict(self._blobs.get(partition, {}))

    def put(self, partition: str, name: str, blob: Blob) -> None:
        whole = b"".join(parts_of(blob))
        with self._lock:
            self._blobs.setdefault(partition, {})[name] = whole

    def delete(self, partition: str, names: Iterable[str]) -> None:
        with self._lock:
            for name in names:
                self._blobs.get(partition, {}).pop(name, None)

    def flush(self, timeout_s: float) -> None:
        pass

    def close(self) -> None:
        pass
