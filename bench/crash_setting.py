"""Where a crash campaign happens: a broker of its own, events that never stop coming, and workers that can be killed."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import yaml

from bench.agreement import Disagreement
from streamlstm.config import load, schema
from streamlstm.kafka_client import make_producer
from streamlstm.service.broker import LocalBroker
from streamlstm.service.opening import resolve
from streamlstm.sources.topics import KafkaSource

EVENTS, FLAGS, SCORES, LETTERS, STATE = "events", "flags", "scores", "letters", "state"
PARTITIONS = 4
KEYS = 60
SESSION_MS = 3000
_START_MS, _TICK_MS = 1_700_000_000_000, 60_000
_SPIKES, _POISON = 0.004, 0.001
_STOP_S, _DRAIN_S = 60.0, 180.0
_LEARNING: dict[str, Any] = {
    "model": {"hidden_size": 8},
    "learning": {"mode": "online", "learning_rows": 30, "calibrating_rows": 30, "update_every": 16},
    "score": {"span": 1},
    "threshold": {"kind": "fixed", "level": 4.0},
}


class Feeder:
    """Sends `rate` events a second to the topic from a thread of its own until `stop`; some are spikes, some no JSON."""

    def __init__(self, kafka: schema.Kafka, rate: int, seed: int) -> None:
        self.sent = 0
        self._producer = make_producer(kafka, client_id="feeder", linger_ms=5)
        self._rate, self._rng = rate, np.random.default_rng(seed)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._feed, name="feeder", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when everything that was sent is in the topic."""
        if self._ending.is_set():
            return
        self._ending.set()
        self._thread.join()
        self._producer.flush(timeout=_STOP_S)
        self._producer.close(timeout=5)

    def _feed(self) -> None:
        began = time.monotonic()
        while not self._ending.wait(0.02):
            for _ in range(int((time.monotonic() - began) * self._rate) - self.sent):
                key, value = self._event(self.sent)
                self._producer.send(EVENTS, key=key, value=value)
                self.sent += 1

    def _event(self, number: int) -> tuple[bytes, bytes]:
        minute, key = divmod(number, KEYS)
        chance, noise = self._rng.uniform(), self._rng.normal()
        value = 20 + 3 * np.sin(minute / 30 + key) + 0.3 * noise + (8 if chance < _SPIKES else 0)
        text = b'{"ts":%d,"value":%.17g}' % (_START_MS + minute * _TICK_MS, value)
        return b"sensor-%03d" % key, text[:-5] if chance > 1 - _POISON else text


class Workers:
    """Processes of `streamlstm run` by number; what they say goes to `worker-N.log` in the folder."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def numbers(self) -> list[int]:
        """Those that run; Disagreement where one has ended by itself."""
        for number, process in self._processes.items():
            if process.poll() is not None:
                raise Disagreement(f"worker {number} ended with status {process.returncode}; see worker-{number}.log")
        return sorted(self._processes)

    def start(self, number: int) -> None:
        """Starts a worker."""
        command = [sys.executable, "-m", "streamlstm", "run", "--config", str(self._config), "--worker", str(number)]
        with (self._config.parent / f"worker-{number}.log").open("ab") as log:
            self._processes[number] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def send(self, number: int, what: signal.Signals) -> None:
        """Sends a signal."""
        self._processes[number].send_signal(what)

    def kill(self, number: int) -> None:
        """Ends a worker as a power cut would."""
        process = self._processes.pop(number)
        process.kill()
        process.wait()

    def stop(self, number: int) -> None:
        """Ends a worker as an operator would; Disagreement unless it exits 0 in time."""
        process = self._processes.pop(number)
        process.terminate()
        try:
            status = process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Disagreement(f"worker {number} did not stop within {_STOP_S:g} s of SIGTERM") from None
        if status not in (0, -signal.SIGTERM):  # the latter where it had only just started
            raise Disagreement(f"worker {number} exited with status {status} on SIGTERM; see worker-{number}.log")

    def close(self) -> None:
        """Kills all that still run."""
        for number in list(self._processes):
            self.kill(number)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen to what.

    mode, assignor as in the configuration
    scenario       of `bench.crash.SCENARIOS`, `times` times; `pause_s` between kills, or how long it lasts
    snapshots      in a `folder` or a `topic`
    static         members of the group
    online         weights that learn, else frozen ones
    rate           events a second
    seed           of the events and of what happens when
    """

    mode: str
    scenario: str = "kill"
    times: int = 20
    pause_s: float | None = None
    snapshots: str = "folder"
    assignor: str = "cooperative-sticky"
    static: bool = False
    online: bool = False
    rate: int = 1000
    seed: int = 0


