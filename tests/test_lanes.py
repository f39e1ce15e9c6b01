"""Vectors of 16 values against NumPy's float32, and blocks of records against records one at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.kernels import lanes
from streamlstm.kernels.block import STATE_FIELDS, block_size, make_block, stride_of
from streamlstm.kernels.columns import WRITTEN, read_columns, write_columns
from streamlstm.kernels.compiling import LANES, jit
from streamlstm.kernels.layout import N_FEATURES, WAVE
from streamlstm.kernels.wave import wave_for
from streamlstm.learn.fit import Recording, fit
from streamlstm.types import Float32, cause_text

finite = st.floats(-(2.0**60), 2.0**60, width=32)
sixteen = arrays(np.float32, LANES, elements=finite)
_HALF = np.float32(0.5)


@jit
def _arithmetic(a: Any, b: Any, out: Any) -> None:
    x, y = lanes.load(a, 0), lanes.load(b, 0)
    results = (
        x + y, x - y, x * y, x / y, x * _HALF, _HALF - x, lanes.minimum(x, y), lanes.maximum(x, y),
        lanes.absolute(x), lanes.square_root(lanes.absolute(x)),
        lanes.where((x < y) & (x > _HALF), x, y), lanes.where(x >= y, lanes.splat(_HALF), y), lanes.where(x <= y, x, y),
    )  # fmt: skip
    for k in range(13):
        lanes.store(out, k * LANES, results[k])


@settings(deadline=None)  # the first example compiles
@given(a=sixteen, b=sixteen)
def test_each_lane_is_float32_arithmetic(a: Float32, b: Float32) -> None:
    out = np.zeros(13 * LANES, np.float32)
    _arithmetic(a, b, out)
    with np.errstate(all="ignore"):
        expected = [
            a + b, a - b, a * b, a / b, a * _HALF, _HALF - a, np.where(a < b, a, b), np.where(a > b, a, b),
            np.abs(a), np.sqrt(np.abs(a)),
            np.where((a < b) & (a > _HALF), a, b), np.where(a >= b, _HALF, b), np.where(a <= b, a, b),
        ]  # fmt: skip
    np.testing.assert_array_equal(out.reshape(13, LANES), expected)


@jit
def _log1p(values: Any) -> None:
    for k in range(0, len(values), LANES):
        lanes.store(values, k, lanes.log1p(lanes.load(values, k)))


def test_logarithm_is_close_over_the_whole_range() -> None:
    values = np.r_[0, np.geomspace(1e-12, 3e38, 64 * LANES - 1)].astype(np.float32)
    expected = np.log1p(values.astype(np.float64))
    _log1p(values)
    assert np.all(np.abs(values - expected) <= np.maximum(2e-7, 2 * np.spacing(expected.astype(np.float32))))


@jit
def _copy(source: Any, target: Any, count: int) -> None:
    lanes.copy_lanes(source, 0, target, 0, count)
    lanes.fill_lanes(target, count, 1, _HALF)
    lanes.move(source, 0, target, len(target) - 1)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_copies_reach_as_far_as_they_say(count: int) -> None:
    source, target = np.arange(64, dtype=np.float32) + 1, np.zeros(80, np.float32)
    _copy(source, target, count)
    np.testing.assert_array_equal(target[:count], source[:count])
    assert np.all(target[count : count + 16] == 0.5)
    assert not target[count + 16 : -1].any()
    assert target[-1] == source[0]


@jit
def _there_and_back(values: Any, records: int, state: Any, slots: Any, column: int) -> None:
    block = make_block(values, 1, records)
    read_columns(block, state, slots, column)
    for e in range(STATE_FIELDS * block.stride):
        values[e] += _HALF
    write_columns(block, state, slots, column)


@pytest.mark.parametrize("records", [1, 5, 15, 16])
def test_columns_are_turned_and_no_other_row_is_touched(records: int) -> None:
    rng = np.random.default_rng(records)
    state = rng.normal(size=(40, 75)).astype(np.float32)
    slots, column = rng.permutation(40)[:LANES].astype(np.int32), 7
    values = np.zeros(block_size(1), np.float32)
    expected = state.copy()
    expected[slots[:records], column : column + WRITTEN] += _HALF
    fields = state[slots[:records], column : column + STATE_FIELDS].T + _HALF
    _there_and_back(values, records, state, slots, column)
    np.testing.assert_array_equal(state, expected)
    rows = values[: STATE_FIELDS * stride_of(1)].reshape(STATE_FIELDS, -1)
    np.testing.assert_array_equal(rows[:, :records], fields)


@pytest.mark.parametrize("features", [1, 2, 3, 5, 8, 9, 16, 17, 33])
def test_a_block_scores_its_records_as_if_they_were_alone(
    features: int, synthetic: Callable[..., dict[str, Recording]]
) -> None:
    """Streams side by side, in blocks of all fillings, with values missing and some wild."""
    names = tuple(f"f{d}" for d in range(features))
    config = Config.model_validate({
        "model": {"hidden_size": 4}, "training": {"updates": 2},
        "learning": {"learning_rows": 3, "calibrating_rows": 4}, "threshold": {"kind": "fixed", "level": 1.0},
    })  # fmt: skip
    model = fit(synthetic(streams=2, features=features), config, names)
    rng = np.random.default_rng(features)
    rows, streams = 30, 37  # more than a block, and no multiple of one
    x = rng.normal(size=(rows, streams, features)) * np.where(rng.uniform(size=(rows, streams, 1)) < 0.05, 30, 1)
    x[rng.uniform(size=x.shape) < 0.05] = np.nan
    time = np.arange(rows) * 3_600_000_000_000 * 3
    together, alone = Detector(model=model), Detector(model=model)
    keys = [f"s{n}" for n in range(streams)]
    for t in range(rows):
        batch = together.process_batch(keys, np.repeat(time[t], streams), x[t])
        for n, key in enumerate(keys):
            one = alone.process(key, int(time[t]), x[t, n].tolist())
            assert (one.score, one.flag) == (batch.score[n], batch.flag[n])
            assert one.cause == (cause_text(int(batch.cause[n]), names) if one.flag else "")
            np.testing.assert_array_equal(one.parts, batch.parts[n])
    assert batch.score.any()


def test_sizes_known_to_the_compiler_change_no_bit(synthetic: Callable[..., dict[str, Recording]]) -> None:
    config = Config.model_validate({"model": {"hidden_size": 4}, "training": {"updates": 2}})
    model = fit(synthetic(streams=2), config, ("f0",))
    special, general = Detector(model=model), Detector(model=model)
    sizes = special.engine.sizes.copy()
    sizes[N_FEATURES] = 2
    general.engine.sizes[WAVE] = general.engine._frozen_sizes[WAVE] = wave_for(sizes).address
    assert special.engine.sizes[WAVE] != general.engine.sizes[WAVE]
    x = np.random.default_rng(1).normal(size=(2000, 1))
    keys, time = [f"s{n % 21}" for n in range(len(x))], np.arange(len(x)) * 10**10
    found = [detector.process_batch(keys, time, x) for detector in (special, general)]
    for name in "score", "threshold", "severity", "parts", "flag", "expected":
        np.testing.assert_array_equal(*(getattr(batch, name) for batch in found))
    for rows in "state", "stats", "marks":
        np.testing.assert_array_equal(*(getattr(of.pool.rows, rows) for of in (special, general)))
