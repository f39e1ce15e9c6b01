"""Where records come from: files, standard input, memory. Nothing downstream knows which."""

from streamlstm.sources.columns import NoColumnError
from streamlstm.sources.files import FileSource, open_files
from streamlstm.sources.memory import MemorySource
from streamlstm.sources.protocol import Source

__all__ = ["FileSource", "MemorySource", "NoColumnError", "Source", "open_files"]
