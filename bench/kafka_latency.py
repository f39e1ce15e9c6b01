"""From the call that sends an event to the poll that returns its flag, at a steady rate of events."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import numpy as np
from confluent_kafka import Consumer, Message

from bench.agreement import Disagreement
from bench.kafka_configuration import settings
from bench.kafka_daemon import Daemon
from bench.kafka_events import FEATURE, START_MS, TICK_MS, chunks, json_values, keys
from bench.kafka_setting import Setting, cores, on_cores
from bench.kafka_topics import consumer, create, producer
from streamlstm.types import Float64

_ROOT = Path(__file__).resolve().parent.parent
_PER_SECOND, _SECONDS, _STREAMS = 1000, 20, 100
_WARM_UP = 2000  # events at the start that are not counted
_LIMIT_S = 60.0

Number = Callable[[Message], int]
"""The number of an event, from what was written of it."""


def latency(setting: Setting, *, ours: bool) -> dict[str, float]:
    """Milliseconds from `produce` to the flag, or to the copy of a process that only copies; all events but the first."""
    source, target = (create(setting, setting.name(what)) for what in ("sent", "seen"))
    events = _WARM_UP + int(max(0.05, setting.share) * _SECONDS * _PER_SECOND)
    with _daemon(setting, source, target) if ours else _echo(setting, source, target):
        reader = consumer(setting, target, **{"enable.partition.eof": False})
        try:
            sent, seen = _round_trips(setting, source, reader, events, _flagged if ours else _copied)
        finally:
            reader.close()
    milliseconds = 1e3 * (seen - sent)[_WARM_UP:]
    if not np.isfinite(milliseconds).all():
        raise Disagreement(f"latency: {np.isnan(milliseconds).sum()} of {len(milliseconds)} events did not come back")
    return {"ms at p50": float(np.percentile(milliseconds, 50)), "ms at p99": float(np.percentile(milliseconds, 99))}


def _round_trips(
    setting: Setting, source: str, reader: Consumer, events: int, number: Number
) -> tuple[Float64, Float64]:
    """When each event was sent and when it was seen, seconds (events); NaN for never."""
    sent, seen = np.full(events, np.nan), np.full(events, np.nan)
    warm = Event()
    sending = Thread(target=_send, args=(setting, source, sent, warm))
    deadline = time.monotonic() + 2 * _LIMIT_S + events / _PER_SECOND
    sending.start()
    while np.isnan(seen[_WARM_UP:]).any() and time.monotonic() < deadline:
        message = reader.poll(1.0)
        now = time.perf_counter()
        if message is not None and message.error() is None:
            at = number(message)
            seen[at] = now if np.isnan(seen[at]) else seen[at]
            if at == _WARM_UP - 1:
                warm.set()
    sending.join()
    return sent, seen


def _send(setting: Setting, topic: str, sent: Float64, warm: Event) -> None:
    """Sends all events at a steady rate, with a pause until the last one of the warm-up has been seen."""
    # librdkafka's idempotent producer spins on the broker's core while five requests wait for their answers, and makes each
    # pause of the broker's collector two to ten times as long; without retries the order is kept, and none comes twice.
    sender = producer(setting, **{"linger.ms": 0, "enable.idempotence": False, "retries": 0})
    names = keys(_STREAMS)
    time_ms, stream, value = next(chunks(_STREAMS, len(sent)))
    texts = json_values(time_ms, value)
    began = time.perf_counter()
    for n, (text, key) in enumerate(zip(texts, map(names.__getitem__, stream.tolist()), strict=True)):
        if n == _WARM_UP:
            sender.flush(_LIMIT_S)
            warm.wait(_LIMIT_S)
            began = time.perf_counter() - n / _PER_SECOND
        time.sleep(max(0.0, began + n / _PER_SECOND - time.perf_counter()))
        sent[n] = time.perf_counter()
        sender.produce(topic, text, key, 0)
        sender.poll(0)
    sender.flush(_LIMIT_S)


@contextmanager
def _daemon(setting: Setting, source: str, target: str) -> Iterator[None]:
    """A daemon with a rule that every event breaks, so that every one is flagged; a score may be 0."""
    configuration = settings(
        setting,
        source,
        target,
        rules={"maximum": {FEATURE: -1e300}},
        episodes={"accept_after_rows": 10**6},
    )
    with Daemon(setting, configuration) as daemon:
        daemon.wait_for(lambda status: True, "ready", _LIMIT_S)
        yield
        daemon.stop()


@contextmanager
def _echo(setting: Setting, source: str, target: str) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.kafka_echo", setting.bootstrap, source, target]
    with on_cores(cores()[0]):
        process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise Disagreement("echo: did not start")
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _flagged(flag: Message) -> int:
    return int(json.loads(flag.value())["id"].rsplit("/", 1)[1])


def _copied(event: Message) -> int:
    return (json.loads(event.value())["ts"] - START_MS) // TICK_MS * _STREAMS + int(event.key()[-6:])
