"""Kernels interpreted, in plain Python, and compiled with bounds checks: the same bits as those compiled as ever."""

import os
import subprocess
import sys
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from runs import GROUPS, outcome
from test_cells import KINDS, MARGIN, SHAPES, SLOTS, Case

from streamlstm.kernels.cells.interpreted import step
from streamlstm.kernels.compiling import CACHE_DIR
from streamlstm.kernels.interpreted import fused

ROOT = Path(__file__).parent.parent
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
# with many trailing zero bits: ties between two float32 come from such
SHORT = st.builds(lambda n, places: float(n) * 2.0**places, st.integers(-4095, 4095), st.integers(-60, 60))


SHORT_COLUMN = """
import numpy as np
import pyarrow as pa
from streamlstm.detect.detector import Detector

detector = Detector({"model": {"hidden_size": 4}}, features=("value",))
slots = detector.pool.slots(detector.pool.streams(pa.array(["a", "b"])))
two = np.zeros(2, np.int64)
detector.engine.score(detector.pool.rows, slots, two, np.zeros((1, 1)), two, 0, detail=False)
"""


def exactly(a: float, b: float, c: float) -> Any:
    """The float32 nearest to a b + c, by comparing with its neighbours; of two equally near the one with an even end."""
    wished = Fraction(a) * Fraction(b) + Fraction(c)
    with np.errstate(all="ignore"):
        near = np.float32(float(wished))
        around = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))]
    if np.isinf(near):
        return near
    finite = [value for value in around if np.isfinite(value)]
    return min(finite, key=lambda value: (abs(Fraction(float(value)) - wished), value.view(np.int32) & 1))


@given(FLOATS | SHORT, FLOATS | SHORT, FLOATS | SHORT)
@example(1 + 2**-12, 1 + 2**-12, 2**-80)  # a hair above the middle of two float32
@example(1 + 2**-12, 1 + 2**-12, -(2**-80))
@example(-1 - 2**-12, 1 + 2**-12, -(2**-80))
@example(2**-75, 2**-75, 2**-149)  # below the least float32
@settings(max_examples=2000, deadline=None)
def test_fused_is_rounded_once(a: float, b: float, c: float) -> None:
    with np.errstate(all="ignore"):
        actual = fused(np.float32(a), np.float32(b), np.float32(c))
    expected = exactly(float(np.float32(a)), float(np.float32(b)), float(np.float32(c)))
    assert np.array_equal(actual, expected)


def bits(values: Any) -> bytes:
    """Of all numbers; NaN is one value, whose bits no operation promises."""
    return np.where(np.isnan(values), np.float32(np.nan), values).tobytes()


def interpreted(case: Case, slots: Any, state: Any, half: bool) -> Any:
    """The state of all slots after the interpreted step, arguments as `Case.step` gives them."""
    state = state.copy()
    read, room = case.inputs + case.hidden, case.cell.room(case.hidden)
    z = np.full((len(slots), read + room + 1), np.nan, np.float32)
    z[:, : case.inputs] = case.x[slots]
    z[:, case.inputs : read] = state[slots, : case.hidden]
    if half:
        state = state.astype(np.float16)
    flat = state.reshape(-1).view(np.float32)
    lds, c0 = (state.shape[1] // 2, case.padded // 2) if half else (state.shape[1], case.padded)
    step(case.cell.program, case.cell.layer_norm, half, case.weights[MARGIN:], case.inputs, case.hidden, z.reshape(-1),
         z.shape[1], slots, len(slots), flat, lds, 0, c0)  # fmt: skip
    return state


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("inputs", "hidden"), SHAPES)
def test_an_interpreted_step_has_the_bits_of_the_compiled_one(name: str, inputs: int, hidden: int) -> None:
    case = Case(name, inputs, hidden, seed=inputs)
    case.x[1:4, 0] = np.inf, -3e38, 1e-42
    slots = np.array([5, 0, 1, 2, 3], np.int32)
    compiled = interpreted_state = case.begin
    for _ in range(3):
        compiled = case.step(slots, compiled)
        interpreted_state = interpreted(case, slots, interpreted_state, half=False)
        assert bits(interpreted_state) == bits(compiled)
    assert not np.array_equal(compiled, case.begin)


@pytest.mark.parametrize("name", KINDS)
def test_an_interpreted_step_on_float16_is_the_same_rounded(name: str) -> None:
    case = Case(name, 3, 20, seed=3)
    slots, columns = np.arange(SLOTS), 2 * case.padded
    case.begin = case.begin[:, :columns].astype(np.float16).astype(np.float32)
    expected = interpreted(case, slots, case.begin, half=False).astype(np.float16)
    actual = interpreted(case, slots, case.begin, half=True)
    assert actual.tobytes() == expected.tobytes()


compiled = cache(outcome)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("switch", ["NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK"])
def test_runs_have_the_same_bits_in_a_process_with(switch: str, group: str, tmp_path: Path) -> None:
    target = tmp_path / "found.npz"
    environment = os.environ | {switch: "1", "STREAMLSTM_CACHE_DIR": str(CACHE_DIR.parent)}
    command = [sys.executable, "tests/runs.py", target, group]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    # a C function can raise nothing: Numba writes its IndexError to the process' errors
    assert (done.returncode, done.stderr) == (0, "")
    actual = np.load(target)
    expected = compiled(group)
    assert sorted(actual.files) == sorted(expected)
    assert [name for name in expected if not np.array_equal(actual[name], expected[name], equal_nan=True)] == []


@pytest.mark.parametrize("switch", ["NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK"])
def test_an_index_beyond_an_array_is_told(switch: str) -> None:
    environment = os.environ | {switch: "1", "STREAMLSTM_CACHE_DIR": str(CACHE_DIR.parent)}
    done = subprocess.run(
        [sys.executable, "-c", SHORT_COLUMN], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert "IndexError" in done.stderr
    assert ("prefetch(records.x[b])" in done.stderr) == (switch == "NUMBA_DISABLE_JIT")  # with the line of the kernel
