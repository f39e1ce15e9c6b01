"""Batches that are already in memory, as a source: for tests, the demo and callers with their own reader."""

from collections.abc import Iterator, Sequence

from streamlstm.errors import UsageError
from streamlstm.types import Columns, EventBatch


class MemorySource:
    """Yields `batches` as they are; each must have I = len(features + exogenous) columns."""

    def __init__(self, batches: Sequence[EventBatch], columns: Columns) -> None:
        width = len(columns.features) + len(columns.exogenous)
        for number, batch in enumerate(batches):
            if batch.x.shape != (len(batch), width):
                raise UsageError(
                    f"batch {number}: x has shape {batch.x.shape}, must be {(len(batch), width)}: "
                    f"a row per record, a column per feature and exogenous column ({width})"
                )
        self.columns = columns
        self._batches = tuple(batches)
        self._total = sum(batch.x.nbytes for batch in batches)
        self._done = 0

    def __iter__(self) -> Iterator[EventBatch]:
        self._done = 0
        for batch in self._batches:
            yield batch
            self._done += batch.x.nbytes

    def progress(self) -> tuple[int, int]:
        """Bytes of x handed out and consumed, and all bytes of x."""
        return self._done, self._total
