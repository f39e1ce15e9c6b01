"""`streamlstm run`: one worker from configuration to exit status, with a new configuration at SIGHUP.

A new configuration is checked while the old one works. If it differs the daemon is stopped cleanly and one with the new
configuration takes its place; if that one fails before its first status line, the old configuration comes back.
"""

import gc
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol

from streamlstm.config import Config
from streamlstm.errors import ConfigError, StreamlstmError
from streamlstm.model.network import Model
from streamlstm.service.daemon import Daemon
from streamlstm.service.dryrun import dry_run as look
from streamlstm.service.logs import RateLimit, logs
from streamlstm.service.notify import Notifier
from streamlstm.service.opening import STDOUT, resolve
from streamlstm.service.signals import Signals
from streamlstm.service.status import Status, StatusLog
from streamlstm.service.warmup import warm_up_daemon

_log = logging.getLogger(__name__)
_SWITCH_S = 0.0005


class Worker(Protocol):
    """What is run: a `Daemon`."""

    def run(self, stop: Callable[[], bool]) -> None:
        """Works until `stop` says so, then saves and closes everything."""
        ...

    def status(self) -> Status:
        """How it stands."""
        ...


@dataclass(frozen=True, slots=True)
class Setup:
    """A checked configuration and its model."""

    config: Config
    model: Model | None

    def same_as(self, other: "Setup") -> bool:
        """Whether nothing would differ."""
        hashes = [setup.model.hash if setup.model else None for setup in (self, other)]
        return self.config == other.config and hashes[0] == hashes[1]


def open_setup(source: str | None, overrides: Mapping[str, Any], worker: int | None = None) -> Setup:
    """The configuration and model of a daemon; `worker` is its number among several, which then write files of their own.

    ConfigError, or ModelError for the model file, with what is wrong or missing.
    """
    config, model = resolve(source, None, overrides)
    name = source or "configuration"
    if not config.kafka.topics:
        raise ConfigError(f"{name}: kafka.topics: is empty; name at least one topic to read, as in [readings]")
    if model is None and not config.input.features:
        raise ConfigError(
            f"{name}: input.features: is empty and there is no model.file that would know them; "
            "name the fields to judge, as in [value], or the model file"
        )
    if worker is not None:
        paths = {name: _of_worker(path, worker) for name, path in _files(config).items()}
        config = config.model_copy(update={"outputs": config.outputs.model_copy(update=paths)})
    return Setup(config, model)


def run_daemon(
    source: str | None,
    overrides: Mapping[str, Any] | None = None,
    *,
    worker: int | None = None,
    make: Callable[[Setup, Callable[[], None], int], Worker] | None = None,
) -> int:
    """Runs until a signal says stop; returns the exit status. For the main thread.

    `make` builds the worker of a setup, a function to be called in each of its rounds, and its number.
    """
    with Signals() as signals:
        setup = open_setup(source, overrides or {}, worker)
        notifier = Notifier()
        notifier.starting()
        warm_up_daemon(setup.config, setup.model)
        gc.freeze()  # 130 000 objects of libraries: else the loop stands still 65 ms for each full collection
        # The client's threads wait for the interpreter's lock by this much (5 ms else): a flag comes up to a quarter sooner.
        sys.setswitchinterval(_SWITCH_S)
        signals.busy = True
        run = _Run(source, overrides or {}, worker, setup, signals, notifier, make or _daemon)
        with _budget(signals, lambda: run.setup.config.service.stop_budget_s):
            run.until_stopped()
        notifier.close()
    return 0


