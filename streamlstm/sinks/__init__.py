"""Sinks: scored batches and episodes as tables, and where tables go."""

from streamlstm.sinks.deadletters import DeadLetterFile
from streamlstm.sinks.files import open_sink
from streamlstm.sinks.memory import MemorySink
from streamlstm.sinks.sink import Sink

__all__ = ["DeadLetterFile", "MemorySink", "Sink", "open_sink"]
