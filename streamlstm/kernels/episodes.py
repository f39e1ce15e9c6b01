"""From anomalous records to alarms: one step of a stream's episode, counted in the stream's own records."""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.layout import (
    ACCEPT_AFTER_ROWS,
    ALARMS,
    CAUSE,
    CLOSED_TIME,
    DROPPED,
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
from streamlstm.types import CAUSE_KIND, Cause, Change

NONE, OPENED, UPDATED, CLOSED = map(int, Change)
FIRST_RULE = int(Cause.STUCK) * CAUSE_KIND  # causes from here on are rules
_ONE = np.float32(1)
_GROWTH = np.float32(1.5)  # a new peak is reported when it exceeds the one last reported by half


@jit(inline=True)
def step_episode(mark, scalars, severity, broken, time, source, row, params):
    """The change that a record makes (`types.Change`); writes the episode's columns of `mark` and `scalars`.

    mark int64 (MARKS) and scalars float32 (>= SCALARS) are the stream's rows. A record is anomalous when its severity,
    float32 and NaN before the stream is live, is above 1, or when it breaks a rule (`broken`, its cause, else 0). A rule
    counts its records itself and waits for no others; it is an alarm of severity 1.
    """
    anomalous = severity > _ONE or broken != 0
    if mark[OPEN] == 0:
        if mark[REFRACTORY] > 0:
            mark[REFRACTORY] -= 1
            mark[RUN] = 0
            return NONE
        mark[RUN] = mark[RUN] + 1 if anomalous else 0
        if not anomalous or (mark[RUN] < params[MIN_ROWS] and broken == 0):
            return NONE
        mark[OPEN], mark[RUN], mark[QUIET], mark[LENGTH], mark[EVENTS] = 1, 0, 0, 1, 1
        mark[OPENED_SOURCE], mark[OPENED_ROW], mark[OPENED_TIME] = source, row, time
        mark[FIRST] = mark[LAST] = mark[SEEN] + mark[DROPPED]
        mark[CLOSED_TIME] = mark[PEAK_TIME] = time
        scalars[PEAK] = scalars[REPORTED] = severity if severity > _ONE else _ONE
        if severity > _ONE:
            mark[ALARMS] += 1
        return OPENED
    mark[LENGTH] += 1
    if anomalous:
        mark[QUIET] = 0
        mark[EVENTS] += 1
        mark[LAST], mark[CLOSED_TIME] = mark[SEEN] + mark[DROPPED], time
        if severity > scalars[PEAK]:
            scalars[PEAK] = severity
            mark[PEAK_TIME] = time
            if severity > _GROWTH * scalars[REPORTED]:
                scalars[REPORTED] = severity
                return UPDATED
        return UPDATED if broken != 0 and mark[CAUSE] < FIRST_RULE else NONE
    # an accepted score lies just below the limit that it has raised: there hysteresis would never end the episode
    quiet = not severity >= params[HYSTERESIS] or mark[LENGTH] >= params[ACCEPT_AFTER_ROWS]
    mark[QUIET] = mark[QUIET] + 1 if quiet else 0
    if mark[QUIET] > params[MERGE_ROWS]:
        mark[OPEN] = 0
        mark[REFRACTORY] = np.int64(params[REFRACTORY_ROWS])
        return CLOSED
    return NONE


@jit(inline=True)
def teaching(mark, params):
    """Whether a record may teach: no episode is open, or it has lasted so long that it is the new normal."""
    return mark[OPEN] == 0 or mark[LENGTH] >= params[ACCEPT_AFTER_ROWS]
