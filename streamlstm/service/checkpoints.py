"""When partitions are snapshotted: one at a time, a few megabytes in each round of the loop, so that it never stands."""

import time
from collections import deque
from collections.abc import Collection, Iterator

from streamlstm.service.delivery import Delivery
from streamlstm.service.emitter import Mark
from streamlstm.service.restoring import Partition
from streamlstm.service.snapshots import Piece
from streamlstm.service.writer import Writer

_ROUND_BYTES = 4 << 20
"""Copied out of the pool in one round of the loop: some milliseconds."""
_WAITING_BYTES = 64 << 20
"""Copies that wait for acknowledgements or for the store; beyond it the snapshot goes on later."""


class Checkpoints:
    """Snapshots of all partitions in turn, each at most every `interval_s`."""

    def __init__(self, writer: Writer, delivery: Delivery, interval_s: float) -> None:
        self._writer, self._delivery, self._interval_s = writer, delivery, interval_s
        self._current: tuple[Partition, Iterator[Piece]] | None = None
        self._waiting: deque[tuple[Mark, Partition, Piece]] = deque()
        self._waiting_bytes = 0

    def step(self, partitions: Collection[Partition]) -> None:
        """Called in every round: copies what is due, and hands on what may be written."""
        self._hand_on()
        if self._current is None and self._held() < _WAITING_BYTES:  # the copies must be as old as their offset
            due = time.monotonic() - self._interval_s
            chosen = next((p for p in partitions if p.snapshots.begun_at <= due and not p.snapshots.busy), None)
            if chosen is not None:
                self._current = chosen, chosen.snapshots.round(chosen.position)
        copied = 0
        while self._current and copied < _ROUND_BYTES and self._held() < _WAITING_BYTES:
            partition, pieces = self._current
            piece = next(pieces, None)
            if piece is None:
                self._current = None
                break
            self._waiting.append((self._delivery.mark(), partition, piece))
            self._waiting_bytes += piece.size
            copied += piece.size
        self._hand_on()

    def finish(self, partitions: Collection[Partition], timeout_s: float) -> bool:
        """Snapshots `partitions` now, whose outputs are all delivered; False where the time is over before."""
        deadline = time.monotonic() + timeout_s
        self._hand_on()
        self.drop(partitions)
        if not self._writer.drain(timeout_s):
            return False
        for partition in partitions:
            for piece in partition.snapshots.round(partition.position):
                partition.snapshots.write(piece, self._writer)
                if self._held() > _WAITING_BYTES and not self._writer.drain(deadline - time.monotonic()):
                    return False
        return self._writer.drain(max(0.0, deadline - time.monotonic()))

    def drop(self, partitions: Collection[Partition]) -> None:
        """Forgets what of `partitions` is copied and not handed on."""
        for partition in partitions:
            if self._current is not None and self._current[0] is partition:
                self._current = None
                partition.snapshots.abandon()
        kept = [entry for entry in self._waiting if entry[1] not in partitions]
        for _, partition, piece in self._waiting:
            if partition in partitions:
                self._waiting_bytes -= piece.size
                partition.snapshots.abandon()
        self._waiting = deque(kept)

    def _held(self) -> int:
        return self._waiting_bytes + self._writer.waiting_bytes

    def _hand_on(self) -> None:
        while self._waiting and self._delivery.settled(self._waiting[0][0]):
            _, partition, piece = self._waiting.popleft()
            self._waiting_bytes -= piece.size
            partition.snapshots.write(piece, self._writer)
