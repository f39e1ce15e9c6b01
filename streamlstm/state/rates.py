"""What rate of alarms a stream's data can keep, where that is not the rate that its user wished for."""

import numpy as np

from streamlstm.kernels.absorb import LARGEST_TAIL, ROWS_PER_DAY
from streamlstm.kernels.arguments import Pool
from streamlstm.kernels.layout import (
    ALARMS,
    ALARMS_PER_DAY,
    AT_THRESHOLD,
    CONTRAST,
    FIRST_TIME,
    KIND,
    LAST_TIME,
    LIMIT,
    LIMIT_FLOOR,
    SEEN,
    WITHOUT_RATE,
)
from streamlstm.kernels.thresholds.contrast import SLOW
from streamlstm.model.layout import Layout
from streamlstm.state.pool import stages
from streamlstm.types import NO_TIME, Float64, Stage

_DAY_NS = 86_400e9


def possible_rates(rows: Pool, layout: Layout) -> Float64:
    """Alarms per day of the live streams that cannot keep the wished rate: at most one value for each of rows (S).

    A stream with few records a day alarms at a small share of them, whatever is wished. One that shows nothing to alarm at
    has the threshold `contrast` at its least height, and keeps the rate of the alarms that it has had.
    """
    kind, wished = layout.sizes[KIND], layout.params[ALARMS_PER_DAY]
    live = stages(rows, layout) == Stage.LIVE
    if kind in WITHOUT_RATE or not live.any():
        return np.zeros(0)
    marks, state = rows.marks[live], rows.state[live]
    seen, first, last = marks[:, SEEN], marks[:, FIRST_TIME], marks[:, LAST_TIME]
    timed = (first != NO_TIME) & (last > first)
    days = np.where(timed, (last - first) / _DAY_NS, seen / ROWS_PER_DAY)
    most = LARGEST_TAIL * seen / days
    if kind == CONTRAST:
        height = state[:, LIMIT] - state[:, int(layout.sizes[AT_THRESHOLD]) + SLOW]
        quiet = height <= 1.001 * layout.params[LIMIT_FLOOR]
        most = np.where(quiet, np.minimum(most, marks[:, ALARMS] / days), most)
    possible: Float64 = most[most < wished]
    return possible
