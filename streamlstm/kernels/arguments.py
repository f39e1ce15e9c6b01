"""The arguments of the compiled call, grouped; Numba takes the tuples apart at compile time."""

from typing import NamedTuple

from streamlstm.types import Float32, Float64, Int32, Int64


class Setup(NamedTuple):
    """What the model and the configuration say: sizes (SIZES), params (PARAMS), weights (flat), usual (3 D) of new streams."""

    sizes: Int64
    params: Float64
    weights: Float32
    usual: Float32


class Pool(NamedTuple):
    """State of all streams: state (S, W), stats (S, V), marks (S, MARKS)."""

    state: Float32
    stats: Float64
    marks: Int64


class Records(NamedTuple):
    """Records: slots (B), time (B) ns, x (B, I), row (B), number of their source, whether all want detail, the first to run."""

    slots: Int32
    time: Int64
    x: Float64
    row: Int64
    source: int
    detail: int
    first: int


class Out(NamedTuple):
    """Results: values (OUT_VALUES, B), codes (OUT_CODES, B) uint16, details (OUT_DETAILS, B, D), episodes (B, MARKS)."""

    values: Float32
    codes: Float32
    details: Float64
    episodes: Int64


class Tap(NamedTuple):
    """What online learning keeps of a segment of N records; empty arrays where weights are frozen.

    regressors (N, 2 P), raw and clipped, target (N, D) with NaN where nothing may be learned, windows (N, one stream's
    window), closed (1, N) uint16: a window came to its end at that record. place (B) int32: where a record stands there.
    """

    regressors: Float32
    target: Float32
    windows: Float32
    closed: Float32
    place: Int32
