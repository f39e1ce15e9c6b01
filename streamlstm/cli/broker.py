"""`streamlstm broker`."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from streamlstm.cli.terminal import output
from streamlstm.errors import UsageError
from streamlstm.service.broker import LocalBroker

_LOOK_S = 0.5


def broker(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where it listens on 127.0.0.1; 0 for a free one.")
    ] = 9092,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where its records stay; without, they go with it.")
    ] = None,
    topic: Annotated[
        list[str] | None, typer.Option(metavar="NAME[:PARTITIONS]", help="A topic to create; may be given again.")
    ] = None,
) -> None:
    """Run an Apache Kafka broker of one node on this machine, to try things out."""
    topics = dict(_topic(text) for text in topic or ())
    with LocalBroker(data, port=port) as running:
        running.create_topics(topics)
        with _signals() as stopping:
            output.print(
                f"broker: Apache Kafka {running.version} is ready at {running.bootstrap}; stop it with Ctrl-C or SIGTERM",
                markup=False, soft_wrap=True,
            )  # fmt: skip
            while not stopping.wait(_LOOK_S):
                running.require_alive()


def _topic(text: str) -> tuple[str, int]:
    """Name and number of partitions of `NAME[:PARTITIONS]`."""
    name, colon, partitions = text.partition(":")
    if not name or (colon and not (partitions.isascii() and partitions.isdigit() and int(partitions) > 0)):
        raise UsageError(f"--topic: {text!r} is not NAME or NAME:PARTITIONS, for example readings:4")
    return name, int(partitions or 1)


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, the end that this command is meant to have; a second one interrupts it."""
    stopping = threading.Event()

    def stop(number: int, frame: Any) -> None:
        restore()
        stopping.set()

    def restore() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        restore()
