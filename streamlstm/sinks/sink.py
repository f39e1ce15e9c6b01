"""What every sink does."""

from typing import Protocol

import pyarrow as pa


class Sink(Protocol):
    """Takes tables of one schema, in order.

    What was written is complete and readable after `close`, which may be called at any time, also after an error, and
    more than once. Every failure is an `OutputError`.
    """

    rows: int
    """Rows written so far."""

    def write(self, table: pa.RecordBatch) -> None:
        """Takes the rows of `table`, which has the sink's schema."""

    def close(self) -> None:
        """Completes the output and lets go of it."""
