"""One record of one stream: what comes before the step of the network, and what comes after it.

| letter | meaning |
|---|---|
| b, r, s | record of the batch, row of the tile, slot of the stream |
| D, K, C, I | predicted features, known inputs, known inputs made of the time, D + K |
| P | regressors of a skip: a constant, 8 D, K, C |
| z | an input in standard deviations from its mean; float32 from here on |

The tuples `setup`, `pool`, `records`, `out` and `tap` are those of `arguments`, `block` is that of `block`; the score is
that of `parts`.
"""

import numpy as np

from streamlstm.kernels import thresholds
from streamlstm.kernels.absorb import absorb_row, is_live, tap_nothing
from streamlstm.kernels.block import (
    COUNT,
    FULL,
    GAIN,
    MOST,
    PREDICTED,
    RING,
    SCORE_NOW,
    STATE_FIELDS,
    THERE,
    USUAL,
    VALUE,
    Z,
    entry,
    fill,
    fill_parts,
    read_entries,
    read_fields,
    set_element,
    set_entry,
    write_entries,
    write_fields,
)
from streamlstm.kernels.columns import read_columns, turned, write_columns
from streamlstm.kernels.compiling import LANES, jit
from streamlstm.kernels.details import cause_of, write_alarm, write_detail, write_unscored
from streamlstm.kernels.episodes import NONE, step_episode, teaching
from streamlstm.kernels.extremes import absorb_extremes, has_extremes, lifted
from streamlstm.kernels.fading import fade_memory
from streamlstm.kernels.inputs import (
    BOUND,
    absorb_regressors,
    begin_regressors,
    bounded,
    bounded_lanes,
    calendar,
    known_input,
    learn_inputs,
    normalised,
    read_clipped,
    spread_of,
)
from streamlstm.kernels.lanes import copy_lanes, load, store
from streamlstm.kernels.layout import *
from streamlstm.kernels.parts import (
    WILD,
    WILD_EARLY,
    absorb_errors,
    absorb_parts,
    absorb_recent,
    add_up,
    combine,
    measure,
    share_out,
)
from streamlstm.kernels.rules import broken_rule
from streamlstm.kernels.times import after_gap, note_time
from streamlstm.types import Stage

LEARNING, CALIBRATING, LIVE = map(int, Stage)
_NAN, _ZERO, _ONE = np.float32(np.nan), np.float32(0), np.float32(1)


@jit(inline=True)
def prepare_row(b, s, setup, pool, records, tap, z, z0, regressors, r0):
    """Writes what the network reads at record b: z (inputs of the first layer) and regressors behind the place of h."""
    sizes, params = setup.sizes, setup.params
    D, K, C = sizes[N_FEATURES], sizes[N_KNOWN], sizes[N_CALENDAR]
    I, P = D + K, sizes[N_REGRESSORS]
    state, stat, mark, x = pool.state[s], pool.stats[s], pool.marks[s], records.x[b]
    at = sizes[AT_REGRESSORS]
    clip = np.float32(params[CLIP])
    if mark[READY] == 1 and (mark[BEGUN] == 0 or after_gap(mark, records.time[b], params[RESET_NS])):
        begin_row(s, setup, pool, x, clip)
    elif after_gap(mark, records.time[b], params[DECAY_NS]):
        fade_memory(state, mark, records.time[b], sizes, params[DECAY_NS])
    for d in range(0, D, LANES):
        store(z, z0 + d, bounded_lanes(load(state, at + d), clip))
    raw, cut = r0 + sizes[PADDED], r0 + sizes[PADDED] + P
    # each copy may write 15 floats too much, which the next one overwrites
    copy_lanes(state, at, regressors, raw + 1, REGRESSORS * D)
    known = 1 + REGRESSORS * D
    for k in range(K):
        z[z0 + D + k] = regressors[raw + known + k] = known_input(x, stat, I, D + k, clip)
    if C > 0:
        calendar(records.time[b], mark[FIRST_TIME], mark[LAST_TIME], regressors, raw + known + K)
    read_clipped(state, at, sizes[AT_CLIPPED], D, clip, regressors, cut + 1)
    copy_lanes(regressors, raw + known, regressors, cut + known, K + C)
    regressors[raw] = regressors[cut] = _ONE
    if sizes[ONLINE] == 1:
        at_segment = np.int64(tap.place[b])
        for j in range(2 * P):
            tap.regressors[at_segment, j] = regressors[raw + j]
        window, memory = sizes[AT_WINDOW], 2 * sizes[LAYERS] * sizes[PADDED]
        if mark[WINDOW_AT] == 0:
            for k in range(memory):
                state[window + k] = state[sizes[AT_LAYERS] + k]
        entry = window + memory + mark[WINDOW_AT] * (I + HEADS * D)
        for k in range(I):
            state[entry + k] = z[z0 + k]


