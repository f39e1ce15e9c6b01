"""A detector's state in chunks of streams, each of its own age, and the manifest that binds them together.

Each stream's row knows the last record that it absorbed, so that chunks may be taken while the detector goes on: after a
restore, records from the manifest's offset on are scored again and each stream skips those it has absorbed. Weights
that learn have no such mark, nor has a stream whose records are reordered; there, all chunks are taken at one moment.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from streamlstm.config import config_hash
from streamlstm.detect.detector import Detector
from streamlstm.detect.reorder import batch_of, columns_of
from streamlstm.errors import StateError
from streamlstm.kernels.layout import LAST_ROW
from streamlstm.model.files import FORMAT
from streamlstm.version import VERSION

NO_MODEL = "online"


@dataclass(frozen=True, slots=True)
class Origin:
    """What scores depend on beside the records; rows go on only under an equal one."""

    model: str
    config: str
    arithmetic: str
    features: tuple[str, ...]
    exogenous: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One snapshot of a partition.

    next_offset  all records before it are in the rows, and none of weights that learn is later
    chunks       names of the blobs that hold rows, in the order of streams
    learned      name of the blob that holds weights that learn, None where they are frozen
    topic_id     the topic's identity, empty where the broker tells none: a topic made anew has another
    changes      where rows went on under another arithmetic class, oldest first
    waiting      names of the blobs that hold records which wait for older ones, in their order
    written_at   seconds since 1970, for people
    """

    partition: str
    next_offset: int
    number: int
    streams: int
    chunks: tuple[str, ...]
    learned: str | None
    origin: Origin
    topic_id: str
    written_at: float
    changes: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    version: str = VERSION
    format: str = FORMAT

    def to_bytes(self) -> bytes:
        """The manifest as JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """The manifest of its JSON; StateError where it is none that this version reads."""
        try:
            content = json.loads(data)
            if content["format"] != FORMAT:
                raise StateError(f"snapshot: has format {content['format']}, this version reads format {FORMAT}")
            origin = content.pop("origin")
            names = {name: tuple(origin[name]) for name in ("features", "exogenous")}
            lists: dict[str, Any] = {"chunks": tuple(content.pop("chunks"))}
            lists |= {name: tuple(content.pop(name, ())) for name in ("changes", "waiting")}
            return cls(**content, **lists, origin=Origin(**{**origin, **names}))
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(f"snapshot: the manifest cannot be read: {error}") from error


def origin_of(detector: Detector) -> Origin:
    """What `detector`'s scores depend on beside the records."""
    model = detector.model.hash if detector.model else NO_MODEL
    return Origin(
        model, config_hash(detector.config), detector.engine.arithmetic, detector.features, detector.exogenous
    )


def pack(tensors: dict[str, Any]) -> bytes:
    """Arrays by name as one blob."""
    packed: bytes = safetensors.numpy.save(tensors)
    return packed


def restore(detector: Detector, manifest: Manifest, blob: Callable[[str], bytes]) -> None:
    """Brings a new detector to the state of a snapshot, whose blobs `blob` gives by name; StateError where it cannot."""
    try:
        for name in manifest.chunks:
            columns = safetensors.numpy.load(blob(name))
            detector.pool.extend(columns)
            if detector.reorder is None:  # a chunk may be newer than the manifest: a crash came between the two
                last = int(columns["pool.marks"][:, LAST_ROW].max(initial=-1))
                detector.restored_to = max(detector.restored_to, last)
        if manifest.learned is not None:
            detector.engine.take_learned(safetensors.numpy.load(blob(manifest.learned)))
        if detector.reorder is not None:
            for name in manifest.waiting:
                detector.reorder.hold(batch_of(safetensors.numpy.load(blob(name))))
    except KeyError as error:
        raise StateError(f"snapshot of {manifest.partition}: {error} is missing; it is damaged") from error
    except (safetensors.SafetensorError, ValueError) as error:
        raise StateError(f"snapshot of {manifest.partition}: cannot be read: {error}") from error
    detector.log.sources = [manifest.partition]
    detector.go_on_from(manifest.origin.arithmetic, manifest.changes, f"offset {manifest.next_offset}")


def waiting_columns(detector: Detector, most_bytes: int) -> list[dict[str, Any]]:
    """The records that wait for older ones, as arrays for blobs of so many bytes; keys are 64 bytes at most on average."""
    if detector.reorder is None:
        return []
    rows = max(1, most_bytes // (8 * (len(detector.features) + len(detector.exogenous)) + 24 + 64))
    return [
        columns_of(batch.part(first, first + rows))
        for batch in detector.reorder.held()
        for first in range(0, len(batch), rows)
    ]


def pack_learned(detector: Detector) -> bytes | None:
    """Weights that learn and what their learning depends on, as one blob; None where weights are frozen."""
    tensors = detector.engine.learned(len(detector.pool))
    return pack({name: np.array(array) for name, array in tensors.items()}) if tensors else None
