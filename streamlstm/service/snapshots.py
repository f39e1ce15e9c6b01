"""The snapshots of one partition: what has changed since the last one, piece by piece, and then the manifest.

Life of an offset: a record is read, scored, and what the detector says of it is sent; when all of that is acknowledged (or
its transaction committed) the rows that it changed may be written; when all rows of a round are durable, so is the
manifest with the offset at which the round began. A crash at any point finds the manifest before, and rows that may be
newer than it: they skip what they have absorbed. Names begin with the era and the group's generation of the writer, so
that a frozen former owner, who does not know yet, writes beside its successor and never over it.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from streamlstm.detect.chunks import Manifest, origin_of, pack, pack_learned, waiting_columns
from streamlstm.detect.detector import Detector
from streamlstm.errors import StateError
from streamlstm.service.writer import Writer
from streamlstm.state.stores import SnapshotStore

log = logging.getLogger(__name__)
FLUSH_S = 60.0
MANIFEST = "manifest"


@dataclass(frozen=True, slots=True, order=True)
class Owner:
    """Who writes: the group's generation, in an era that ends when the group begins to count anew.

    After a failure the same writer goes on with the next attempt: what it gave up may arrive in the end.
    """

    era: int
    generation: int
    attempt: int = 0

    def __str__(self) -> str:
        return f"{self.era:010}.{self.generation:010}.{self.attempt:06}"

    @classmethod
    def of(cls, name: str) -> "Owner":
        """The owner of a blob's name."""
        try:
            era, generation, attempt = map(int, name.split("/", 1)[0].split("."))
            return cls(era, generation, attempt)
        except ValueError:
            raise StateError(f"snapshot: {name!r} is no name that streamlstm gives; keep snapshots apart") from None


@dataclass(frozen=True, slots=True)
class Piece:
    """Some blob of a snapshot, copied out of the detector: the loop may go on."""

    name: str
    content: dict[str, Any] | bytes
    size: int


class PartitionSnapshots:
    """Takes and writes one partition's snapshots; `stale` are names of former owners, deleted after the first."""

    def __init__(
        self, store: SnapshotStore, partition: str, owner: Owner, detector: Detector, topic_id: str, stale: list[str]
    ) -> None:
        self.written_at: float | None = None
        self.begun_at = time.monotonic()
        self._store, self._partition, self._owner = store, partition, owner
        self._detector, self._topic_id, self._stale = detector, topic_id, stale
        # A power of two, so that the pool finds a stream's chunk by a shift; keys are 64 bytes at most on average.
        chunk_streams = max(1, store.chunk_bytes // (detector.layout.bytes_per_stream + 64))
        detector.pool.track(chunk_streams.bit_length() - 1)
        self._number = 0
        self._written: set[str] = set()
        self._whole = True
        self._broken = False
        self.busy = False
        """A round has begun and its manifest is not written yet: the next must wait."""

    def round(self, position: int) -> Iterator[Piece]:
        """The pieces of a snapshot at `position`, each copied when it is asked for; the last is the manifest."""
        detector, pool = self._detector, self._detector.pool
        self.begun_at, self.busy = time.monotonic(), True
        number, streams = self._number + 1, len(pool)
        learned = pack_learned(detector)
        # Rows beside weights that learn must be as old as they are, rows beside records that wait likewise, and rows of which
        # some are forgotten as old as each other: none may be written over before the manifest.
        at_once = learned is not None or pool.recency is not None or detector.reorder is not None
        place = f"{self._owner}/{number % 2}." if at_once else f"{self._owner}/"
        if self._whole or at_once:
            pool.changed[:] = True
            self._whole = False
        names = [f"{place}chunk-{n:06}" for n in range(-(-streams >> pool.shift))]
        waiting = [
            self._piece(f"{place}waiting-{n:06}", columns)
            for n, columns in enumerate(waiting_columns(detector, self._store.chunk_bytes))
        ]
        pieces = (self._chunk(name, n << pool.shift) for n, name in enumerate(names) if pool.changed[n])
        yield from list(pieces) if at_once else pieces
        yield from waiting
        if learned is not None:
            yield Piece(f"{place}learned", learned, len(learned))
        manifest = Manifest(
            self._partition, position, number, streams, tuple(names),
            f"{place}learned" if learned is not None else None, origin_of(detector), self._topic_id, time.time(),
            tuple(detector.class_changes),
            waiting=tuple(piece.name for piece in waiting),
        )  # fmt: skip
        yield Piece(f"{self._owner}/{MANIFEST}", manifest.to_bytes(), 0)

    def _chunk(self, name: str, first: int) -> Piece:
        pool = self._detector.pool
        end = min(first + (1 << pool.shift), len(pool))
        columns = pool.columns(first, end)
        pool.changed[first >> pool.shift] = False
        return self._piece(name, columns)

    @staticmethod
    def _piece(name: str, columns: dict[str, Any]) -> Piece:
        return Piece(name, columns, sum(array.nbytes for array in columns.values()))

    def write(self, piece: Piece, writer: Writer) -> None:
        """Gives a piece to the writer; all that the detector said until it was taken must have been acknowledged."""
        if piece.name.endswith(MANIFEST):
            writer.submit(lambda: self._complete(piece, writer), self._fail)
        else:
            writer.submit(lambda: self._put(piece), self._break, piece.size)

    def abandon(self) -> None:
        """Ends a round whose pieces are not all given to the writer; the next one is whole."""
        self._whole = True
        self._broken = self.busy = False

    def _put(self, piece: Piece) -> None:
        if self._broken:  # nothing of this round counts any more
            return
        content = piece.content if isinstance(piece.content, bytes) else pack(piece.content)
        self._written.add(piece.name)
        self._store.put(self._partition, piece.name, content)

    def _complete(self, piece: Piece, writer: Writer) -> None:
        if self._broken:  # the reason is logged
            self._fail()
            return
        self._store.flush(FLUSH_S)
        self._put(piece)
        self._store.flush(FLUSH_S)
        self._number += 1
        self.written_at = time.monotonic()
        writer.snapshots += 1
        if self._stale:
            self._store.delete(self._partition, self._stale)
            self._stale = []
        self.busy = False

    def _break(self) -> None:
        self._broken = True

    def _fail(self) -> None:
        self._stale += sorted(self._written)
        self._written.clear()
        self._owner = replace(self._owner, attempt=self._owner.attempt + 1)
        self.abandon()