@jit
def begin_row(s, setup, pool, x, clip):
    """Writes the state of a stream at its first record that is scored, and after a gap: no memory, regressors as if x had
    always been. What is usual for the stream stays known."""
    sizes = setup.sizes
    D, I = sizes[N_FEATURES], sizes[N_FEATURES] + sizes[N_KNOWN]
    state, stat, mark = pool.state[s], pool.stats[s], pool.marks[s]
    mark[BEGUN], mark[WINDOW_AT] = 1, 0
    for k in range(2 * sizes[LAYERS] * sizes[KEPT]):
        state[sizes[AT_LAYERS] + k] = _ZERO
    for d in range(D):
        begin = _ZERO
        if not np.isnan(x[d]) and not np.isnan(stat[d]):
            begin = bounded(normalised(x[d], stat[d], stat[2 * I + d]), BOUND)
        begin_regressors(state, sizes[AT_REGRESSORS], sizes[AT_CLIPPED], D, d, begin, clip)
        if mark[SCORED] == 0:
            state[sizes[AT_RANGE] + d] = state[sizes[AT_RANGE] + D + d] = begin
        state[sizes[AT_UNREST] + d] = _ZERO
    for k in range(HEADS * D):
        if mark[SCORED] == 0:
            state[sizes[AT_USUAL] + k] = setup.usual[k]
        state[sizes[AT_ERRORS] + k] = state[sizes[AT_USUAL] + k]
    for part in range(PARTS):
        state[sizes[AT_SMOOTH] + part] = state[sizes[AT_PARTS] + part]


@jit(inline=True)
def enter_row(b, s, r, setup, pool, records, tap, out, prediction, p0, block, broken, present):
    """Whether record b is to be scored; then it is record r of the block, else nothing is left to do with it.

    `prediction` holds a row of 3 D values at p0, head by head; broken and present int32 (16): the rule that a record of
    the block breaks, and how many of its features are present.
    """
    sizes, params = setup.sizes, setup.params
    D, I = sizes[N_FEATURES], sizes[N_FEATURES] + sizes[N_KNOWN]
    state, stat, mark, x = pool.state[s], pool.stats[s], pool.marks[s], records.x[b]
    time = records.time[b]
    broken[r] = broken_rule(mark, state, stat, x, time, sizes, params) if sizes[RULES] != 0 else 0
    note_time(mark, time)
    mark[LAST_ROW] = records.row[b]
    if mark[READY] == 0:
        learn_row(b, s, setup, pool, records, tap, out, broken[r])
        return False
    begun = mark[BEGUN] - 1
    ring = sizes[AT_RING] + begun % RECENT_ROWS * D
    count = 0
    for d in range(D):
        if np.isnan(x[d]):  # the prediction stands in
            z, there = bounded(prediction[p0 + d], BOUND), _ZERO
        else:
            if np.isnan(stat[d]):
                stat[d], stat[I + d], stat[2 * I + d] = x[d], 0.0, spread_of(x[d], 0.0)
            z, there = normalised(x[d], stat[d], stat[2 * I + d]), _ONE
            count += 1
        set_element(block, Z, r * D + d, z)
        set_element(block, THERE, r * D + d, there)
        state[ring + d] = z
    present[r] = count
    read_fields(block, r, D, PREDICTED, HEADS, prediction, p0)
    full = begun >= RECENT_ROWS - 1
    fill(block, FULL, r * D, D, _ONE if full else _ZERO)
    gain = np.float32(params[SMOOTH_GAIN]) if mark[SCORED] > 0 else _ONE
    fill_parts(block, GAIN, r, gain if count > 0 else _ZERO)
    if not full:
        set_entry(block, GAIN, r * PARTS + VARIABILITY, _ZERO)
    fill_parts(block, COUNT, r, np.float32(count))
    set_entry(block, COUNT, r * PARTS + VARIABILITY, np.float32(D))
    settled = mark[SCORED] >= params[CALIBRATING_ROWS] or params[ADAPT] != BY_STAGE
    fill_parts(block, MOST, r, WILD if settled else WILD_EARLY)
    return True


@jit(inline=True)
def score_block(block, rows, slots, places, broken, present, setup, pool, records, tap, out, network):
    """Scores the records of a block and absorbs them; writes their outputs and the state of their streams.

    rows, slots, places int32 (16): positions in the batch, in the pool and in the tile; `network` holds the LSTM's part
    of a prediction at OUTPUTS times the place.
    """
    sizes, params = setup.sizes, setup.params
    D = sizes[N_FEATURES]
    floor, gain = np.float32(params[SCALE_FLOOR]), np.float32(params[SCALE_GAIN])
    for r in range(block.records):
        read_entries(block, r, pool.state[slots[r]], sizes[AT_SMOOTH])
    if turned(D):
        read_columns(block, pool.state, slots, sizes[AT_REGRESSORS])
    else:
        for r in range(block.records):
            read_fields(block, r, D, 0, STATE_FIELDS, pool.state[slots[r]], sizes[AT_REGRESSORS])
    measure(block, floor, gain)
    for r in range(block.records):
        add_up(block, D, r)
    combine(block)
    for r in range(block.records):
        score = _ZERO
        for part in range(PARTS):
            score += entry(block, VALUE, r * PARTS + part)
        state = pool.state[slots[r]]
        if has_extremes(sizes, params) and is_live(pool.marks[slots[r]], state, params):
            lift = lifted(score, state[LIMIT], records.x[rows[r]], pool.stats[slots[r]], sizes, params)
            set_entry(block, VALUE, r * PARTS + RANGE, entry(block, VALUE, r * PARTS + RANGE) + (lift - score))
            score = lift
        fill_parts(block, SCORE_NOW, r, score)
    share_out(block, D, np.float32(params[SMOOTH_GAIN]))
    learns = False
    for r in range(block.records):
        n0 = places[r] * sizes[OUTPUTS]
        if judge_row(rows[r], slots[r], r, block, broken[r], present[r], setup, pool, records, tap, out, network, n0):
            learns = True
    if learns:
        absorb_errors(block, floor)
        absorb_parts(block)
    absorb_recent(block, floor, gain)
    absorb_regressors(block, np.float32(params[CLIP]))
    for r in range(block.records):
        write_entries(block, r, pool.state[slots[r]], sizes[AT_SMOOTH])
    if turned(D):
        write_columns(block, pool.state, slots, sizes[AT_REGRESSORS])
    else:
        fields = RING if learns else USUAL
        for r in range(block.records):
            write_fields(block, r, D, fields, pool.state[slots[r]], sizes[AT_REGRESSORS])


