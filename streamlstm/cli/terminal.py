"""What the command line shows while it works: bars on a terminal, plain lines otherwise; all on standard error."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 5.0

console = Console(stderr=True, highlight=False, emoji=False)
output = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 160)
"""Results. Not on a terminal, tables are as wide as they like instead of the 80 columns that Rich would assume."""


def note(text: str) -> None:
    """One line for people."""
    console.print(text, style="dim", markup=False, soft_wrap=True)


def count(number: int, name: str) -> str:
    """`1 stream`, `2,000 streams`."""
    return f"{number:,} {name}{'s' * (number != 1)}"


class Bar:
    """Progress of one task: a bar with rate and time left on a terminal, else a line every five seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._told = time.monotonic()
        self._task: TaskID | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        self._task = self._progress.add_task(self._what, total=None, facts="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def show(self, done: float, total: float, facts: str) -> None:
        """`done` of `total` (0: unknown), with a few words."""
        if console.is_terminal:
            assert self._task is not None
            self._progress.update(self._task, completed=done, total=total or None, facts=facts)
        elif time.monotonic() - self._told >= LINE_EVERY_S:
            self._told = time.monotonic()
            share = f"{100 * done / total:.0f} %, " if total else ""
            note(f"{self._what}: {share}{facts}")