class Setting:
    """A broker with the topics, a feeder and two workers, as a context; everything lies in `folder`."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder, plan

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            limits = {"group.min.session.timeout.ms": "1000", "offsets.retention.minutes": "100000"}
            self.broker = stack.enter_context(LocalBroker(self.folder / "broker", settings=limits))
            self.broker.create_topics({EVENTS: PARTITIONS, FLAGS: 2, SCORES: 2, LETTERS: 1})
            write_model(self.folder / "model.safetensors")
            path = self.folder / "config.yaml"
            path.write_text(yaml.safe_dump(self._settings()))
            self.config, _ = resolve(path, None, {})
            self.feeder = Feeder(self.config.kafka.model_copy(update={"client": {}}), self.plan.rate, self.plan.seed)
            stack.callback(self.feeder.stop)
            self.workers = Workers(path)
            stack.callback(self.workers.close)
            for number in range(2):
                self.workers.start(number)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def _settings(self) -> dict[str, Any]:
        learning = _LEARNING if self.plan.online else {"model": {"file": str(self.folder / "model.safetensors")}}
        return learning | {
            "kafka": {
                "bootstrap_servers": [self.broker.bootstrap],
                "topics": [EVENTS],
                "group_id": "crash",
                "assignor": self.plan.assignor,
                "client": {"session_timeout_ms": SESSION_MS, "heartbeat_interval_ms": SESSION_MS // 3},
            }
            | ({"group_instance_id": "crash"} if self.plan.static else {}),
            "input": {"time": "ts", "time_unit": "ms", "features": ["value"]},
            "outputs": {"flags": f"kafka:{FLAGS}", "scores": f"kafka:{SCORES}", "dead_letters": f"kafka:{LETTERS}"},
            "delivery": {
                "mode": self.plan.mode,
                "snapshots": f"kafka:{STATE}" if self.plan.snapshots == "topic" else str(self.folder / "state"),
                "snapshot_interval_s": 0.7,
                "commit_interval_s": 0.2,
            },
            "service": {"status_interval_s": 5, "stop_budget_s": 40},
        }

    def await_progress(self, timeout_s: float = _DRAIN_S) -> None:
        """Returns when the group has read something."""
        self._await(lambda committed, ends: any(committed.values()), "nothing was read", timeout_s)

    def finish(self) -> None:
        """Stops the feeder, waits until everything is read and stops the workers; Disagreement where that fails."""
        self.feeder.stop()
        self._await(lambda committed, ends: committed == ends, "the topic was not read to its end", _DRAIN_S)
        for number in self.workers.numbers():
            self.workers.stop(number)

    def _await(self, reached: Callable[[dict[str, int], dict[str, int]], bool], what: str, timeout_s: float) -> None:
        source = KafkaSource(self.config.kafka, client_id="watch", on_dead_letter=print)
        deadline = time.monotonic() + timeout_s
        names = [f"{EVENTS}/{number}" for number in range(PARTITIONS)]
        try:
            while True:
                committed = {name: source.committed(name) or 0 for name in names}
                ends = {name: source.end_offset(name) for name in names}
                if reached(committed, ends):
                    return
                self.workers.numbers()
                if time.monotonic() > deadline:
                    raise Disagreement(f"{what} within {timeout_s:g} s: at {committed}, the ends are {ends}")
                time.sleep(0.2)
        finally:
            source.close()


def write_model(path: Path) -> None:
    """Fits a small model on one stream, so that every stream is live from its first record."""
    from streamlstm.learn.fit import Recording, fit
    from streamlstm.model.files import save_model

    minutes = np.arange(2000)
    values = 20 + 3 * np.sin(minutes / 30) + 0.3 * np.random.default_rng(0).normal(size=2000)
    config = load({
        "model": {"hidden_size": 8}, "training": {"updates": 20}, "learning": {"calibrating_rows": 1},
        "score": {"span": 1}, "threshold": {"kind": "fixed", "level": 4.0},
    })  # fmt: skip
    recording = Recording(minutes * _TICK_MS * 10**6, values[:, None])
    save_model(fit({"fitted": recording}, config, ("value",)), path)
