"""Kernels compiled for other processors than this one, each in a process of its own: the same bits, or the stated bound."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamlstm.kernels.host import PROCESSORS, possible

ROOT = Path(__file__).parent.parent
PROGRAM = """
import sys
import numpy as np
from streamlstm.kernels.cells import CELLS, Layer
from streamlstm.kernels.cells.tile import STEP
from streamlstm.kernels.compiling import ARITHMETIC
from streamlstm.kernels.step import step_batch
from numba import cfunc

found = {"arithmetic": np.array(ARITHMETIC)}
for name, cell in CELLS.items():
    rng = np.random.default_rng(0)
    layer = Layer(*(rng.normal(0, 0.2, shape).astype(np.float32) for shape in cell.shapes(3, 20)))
    weights, scratch = cell.pack(cell.layer(cell.tensors(layer))), np.zeros(48 * 23, np.float32)
    for rows in (40, 1):
        state = np.zeros((40, 64), np.float32)
        x = np.random.default_rng(1).normal(size=(30, 40, 3)).astype(np.float32)
        for t in range(len(x)):
            for first in range(0, 40, rows):
                slots = np.arange(first, first + rows, dtype=np.int32)
                step_batch(cell.step.address, weights, 20, x[t, slots], slots, state, scratch)
        found[f"{name}/{rows}"] = state
    assembly = cfunc(STEP, error_model="numpy", _nrt=False)(cell.step.function)._library.get_asm_str()
    found[f"{name}/words"] = np.array([word in assembly for word in ("zmm", "ymm", "vfmadd")])
np.savez(sys.argv[1], **found)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the program found on each processor that this machine can be, and on the one that it is ("")."""
    folder, found = tmp_path_factory.mktemp("hosts"), {}
    for name in ("", *possible()):
        environment = os.environ | {"STREAMLSTM_CPU": name, "STREAMLSTM_CACHE_DIR": str(folder)}
        environment = {key: value for key, value in environment.items() if not key.startswith("NUMBA_CPU")}
        subprocess.run(
            [sys.executable, "-c", PROGRAM, folder / f"at-{name}.npz"], cwd=ROOT, env=environment, check=True
        )
        found[name] = dict(np.load(folder / f"at-{name}.npz"))
    return found


def test_each_is_compiled_as_it_says(outcomes: dict[str, Any]) -> None:
    expected = {"generic": [0, 0, 0], "avx2": [0, 1, 1], "avx512": [1, None, 1]}
    for name in expected.keys() & outcomes.keys():
        for key, words in outcomes[name].items():
            if key.endswith("/words"):
                assert all(wish in (None, word) for wish, word in zip(expected[name], words, strict=True)), (name, key)
        assert outcomes[name]["arithmetic"] == ("nofma" if name == "generic" else "fma")


def test_a_class_of_processors_has_the_same_bits_and_classes_differ_little(outcomes: dict[str, Any]) -> None:
    own = outcomes[""]
    for name, found in outcomes.items():
        for key in found:
            if key.endswith("/40"):
                assert np.array_equal(found[key], found[key.replace("/40", "/1")]), (name, key)
                if found["arithmetic"] == own["arithmetic"]:
                    assert np.array_equal(found[key], own[key]), (name, key)
                assert np.abs(found[key] - own[key]).max() < 2e-5, (name, key)


@pytest.mark.parametrize(
    ("program", "name", "expected"),
    [
        ("import streamlstm", "z80", "STREAMLSTM_CPU: 'z80'; this machine can run"),
        ("import numba, streamlstm", possible()[0], "comes too late; import streamlstm before numba"),
    ],
    ids=["unknown", "late"],
)
def test_what_cannot_be_is_said(program: str, name: str, expected: str) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_CPU")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment | {"STREAMLSTM_CPU": name},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert expected in done.stderr
    assert set(possible()) <= PROCESSORS.keys()
