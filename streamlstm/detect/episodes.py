"""Episodes as objects: rare, so Python may make them. Their state is in the pool; the log only names things."""

import numpy as np

from streamlstm.kernels.arguments import Out
from streamlstm.kernels.layout import (
    CAUSE,
    CLOSED_TIME,
    EVENTS,
    FIRST,
    LAST,
    OPEN,
    OPENED_ROW,
    OPENED_SOURCE,
    OPENED_TIME,
    OUT_PEAK,
    PEAK,
    PEAK_TIME,
)
from streamlstm.state.keys import KeyTable
from streamlstm.state.pool import StreamPool
from streamlstm.types import Change, Episode, Int32, Int64, cause_text


class EpisodeLog:
    """Turns the kernels' marks into episodes; numbers the sources that ids refer to."""

    def __init__(self, features: tuple[str, ...]) -> None:
        self.sources: list[str] = []
        self._features = features
        self._closed: list[Episode] = []

    def number_of(self, source: str) -> int:
        """The number by which marks refer to a source."""
        if not self.sources or self.sources[-1] != source:
            if source in self.sources:
                return self.sources.index(source)
            self.sources.append(source)
        return len(self.sources) - 1

    def note(self, out: Out, streams: Int32, change: Int64, keys: KeyTable) -> None:
        """Keeps the episodes that this call's records closed."""
        for b in np.flatnonzero(change == Change.CLOSED):
            self._closed.append(
                self._episode(keys.key(streams[b]), out.episodes[b], float(out.values[OUT_PEAK, b]), "closed")
            )

    def take_closed(self) -> list[Episode]:
        """Episodes noted since the last call."""
        closed, self._closed = self._closed, []
        return closed

    def open_in(self, pool: StreamPool) -> list[Episode]:
        """Episodes that are open in the pool."""
        return [
            self._episode(pool.keys.key(first + int(at)), rows.marks[at], float(rows.state[at, PEAK]), "open")
            for first, rows in pool.scan()
            for at in np.flatnonzero(rows.marks[:, OPEN] == 1)
        ]

    def _episode(self, key: str, mark: Int64, peak: float, state: str) -> Episode:
        return Episode(
            f"{self.sources[mark[OPENED_SOURCE]]}/{mark[OPENED_ROW]}",
            key,
            state,
            int(mark[OPENED_TIME]),
            int(mark[CLOSED_TIME]),
            int(mark[FIRST]),
            int(mark[LAST]),
            int(mark[PEAK_TIME]),
            peak,
            int(mark[EVENTS]),
            cause_text(int(mark[CAUSE]), self._features),
        )
