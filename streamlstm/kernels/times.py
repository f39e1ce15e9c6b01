"""What the time of a record means to its stream: order, gaps, and records that are not taken."""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.layout import BACKWARD, DROP_LATE, DROP_REPEATED, FIRST_TIME, LAST_TIME, REPEATED
from streamlstm.types import NO_TIME


@jit(inline=True)
def note_time(mark, time):
    """Writes first and last time of the stream and counts records that came late or with the time of the one before."""
    if time == NO_TIME:
        return
    if mark[FIRST_TIME] == NO_TIME:
        mark[FIRST_TIME] = mark[LAST_TIME] = time
    elif time < mark[LAST_TIME]:
        mark[BACKWARD] += 1
    elif time == mark[LAST_TIME]:
        mark[REPEATED] += 1
    else:
        mark[LAST_TIME] = time


@jit(inline=True)
def unwanted(mark, time, drops):
    """Whether a record of this time is dropped; `drops` holds the bits DROP_LATE and DROP_REPEATED."""
    if drops == 0 or time == NO_TIME:
        return False
    if time < mark[LAST_TIME]:
        return drops & DROP_LATE != 0
    return time == mark[LAST_TIME] and drops & DROP_REPEATED != 0


@jit(inline=True)
def after_gap(mark, time, gap_ns):
    """Whether the record lies more than gap_ns (float64) after the latest one of its stream; never without times."""
    latest = mark[LAST_TIME]
    return latest != NO_TIME and time > latest and np.float64(time - latest) > gap_ns
