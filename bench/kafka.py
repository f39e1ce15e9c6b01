"""Benchmark `kafka`: a topic of small JSON values through clients and through the daemon, on a real broker.

One broker and, but for the cases that say otherwise, one topic serve all contenders of a run. A contender has one core
of its own, the broker and whatever feeds or reads topics have the others. Times are those of a connected client, from
its first poll on; Kafka's ConsumerPerformance and Quix Streams, which cannot be asked for that, count from when they
fetch (`fetch.nMsg.sec`) and from their first call of our function.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.catalog import OURS
from bench.kafka_setting import Setting, broker, pin_to_client_core

_SNAPSHOTS = {"snapshot_folder": 20, "snapshot_topic": 1000}  # until the restore is timed


@contextmanager
def session(folder: Path, records: int) -> Iterator[dict[str, Any]]:
    """A broker for the run; what the header says of it."""
    with broker(folder, records) as facts:
        yield facts


def prepare(case: str, folder: Path) -> None:
    """Compiles, fits the model, fills the case's topic and finds what must come out, unless an earlier case did."""
    from bench.kafka_configuration import compile_kernels
    from bench.kafka_events import remembered_flags, write_model
    from bench.kafka_topics import filled

    setting = Setting.read(folder)
    compile_kernels(folder)
    write_model(folder)
    if case in ("decode", "scored", "scored_exactly_once"):
        filled(setting, setting.events)
    if case in ("scored", "scored_exactly_once"):
        remembered_flags(folder, setting.events.streams, setting.events.records)
    if case in _SNAPSHOTS:
        filled(setting, setting.many)
    if case == "memory":
        filled(setting, setting.most)


def measure(case: str, contender: str, folder: Path) -> dict[str, float]:
    """Nanoseconds per event; milliseconds of latencies, stops and restores; MiB of memory."""
    setting = Setting.read(folder)
    if case == "latency":
        from bench.kafka_latency import latency

        return latency(setting, ours=contender == OURS)
    if case == "decode" and contender == OURS:
        from bench.kafka_decode import seconds_per_event

        pin_to_client_core()
        return {"ns/event": 1e9 * seconds_per_event(setting)}
    if case in ("decode", "scored") and contender != OURS:
        from bench.kafka_peers import PEERS

        pin_to_client_core()
        return {"ns/event": 1e9 * PEERS[contender](setting)}
    from bench.kafka_ours import resident_mib, scored, snapshots

    if case == "memory":
        return resident_mib(setting)
    if case in _SNAPSHOTS:
        return snapshots(setting, in_topic=case == "snapshot_topic", count=_SNAPSHOTS[case])
    mode = "exactly_once" if case == "scored_exactly_once" and contender == OURS else "at_least_once"
    return {"ns/event": 1e9 * scored(setting, mode)}
