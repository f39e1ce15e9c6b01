"""From the topic to columns and slots, in this process: the daemon's source, decoder and key table, and nothing else."""

import time

from bench.agreement import Disagreement
from bench.kafka_configuration import settings
from bench.kafka_events import FEATURE, check, checksum, model_path
from bench.kafka_setting import Setting
from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.sources.decoders.opening import open_decoder
from streamlstm.sources.topics import KafkaSource
from streamlstm.types import DeadLetter

_LIMIT_S = 600.0
_POLL_MS = 200


def seconds_per_event(setting: Setting) -> float:
    """Seconds of a record among the first of the topic, after one block that warms up."""
    config = Config.model_validate(settings(setting, setting.events.name, "nowhere"))
    decoder = open_decoder(config, (FEATURE,), ())
    pool = Detector.load(model_path(setting.folder)).pool
    source = KafkaSource(config.kafka, client_id="bench", on_dead_letter=_refuse, group=False)
    partition = f"{setting.events.name}/0"
    source.assign([partition])
    _begin(source, partition)
    deadline = time.monotonic() + _LIMIT_S
    warm = 0
    while not warm and time.monotonic() < deadline:
        for block in source.poll(_POLL_MS):
            pool.slots(pool.streams(decoder.decode(block, _refuse).keys))
            warm += len(block)

    _begin(source, partition)
    wanted, read, count, total, slots = setting.records, 0, 0, 0.0, 0
    began = time.perf_counter()
    while count < wanted and time.monotonic() < deadline:
        for block in source.poll(_POLL_MS):
            batch = decoder.decode(block, _refuse)
            slots = max(slots, int(pool.slots(pool.streams(batch.keys)).max(initial=0)))
            first = int(batch.row.searchsorted(wanted))  # the last block goes beyond
            total += float(batch.x[:first].sum())
            count += first
            read += len(batch)
    seconds = time.perf_counter() - began
    source.close()
    check("ours", (wanted, checksum(setting.events.streams, wanted)), count, total)
    if slots != setting.events.streams - 1:
        raise Disagreement(f"ours: the last slot is {slots}, expected {setting.events.streams - 1}; not timed")
    return seconds / read


def _begin(source: KafkaSource, partition: str) -> None:
    source.seek(partition, 0)
    source.resume(partition)


def _refuse(letter: DeadLetter) -> None:
    raise Disagreement(f"ours: {letter.source}/{letter.line} is a dead letter: {letter.reason}")
