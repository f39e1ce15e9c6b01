"""Looking into kept state: which partitions there are, how far they are, and what each stream is at."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from streamlstm.config import Config, load
from streamlstm.detect.chunks import origin_of, restore
from streamlstm.detect.detector import Detector
from streamlstm.errors import StateError
from streamlstm.kernels.arguments import Pool
from streamlstm.kernels.layout import (
    BACKWARD,
    DROPPED,
    FIRST_TIME,
    IMPUTED,
    LAST_ROW,
    LAST_TIME,
    LIMIT,
    OPEN,
    REPEATED,
    SCORE,
    SCORED,
    SEEN,
)
from streamlstm.model.layout import Layout
from streamlstm.service.opening import check_outputs, resolve
from streamlstm.service.restoring import newest_manifest
from streamlstm.sinks import open_sink
from streamlstm.state.pool import stages
from streamlstm.state.stores import SnapshotStore, open_store
from streamlstm.types import NO_TIME, Stage

_TIME = pa.timestamp("ns", tz="UTC")
_COUNTERS = {"records": SEEN, "imputed": IMPUTED, "backward": BACKWARD, "repeated": REPEATED, "dropped": DROPPED}
_SCHEMA = pa.schema([
    ("key", pa.string()), ("stage", pa.string()), ("last_row", pa.int64()),
    ("first_time", _TIME), ("last_time", _TIME), *((name, pa.int64()) for name in _COUNTERS),
    ("score", pa.float32()), ("threshold", pa.float32()), ("episode", pa.bool_()),
])  # fmt: skip


@dataclass(frozen=True, slots=True)
class PartitionState:
    """The newest whole snapshot of one partition; `model` and `config` are hashes, `size` is in bytes."""

    partition: str
    next_offset: int
    streams: int
    size: int
    age_s: float
    model: str
    config: str
    version: str


def list_states(
    source: str | None, place: str | None, overrides: Mapping[str, Any], partition: str | None = None
) -> list[PartitionState]:
    """The states in `place` (a folder or kafka:TOPIC), else where the configuration keeps them."""
    config = load(source, overrides=overrides if place is None else {**overrides, "delivery.snapshots": place})
    store = _open(config)
    try:
        found = []
        for name in store.partitions() if partition is None else [partition]:
            blobs = store.load(name)
            manifest = newest_manifest(blobs)
            if manifest is not None:
                size = sum(len(blob) for blob in blobs.values())
                age_s = max(0.0, time.time() - manifest.written_at)
                origin = manifest.origin
                found.append(PartitionState(
                    name, manifest.next_offset, manifest.streams, size, age_s, origin.model, origin.config,
                    manifest.version,
                ))  # fmt: skip
        return found
    finally:
        store.close()


def export_state(source: str | None, partition: str, path: str, overrides: Mapping[str, Any]) -> int:
    """Writes one row per stream of a partition to `path`, by its suffix; returns how many.

    StateError where there is no such state, or where it belongs to another model or configuration than the given one.
    """
    check_outputs([path], [source])
    config, model = resolve(source, None, overrides)
    store = _open(config)
    try:
        blobs = store.load(partition)
        manifest = newest_manifest(blobs)
        if manifest is None:
            known = ", ".join(store.partitions()) or "none"
            raise StateError(f"{partition}: there is no snapshot in {config.delivery.snapshots}; it has: {known}")
    finally:
        store.close()
    origin = manifest.origin
    detector = Detector(config, model=model, features=origin.features, exogenous=origin.exogenous)
    now = origin_of(detector)
    if (now.model, now.config) != (origin.model, origin.config):
        raise StateError(
            f"{partition}: the snapshot is of model {origin.model} and configuration {origin.config}, these are "
            f"{now.model} and {now.config}; name the configuration that `streamlstm run` was given"
        )
    restore(detector, manifest, blobs.__getitem__)
    sink = open_sink(path, _SCHEMA)
    try:
        for first, rows in detector.pool.scan():
            keys = detector.pool.keys.strings(first, first + len(rows.marks))
            sink.write(_table(keys, rows, detector.layout))
    finally:
        sink.close()
    return len(detector.pool)


def _open(config: Config) -> SnapshotStore:
    place = config.delivery.snapshots
    if not place.startswith("kafka:") and not (Path(place).is_dir() and any(Path(place).iterdir())):
        raise StateError(f"{place}: there is no folder of snapshots; check delivery.snapshots or name another place")
    return open_store(config, client_id="streamlstm-state")


def _table(keys: pa.Array, rows: Pool, layout: Layout) -> pa.RecordBatch:
    marks, state = rows.marks, rows.state
    stage = stages(rows, layout)
    names = pa.array([of.name.lower() for of in Stage])
    limit = state[:, LIMIT]
    return pa.RecordBatch.from_arrays(
        [
            keys.cast(pa.string()),
            names.take(pa.array(stage.astype(np.int64))),
            pa.array(marks[:, LAST_ROW]),
            *(_times(marks[:, column]) for column in (FIRST_TIME, LAST_TIME)),
            *(pa.array(marks[:, column]) for column in _COUNTERS.values()),
            pa.array(state[:, SCORE], mask=marks[:, SCORED] == 0),
            pa.array(limit, mask=stage != Stage.LIVE),
            pa.array(marks[:, OPEN] == 1),
        ],
        schema=_SCHEMA,
    )


def _times(column: Any) -> pa.Array:
    return pa.array(column, mask=column == NO_TIME).view(_TIME)
