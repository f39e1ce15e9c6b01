"""`--workers N`: a parent that starts worker processes, passes signals on, and starts a worker again that died.

The parent reads no record. Kafka's group shares the partitions out among the workers, here and on other hosts.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from streamlstm.config import parse_setting
from streamlstm.service.logs import logs
from streamlstm.service.notify import Notifier
from streamlstm.service.running import open_setup
from streamlstm.service.signals import Signals
from streamlstm.service.warmup import warm_up_daemon
from streamlstm.service.watch import Watch

PARENT = "STREAMLSTM_SUPERVISOR"
"""Environment variable by which a worker knows the process that started it."""

_log = logging.getLogger(__name__)
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
_LONG_LIFE_S = 60.0  # after which a death is a new trouble, and the wait begins anew
_ROUND_S = 0.5
_GRACE_S = 2.0  # for a worker to end by itself when its own stop budget is over
_PR_SET_PDEATHSIG = 1
_SYSTEMD = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_CLEAN = (0, -signal.SIGTERM, -signal.SIGINT)  # or the signal came before there was anything to save


@dataclass(slots=True)
class _Worker:
    number: int
    watch: Watch
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    due: float = 0.0  # when to start it
    wait_s: float = field(default=_FIRST_WAIT_S)
    status: int = 0


class Supervisor:
    """Runs `command(n)` for the workers 0 to N-1 until a signal says stop. For the main thread.

    stop_budget_s that a worker has for its stop; the parent waits a little longer, then kills
    """

    def __init__(self, command: Callable[[int], Sequence[str]], workers: int, stop_budget_s: float) -> None:
        self._command, self._stop_budget_s = command, stop_budget_s
        self._workers = [_Worker(number, Watch(number)) for number in range(workers)]

    def run(self, signals: Signals) -> int:
        """The exit status: 0 when all workers stopped cleanly, else 1. `signals` are entered already."""
        signals.busy = True
        notifier = Notifier()
        deadline = None
        while True:
            if signals.stop is None:
                self._start_due()
                self._kill_silent()
                if signals.reload():
                    self._pass_on(signal.SIGHUP)
            elif deadline is None:
                notifier.stopping()
                self._pass_on(signals.stop)
                deadline = time.monotonic() + self._stop_budget_s + _GRACE_S
            elif time.monotonic() >= deadline:
                self._kill()
            self._bury(stopping=deadline is not None)
            if deadline is not None and not self._alive():
                break
            notifier.alive()
            if deadline is None and len(self._alive()) == len(self._workers):
                notifier.ready()
            signals.wait(self._next_s())
        notifier.close()
        for worker in self._workers:
            worker.watch.close()
        return 0 if all(worker.status in _CLEAN for worker in self._workers) else 1

    def _alive(self) -> list[tuple[_Worker, subprocess.Popen[bytes]]]:
        return [(worker, worker.process) for worker in self._workers if worker.process is not None]

    def _next_s(self) -> float:
        """Time until something is due: a watchdog's food at the latest."""
        now = time.monotonic()
        return max(0.0, min([_ROUND_S, *(w.due - now for w in self._workers if w.process is None)]))

    def _start_due(self) -> None:
        for worker in self._workers:
            if worker.process is None and time.monotonic() >= worker.due:
                # The watchdog of this process is not theirs, and Ctrl-C in a terminal is this process's to pass on.
                environ = {name: value for name, value in os.environ.items() if name not in _SYSTEMD}
                environ |= {PARENT: str(os.getpid())} | worker.watch.environ()
                worker.process = subprocess.Popen(self._command(worker.number), env=environ, process_group=0)
                worker.started = time.monotonic()
                _log.info("worker %d started, process %d", worker.number, worker.process.pid)

    def _pass_on(self, number: signal.Signals) -> None:
        for _, process in self._alive():
            process.send_signal(number)

    def _kill_silent(self) -> None:
        for worker, process in self._alive():
            if worker.watch.silent():
                _log.error("worker %d has stood still for %g s, killed", worker.number, worker.watch.limit_s)
                process.kill()
                process.wait()

    def _kill(self) -> None:
        for worker, process in self._alive():
            _log.error("worker %d did not stop in %g s, killed", worker.number, self._stop_budget_s + _GRACE_S)
            process.kill()
            process.wait()

    def _bury(self, *, stopping: bool) -> None:
        """Takes note of those that ended, and when to start them again."""
        now = time.monotonic()
        for worker, process in self._alive():
            status = process.poll()
            if status is None:
                continue
            worker.process, worker.status = None, status
            if stopping:
                if status not in _CLEAN:
                    _log.error("worker %d stopped with %s", worker.number, _words(status))
                continue
            worker.wait_s = _FIRST_WAIT_S if now - worker.started > _LONG_LIFE_S else worker.wait_s
            worker.due = now + worker.wait_s
            _log.error("worker %d ended with %s, starts again in %g s", worker.number, _words(status), worker.wait_s)
            worker.wait_s = min(2 * worker.wait_s, _LONGEST_WAIT_S)


def run_workers(source: str | None, settings: Sequence[str], workers: int) -> int:
    """Checks the configuration, compiles once, then runs `streamlstm run` in N processes; returns the exit status.

    settings as given to `--set`
    """
    with Signals() as signals:
        setup = open_setup(source, dict(parse_setting(text) for text in settings))
        service = setup.config.service
        with logs(service.log_format):
            warm_up_daemon(
                setup.config, setup.model
            )  # one process fills the compile cache; several at once have crashed it
            chosen = [part for setting in settings for part in ("--set", setting)]
            chosen += ["--config", source] if source is not None else []

            def command(number: int) -> list[str]:
                return [sys.executable, "-m", "streamlstm", "run", *chosen, "--worker", str(number)]

            return Supervisor(command, workers, service.stop_budget_s).run(signals)


def end_with_parent() -> None:
    """Has the kernel send SIGTERM to this process when the supervisor that started it dies; Linux only."""
    parent = os.environ.get(PARENT)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it died before the kernel knew
        signal.raise_signal(signal.SIGTERM)


def _words(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
