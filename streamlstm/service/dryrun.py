"""`streamlstm run --dry-run`: everything up to the first scores, with nothing sent, committed or claimed."""

import time

import numpy as np

from streamlstm.config import Config
from streamlstm.detect.chunks import restore
from streamlstm.detect.detector import Detector
from streamlstm.kafka_client import quieten
from streamlstm.model.network import Model
from streamlstm.service.restoring import find_start, newest_manifest
from streamlstm.sinks.delivery import check_exactly_once, check_outputs, hidden
from streamlstm.sources.decoders.opening import open_decoder
from streamlstm.sources.topics import KafkaSource
from streamlstm.state.stores import open_store
from streamlstm.types import DeadLetter, RawBlock

_WAIT_S, _POLL_MS = 5.0, 500
Pairs = list[tuple[str, str]]


def dry_run(config: Config, model: Model | None) -> Pairs:
    """What a daemon of this configuration finds, in readable pairs: each partition's state, and one block's scores."""
    quieten()
    check_outputs(config)
    if config.delivery.mode == "exactly_once":
        check_exactly_once(config)
    columns = config.input

    def make() -> Detector:
        return Detector(config, model=model, features=columns.features, exogenous=columns.exogenous)

    detectors: dict[str, Detector] = {}
    letters: list[DeadLetter] = []
    source = KafkaSource(config.kafka, client_id="dry-run", on_dead_letter=letters.append)
    store = open_store(config, client_id="dry-run")
    try:
        numbers = source.require(config.kafka.topics)
        names = [f"{topic}/{number}" for topic, of in numbers.items() for number in of]
        source.assign(names)
        pairs = [("brokers", ", ".join(config.kafka.bootstrap_servers))]
        for name in names:
            blobs, detector = store.load(name), make()
            manifest = newest_manifest(blobs)
            found = find_start(
                name, source, manifest, source.committed(name), detector, config.delivery, config.kafka.start
            )
            if manifest is not None and found.keep:
                restore(detector, manifest, blobs.pop)
            detectors[name] = detector
            source.seek(name, found.offset)
            source.resume(name)
            left = source.end_offset(name) - found.offset
            pairs.append((name, f"{len(detector.pool):,} streams, from offset {found.offset}, {left:,} to read"))
        pairs += _scored(config, source, detectors, letters)
    finally:
        source.close()
        store.close()
    for kind in ("flags", "scores", "episodes", "dead_letters"):
        address = getattr(config.outputs, kind)
        pairs.append((kind.replace("_", " "), "nowhere" if address is None else f"would go to {hidden(address)}"))
    return pairs


def _scored(config: Config, source: KafkaSource, detectors: dict[str, Detector], letters: list[DeadLetter]) -> Pairs:
    """One block decoded and scored."""
    deadline = time.monotonic() + _WAIT_S
    block: RawBlock | None = None
    while block is None and time.monotonic() < deadline:
        block = next(iter(source.poll(_POLL_MS)), None)
    if block is None:
        return [("records", f"none came in {_WAIT_S:g} s")]
    detector = detectors[block.source]
    batch = open_decoder(config, detector.features, detector.exogenous).decode(block, letters.append)
    pairs = [("records", f"{len(block):,} of {block.source}, {len(letters):,} of them dead letters")]
    pairs += [("dead letter", f"offset {letter.line} {letter.reason}") for letter in letters[:3]]
    if len(batch):
        scored = detector.process_events(batch)
        score = np.median(scored.score) if len(scored) else float("nan")
        pairs.append(
            ("scores", f"median {score:.3g}, {int(scored.flag.sum()):,} flags, {len(detector.pool):,} streams")
        )
    return pairs
