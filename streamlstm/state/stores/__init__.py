"""Where snapshots are kept: a folder, a compacted topic, memory. Nothing above knows which."""

from streamlstm.state.stores.folder import FolderStore
from streamlstm.state.stores.memory import MemoryStore
from streamlstm.state.stores.opening import open_store
from streamlstm.state.stores.protocol import Blob, SnapshotStore
from streamlstm.state.stores.topic import TopicStore

__all__ = ["Blob", "FolderStore", "MemoryStore", "SnapshotStore", "TopicStore", "open_store"]
