"""The host's side of a device, compiled as ever, on a device that is not there: the simulator runs no compiled code."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_hand import model_by_hand

from streamlstm.detect.detector import Detector
from streamlstm.kernels.cells import cell_named

if importlib.util.find_spec("numba_cuda") is None:
    pytest.skip("numba-cuda is not there; pip install 'streamlstm[cuda]'", allow_module_level=True)

from streamlstm.detect import detector as detector_module
from streamlstm.kernels.cuda import machine, memory
from streamlstm.state import device

Launch = tuple[str, int, tuple[int, int], int, tuple[int, ...]]


class Device:
    """What is asked of a device: launches and copies, in their order."""

    def __init__(self) -> None:
        self.launches: list[Launch] = []
        self.copied: list[int] = []
        self.waits = 0

    def synchronize(self) -> None:
        self.waits += 1


class Kernel:
    def __init__(self, of: Device, function: Any, integers: int) -> None:
        self._of, self._name, self._integers = of, function.__name__, integers

    def launch(self, blocks: int, threads: tuple[int, int], stream: Any, shared: int, *integers: int) -> None:
        assert len(integers) == self._integers
        assert {type(value) for value in (blocks, *threads, shared, *integers)} == {int}
        assert blocks > 0
        self._of.launches.append((self._name, blocks, threads, shared, integers[1:]))


class Array:
    """As `memory.DeviceArray`, without memory."""

    def __init__(self, of: Device, dtype: Any, size: int = 0) -> None:
        self._of, self.dtype, self.size, self.address = of, np.dtype(dtype), max(size, 1), 1 << 20

    def reserve(self, size: int, *, keep: int = 0) -> None:
        assert keep <= self.size
        self.size = max(self.size, size)

    def part(self, first: int) -> int:
        assert first <= self.size
        return self.address + first * self.dtype.itemsize

    def put(self, values: Any, stream: Any, *, first: int = 0) -> None:
        assert values.ndim == 1
        assert values.flags.c_contiguous
        assert first + values.nbytes // self.dtype.itemsize <= self.size
        self._of.copied.append(values.nbytes)

    get = put


class Event:
    def record(self, stream: Any) -> None:
        pass

    wait = record


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Device:
    of = Device()
    machine._workspace.cache_clear()
    for module in (machine, memory, device):
        for name, stand_in in (
            ("DeviceArray", lambda dtype, size=0: Array(of, dtype, size)),
            ("new_stream", lambda: of), ("new_event", Event), ("free_bytes", lambda: 1 << 30),
            ("pinned", lambda dtype, size: np.zeros(max(size, 1), dtype)),
            ("compiled", lambda function, integers: Kernel(of, function, integers)),
        ):  # fmt: skip
            if hasattr(module, name):
                monkeypatch.setattr(module, name, stand_in)
    cuda = type(
        "cuda", (), {"synchronize": staticmethod(of.synchronize), "current_context": staticmethod(lambda: None)}
    )
    monkeypatch.setattr(machine, "cuda", cuda)
    monkeypatch.setattr(memory, "cuda", cuda)
    monkeypatch.setattr(detector_module, "on_device", lambda config, online: (True, ""))
    yield of
    machine._workspace.cache_clear()


def test_a_wave_is_so_many_launches_and_a_part_two_copies(gpu: Device) -> None:
    detector = Detector({"runtime": {"backend": "cuda"}}, model=model_by_hand(cell_named("lstm"), 2, 1, 2, 40, seed=1))
    detector.process_batch(["a", "b", "c"], None, np.zeros((3, 3)))
    gpu.launches.clear(), gpu.copied.clear()
    detector.process_batch(["a", "b", "a", "c", "a"], None, np.zeros((5, 3)))
    names = [name for name, *_ in gpu.launches]
    assert names == ["prepare", "step", "step", "predict", "judge"] * 3  # one for each record of a
    assert [of[4][:2] for of in gpu.launches if of[0] == "judge"] == [(0, 3), (3, 1), (4, 1)]
    assert [threads for name, _, threads, *_ in gpu.launches if name == "step"] == [(32, 8)] * 6
    assert len(gpu.copied) == 3  # records in, results out, and details, which were asked for


def test_a_large_batch_overlaps_and_orders_itself(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_SMALLEST", 100)
    detector = Detector({"runtime": {"backend": "cuda"}}, model=model_by_hand(cell_named("gru"), 1, 0, 1, 8, seed=1))
    keys = [f"k{n}" for n in np.random.default_rng(0).integers(0, 300, 1000)]
    detector.process_batch(keys, None, np.zeros((1000, 1)))
    counts = [of[4][1] for of in gpu.launches if of[0] == "judge"]
    assert sum(counts) == 1000
    firsts = [of[4][0] for of in gpu.launches if of[0] == "judge"]
    assert firsts.count(0) == 4  # parts


def test_one_event_and_a_snapshot(gpu: Device, tmp_path: Path) -> None:
    detector = Detector({"runtime": {"backend": "cuda"}}, model=model_by_hand(cell_named("lstm"), 1, 0, 1, 8, seed=1))
    detector.process("a", 0, [1.0])
    detector.peek("a", 0, [1.0])
    detector.snapshot(tmp_path / "s")
    assert Detector.restore(tmp_path / "s").keys() == ["a"]
