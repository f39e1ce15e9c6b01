"""Parquet: batches of columns as they are stored."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamlstm.errors import InputError
from streamlstm.sources.lines import DamagedError
from streamlstm.sources.numbers import holds_text
from streamlstm.sources.protocol import SAMPLE_ROWS, Block, NoRowsError, QuickBlock, Sample, Wanted


class ParquetReader:
    """A Parquet file; see `protocol.Reader`. The line of a dead letter is its row."""

    def __init__(self, path: str, batch_rows: int) -> None:
        self.rows = 0
        self._path = path
        self._batch_rows = batch_rows
        self._bytes = 0

    def progress(self) -> int:
        return self._bytes

    def sample(self) -> Sample:
        file = self._open()
        names = file.schema_arrow.names
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise InputError(f"{self._path}: has two columns {repeated[0]!r}; each column needs its own name")
        head = next(self._batches(file, SAMPLE_ROWS, names), None)
        if head is None:
            raise NoRowsError(f"{self._path}: has columns but no rows")
        return Sample(dict(zip(names, head.columns, strict=True)), head.num_rows)

    def blocks(self, wanted: Wanted) -> Iterator[Block | QuickBlock]:
        key = wanted.columns.key
        file = self._open()
        if key is not None and holds_text(file.schema_arrow.field(key).type):
            file = self._open(key)  # comes as a dictionary, without a string per record
        total, size = file.metadata.num_rows, Path(self._path).stat().st_size
        for batch in self._batches(file, self._batch_rows, wanted.names):
            first = self.rows
            self.rows += batch.num_rows
            self._bytes = size * self.rows // total
            row = np.arange(first, self.rows, dtype=np.int64)
            yield Block({name: batch.column(name) for name in wanted.names}, row, _locator(batch, first))

    def _open(self, *dictionaries: str) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self._path, read_dictionary=list(dictionaries))
        except (OSError, pa.ArrowException) as error:
            raise DamagedError(str(error)) from error

    def _batches(self, file: pq.ParquetFile, rows: int, names: tuple[str, ...] | list[str]) -> Iterator[pa.RecordBatch]:
        try:
            for batch in file.iter_batches(rows, columns=list(names), use_threads=False):
                if batch.num_rows:
                    yield batch
        except (OSError, pa.ArrowException) as error:
            raise DamagedError(str(error)) from error


def _locator(batch: pa.RecordBatch, first: int) -> Callable[[int], tuple[int, str]]:
    return lambda at: (first + at, str(batch.slice(at, 1).to_pylist()[0]))
