"""On a real GPU, full sizes: agreement with the CPU, bits that depend on no batch, memory, spills, races.

pytest -m cuda tests/test_cuda.py  runs it where a GPU is; everywhere else each test is skipped with the reason.
"""

import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cuda_runs
import numpy as np
import pytest
from by_hand import hold_against_naive, model_by_hand

from bench.quality_data import SETS, DataMissingError, find_folder, read_nab, read_stream, stream_paths
from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.kernels.cells import cell_named
from streamlstm.learn.fit import Recording, fit
from streamlstm.types import NO_TIME

ROOT = Path(__file__).parent.parent
AGREE = 1e-4
"""Of max(1, score): what rounding may make of a score. A GPU's compiler makes fused multiply-adds where it likes; CPU
kernels compiled so differ by 6e-6 at most, over 262 711 records of 59 recordings."""


def missing() -> str:
    """Why there is no GPU, "" where there is one."""
    if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        return "the simulator stands in for the GPU"
    if importlib.util.find_spec("numba_cuda") is None:
        return "numba-cuda is not there; pip install 'streamlstm[cuda]'"
    from streamlstm.kernels.cuda.memory import why_unusable

    return why_unusable()


@pytest.fixture(scope="module", autouse=True)
def _gpu() -> None:
    why = missing()
    if why:
        pytest.skip(f"no GPU: {why}")


pytestmark = pytest.mark.cuda
ON_GPU = {"runtime": {"backend": "cuda"}}


def readings(rows: int, streams: int, features: int, seed: int) -> tuple[list[str], Any, Any]:
    """Round robin over the streams: keys, times, values with spikes and gaps."""
    rng = np.random.default_rng(seed)
    number = np.arange(rows)
    x = np.sin(number[:, None] / 400 + np.arange(features)) + 0.2 * rng.standard_normal((rows, features))
    x[rng.uniform(size=x.shape) < 0.02] = np.nan
    x[rows // 2 : rows // 2 + streams] += 8
    return [f"k{n % streams}" for n in number], number // streams * 60 * 10**9, x


@pytest.mark.parametrize("group", cuda_runs.GROUPS)
def test_gpu_and_cpu_agree(group: str, tmp_path: Path) -> None:
    cuda_runs.models(tmp_path, group)
    actual, expected = (cuda_runs.outcome(tmp_path, group, backend, rows=240) for backend in ("cuda", "cpu"))
    for name, values in expected.items():
        if any(column in name for column in ("score", "expected", "parts", "severity")):
            np.testing.assert_allclose(actual[name], values, rtol=AGREE, atol=AGREE, err_msg=name)


@pytest.mark.parametrize("cell", ["lstm", "gru_before, layer_norm", "peephole_lstm"])
def test_scores_are_those_of_the_naive_stream(cell: str) -> None:
    hold_against_naive(cell, 2, 1, 2, 20, settings=ON_GPU)


def test_no_bit_depends_on_batches_or_neighbours() -> None:
    model = model_by_hand(cell_named("lstm"), 3, 0, 2, 40, seed=1)
    keys, times, x = readings(60_000, 500, 3, seed=2)
    whole = Detector(ON_GPU, model=model).process_batch(keys, times, x)
    parts = Detector(ON_GPU, model=model)
    cuts = [0, 1, 700, 33_333, 60_000]
    scores = [parts.process_batch(keys[a:b], times[a:b], x[a:b]).score for a, b in itertools.pairwise(cuts)]
    assert np.concatenate(scores).tobytes() == whole.score.tobytes()
    alone = Detector(ON_GPU, model=model)
    of = np.array(keys) == "k7"
    assert alone.process_batch(["k7"] * of.sum(), times[of], x[of]).score.tobytes() == whole.score[of].tobytes()


def test_a_million_streams_and_their_snapshot(tmp_path: Path) -> None:
    model = model_by_hand(cell_named("lstm"), 1, 0, 1, 32, seed=1)
    keys, times, x = readings(1_048_576, 1_048_576, 1, seed=3)
    gpu, cpu = Detector(ON_GPU, model=model), Detector(model=model)
    for detector in (gpu, cpu):
        detector.process_batch(keys, times, x)
    gpu.snapshot(tmp_path / "s")
    back = Detector.restore(tmp_path / "s")
    again, expected = (of.process_batch(keys, times + 60 * 10**9, x) for of in (back, cpu))
    np.testing.assert_allclose(again.score, expected.score, rtol=AGREE, atol=AGREE)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("group", [*SETS, "nab"])
def test_flags_are_those_of_the_cpu(group: str) -> None:
    try:
        folder = find_folder(None)
    except DataMissingError as error:
        pytest.skip(str(error))
    count = 0
    for name, train, test in labelled(folder, group):
        features = tuple(f"f{d}" for d in range(train.shape[1]))
        quick = Config.model_validate({"training": {"updates": 30}})
        model = fit({name: Recording(np.full(len(train), NO_TIME), train)}, quick, features)
        actual, expected = (
            Detector({"runtime": {"backend": backend}}, model=model).process_batch([name] * len(test), None, test)
            for backend in ("cuda", "cpu")
        )
        near = np.abs(expected.score - expected.threshold) <= AGREE * np.maximum(1, expected.threshold)
        differs = np.flatnonzero((actual.flag != expected.flag) & ~near)
        assert differs.size == 0, f"{name}: rows {differs[:10]}"
        count += 1
    assert count > 0


def labelled(folder: Path, group: str) -> Iterator[tuple[str, Any, Any]]:
    """Name, rows to fit on and rows to judge of each recording of a group; of NAB's files the first third is fitted on."""
    if group == "nab":
        for file in read_nab(folder, None):
            cut = len(file.x) // 3
            yield file.name, file.x[:cut, None], file.x[cut:, None]
        return
    for path in stream_paths(folder, group, None):
        stream = read_stream(path)
        yield stream.name, stream.train[:, : stream.features], stream.test[:, : stream.features]


def test_hot_kernels_keep_everything_in_registers() -> None:
    detector = Detector(ON_GPU, model=model_by_hand(cell_named("lstm"), 1, 0, 1, 32, seed=1))
    machine = detector.engine._machine  # type: ignore[attr-defined]
    assert [kernel.local_bytes for kernel in machine.kernels] == [0, 0, 0, 0]


@pytest.mark.timeout(900)
def test_no_race_and_no_access_outside(tmp_path: Path) -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    cuda_runs.models(tmp_path, "shape")
    for tool in ("racecheck", "memcheck"):
        command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "tests/cuda_runs.py"]
        done = subprocess.run([*command, tmp_path, "shape"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
