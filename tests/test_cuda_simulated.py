"""The whole way of a record on a device, under Numba's simulator: the CPU's bits, and the naive stream's numbers.

What a simulator cannot show, races, speed and what the compiler of a device makes of it, is for `test_ptx` and `test_cuda`.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import cuda_runs
import numpy as np
import pytest

from streamlstm.kernels.compiling import CACHE_DIR, HAS_FMA

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not there; pip install 'streamlstm[cuda]'"
)
BEGIN = """
import sys
import numpy as np
import pytest
sys.path.insert(0, "tests")
from streamlstm.detect.detector import Detector
from streamlstm.errors import DeviceError
from streamlstm.kernels.cuda import memory
from cuda_runs import make_small
from by_hand import hold_against_naive, model_by_hand
from streamlstm.kernels.cells import cell_named

make_small()
settings = {"runtime": {"backend": "cuda"}}
model = model_by_hand(cell_named("lstm"), 1, 0, 1, 5, seed=1)
"""


def simulated(*arguments: str) -> str:
    """What a program prints whose device is the simulator."""
    switches = {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1", "STREAMLSTM_CACHE_DIR": str(CACHE_DIR.parent)}
    # each of the simulator's threads begins with NumPy's own warnings
    command = [sys.executable, "-W", "ignore::RuntimeWarning", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | switches, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("group", cuda_runs.GROUPS)
def test_a_device_writes_the_bits_of_the_cpu(group: str, tmp_path: Path) -> None:
    cuda_runs.models(tmp_path, group)
    simulated("tests/cuda_runs.py", str(tmp_path), group)
    actual, expected = np.load(tmp_path / "found.npz"), cuda_runs.outcome(tmp_path, group, "cpu")
    assert sorted(actual.files) == sorted(expected)
    if HAS_FMA:
        assert [name for name in expected if not np.array_equal(actual[name], expected[name], equal_nan=True)] == []
    else:  # a device fuses multiply-adds, and this host does not
        for name, values in expected.items():
            np.testing.assert_allclose(actual[name], values, rtol=1e-2, atol=1e-3, err_msg=name)


def test_scores_are_those_of_the_naive_stream() -> None:
    cases = [("lstm", 2, 1, 2, 6), ("gru_before, layer_norm", 1, 0, 1, 17), ("peephole_lstm", 1, 0, 1, 4)]
    lines = [f"hold_against_naive(*{case!r}, rows=24, settings=settings)" for case in cases]
    simulated("-c", "\n".join([BEGIN, *lines]))


def test_tiles_batches_and_snapshots_change_no_bit(tmp_path: Path) -> None:
    simulated(
        "-c",
        f"""{BEGIN}
from streamlstm.kernels.cuda import machine
from streamlstm.kernels.cuda.step import Tile
rng = np.random.default_rng(0)
keys, x = [f"k{{n}}" for n in rng.integers(0, 12, 30)], rng.normal(size=(30, 1))
found = []
for tile, most, cut in ((Tile(1, 1), 65_536, 30), (Tile(8, 1), 7, 11), (Tile(4, 2), 65_536, 20)):
    machine.tile_for = lambda *sizes, own, tile=tile: tile
    machine._MOST = machine._LEAST = machine._SMALLEST = most
    detector = Detector(settings, model=model)
    first = detector.process_batch(keys[:cut], None, x[:cut])
    detector.snapshot({str(tmp_path / "s")!r})
    again = Detector.restore({str(tmp_path / "s")!r})
    then = again.process_batch(keys[cut:], None, x[cut:])
    peeked = again.peek("k1", 0, [0.3]).score
    assert peeked == again.process("k1", 0, [0.3]).score
    found.append([of.tobytes() for of in (first.score, then.score, first.parts, then.parts)] + [peeked])
assert b"".join(found[0][:2]) == b"".join(found[1][:2]) == b"".join(found[2][:2])
assert b"".join(found[0][2:4]) == b"".join(found[1][2:4]) == b"".join(found[2][2:4])
assert found[0][4] == found[1][4] == found[2][4]
""",
    )


def test_a_snapshot_goes_to_another_backend_only_when_that_is_accepted(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    simulated(
        "-c",
        f"""{BEGIN}
import logging
from streamlstm.errors import StateError
from streamlstm.kernels.compiling import ARITHMETIC
logging.disable()
detector = Detector(settings, model=model)
detector.process_batch(["a", "b"] * 4, None, np.zeros((8, 1)))
detector.snapshot({path!r})
with pytest.raises(StateError, match=f"written with arithmetic class cuda, this is class {{ARITHMETIC}}: .*on_class_change"):
    Detector.restore({path!r}, backend="cpu")
there = Detector.restore({path!r}, backend="cpu", on_class_change="accept")
assert there.class_changes == [f"cuda -> {{ARITHMETIC}} at row 8"], there.class_changes
there.snapshot({path!r})
back = Detector.restore({path!r}, backend="cuda", on_class_change="accept")
assert back.class_changes[1] == f"{{ARITHMETIC}} -> cuda at row 8", back.class_changes
assert back.process("a", 0, [0.5]).score == detector.process("a", 0, [0.5]).score
""".replace("back = ", "import logging; logging.disable()\nback = ").replace(
            "there = ", "import logging; logging.disable()\nthere = "
        ),
    )


def test_a_device_without_memory_says_how_many_streams_fit_and_loses_nothing() -> None:
    simulated(
        "-c",
        f"""{BEGIN}
from streamlstm.state import device
detector = Detector(settings, model=model)
before = detector.process_batch(["a", "b"], None, np.zeros((2, 1)))
device.free_bytes = lambda: 3_000_000
with pytest.raises(DeviceError, match=r"cuda: 5,002 streams of 704 bytes .* 3,409 fit in the device's memory; set"):
    detector.process_batch([f"new{{n}}" for n in range(5000)], None, np.zeros((5000, 1)))
assert detector.keys() == ["a", "b"]
assert detector.process("a", 0, [0.5]).score > 0
""",
    )


def test_a_device_that_fails_is_one_clear_line() -> None:
    simulated(
        "-c",
        f"""{BEGIN}
from streamlstm.kernels.cuda.compiling import cuda
detector = Detector(settings, model=model)
class Gone:
    def launch(self, *arguments):
        raise cuda.cudadrv.driver.CudaAPIError(999, "Call to cuLaunchKernel results in CUDA_ERROR_UNKNOWN")
detector.engine._machine._predict = Gone()
with pytest.raises(DeviceError, match=r"cuda: cannot score a batch; .* go on from a snapshot: .*cuLaunchKernel"):
    detector.process_batch(["a"], None, np.zeros((1, 1)))
""",
    )
