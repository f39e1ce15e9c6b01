"""Where things lie: columns of a stream's state, entries of the parameter and size vectors.

A stream's state is one row in each of three arrays, so that an event touches few cache lines:

| array | row |
|---|---|
| state (S, W) float32 | scalars, per layer h and c, the score's parts and fields (see `block`), rules, threshold |
| stats (S, V) float64 | of inputs: mean, variance, spread (I each); online least, largest (D each); for rules the last (D) |
| marks (S, MARKS) int64 | counters, times, the open episode |

Kernels read sizes and offsets from `sizes`, an int64 vector indexed by the names below, and settings from `params`, a
float64 vector likewise: two arguments instead of fifty, and no kernel is compiled anew for another size.
"""

LAGS = 3
SPANS = (6, 12, 25, 50, 100)
"""Regressors of the skip: the last three values and EWMAs of these spans (rows), of every feature."""
REGRESSORS = LAGS + len(SPANS)

RAW, CLIPPED, BARE, HEADS = range(4)
"""Predictions that a record is compared with, LSTM plus a skip: on raw inputs, on clipped inputs, on the time alone."""
VARIABILITY, RANGE, PARTS = range(3, 6)
"""Parts of the score: the errors of the heads, then unrest, then values outside the usual."""
RECENT_ROWS = 10  # values that the variability is of

# ---- scalars at the start of a row of `state`
SCORE, LIMIT, PEAK, REPORTED, SCALARS = range(5)

# ---- columns of `marks`
(SEEN, READY, BEGUN, SCORED, LAST_ROW, FIRST_TIME, LAST_TIME, BACKWARD, REPEATED, DROPPED, IMPUTED,
 OPEN, RUN, QUIET, LENGTH, REFRACTORY, EVENTS, FIRST, LAST, OPENED_SOURCE, OPENED_ROW, OPENED_TIME, CLOSED_TIME,
 PEAK_TIME, CAUSE, WINDOW_AT, ALARMS, OWN, MARKS) = range(29)  # fmt: skip

# ---- entries of `sizes`
(N_FEATURES, N_KNOWN, N_CALENDAR, STEP, WAVE, ABSORBING, LIMITING,
 GATES, VECTORS, HIDDEN, LAYERS, PADDED, KEPT, OUTPUTS, STATE_WIDTH, STATS_WIDTH,
 AT_LAYERS, AT_SMOOTH, AT_PARTS, AT_REGRESSORS, AT_CLIPPED, AT_ERRORS, AT_UNREST, AT_SHARE,
 AT_USUAL, AT_VARIABILITY, AT_RANGE, AT_RING, AT_FLAT, AT_MISSED, AT_THRESHOLD, AT_WINDOW,
 N_REGRESSORS, LDZ, LDR, WINDOW, SEGMENT, KIND, ONLINE, DROPS, RULES, AT_VALUE, WEIGHTS, SIZES) = range(44)  # fmt: skip

# ---- entries of `params`
(CLIP, SMOOTH_GAIN, SCALE_GAIN, SCALE_FLOOR, LEARNING_ROWS, CALIBRATING_ROWS, ADAPT, LEAST_WEIGHT, LEAST_PART_WEIGHT,
 ALARMS_PER_DAY, LEVEL, SIGMAS, MEMORY_ROWS, LIMIT_FLOOR,
 MIRROR, DEPTH_ROWS,
 MIN_ROWS, MERGE_ROWS, REFRACTORY_ROWS, HYSTERESIS, ACCEPT_AFTER_ROWS, SILENT_NS, RESET_NS, DECAY_NS,
 EXTREME_MARGIN, WEIGHT, PARAMS) = (*range(26), 25 + 5)  # fmt: skip
RULE_LIMITS = 5
"""Limits of the rules behind the entries above, D values each; see `rules`."""

# ---- bits of `sizes[RULES]`: which rules there are; of `sizes[DROPS]`: which records are not taken
RULE_ALONE, RULE_VALUE, RULE_FLAT, RULE_MISSED = 1, 2, 4, 8
DROP_LATE, DROP_REPEATED = 1, 2

# ---- bits of `params[ADAPT]`: what a scored record may teach; BY_STAGE leaves it to the stream's stage
ERRORS, CALIBRATION, THRESHOLD = 1, 2, 4
BY_STAGE = -1.0

# ---- rows of the outputs
OUT_SCORE, OUT_THRESHOLD, OUT_SEVERITY, OUT_PEAK, OUT_PART, OUT_VALUES = (*range(5), 4 + 5)  # a row for each of PARTS
OUT_FLAG, OUT_STAGE, OUT_CHANGE, OUT_IMPUTED, OUT_DETAILED, OUT_CAUSE, OUT_CODES = range(7)
OUT_EXPECTED, OUT_LOW, OUT_HIGH, OUT_ATTRIBUTION, OUT_DETAILS = range(5)

# ---- what a scored record teaches a threshold, see `thresholds`
LEARN, OPENED, INSIDE, ACCEPTED, EARLY = range(5)

# ---- threshold kinds: their number in `sizes[KIND]` and the width of their state
FIXED, SIGMA, QUANTILE, NDT, SPOT, DSPOT, LIKELIHOOD, CONFORMAL, CONTRAST = range(9)
KINDS = {
    "fixed": FIXED,
    "sigma": SIGMA,
    "quantile": QUANTILE,
    "ndt": NDT,
    "spot": SPOT,
    "dspot": DSPOT,
    "likelihood": LIKELIHOOD,
    "conformal": CONFORMAL,
    "contrast": CONTRAST,
}
WITHOUT_RATE = (FIXED, SIGMA, NDT)
"""Kinds that know no `false_alarms_per_day`."""
BINS_PER_OCTAVE, OCTAVES, LOWEST_OCTAVE = 8, 9, -3
BINS = BINS_PER_OCTAVE * OCTAVES
NDT_BLOCKS, SPOT_PEAKS, RECENT_SCORES, CONFORMAL_BLOCKS, CONTRAST_BLOCKS = 105, 128, 10, 210, 8
THRESHOLD_WIDTHS = {
    FIXED: 0,
    SIGMA: 3,
    QUANTILE: BINS + 2,
    NDT: 8 + 2 * NDT_BLOCKS,
    SPOT: 10 + SPOT_PEAKS,
    DSPOT: 11 + SPOT_PEAKS,
    LIKELIHOOD: 4 + RECENT_SCORES,
    CONFORMAL: 6 + CONFORMAL_BLOCKS,
    CONTRAST: 12 + 2 * CONTRAST_BLOCKS,
}

TILE = 48
"""Rows that one thread carries through all layers before the next: their scratch stays in the first-level cache."""
GROUP = 192
"""Streams whose waves are run one after another before the next group: their state stays in the second-level cache."""
SEATS = 5 * 16
GROUP_SEATS = 3 * GROUP + 2 * TILE + SEATS
"""int32 values of scratch that the records of a block and of a group need."""
