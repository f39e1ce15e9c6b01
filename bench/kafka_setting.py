"""Where a run of the Kafka benchmark happens: broker, cores, sizes."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

FULL = 3_000_000
"""Records that each peer reads, unless `--records` says otherwise; all other sizes shrink with it."""

_FILE = "kafka.json"
_GIVEN = "STREAMLSTM_TEST_BOOTSTRAP"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of one partition that is filled once: its name, streams and records."""

    name: str
    streams: int
    records: int


@dataclass(frozen=True, slots=True)
class Setting:
    """The broker, the start of all our names on it, the records that each peer reads, and the run's folder."""

    bootstrap: str
    prefix: str
    records: int
    folder: Path

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What `broker` wrote."""
        return cls(**json.loads((folder / _FILE).read_text()), folder=folder)

    @property
    def share(self) -> float:
        """Of the full size."""
        return min(1.0, self.records / FULL)

    @property
    def events(self) -> Topic:
        """The topic of most cases: eight times as long as what the peers read, so that the daemon writes snapshots."""
        return Topic(f"{self.prefix}-events", 10_000, 8 * self.records)

    @property
    def many(self) -> Topic:
        """The topic of the snapshots."""
        streams = max(1000, int(self.share * 100_000))
        return Topic(f"{self.prefix}-many", streams, 10 * streams)

    @property
    def most(self) -> Topic:
        """The topic of the memory."""
        streams = max(1000, int(self.share * 1_000_000))
        return Topic(f"{self.prefix}-most", streams, 2 * streams)

    def name(self, what: str) -> str:
        """A fresh name for a topic or a group."""
        return f"{self.prefix}-{what}-{secrets.token_hex(3)}"


@contextmanager
def broker(folder: Path, records: int) -> Iterator[dict[str, Any]]:
    """Starts a broker, or takes the one that STREAMLSTM_TEST_BOOTSTRAP names, where all of ours is deleted at the end."""
    from bench.run import BenchmarkError
    from streamlstm.errors import StreamlstmError
    from streamlstm.service.broker import KAFKA_VERSION, LocalBroker

    given = os.environ.get(_GIVEN)
    prefix = f"bench-{secrets.token_hex(4)}"

    def write(bootstrap: str) -> dict[str, Any]:
        place = {"bootstrap": bootstrap, "prefix": prefix, "records": records}
        (folder / _FILE).write_text(json.dumps(place))
        client, others = cores()
        what = "a given broker" if given else f"{KAFKA_VERSION} on cores {others}"
        return {"kafka": f"{what}; clients on core {client}; {records} records for each peer"}

    if given:
        facts = write(given)
        try:
            yield facts
        finally:
            delete_topics(given, prefix)
        return
    try:
        with on_cores(cores()[1]):
            started = LocalBroker().start()
    except StreamlstmError as error:
        raise BenchmarkError(str(error)) from error
    try:
        yield write(started.bootstrap)
    finally:
        started.close()


def cores() -> tuple[list[int], list[int]]:
    """The contender's core, and the cores of everything else; both empty where processes cannot be pinned."""
    if not hasattr(os, "sched_getaffinity"):
        return [], []
    usable = sorted(os.sched_getaffinity(0))
    return usable[-1:], usable[:-1] or usable


@contextmanager
def on_cores(wanted: list[int]) -> Iterator[None]:
    """Processes started inside run on these cores."""
    if not wanted:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, wanted)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin_to_client_core() -> None:
    """This process, for the rest of its life. Call it before anything starts a thread."""
    client = cores()[0]
    if client:
        os.sched_setaffinity(0, client)


def delete_topics(bootstrap: str, prefix: str) -> None:
    """Deletes all topics with the run's prefix in their names, also those that its contenders made."""
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": bootstrap})
    ours = [name for name in admin.list_topics(timeout=30).topics if prefix in name]
    if ours:
        for deleted in admin.delete_topics(ours, operation_timeout=30).values():
            deleted.result(timeout=60)
