"""Sizes of one detector: how a configuration becomes the vectors that kernels read and the widths of a stream's rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamlstm.config import Config
from streamlstm.kernels.block import block_size
from streamlstm.kernels.cells import Cell, cell_named
from streamlstm.kernels.compiling import LANES, padded
from streamlstm.kernels.inputs import CALENDAR
from streamlstm.kernels.layout import *
from streamlstm.model.rules import rule_limits, rules_needed
from streamlstm.types import Float64, Int64


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes of one detector: the vectors that kernels read and the widths of a stream's rows."""

    sizes: Int64
    params: Float64
    num_features: int
    num_known: int
    hidden_size: int
    num_layers: int
    cell: Cell

    @property
    def bytes_per_stream(self) -> int:
        """Memory of one stream's state, without its key."""
        return int(4 * self.sizes[STATE_WIDTH] + 8 * self.sizes[STATS_WIDTH] + 8 * MARKS)

    @property
    def num_regressors(self) -> int:
        """Inputs of one linear skip: a constant, eight per feature, the known inputs, and those made of the time."""
        return int(self.sizes[N_REGRESSORS])

    @property
    def num_calendar(self) -> int:
        """Known inputs of the skips that are made of the time."""
        return int(self.sizes[N_CALENDAR])

    @property
    def num_outputs(self) -> int:
        """Columns of the readout, features of all heads rounded up to whole vectors."""
        return int(self.sizes[OUTPUTS])

    @property
    def known_width(self) -> int:
        """float32 values of a stream's row that a fit finds out."""
        return len(self.known_columns)

    @property
    def known_columns(self) -> Int64:
        """Columns of what a fit finds out: usual errors, variability, range, calibration."""
        usual, ring, parts = (int(self.sizes[at]) for at in (AT_USUAL, AT_RING, AT_PARTS))
        return np.concatenate([np.arange(usual, ring), np.arange(parts, parts + 2 * PARTS)])

    @property
    def scratch_size(self) -> int:
        """float32 values that one thread needs besides the state."""
        rows = self.sizes[LDZ] + self.sizes[LDR] + 2 * self.sizes[OUTPUTS]
        return int(TILE * rows + block_size(self.num_features))


