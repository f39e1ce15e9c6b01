"""The daemon's cases: from a topic to flags in a topic, snapshots and restore, memory."""

import json
from threading import Event, Thread

from bench.agreement import Disagreement
from bench.kafka_configuration import settings
from bench.kafka_daemon import Daemon, seconds_per_event
from bench.kafka_events import remembered_flags
from bench.kafka_setting import Setting
from bench.kafka_topics import committed_values, create, feed

_LIMIT_S = 900.0
_FED_PER_SECOND = 20_000


def scored(setting: Setting, mode: str) -> float:
    """Seconds of an event, from the whole topic to flags in another; Disagreement unless the flags are the right ones."""
    topic = setting.events
    flags = create(setting, setting.name("flags"))
    with Daemon(setting, settings(setting, topic.name, flags, delivery={"mode": mode})) as daemon:
        status = daemon.wait_until_read(topic.records, _LIMIT_S)
        daemon.stop()
        seconds = seconds_per_event(daemon.statuses)
    if status["streams"] != topic.streams:
        raise Disagreement(f"{mode}: {status['streams']} streams, expected {topic.streams}; not timed")
    ids = [json.loads(value)["id"] for value in committed_values(setting, flags)]
    expected = remembered_flags(setting.folder, topic.streams, topic.records)
    if not len(ids) == len(set(ids)) == expected:
        raise Disagreement(f"{mode}: {len(ids)} flags, {len(set(ids))} distinct ones, expected {expected}; not timed")
    return seconds


def snapshots(setting: Setting, *, in_topic: bool, count: int) -> dict[str, float]:
    """The longest stop of the loop while snapshots are written under a steady input, and how long a restore takes.

    A snapshot a second to a folder; ten a second to a topic, so that the restore comes after many.
    """
    topic = setting.many
    count = max(3, int(setting.share * count))
    delivery = {"snapshot_interval_s": 0.1 if in_topic else 1.0}
    if in_topic:
        delivery |= {"snapshots": f"kafka:{setting.name('state')}"}
    configuration = settings(setting, topic.name, create(setting, setting.name("flags")), delivery=delivery)
    stop = Event()
    feeder = Thread(target=feed, args=(setting, topic, _FED_PER_SECOND, stop))
    with Daemon(setting, configuration) as daemon:
        daemon.wait_for(lambda status: status["streams"] >= topic.streams, "aware of all streams", _LIMIT_S)
        known = len(daemon.statuses)
        feeder.start()
        try:
            daemon.wait_for(lambda status: status["snapshots"] >= count, f"through {count} snapshots", _LIMIT_S)
        finally:
            stop.set()
            feeder.join()
        daemon.stop()
        stall = max(status["loop_stall_ms_max"] for _, status in daemon.statuses[known:])
    with Daemon(setting, configuration) as daemon:
        status = daemon.wait_for(lambda status: status["streams"] >= topic.streams, "restored", _LIMIT_S)
        daemon.stop()
    if status["streams"] != topic.streams:
        raise Disagreement(f"restored {status['streams']} streams, expected {topic.streams}")
    return {"ms of the longest stop": stall, "ms to restore": 1e3 * status["restore_s"]}


def resident_mib(setting: Setting) -> dict[str, float]:
    """Memory of the daemon with every stream of the topic in it."""
    topic = setting.most
    flags = create(setting, setting.name("flags"))
    with Daemon(setting, settings(setting, topic.name, flags)) as daemon:
        status = daemon.wait_until_read(topic.records, _LIMIT_S)
        memory = daemon.memory_mib()
        daemon.stop()
    if status["streams"] != topic.streams:
        raise Disagreement(f"memory: {status['streams']} streams, expected {topic.streams}")
    return memory
