"""The daemon as an operator runs it: `streamlstm run --config FILE` on a core of its own, watched by its status lines."""

import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from threading import Condition, Thread
from types import TracebackType
from typing import Any, Self

import yaml

from bench.agreement import Disagreement
from bench.kafka_setting import Setting, cores, on_cores

_STOP_S = 60.0

Status = dict[str, Any]


class Daemon:
    """One run of the daemon, as a context: it is killed at the end unless it was stopped before.

    statuses  status lines in their order, each with the seconds (of `time.perf_counter`) when it was read
    program   what Python is to run; a stand-in in tests
    """

    def __init__(
        self,
        setting: Setting,
        configuration: dict[str, dict[str, Any]],
        program: tuple[str, ...] = ("-m", "streamlstm", "run"),
    ) -> None:
        self._path = setting.folder / f"{configuration['kafka']['group_id']}.yaml"
        self._path.write_text(yaml.safe_dump(configuration))
        self._program = program
        self.statuses: list[tuple[float, Status]] = []
        self._said: deque[str] = deque(maxlen=20)
        self._heard = Condition()
        self._ended = False

    def __enter__(self) -> Self:
        with on_cores(cores()[0]):
            command = [sys.executable, *self._program, "--config", str(self._path)]
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self._listener = Thread(target=self._listen, daemon=True)
        self._listener.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._listener.join()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def wait_for(self, reached: Callable[[Status], bool], what: str, timeout_s: float) -> Status:
        """The first status for which `reached` holds; Disagreement with the daemon's last words if none comes in time."""
        deadline = time.monotonic() + timeout_s
        with self._heard:
            at = 0
            while True:
                for _, status in self.statuses[at:]:
                    if reached(status):
                        return status
                at = len(self.statuses)
                if self._ended or not self._heard.wait(max(0.0, deadline - time.monotonic())):
                    said = "\n".join(self._said)
                    raise Disagreement(f"the daemon ended, or was not {what} within {timeout_s:g} s; it said\n{said}")

    def wait_until_read(self, records: int, timeout_s: float) -> Status:
        """The first status with all records behind it; Disagreement where it counts others, or dead letters."""

        def read(status: Status) -> bool:
            return bool(status["events"] >= records and status["lag"] == 0)

        status = self.wait_for(read, f"through {records} records", timeout_s)
        if status["events"] != records or status["dead_letters"]:
            raise Disagreement(f"the daemon counts {status}, expected {records} events and no dead letter; not timed")
        return status

    def stop(self) -> None:
        """SIGTERM, and Disagreement unless it exits 0."""
        self.process.terminate()
        try:
            code = self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            raise Disagreement(f"the daemon did not stop within {_STOP_S:g} s of SIGTERM") from None
        self._listener.join()
        if code != 0:
            raise Disagreement(f"the daemon exited with status {code} on SIGTERM; it said\n" + "\n".join(self._said))

    def memory_mib(self) -> dict[str, float]:
        """Resident set now and at its largest so far."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        found = dict(line.split(":", 1) for line in lines)
        return {"MiB resident": _mib(found["VmRSS"]), "MiB at the peak": _mib(found["VmHWM"])}

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            now = time.perf_counter()
            status = _status(line)
            with self._heard:
                if status is None:
                    self._said.append(line.rstrip())
                else:
                    self.statuses.append((now, status))
                self._heard.notify_all()
        with self._heard:
            self._ended = True
            self._heard.notify_all()


def _status(line: str) -> Status | None:
    """The line's fields if it is a status line."""
    try:
        fields = json.loads(line)
    except json.JSONDecodeError:
        return None
    return fields if isinstance(fields, dict) and {"events", "lag", "flags"} <= fields.keys() else None


def _mib(text: str) -> float:
    return int(text.split()[0]) / 2**10


def seconds_per_event(statuses: list[tuple[float, Status]]) -> float:
    """From the first status with events to the last with a lag: starting and idling at the end are outside.

    Where a run is too short for two such statuses: from the last status without events to the first without a lag.
    """
    busy = [(at, s["events"]) for at, s in statuses if s["events"] > 0 and s["lag"] != 0]
    if len(busy) > 1 and busy[-1][1] > busy[0][1]:
        (began, first), (ended, last) = busy[0], busy[-1]
        return (ended - began) / (last - first)
    began = max(at for at, s in statuses if s["events"] == 0)
    ended, last = next((at, s["events"]) for at, s in statuses if s["events"] > 0 and s["lag"] == 0)
    return (ended - began) / last
