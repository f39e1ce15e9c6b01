"""Which partitions are ours, and which of them stand still: the listener of a consumer's rebalances."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

from streamlstm.kafka_client import ConsumerRebalanceListener, TopicPartition


def name_of(place: Any) -> str:
    """What kafka-python's TopicPartition is called here: topic/number."""
    return f"{place.topic}/{place.partition}"


def place_of(partition: str) -> Any:
    """The TopicPartition of that name; topics have no slash in theirs."""
    topic, _, number = partition.rpartition("/")
    return TopicPartition(topic, int(number))


class Membership(ConsumerRebalanceListener):  # type: ignore[misc]
    """Lets what is assigned stand still until it is placed, and passes on what is taken away.

    The client calls the listener's methods on its own thread while the loop waits in `poll`, so the two never meet.
    """

    def __init__(
        self, consumer: Any, on_revoked: Callable[[Collection[str]], None], on_lost: Callable[[Collection[str]], None]
    ) -> None:
        self.unplaced: set[str] = set()
        """Assigned, and waiting for a `seek`."""
        self.silent = False
        """Set by whoever closes the consumer and has checkpointed before: then nobody is told."""
        self._consumer, self._on_revoked, self._on_lost = consumer, on_revoked, on_lost
        self._assigned: list[str] | None = None
        self._running: set[str] = set()
        self._held = False
        self._failure: BaseException | None = None

    def place(self, places: Iterable[Any]) -> None:
        """Pauses them at a made-up position: without one, the client would ask for a committed offset, and fail."""
        for place in places:
            self._consumer.pause(place)
            self._consumer.seek(place, 0)
            self.unplaced.add(name_of(place))
            self._running.discard(name_of(place))

    def take_assigned(self) -> list[str] | None:
        """What was assigned since the last call; None where there was no assignment."""
        found, self._assigned = self._assigned, None
        return found

    def resume(self, partition: str) -> None:
        """Lets the partition run, at once or when `hold` ends."""
        if partition in self.unplaced:
            raise ValueError(f"{partition}: resumed before seek; nobody has said where it begins")
        self._running.add(partition)
        if not self._held:
            self._consumer.resume(place_of(partition))

    def pause(self, partition: str) -> None:
        """Lets the partition stand still until `resume`."""
        self._running.discard(partition)
        self._consumer.pause(place_of(partition))

    def hold(self, all_still: bool) -> None:
        """Pauses all that run, or resumes them."""
        if all_still != self._held:
            self._held = all_still
            change = self._consumer.pause if all_still else self._consumer.resume
            change(*map(place_of, self._running))

    def raise_failure(self) -> None:
        """Raises in the loop what was raised on the client's thread, which the client would only log."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        """Called by the client, under the cooperative assignor with what is new, else with all."""
        self.place(assigned)
        self._assigned = sorted({*(self._assigned or ()), *map(name_of, assigned)})

    def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        """Called by the client."""
        self._take_away(revoked, self._on_revoked)

    def on_partitions_lost(self, lost: Collection[Any]) -> None:
        """Called by the client."""
        self._take_away(lost, self._on_lost)

    def _take_away(self, places: Collection[Any], tell: Callable[[Collection[str]], None]) -> None:
        names = sorted(map(name_of, places))
        self.unplaced.difference_update(names)
        self._running.difference_update(names)
        if self._assigned is not None:
            self._assigned = [name for name in self._assigned if name not in names]
        if self.silent:
            return
        try:
            tell(names)
        except BaseException as error:
            self._failure = error
            raise
