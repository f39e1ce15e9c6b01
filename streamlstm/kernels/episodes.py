"""From anomalous records to alarms: one step of a stream's episode, counted in the stream's own records."""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.layout import (
    ACCEPT_AFTER_ROWS,
    CLOSED_TIME,
    EVENTS,
    FIRST,
    HYSTERESIS,
    LAST,
    LENGTH,
    MERGE_ROWS,
    MIN_ROWS,
    OPEN,
    OPENED_ROW,
    OPENED_SOURCE,
    OPENED_TIME,
    PEAK,
    PEAK_TIME,
    QUIET,
    REFRACTORY,
    REFRACTORY_ROWS,
    REPORTED,
    RUN,
    SEEN,
)
from streamlstm.types import Change

NONE, OPENED, UPDATED, CLOSED = map(int, Change)
_GROWTH = np.float32(1.5)  # a new peak is reported when it exceeds the one last reported by half


@jit(inline=True)
def step_episode(mark, scalars, severity, time, source, row, params):
    """The change that a live record makes (`types.Change`); writes the episode's columns of `mark` and `scalars`.

    mark int64 (MARKS) and scalars float32 (>= SCALARS) are the stream's rows; severity float32, above 1 is anomalous.
    """
    anomalous = severity > np.float32(1)
    if mark[OPEN] == 0:
        if mark[REFRACTORY] > 0:
            mark[REFRACTORY] -= 1
            mark[RUN] = 0
            return NONE
        mark[RUN] = mark[RUN] + 1 if anomalous else 0
        if not anomalous or mark[RUN] < params[MIN_ROWS]:
            return NONE
        mark[OPEN], mark[RUN], mark[QUIET], mark[LENGTH], mark[EVENTS] = 1, 0, 0, 1, 1
        mark[OPENED_SOURCE], mark[OPENED_ROW], mark[OPENED_TIME] = source, row, time
        mark[FIRST] = mark[SEEN]
        mark[LAST], mark[CLOSED_TIME], mark[PEAK_TIME] = mark[SEEN], time, time
        scalars[PEAK] = scalars[REPORTED] = severity
        return OPENED
    mark[LENGTH] += 1
    if anomalous:
        mark[QUIET] = 0
        mark[EVENTS] += 1
        mark[LAST], mark[CLOSED_TIME] = mark[SEEN], time
        if severity > scalars[PEAK]:
            scalars[PEAK] = severity
            mark[PEAK_TIME] = time
            if severity > _GROWTH * scalars[REPORTED]:
                scalars[REPORTED] = severity
                return UPDATED
        return NONE
    # an accepted score lies just below the limit that it has raised: there hysteresis would never end the episode
    quiet = severity < params[HYSTERESIS] or mark[LENGTH] >= params[ACCEPT_AFTER_ROWS]
    mark[QUIET] = mark[QUIET] + 1 if quiet else 0
    if mark[QUIET] > params[MERGE_ROWS]:
        mark[OPEN] = 0
        mark[REFRACTORY] = np.int64(params[REFRACTORY_ROWS])
        return CLOSED
    return NONE
