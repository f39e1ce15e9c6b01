"""Records of Kafka topics as raw blocks, one of each partition a poll, and everything that the daemon asks of a consumer.

A partition is called `topic/number`, as the source of its records is. One that is assigned stands still until it is told
where to begin: `seek`, then `resume`. So a state and the offset that it belongs to are always set together.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from typing import Any, Literal, NoReturn

from streamlstm.config import schema
from streamlstm.kafka_client import (
    BadBatch,
    Batch,
    CommitFailedError,
    CorruptBatchError,
    KafkaError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetAndMetadata,
    OffsetOutOfRangeError,
    RebalanceInProgressError,
    RetriableError,
    explain,
    frame,
    from_records,
    make_consumer,
    require_topics,
)
from streamlstm.sources.membership import Membership, name_of, place_of
from streamlstm.types import DeadLetter, RawBlock

log = logging.getLogger(__name__)
CALL_MS = 10_000
"""How long a question to the broker may take."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A partition that was paused because it cannot go on at `offset`; `seek` and `resume` it where it can.

    missing    the broker has no such offset: deleted by retention, or behind the end
    truncated  the log was cut back under the reader to `offset`, or to an unknown one (-1)
    corrupt    a batch has the wrong checksum, also when it was fetched again
    """

    partition: str
    kind: Literal["missing", "truncated", "corrupt"]
    offset: int
    reason: str


def _ignore(_: Collection[str]) -> None:
    pass


class KafkaSource:
    """One consumer: with `subscribe` a member of `kafka.group_id`, with `assign` a reader of its own.

    `on_revoked` and `on_lost` are called on the client's own thread while the loop waits in `poll`. They may not ask the
    broker through this source, and positions may be gone by then; what they raise comes out of `poll`. Revoked: these
    go to another member as soon as it returns. Lost: they have another owner already.

    BrokerError where no broker answers. Not for two threads. `isolation` replaces `kafka.isolation`; `batches=False`
    reads records one by one. Of several workers each but the first appends its number to `kafka.group_instance_id`.
    """

    def __init__(
        self,
        kafka: schema.Kafka,
        *,
        client_id: str,
        worker: int = 0,
        on_dead_letter: Callable[[DeadLetter], None],
        on_revoked: Callable[[Collection[str]], None] = _ignore,
        on_lost: Callable[[Collection[str]], None] = _ignore,
        group: bool = True,
        isolation: str | None = None,
        batches: bool = True,
    ) -> None:
        self.eager = kafka.assignor != "cooperative-sticky"
        """Whether a rebalance takes all partitions away before it gives some back."""
        self._kafka = kafka
        self._on_dead_letter = on_dead_letter
        self._troubles: list[Trouble] = []
        self._corrupt: str | None = None
        self._consumer = make_consumer(
            kafka, client_id=client_id, group=group, worker=worker, isolation=isolation, batches=batches
        )
        self._membership = Membership(self._consumer, on_revoked, on_lost)

    # ---- what is read

    def subscribe(self, topics: Sequence[str]) -> None:
        """Shares the partitions of these topics with the group; BrokerError for a topic that does not exist."""
        self.require(topics)
        self._consumer.subscribe(topics=list(topics), listener=self._membership)
        # Else the group's leader takes the first news of the topics for a change, and has all rejoin: three seconds more.
        self._consumer._coordinator._handle_metadata_update(self._consumer._cluster)

    def assign(self, partitions: Collection[str]) -> None:
        """Reads these and no others, without the group."""
        places = [place_of(partition) for partition in partitions]
        self._consumer.assign(places)
        self._membership.place(places)

    def require(self, topics: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """The partition numbers of each topic, ascending; BrokerError for one that is missing, with the nearest names."""
        return require_topics(self._consumer, topics, self._kafka)

    def take_assigned(self) -> list[str] | None:
        """The partitions that a rebalance gave since the last call, possibly none; None where there was no rebalance."""
        return self._membership.take_assigned()

    def assigned(self) -> list[str]:
        """All partitions of this source now."""
        return sorted(name_of(place) for place in self._consumer.assignment())

    # ---- reading

    def poll(self, timeout_ms: int) -> list[RawBlock]:
        """The next records, one block of each partition that has some; possibly none, also during a rebalance.

        A partition that cannot go on does not hold up the others: it is paused and stands in `troubles`.
        """
        coordinator = self._consumer._coordinator
        if coordinator is not None and coordinator.rejoining:
            # kafka-python 3.0.12 forgets a rejoin which a change of the topics began and which outlasts one poll: without
            # an assignment and without heartbeats it would fetch on, and never know that others have its partitions.
            coordinator.rejoin_needed = True
        try:
            return self._blocks(self._consumer.poll(timeout_ms))
        except OffsetOutOfRangeError as error:
            for place, offset in error.args[0].items():
                self._stop(place, "missing", offset, f"offset {offset} is not there: deleted, or beyond the end")
        except LogTruncationError as error:
            for place, safe in error.divergent_offsets.items():
                offset = -1 if safe is None else safe.offset
                self._stop(place, "truncated", offset, "records that were read are gone: the broker cut its log back")
        except CorruptBatchError as error:
            if self._corrupt == str(error):
                self._stop(error.place, "corrupt", error.offset, str(error))
            else:  # it may have suffered on the way
                log.warning("%s; fetching it again", error)
                self._corrupt = str(error)
        except NoOffsetForPartitionError:
            pass  # assigned this moment; the listener is about to place it
        except RetriableError as error:
            log.warning("%s: %s; trying again", type(error).__name__, error)
        except KafkaError as error:
            self._raise(error)
        finally:
            self._membership.raise_failure()
        return []

    def troubles(self) -> list[Trouble]:
        """The partitions that were paused since the last call because they cannot go on."""
        found, self._troubles = self._troubles, []
        return found

    def seek(self, partition: str, offset: int) -> None:
        """The next record of the partition will be that at `offset`, or the next one behind it."""
        self._consumer.seek(place_of(partition), offset)
        self._membership.unplaced.discard(partition)

    def resume(self, partition: str) -> None:
        """Records of this partition from now on, unless all are held; ValueError before its first `seek`."""
        self._membership.resume(partition)

    def pause(self, partition: str) -> None:
        """No records of this partition until `resume`."""
        self._membership.pause(partition)

    def hold(self, all_still: bool) -> None:
        """While true no partition gives records, and `poll` keeps us in the group; false undoes it."""
        self._membership.hold(all_still)

    def position(self, partition: str) -> int | None:
        """Offset of the next record that `poll` will look at, behind control records and gaps; None before `seek`."""
        place = place_of(partition)
        if partition in self._membership.unplaced or place not in self._consumer.assignment():
            return None
        return int(self._ask(self._consumer.position, place))

    def lag(self) -> int | None:
        """Offsets between the positions and the ends as the broker last said; None where it has not for a partition."""
        total = 0
        for place, state in list(self._consumer._subscription.assignment.items()):
            # `position` may ask a broker that is away, and wait for it.
            end, at = state.highwater, state.position
            if end is None or at is None or name_of(place) in self._membership.unplaced:
                return None
            total += max(end - at.offset, 0)
        return total

    # ---- questions

    def first_offset(self, partition: str) -> int:
        """The first offset that the partition still has."""
        return int(self._ask(self._consumer.beginning_offsets, [place_of(partition)])[place_of(partition)])

    def end_offset(self, partition: str) -> int:
        """The offset behind the last record; under read_committed that of the first open transaction."""
        return int(self._ask(self._consumer.end_offsets, [place_of(partition)])[place_of(partition)])

    def offset_at(self, partition: str, time_ms: int) -> int | None:
        """The first offset whose timestamp is `time_ms` or later, None if there is none."""
        place = place_of(partition)
        found = self._ask(self._consumer.offsets_for_times, {place: time_ms})[place]
        return None if found is None or found.offset < 0 else int(found.offset)

    def topic_id(self, partition: str) -> str | None:
        """The id that the broker gave the topic when it was made, None from an old broker; made anew, it has another."""
        found = self._consumer._cluster.topic_id(place_of(partition).topic)
        return None if found is None else str(found)

    # ---- the group

    def committed(self, partition: str) -> int | None:
        """The group's committed offset, None if there is none; under read_committed behind any open transaction's."""
        offset = self._ask(self._consumer.committed, place_of(partition))
        return None if offset is None else int(offset)

    def commit(self, offsets: Mapping[str, int], timeout_ms: int = CALL_MS) -> bool:
        """Commits these as the group's next offsets; False where a rebalance or a silent broker forbids it for now."""
        try:
            self._consumer.commit(self.offsets(offsets), timeout_ms=timeout_ms)
        except (CommitFailedError, RebalanceInProgressError, RetriableError):
            return False
        except KafkaError as error:
            self._raise(error)
        return True

    def commit_later(self, offsets: Mapping[str, int]) -> None:
        """The same without waiting; a failure is logged, and the next commit makes up for it."""
        try:
            self._consumer.commit_async(self.offsets(offsets), callback=_note_failure)
        except KafkaError as error:
            self._raise(error)

    def offsets(self, offsets: Mapping[str, int]) -> dict[Any, Any]:
        """The same as a producer's transaction wants them."""
        return {place_of(partition): OffsetAndMetadata(offset) for partition, offset in offsets.items()}

    def group_metadata(self) -> Any:
        """Who we are in the group, for a producer's transaction."""
        return self._consumer.group_metadata()

    def generation(self) -> int:
        """Number of the group's last rebalance, -1 outside the group."""
        return int(self.group_metadata().generation_id)

    def silence_s(self) -> float:
        """Seconds since the group's coordinator last answered a heartbeat; 0 before the first."""
        answered = self._consumer._coordinator.heartbeat.last_receive
        return time.monotonic() - answered if isfinite(answered) else 0.0

    def close(self) -> None:
        """Leaves the group (a static member stays) and closes the connections, within `CALL_MS`; revokes nothing aloud."""
        self._membership.silent = True
        self._consumer.close(autocommit=False, timeout_ms=CALL_MS)

    def _blocks(self, polled: Mapping[Any, Sequence[Any]]) -> list[RawBlock]:
        found = []
        for place, items in polled.items():
            source = name_of(place)
            good = self._without_bad(source, items)
            for whole, group in groupby(good, key=lambda item: isinstance(item, Batch)):
                if whole:
                    block, bad = frame(source, list(group))
                    self._report(source, bad)
                else:
                    block = from_records(source, list(group))
                if len(block):
                    found.append(block)
        return found

    def _without_bad(self, source: str, items: Sequence[Any]) -> list[Any]:
        bad = [item for item in items if isinstance(item, BadBatch)]
        self._report(source, bad)
        return [item for item in items if not isinstance(item, BadBatch)] if bad else list(items)

    def _report(self, source: str, batches: Iterable[BadBatch]) -> None:
        for bad in batches:
            reason = f"offsets {bad.base_offset} to {bad.next_offset - 1} cannot be read: {bad.reason}"
            self._on_dead_letter(DeadLetter(source, bad.base_offset, reason, "", value=bad.raw))

    def _stop(self, place: Any, kind: Literal["missing", "truncated", "corrupt"], offset: int, reason: str) -> None:
        partition = name_of(place)
        log.warning("%s: %s", partition, reason)
        self._membership.pause(partition)
        self._troubles.append(Trouble(partition, kind, offset, reason))

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return question(*arguments, timeout_ms=CALL_MS)
        except KafkaError as error:
            self._raise(error)

    def _raise(self, error: KafkaError) -> NoReturn:
        self._membership.raise_failure()
        raise explain(error, self._kafka) from error


def _note_failure(_: Any, response: Any) -> None:
    if isinstance(response, BaseException):
        log.info("offsets not committed (%s: %s); the next commit will do it", type(response).__name__, response)
