"""Streams whose data cannot support the wished rate of alarms, as the state of the threshold `contrast` tells them."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from streamlstm.kernels.arguments import Pool
from streamlstm.kernels.layout import ALARMS_PER_DAY, AT_THRESHOLD, CONTRAST, KIND, LIMIT, LIMIT_FLOOR, OPEN
from streamlstm.kernels.thresholds.contrast import FATIGUE, FATIGUE_MEMORY, FATIGUE_NOW, RESTLESS, SLOW
from streamlstm.model.layout import Layout
from streamlstm.state.pool import stages
from streamlstm.types import Stage


class Unkept(NamedTuple):
    """Live streams that alarm far more often than wished, and the most alarms a day of one; those with nothing to show."""

    restless: int
    most_per_day: float
    quiet: int

    @classmethod
    def joined(cls, parts: Sequence["Unkept"]) -> Self:
        """All parts' streams together."""
        most = max((part.most_per_day for part in parts), default=0.0)
        return cls(sum(part.restless for part in parts), most, sum(part.quiet for part in parts))

    def __str__(self) -> str:
        told = []
        if self.restless:
            told.append(
                f"{self.restless:,} alarm more than {RESTLESS:g} times as often, up to {self.most_per_day:.3g} a day"
            )
        if self.quiet:
            told.append(f"{self.quiet:,} show nothing to alarm at")
        return "; ".join(told)


def unkept(rows: Pool, layout: Layout) -> Unkept:
    """The streams among `rows` that do not keep the wish; none under another kind of threshold."""
    if layout.sizes[KIND] != CONTRAST:
        return Unkept(0, 0.0, 0)
    settled = (stages(rows, layout) == Stage.LIVE) & (rows.marks[:, OPEN] == 0)
    threshold = rows.state[settled, int(layout.sizes[AT_THRESHOLD]) :]
    kept = threshold[:, FATIGUE_NOW].astype(np.float64) / (FATIGUE * FATIGUE_MEMORY)  # over the wished rate
    restless = kept > RESTLESS
    # the level has sunk to its least height above what the scores usually are
    height = rows.state[settled, LIMIT].astype(np.float64) - threshold[:, SLOW]
    quiet = height <= 1.001 * layout.params[LIMIT_FLOOR]
    most = float(kept[restless].max(initial=0.0) * layout.params[ALARMS_PER_DAY])
    return Unkept(int(restless.sum()), most, int((quiet & ~restless).sum()))
