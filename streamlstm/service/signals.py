"""Signals of a daemon: the first SIGTERM or Ctrl-C asks it to stop, a second one ends it at once, SIGHUP asks for a reload."""

import os
import select
import signal
import socket
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from streamlstm.errors import UsageError

_STOPPING = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """A context that takes the signals as requests and restores the handlers of before; for the main thread.

    Nothing is raised in the middle of the work. While `busy` is false there is nothing to save, and a signal ends the
    process at once with status 0: a first run compiles for a minute, which nothing can interrupt.
    """

    def __init__(self) -> None:
        self.stop: signal.Signals | None = None
        """The signal that asked to stop, None without one."""
        self.busy = False
        self.stopped = threading.Event()
        """Set when a stop was asked for, for other threads."""
        self._reload = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            raise UsageError("signals: can be taken by the main thread alone; run the daemon there")
        self._awake, waker = socket.socketpair()
        self._waker = waker
        self._awake.setblocking(False)
        self._waker.setblocking(False)
        self._fd_before = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        handlers = dict.fromkeys(_STOPPING, self._take_stop) | {
            signal.SIGHUP: self._take_reload,
            signal.SIGCHLD: self._take_child,
        }
        self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd_before)
        self._awake.close()
        self._waker.close()

    def reload(self) -> bool:
        """Whether a reload was asked for since the last call."""
        asked, self._reload = self._reload, False
        return asked

    def wait(self, timeout_s: float) -> None:
        """Returns at the next signal, the end of a child process too, or after `timeout_s`."""
        if select.select([self._awake], [], [], timeout_s)[0]:
            self._awake.recv(4096)

    def _take_stop(self, number: int, frame: FrameType | None) -> None:
        if not self.busy:
            os._exit(0)
        if self.stop is not None:
            os._exit(128 + number)
        self.stop = signal.Signals(number)
        self.stopped.set()

    def _take_reload(self, number: int, frame: FrameType | None) -> None:
        self._reload = True

    def _take_child(self, number: int, frame: FrameType | None) -> None:
        """Nothing but waking up `wait`, which the default handling would not do."""
