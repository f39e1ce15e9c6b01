"""What every sink does: for a file that is written once, and for the daemon, which waits for acknowledgements."""

from typing import Protocol

import pyarrow as pa

from streamlstm.sinks.flagged import Flagged
from streamlstm.types import DeadLetter


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


class Delivering(Protocol):
    """What the daemon asks every output: how far did you get, and do you take more?

    One thread calls all of it. Rows are counted and delivered in the order of `write`. A delivery that failed for good
    is an OutputError of the first call that notices, and of each one after it.
    """

    sent: int
    """Rows taken so far."""

    def ready(self) -> bool:
        """Whether more should come; what `write` gets nevertheless is taken, not dropped."""

    def acknowledged(self) -> int:
        """How many of the rows sent, counted from the first, are delivered."""

    def flush(self, timeout_s: float) -> bool:
        """Waits until all rows sent are acknowledged; False where the time is over before."""

    def reset(self) -> None:
        """Forgets the rows that are not acknowledged, as if they had never been sent."""

    def oldest_s(self) -> float:
        """Seconds that the oldest row has waited for a broker; 0 where none waits, or where the sink tries for ever.

        Above a limit the producer is stuck: make another one, and open the sinks anew.
        """

    def trouble(self) -> str | None:
        """What keeps rows waiting, in words, None where all goes well."""

    def close(self) -> None:
        """Lets go of the output within a second or so; what is not acknowledged may still arrive, or not."""


class DeliverySink(Delivering, Protocol):
    """Takes tables of one schema for the daemon, or the flags that would be such a table."""

    def write(self, table: pa.RecordBatch | Flagged, /, source: str = "") -> None:
        """Takes all rows of `table`, which came from `source` (topic/partition); does not wait for their delivery."""


class LetterSink(Delivering, Protocol):
    """Takes dead letters for the daemon; each counts as a row."""

    def write(self, letter: DeadLetter, /) -> None:
        """Takes the letter; does not wait for its delivery."""
