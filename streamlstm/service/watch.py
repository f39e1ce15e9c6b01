"""Whether a worker's loop still turns: its parent hears what it would say to systemd, whose watchdog sees the parent alone."""

import os
import socket
import time
from collections.abc import Callable, Mapping

_WORD = 4096


class Watch:
    """Listens to one worker after the other in the same place; only where systemd watches us, that is, on Linux.

    A worker that has fed its watchdog once must go on: compiling and restoring, before that, take their time.
    """

    def __init__(
        self,
        number: int,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._usec = environ.get("WATCHDOG_USEC", "0") if ours else "0"
        self.limit_s = int(self._usec) / 1e6
        self._name = f"streamlstm-{os.getpid()}-{number}"
        self._socket: socket.socket | None = None
        self._clock = clock
        self._heard: float | None = None
        if self.limit_s:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            self._socket.bind(f"\0{self._name}")  # a name without a file, which ends with us

    def environ(self) -> dict[str, str]:
        """What a new worker's environment must hold; from now on the words are its."""
        self._hear()
        self._heard = None
        return {"NOTIFY_SOCKET": f"@{self._name}", "WATCHDOG_USEC": self._usec} if self._socket is not None else {}

    def silent(self) -> bool:
        """Whether the worker has not fed its watchdog for longer than systemd would suffer it."""
        self._hear()
        return self._heard is not None and self._clock() - self._heard > self.limit_s

    def close(self) -> None:
        """Gives up the place."""
        if self._socket is not None:
            self._socket.close()

    def _hear(self) -> None:
        while self._socket is not None:
            try:
                words = self._socket.recv(_WORD)
            except BlockingIOError:
                return
            if b"WATCHDOG=1" in words:
                self._heard = self._clock()