def make_layout(config: Config, features: int | Sequence[str], num_known: int, *, online: bool) -> Layout:
    """The layout of a detector of `config` for D `features` (a number where rules need not know their names) and K known
    inputs; ConfigError where a rule names another feature."""
    D, K = features if isinstance(features, int) else len(features), num_known
    H, L = config.model.hidden_size, config.model.num_layers
    Hp = padded(H)
    kind = KINDS[config.threshold.kind]
    sizes = np.zeros(SIZES, np.int64)
    kept = Hp // 2 if config.model.state == "float16" else Hp
    sizes[[N_FEATURES, N_KNOWN, HIDDEN, LAYERS, PADDED, KEPT]] = D, K, H, L, Hp, kept
    cell = cell_named(config.model.cell, config.model.layer_norm)
    sizes[[GATES, VECTORS]] = cell.gates, cell.vectors  # STEP is an address, which a process finds for itself
    sizes[N_CALENDAR] = CALENDAR if config.model.calendar else 0
    sizes[OUTPUTS] = padded(HEADS * D)
    rules, time = rules_needed(config.rules), config.time
    column = SCALARS
    window = config.learning.window if online else 0
    for entry, width in (
        (AT_LAYERS, 2 * L * kept),
        (AT_SMOOTH, PARTS),
        (AT_PARTS, 2 * PARTS),
        (AT_REGRESSORS, REGRESSORS * D),
        (AT_CLIPPED, (REGRESSORS - LAGS) * D),
        (AT_ERRORS, HEADS * D),
        (AT_UNREST, D),
        (AT_SHARE, D),
        (AT_USUAL, HEADS * D),
        (AT_VARIABILITY, 2 * D),
        (AT_RANGE, 2 * D),
        (AT_RING, RECENT_ROWS * D),
        (AT_FLAT, D if rules & RULE_FLAT else 0),
        (AT_MISSED, D if rules & RULE_MISSED else 0),
        (AT_THRESHOLD, THRESHOLD_WIDTHS[kind]),
        (AT_WINDOW, window * (D + K + HEADS * D) + 2 * L * Hp if online else 0),
    ):
        sizes[entry] = column
        column += width
    sizes[STATE_WIDTH] = max(column, sizes[AT_FLAT] + LANES)  # the ring is read 16 floats at a time
    sizes[AT_VALUE] = 3 * (D + K) + (2 * D if online else 0)
    sizes[STATS_WIDTH] = sizes[AT_VALUE] + (D if rules & RULE_VALUE else 0)
    sizes[N_REGRESSORS] = P = 1 + REGRESSORS * D + K + sizes[N_CALENDAR]
    # rows of the network's scratch, with room for what a copy writes too much
    sizes[LDZ] = max(D + K + Hp, padded(D), 2 * Hp if L > 1 else 0) + cell.room(H)
    sizes[LDR] = Hp + 2 * P + LANES
    sizes[WINDOW], sizes[SEGMENT] = window, config.learning.update_every if online else 0
    sizes[KIND], sizes[ONLINE], sizes[RULES] = kind, int(online), rules
    sizes[DROPS] = DROP_LATE * (time.late != "accept") | DROP_REPEATED * (time.repeated == "drop")

    score, threshold, episodes = config.score, config.threshold, config.episodes
    span = score.span if score.span is not None else max(1.0, 70.0 / D**0.5)
    params = np.zeros(PARAMS + RULE_LIMITS * D)
    if not isinstance(features, int):
        params[PARAMS:] = rule_limits(config.rules, features).ravel()
    params[CLIP] = config.model.clip
    params[SMOOTH_GAIN], params[SCALE_GAIN] = 2 / (span + 1), 2 / (score.scale_span + 1)
    params[SCALE_FLOOR] = score.floor
    params[ADAPT] = BY_STAGE
    params[LEAST_WEIGHT], params[LEAST_PART_WEIGHT] = 2 / (score.scale_span + 1), 1 / threshold.memory_rows
    for head, name in enumerate(("raw", "clipped", "none")):
        params[WEIGHT + head] = float(name in score.heads)
    params[WEIGHT + VARIABILITY], params[WEIGHT + RANGE] = score.variability, score.range
    params[LEARNING_ROWS] = config.learning.learning_rows
    params[CALIBRATING_ROWS] = config.learning.calibrating_rows
    streams = threshold.expected_streams if threshold.scope == "fleet" and threshold.expected_streams else 1
    params[ALARMS_PER_DAY] = threshold.false_alarms_per_day / streams
    params[LEVEL], params[SIGMAS] = threshold.level, threshold.sigmas
    params[MEMORY_ROWS], params[LIMIT_FLOOR] = threshold.memory_rows, threshold.floor
    params[MIRROR], params[DEPTH_ROWS] = threshold.mirror, threshold.depth_rows
    params[MIN_ROWS], params[MERGE_ROWS] = episodes.min_rows, episodes.merge_rows
    params[REFRACTORY_ROWS], params[HYSTERESIS] = episodes.refractory_rows, episodes.hysteresis
    params[ACCEPT_AFTER_ROWS] = episodes.accept_after_rows
    params[SILENT_NS] = np.inf if config.rules.silent_s is None else 1e9 * config.rules.silent_s
    for entry, policy in (RESET_NS, "reset"), (DECAY_NS, "decay"):
        params[entry] = 1e9 * time.gap_s if time.gap_s is not None and time.on_gap == policy else np.inf
    params[EXTREME_MARGIN] = config.learning.extreme_margin
    return Layout(sizes, params, D, K, H, L, cell)