@jit(inline=True)
def judge_row(b, s, r, block, broken, present, setup, pool, records, tap, out, network, n0):
    """Holds the score of record r of the block against its stream's threshold, and writes the outputs of b.

    Whether the record teaches what is usual for its stream.
    """
    sizes, params = setup.sizes, setup.params
    state, mark, x = pool.state[s], pool.marks[s], records.x[b]
    time = records.time[b]
    live = is_live(mark, state, params)
    score = entry(block, SCORE_NOW, r * PARTS)
    limit = state[LIMIT]
    state[SCORE] = score
    severity = _NAN
    if live:
        limit = thresholds.held_against(sizes, state[sizes[AT_THRESHOLD] :], score, limit, params)
        severity = score / limit
    change = step_episode(mark, state, severity, broken, time, records.source, records.row[b], params)
    flag = 1 if mark[OPEN] == 1 and (severity > _ONE or broken != 0) else 0
    cause = 0
    if flag == 1:
        cause = broken if broken != 0 else cause_of(block, r, sizes[N_FEATURES])
    write_alarm(b, mark, state, out, change, flag, cause)
    out.values[OUT_SCORE, b] = score
    out.values[OUT_THRESHOLD, b] = limit if live else _NAN
    out.values[OUT_SEVERITY, b] = severity
    for part in range(PARTS):
        out.values[OUT_PART + part, b] = entry(block, VALUE, r * PARTS + part)
    out.codes[OUT_STAGE, b] = LIVE if live else CALIBRATING
    out.codes[OUT_IMPUTED, b] = sizes[N_FEATURES] - present
    out.codes[OUT_DETAILED, b] = 0
    if flag == 1 or records.detail:
        write_detail(b, s, r, block, present, setup, pool, out)
    # a rule's alarm is none that the threshold was to keep rare
    change = change if severity > _ONE else NONE
    return absorb_row(b, s, r, block, present, setup, pool, x, tap, network, n0, live, change)


@jit
def learn_row(b, s, setup, pool, records, tap, out, broken):
    """Learns mean and spread from record b, which is not scored yet; a broken rule is an alarm all the same."""
    sizes, params = setup.sizes, setup.params
    state, mark = pool.state[s], pool.marks[s]
    change = step_episode(mark, state, _NAN, broken, records.time[b], records.source, records.row[b], params)
    flag = 1 if mark[OPEN] == 1 and broken != 0 else 0
    if teaching(mark, params):
        D, I, x, stat = sizes[N_FEATURES], sizes[N_FEATURES] + sizes[N_KNOWN], records.x[b], pool.stats[s]
        learn_inputs(x, stat, I, 1.0 / (mark[BEGUN] + 1.0))
        if sizes[ONLINE] == 1:
            absorb_extremes(x, stat, D, I)
        mark[BEGUN] += 1
    mark[SEEN] += 1
    if mark[BEGUN] >= params[LEARNING_ROWS]:
        mark[READY], mark[BEGUN] = 1, 0
    write_unscored(b, setup, records.detail + flag, LEARNING, out)
    write_alarm(b, mark, state, out, change, flag, broken if flag == 1 else 0)
    if sizes[ONLINE] == 1:
        tap_nothing(b, sizes, tap)


@jit
def drop_row(b, s, setup, pool, records, tap, out):
    """Counts record b, which the stream does not take, and writes its result; nothing else comes to know of it."""
    sizes, state, mark = setup.sizes, pool.state[s], pool.marks[s]
    note_time(mark, records.time[b])
    mark[LAST_ROW] = records.row[b]
    mark[DROPPED] += 1
    stage = LIVE if is_live(mark, state, setup.params) else CALIBRATING
    write_unscored(b, setup, records.detail, stage if mark[READY] == 1 else LEARNING, out)
    if sizes[ONLINE] == 1:
        tap_nothing(b, sizes, tap)
