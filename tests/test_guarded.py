"""Kernels on buffers that end where a page without access begins: nothing is read or written behind them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamlstm.kernels.compiling import CACHE_DIR

ROOT = Path(__file__).parent.parent
GUARD = """
import ctypes, mmap, sys
import numpy as np
sys.path.insert(0, "tests")
libc = ctypes.CDLL(None, use_errno=True)
PAGE = mmap.PAGESIZE


def guarded(array):
    # a copy whose last byte is the last one of a page, the next page being closed
    size = array.nbytes
    inside = max(-(-size // PAGE), 1) * PAGE
    room = mmap.mmap(-1, inside + PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(room))
    assert libc.mprotect(ctypes.c_void_p(address + inside), ctypes.c_size_t(PAGE), 0) == 0
    copy = np.frombuffer(room, array.dtype, array.size, inside - size).reshape(array.shape)
    copy[...] = array
    return copy


def same(guarded, free):
    assert np.array_equal(guarded, free, equal_nan=guarded.dtype.kind == "f")
"""
STEPS = """
from test_cells import KINDS, SHAPES, SLOTS, Case, step_rows

for name, cell in KINDS.items():
    print(name, flush=True)
    for inputs, hidden in SHAPES:
        case = Case(name, inputs, hidden, seed=1)
        begin = np.ascontiguousarray(case.begin[:, : 2 * case.padded])
        wide = inputs + hidden + cell.room(hidden)
        for count in (*range(1, 14), SLOTS):
            slots = np.arange(SLOTS - count, SLOTS, dtype=np.int32)
            z = np.zeros((count, wide), np.float32)
            z[:, :inputs], z[:, inputs : inputs + hidden] = case.x[slots], begin[slots, :hidden]
            for step, state in ((cell.step, begin), (cell.step_half, begin.astype(np.float16).view(np.float32))):
                found = []
                for hold in (guarded, np.copy):
                    weights, row, of, kept = hold(cell.pack(case.layer)), hold(z.reshape(-1)), hold(slots), hold(state)
                    step_rows(step.address, weights, 0, inputs, hidden, row, wide, of, 0, count, kept, 0,
                              state.shape[1] // 2)
                    found.append(kept)
                same(*found)
"""
PRODUCTS = """
from streamlstm.kernels.matrix import multiply

rng = np.random.default_rng(0)
for M in range(1, 18):
    for K, N in ((1, 16), (5, 32), (16, 48), (7, 8)):
        a, w, start = (rng.normal(size=size).astype(np.float32) for size in (M * K, K * N, N))
        found = []
        for hold in (guarded, np.copy):
            out = hold(np.zeros(M * N, np.float32))
            multiply(hold(a), 0, K, 1, M, K, hold(w), 0, N, N, hold(start), 0, 0, out, 0, N)
            out_of_columns = hold(np.zeros(M * N, np.float32))
            multiply(hold(a), 0, 1, M, M, K, hold(w), 0, N, N, out, 0, N, out_of_columns, 0, N)
            found.append(out_of_columns)
        same(*found)
"""
DETECTORS = """
from runs import LEARNING, records
from streamlstm.detect.detector import Detector
from streamlstm.kernels.arguments import Pool
from streamlstm.kernels.layout import KINDS

LETTERS, ROWS, BEGUN = "abcdefghijklmnopq", 300, 90
CASES = [(features, {"cell": cell, "layer_norm": layer_norm, "num_layers": layers}, kind)
         for features, cell, layer_norm, layers in
         ((1, "lstm", False, 1), (3, "gru_before", True, 2), (17, "peephole_lstm", True, 1)) for kind in ("contrast", "spot")]
CASES += [(1, {}, kind) for kind in KINDS]


def held(values, hold):
    return type(values)._make(hold(value) if isinstance(value, np.ndarray) else value for value in values)


for features, model, kind in CASES:
    print(features, model, kind, flush=True)
    settings = {"model": {"hidden_size": 5} | model, "learning": LEARNING, "threshold": {"kind": kind}}
    keys, when, x = records(ROWS, features, 0)
    found = []
    for hold in (guarded, np.copy):
        detector = Detector(settings, features=tuple(LETTERS[:features]))
        detector.process_batch(list(keys[:BEGUN]), when[:BEGUN], x[:BEGUN])
        engine, names = detector.engine, detector.keys()
        rows = Pool(*(hold(array[: len(names)]) for array in detector.pool.rows))
        engine.learner, engine._work = held(engine.learner, hold), held(engine._work, hold)
        engine.weights = hold(engine.weights)
        slots = np.array([names.index(key) for key in keys[BEGUN:]], np.int32)
        given = [hold(array) for array in (slots, when[BEGUN:], x[BEGUN:], np.arange(BEGUN, ROWS))]
        out = held(engine.outputs(len(slots)), hold)
        for array in out:
            array[...] = 0
        engine.arguments(rows, *given, out, detail=True)  # makes its scratch
        engine._plan, engine._scratch = hold(engine._plan), hold(engine._scratch)
        engine.call(engine.arguments(rows, *given, out, detail=True), 0)
        found.append([*rows, *out, engine.learner.theta])
    for one, other in zip(*found, strict=True):
        same(one, other)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="protects a page with mprotect as Linux has it")
@pytest.mark.parametrize("program", [STEPS, PRODUCTS, DETECTORS], ids=["steps", "products", "detectors"])
def test_nothing_behind_a_buffer_is_touched(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GUARD + program], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"STREAMLSTM_CACHE_DIR": str(CACHE_DIR.parent)},
    )  # fmt: skip
    at = done.stdout.splitlines()[-1:]
    assert done.returncode == 0, f"ended by {done.returncode} (-11: touched the closed page) at {at}: {done.stderr}"
