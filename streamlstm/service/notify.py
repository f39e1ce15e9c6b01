"""Words to systemd: ready, status, alive, reloading, stopping; see sd_notify(3). Without systemd nothing happens."""

import os
import socket
import time
from collections.abc import Callable, Mapping

_START_S = 300


class Notifier:
    """Sends to the socket that `NOTIFY_SOCKET` names; a process that systemd did not start sends nothing.

    `alive` is for the loop itself, so that a loop that stands still is restarted by systemd.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ, clock: Callable[[], float] = time.monotonic) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if address else None
        ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._interval_s = int(environ.get("WATCHDOG_USEC", 0)) / 2e6 if ours else 0.0
        self._clock = clock
        self._due = clock()

    def starting(self) -> None:
        """Asks for time: the first run on a host compiles for a minute, longer than systemd may want to wait."""
        self._send(f"EXTEND_TIMEOUT_USEC={_START_S * 1_000_000}", "STATUS=compiling kernels")

    def ready(self) -> None:
        """The loop runs, for the first time or after a reload."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """A line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Feeds the watchdog, at most twice in its time."""
        if self._interval_s and self._clock() >= self._due:
            self._due = self._clock() + self._interval_s
            self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """SIGHUP is being followed; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Lets the socket go."""
        if self._socket is not None:
            self._socket.close()

    def _send(self, *lines: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError:  # systemd is being restarted, or its queue is full: the next word will do
            return
