"""Rules beside the model: what a record breaks by its values, its time, or the records before it.

| cause | the record breaks the rule when | limit |
|---|---|---|
| STUCK | so many records in a row, this one included, had this value | records, of each feature |
| OUT_OF_RANGE | its value lies below or above | minimum and maximum, of each feature |
| JUMP | its value differs from the last one by more | largest step, of each feature |
| MISSING | so many records in a row, this one included, had no value | records, of each feature |
| SILENT | it comes later than so long after the latest one | `params[SILENT_NS]` |

Limits of features lie in `params` from PARAMS on, D values each: minimum, maximum, largest step, records at one value,
records without a value; infinite where there is none. A missing value ends no run of equal ones. Of several broken
rules the lowest in the table is told, of several features the first.
"""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.layout import (
    AT_FLAT,
    AT_MISSED,
    AT_VALUE,
    N_FEATURES,
    PARAMS,
    RULE_FLAT,
    RULE_MISSED,
    RULE_VALUE,
    RULES,
    SILENT_NS,
)
from streamlstm.kernels.times import after_gap
from streamlstm.types import CAUSE_KIND, Cause

STUCK, OUT_OF_RANGE, JUMP, MISSING, SILENT = map(int, list(Cause)[5:])
_ZERO, _ONE = np.float32(0), np.float32(1)


@jit(inline=True)
def graver(broken, kind, d, below):
    """The cause that is told (see `types.cause_text`): the new one where its kind ranks above that of `broken`."""
    return kind * CAUSE_KIND + 2 * d + below if kind * CAUSE_KIND > broken else broken


@jit
def broken_rule(mark, state, stat, x, time, sizes, params):
    """The cause of the rule that record x (I) breaks, 0 for none; writes the rules' columns of `state` and `stat`.

    To be called before the record's time is noted in `mark`.
    """
    D, kept = sizes[N_FEATURES], sizes[RULES]
    low, high, step = params[PARAMS:], params[PARAMS + D :], params[PARAMS + 2 * D :]
    most_flat, most_missed = params[PARAMS + 3 * D :], params[PARAMS + 4 * D :]
    values, flat, missed = stat[sizes[AT_VALUE] :], state[sizes[AT_FLAT] :], state[sizes[AT_MISSED] :]
    broken = SILENT * CAUSE_KIND if after_gap(mark, time, params[SILENT_NS]) else 0
    for d in range(D):
        value = x[d]
        missing = np.isnan(value)
        if kept & RULE_MISSED:
            missed[d] = missed[d] + _ONE if missing else _ZERO
            if missed[d] >= most_missed[d]:
                broken = graver(broken, MISSING, d, 0)
        if missing:
            continue
        if value < low[d] or value > high[d]:
            broken = graver(broken, OUT_OF_RANGE, d, 1 if value < low[d] else 0)
        if kept & RULE_VALUE:
            if abs(value - values[d]) > step[d]:  # false before the first value, which is NaN
                broken = graver(broken, JUMP, d, 1 if value < values[d] else 0)
            if kept & RULE_FLAT:
                flat[d] = flat[d] + _ONE if value == values[d] else _ONE
                if flat[d] >= most_flat[d]:
                    broken = graver(broken, STUCK, d, 0)
            values[d] = value
    return broken