def dry_run(source: str | None, overrides: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Connects, restores, decodes and scores one block, and sends and commits nothing; what it saw as readable pairs."""
    setup = open_setup(source, overrides)
    with logs(setup.config.service.log_format):
        return look(setup.config, setup.model)


class _Run:
    """The worker of now, and what becomes of it at a signal."""

    def __init__(
        self,
        source: str | None,
        overrides: Mapping[str, Any],
        number: int | None,
        setup: Setup,
        signals: Signals,
        notifier: Notifier,
        make: Callable[[Setup, Callable[[], None], int], Worker],
    ) -> None:
        self.setup = setup
        self._source, self._overrides, self._number = source, overrides, number
        self._signals, self._notifier, self._make = signals, notifier, make
        self._next: Setup | None = None
        self._before: Setup | None = None  # while the setup of now is on trial
        self._ready = False

    def until_stopped(self) -> None:
        """One worker after the other, each with its configuration's log."""
        while self._signals.stop is None:
            service = self.setup.config.service
            with logs(service.log_format, self._number) as limit:
                self._next = None
                try:
                    self._work(limit, StatusLog(service.status_interval_s))
                except StreamlstmError as error:
                    if self._before is None or self._signals.stop is not None:
                        if service.log_format == "json":  # the command line's own message is no JSON
                            _log.critical("stopped: %s", error)
                        raise
                    _log.error("the new configuration failed, going back to the one before: %s", error)
                    self.setup, self._before = self._before, None
                else:
                    if self._next is not None:
                        self.setup, self._before = self._next, self.setup

    def _work(self, limit: RateLimit, status_log: StatusLog) -> None:
        self._ready = False

        def on_round() -> None:
            self._notifier.alive()
            if not self._ready:
                self._ready = True
                self._notifier.ready()
            if self._signals.reload():
                self._reload()
            status = status_log.tick(worker.status)
            if status is not None:
                self._before = None
                self._notifier.status(status.line())
                limit.tell()

        worker = self._make(self.setup, on_round, self._number or 0)
        _log.info("started")
        worker.run(self._stop)
        _log.info("stopped" if self._signals.stop else "stopped for the new configuration")

    def _stop(self) -> bool:
        if self._signals.stop is not None:
            self._notifier.stopping()
        return self._signals.stop is not None or self._next is not None

    def _reload(self) -> None:
        """Checks the configuration anew; the worker goes on meanwhile, and afterwards where nothing is to change."""
        self._notifier.reloading()
        try:
            found = open_setup(self._source, self._overrides, self._number)
        except StreamlstmError as error:
            _log.error("SIGHUP: the new configuration is not valid, the old one stays: %s", error)
            self._notifier.ready()
            return
        if found.same_as(self.setup):
            _log.info("SIGHUP: nothing has changed")
            self._notifier.ready()
            return
        _log.info("SIGHUP: changing to the new configuration")
        self._next = found


def _daemon(setup: Setup, on_round: Callable[[], None], worker: int) -> Daemon:
    return Daemon(setup.config, setup.model, on_round=on_round, worker=worker)


@contextmanager
def _budget(signals: Signals, budget_s: Callable[[], float]) -> Iterator[None]:
    """Ends the process with status 1 when it is still inside so long after a signal, whatever it waits for."""
    done = threading.Event()

    def watch() -> None:
        signals.stopped.wait()
        if not done.wait(budget_s()):
            _log.critical("the stop took longer than service.stop_budget_s: %g s; ended unfinished", budget_s())
            os._exit(1)

    threading.Thread(target=watch, name="stop-budget", daemon=True).start()
    try:
        yield
    finally:
        done.set()
        signals.stopped.set()


def _files(config: Config) -> dict[str, str]:
    """The outputs that are files, by key."""
    outputs = config.outputs
    places = {
        "flags": outputs.flags, "scores": outputs.scores,
        "episodes": outputs.episodes, "dead_letters": outputs.dead_letters,
    }  # fmt: skip
    other = ("kafka:", "http://", "https://")
    return {name: path for name, path in places.items() if path and path != STDOUT and not path.startswith(other)}


def _of_worker(path: str, worker: int) -> str:
    """`flags.csv.gz` as worker 2 writes it: `flags-2.csv.gz`."""
    file = PurePosixPath(path)
    stem, dot, suffixes = file.name.partition(".")
    return str(file.with_name(f"{stem}-{worker}{dot}{suffixes}"))
