"""The store that `delivery.snapshots` names."""

from streamlstm.config.schema import Config
from streamlstm.errors import UsageError
from streamlstm.state.stores.folder import FolderStore
from streamlstm.state.stores.memory import MemoryStore
from streamlstm.state.stores.protocol import SnapshotStore
from streamlstm.state.stores.topic import TopicStore

_TOPIC, _MEMORY = "kafka:", "memory:"


def open_store(config: Config, *, client_id: str, partitions: int = 16) -> SnapshotStore:
    """A store by `delivery.snapshots`: a folder, `kafka:TOPIC` or `memory:`.

    `client_id` names us to the broker's log, `partitions` are those of a topic that is made.
    """
    place = config.delivery.snapshots
    if place == _MEMORY:
        return MemoryStore()
    if not place.startswith(_TOPIC):
        if not place:
            raise UsageError("delivery.snapshots: is empty; name a folder, kafka:TOPIC or memory:")
        return FolderStore(place)
    topic = place.removeprefix(_TOPIC)
    if not topic:
        raise UsageError(f"delivery.snapshots: {place!r} names no topic; write kafka:TOPIC")
    return TopicStore(config.kafka, topic, client_id=client_id, partitions=partitions)
