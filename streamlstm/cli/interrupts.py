"""Ctrl-C and SIGTERM as one exception, remembered for when it is lost."""

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """A context in which both signals raise KeyboardInterrupt, so that files are closed on the way out.

    While LLVM compiles, it calls Python through ctypes, which swallows the exception, and the compilation then fails
    with another: what ends a run after a signal is that signal, whatever it looks like. Other threads leave them alone.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        """Exit status that the signal asks for, None without one."""
        self._before: dict[signal.Signals, Any] = {}
        self._unraisable = sys.unraisablehook

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take) for number in _SIGNALS}
            sys.unraisablehook = self._tell
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before:
            sys.unraisablehook = self._unraisable

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.status = 128 + number
        raise KeyboardInterrupt

    def _tell(self, lost: Any) -> None:
        if self.status is None:
            self._unraisable(lost)
