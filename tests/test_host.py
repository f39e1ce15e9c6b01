"""Kernels compiled for other processors than this one, each in a process of its own: the same bits, or the stated bound."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from whole_call import outputs

from streamlstm.kernels.compiling import CACHE_DIR
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
    weights, scratch = cell.pack(cell.layer(cell.tensors(layer))), np.zeros(48 * (23 + cell.room(20)), np.float32)
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


def environment(name: str, cache: Path) -> dict[str, str]:
    """That of a process whose kernels are compiled for this processor."""
    others = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_CPU")}
    return others | {"STREAMLSTM_CPU": name, "STREAMLSTM_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the program found on each processor that this machine can be, and on the one that it is ("")."""
    folder, found = tmp_path_factory.mktemp("hosts"), {}
    for name in ("", *possible()):
        command = [sys.executable, "-c", PROGRAM, folder / f"at-{name}.npz"]
        subprocess.run(command, env=environment(name, folder), check=True)
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


# Each takes 37 to 43 s with an empty compile cache, 2 s with a full one (AMD EPYC, 2026-11-26). AVX-512 is not worth it in
# every run: a host that has it compiles nearly the same code for itself.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "avx512" else []) for name in possible()]
)
def test_a_detector_says_the_same_on_another_processor(name: str, tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "tests" / "whole_call.py", tmp_path / "found.npz"]
    subprocess.run(command, env=environment(name, CACHE_DIR.parent), check=True)
    found, own = dict(np.load(tmp_path / "found.npz")), outputs()
    for mode in ("online", "frozen"):
        score, flag = found[f"{mode}/400/score"], found[f"{mode}/400/flag"]
        assert np.isfinite(score).all()
        assert 20 < flag.sum() < 60
        assert score.tobytes() == found[f"{mode}/37/score"].tobytes()
        assert np.array_equal(flag, own[f"{mode}/400/flag"])
        expected = own[f"{mode}/400/score"]
        if found["arithmetic"] == own["arithmetic"]:
            assert score.tobytes() == expected.tobytes()
        else:
            assert np.abs(score - expected).max() < 5e-5  # 1.6e-5 online, 3.3e-6 frozen; the scores go up to 300 and 13


@pytest.mark.parametrize(
    ("program", "name", "expected"),
    [
        ("from streamlstm import Detector", "z80", "STREAMLSTM_CPU: 'z80'; this machine can run"),
        ("import streamlstm.kernels.batch", "z80", "STREAMLSTM_CPU: 'z80'; this machine can run"),
        ("import numba, streamlstm; streamlstm.Detector", possible()[0], "too late; import streamlstm before numba"),
    ],
    ids=["unknown", "unknown, a module", "late"],
)
def test_what_cannot_be_is_said(program: str, name: str, expected: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment(name, tmp_path), capture_output=True, text=True)
    assert done.returncode == 1
    assert expected in done.stderr.splitlines()[-1]
    assert set(possible()) <= PROCESSORS.keys()


def test_the_command_line_says_in_one_line_what_cannot_be(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streamlstm", "--help"]
    done = subprocess.run(command, env=environment("z80", tmp_path), capture_output=True, text=True)
    expected = f"environment STREAMLSTM_CPU: 'z80'; this machine can run {', '.join(possible())}"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"streamlstm: {expected}\n")


def test_only_the_detector_is_missing_where_nothing_can_be_compiled(tmp_path: Path) -> None:
    program = "import streamlstm; streamlstm.Config(); print(hasattr(streamlstm, 'Detecter'))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment("z80", tmp_path), capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
