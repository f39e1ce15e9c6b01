"""A sink that keeps its rows: for library users, tests and the demo."""

import pyarrow as pa


class MemorySink:
    """Keeps every table written; `table` gives them as one."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.batches: list[pa.RecordBatch] = []
        self.rows = 0

    def write(self, table: pa.RecordBatch) -> None:
        """Keeps `table`, without a copy."""
        self.batches.append(table)
        self.rows += table.num_rows

    def close(self) -> None:
        """Does nothing: the rows stay."""

    def table(self) -> pa.Table:
        """All rows so far."""
        return pa.Table.from_batches(self.batches, self.schema)
