"""The sink that a path asks for by its suffix."""

import pyarrow as pa

from streamlstm.errors import OutputError
from streamlstm.sinks.parquetfile import ParquetSink
from streamlstm.sinks.sink import Sink
from streamlstm.sinks.textfile import Compression, Kind, TextSink

__all__ = ["Sink", "open_sink"]

TEXT: dict[str, Kind] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
COMPRESSIONS: dict[str, Compression | None] = {"": None, ".gz": "gzip", ".zst": "zstd"}


def open_sink(path: str, schema: pa.Schema) -> Sink:
    """Creates or overwrites `path`: .csv, .jsonl, .ndjson (each also with .gz or .zst) or .parquet.

    `-` is standard output and takes CSV. Raises `OutputError` for other suffixes and where nothing can be written.
    """
    if path == "-":
        return TextSink(path, schema, "csv")
    name = path.lower()
    if name.endswith(".parquet"):
        return ParquetSink(path, schema)
    for suffix, kind in TEXT.items():
        for ending, compression in COMPRESSIONS.items():
            if name.endswith(suffix + ending):
                return TextSink(path, schema, kind, compression)
    raise OutputError(
        f"{path}: the suffix does not say what to write; "
        "must be .csv, .jsonl or .ndjson (also with .gz or .zst) or .parquet, or - for CSV on standard output"
    )
