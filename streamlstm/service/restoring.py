"""From a partition that was assigned to one that can be read on: its state, where to go on, and what does not fit."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from streamlstm.config.schema import Delivery
from streamlstm.detect.chunks import Manifest, Origin, origin_of, restore
from streamlstm.detect.detector import Detector
from streamlstm.errors import StateError
from streamlstm.service.snapshots import FLUSH_S, MANIFEST, Owner, PartitionSnapshots
from streamlstm.service.writer import Writer
from streamlstm.sources.topics import KafkaSource
from streamlstm.state.stores import SnapshotStore

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Partition:
    """A partition that is being read: its name is topic/number.

    position  the next offset to score
    live_from what the detector says of earlier offsets was sent before, and is not sent again
    """

    name: str
    detector: Detector
    snapshots: PartitionSnapshots
    position: int
    live_from: int


def open_partition(
    name: str, source: KafkaSource, store: SnapshotStore, writer: Writer, make: Callable[[], Detector],
    settings: Delivery, start: str,
) -> Partition | None:  # fmt: skip
    """The partition with its state, read on from where that ends; None where the group has to settle first whose it is.

    Raises StateError where state and topic do not fit and the settings say `fail`.
    """
    blobs = store.load(name)
    manifest = newest_manifest(blobs)
    committed = source.committed(name)
    exact = settings.mode == "exactly_once"
    generation = source.generation()
    last = max((Owner.of(blob) for blob in blobs), default=Owner(0, -1))
    if generation < 0:
        return None
    owner = Owner(last.era, generation)
    if generation == last.generation:  # in which nobody but us can have had it
        owner = Owner(last.era, generation, last.attempt + 1)
    elif generation < last.generation:  # the group began to count anew, or a later one has it: the broker knows
        offset = committed if committed is not None else manifest.next_offset if manifest else None
        if offset is not None and not source.commit({name: offset}):
            return None
        owner = Owner(last.era + 1, generation)
    detector = make()
    found = find_start(name, source, manifest, committed, detector, settings, start)
    stale = [blob for blob in blobs if Owner.of(blob) < owner]
    if manifest is not None and found.keep:
        restore(detector, manifest, blobs.pop)
    topic_id = source.topic_id(name) or ""
    snapshots = PartitionSnapshots(store, name, owner, detector, topic_id, stale)
    live_from = max(found.offset, committed) if exact and committed is not None and found.same_topic else found.offset
    partition = Partition(name, detector, snapshots, found.offset, live_from)
    if manifest is None or not found.keep:
        # A crash before the first snapshot must find where this state began, not a group's offset beyond it.
        for piece in snapshots.round(found.offset):
            snapshots.write(piece, writer)
        if not writer.drain(FLUSH_S) or snapshots.written_at is None:
            raise StateError(f"{name}: the first snapshot cannot be written; see the error above")
    source.seek(name, found.offset)
    silent = f", up to {live_from} in silence" if live_from > found.offset else ""
    log.info("%s: %s streams, reading on from offset %s%s", name, f"{len(detector.pool):,}", found.offset, silent)
    return partition


def newest_manifest(blobs: dict[str, bytes]) -> Manifest | None:
    """The manifest of the last owner that completed one."""
    names = [name for name in blobs if name.endswith(f"/{MANIFEST}")]
    return Manifest.from_bytes(blobs[max(names, key=Owner.of)]) if names else None


@dataclass(frozen=True, slots=True)
class Start:
    """Where to read on, whether the snapshot's rows are kept, and whether the group's offset is of this topic."""

    offset: int
    keep: bool
    same_topic: bool = True


def find_start(
    name: str, source: KafkaSource, manifest: Manifest | None, committed: int | None, detector: Detector,
    settings: Delivery, start: str,
) -> Start:  # fmt: skip
    """Where a partition goes on; StateError where the settings say that it must not."""
    first, end = source.first_offset(name), source.end_offset(name)
    fresh = first if start == "earliest" else end
    if manifest is None:
        if committed is None:
            return Start(fresh, False)
        what = f"the group has read up to offset {committed}, but there is no snapshot"
        _decide(name, what, settings.on_missing_state, "on_missing_state", "all streams start anew")
        return Start(min(max(committed, first), end), False)
    if manifest.topic_id != (source.topic_id(name) or "") or manifest.next_offset > end:
        what = (
            f"the snapshot at offset {manifest.next_offset} belongs to another topic of that name, which ends at {end}"
        )
        _decide(name, what, settings.on_new_topic, "on_new_topic", "all streams start anew")
        return Start(fresh, False, same_topic=False)
    keep = True
    now = origin_of(detector)
    differing = _differing(manifest.origin, now)
    if replace(manifest.origin, arithmetic=now.arithmetic) == now and differing:
        what = f"the snapshot at offset {manifest.next_offset} was written under another {differing[0]}"
        if settings.mode == "exactly_once" and committed is not None and committed > manifest.next_offset:
            raise StateError(
                f"{name}: {what}, and flags were sent up to offset {committed}: scoring those records again would give other "
                "bits; go on once on a processor of that class, until it is stopped"
            )
        if settings.on_class_change == "accept":
            _decide(name, what, "accept", "on_class_change", "scores agree with those before to rounding alone")
            differing = []
        elif settings.on_mismatch == "fail":
            _decide(name, what, "fail", "on_class_change", "")
    if differing:
        what = f"the snapshot was written under another {', '.join(differing)}"
        _decide(name, what, settings.on_mismatch, "on_mismatch", "all streams start anew")
        keep = False
    if manifest.next_offset >= first:
        return Start(manifest.next_offset, keep)
    what = f"the snapshot ends at offset {manifest.next_offset}, but the topic now begins at {first}"
    policy = settings.on_missing_offsets
    _decide(name, what, policy, "on_missing_offsets", f"{first - manifest.next_offset:,} offsets are missed")
    return Start(end if policy == "latest" else first, keep and policy != "cold_start")


def _differing(then: Origin, now: Origin) -> list[str]:
    words = {"config": "configuration", "arithmetic": "arithmetic class", "exogenous": "list of exogenous columns",
             "features": "list of features"}  # fmt: skip
    return [
        f"{words.get(field.name, field.name)} ({getattr(then, field.name)}, now {getattr(now, field.name)})"
        for field in fields(Origin)
        if getattr(then, field.name) != getattr(now, field.name)
    ]


def _decide(name: str, what: str, policy: str, key: str, effect: str) -> None:
    """Goes on with a warning, or raises where the policy says fail."""
    if policy == "fail":
        raise StateError(f"{name}: {what}; set delivery.{key} to go on, or bring back what belongs together")
    log.warning("%s: %s; delivery.%s is %s: %s", name, what, key, policy, effect)
