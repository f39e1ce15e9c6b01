"""Threads start before the first event, small batches stay on one, and Numba's own unsafe layer is refused."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from streamlstm.config import Config
from streamlstm.detect import engine
from streamlstm.errors import ConfigError
from streamlstm.learn.fit import Recording, fit
from streamlstm.model.files import save_model
from streamlstm.service.opening import make_detector

Make = Callable[..., dict[str, Recording]]
COUNT = """
import os, sys
from streamlstm.config import Config
from streamlstm.model.files import load_model
from streamlstm.service.opening import make_detector
import numpy as np

config = Config.model_validate({"model": {"hidden_size": 4}, "runtime": {"threads": 2}})
detector = make_detector(config, load_model(sys.argv[1]), ("value",), ())
before = len(os.listdir("/proc/self/task"))
detector.process_batch([f"s{n % 50}" for n in range(5000)], None, np.zeros(5000))
print(before, len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads of a process are counted on Linux")
def test_the_first_events_start_no_thread(synthetic: Make, tmp_path: Path) -> None:
    config = Config.model_validate({"model": {"hidden_size": 4}, "training": {"updates": 2}})
    save_model(fit(synthetic(streams=1), config, ("value",)), file := tmp_path / "m.safetensors")
    done = subprocess.run([sys.executable, "-c", COUNT, file], check=True, capture_output=True, text=True)
    before, after = map(int, done.stdout.split())
    assert before == after > 1


def test_a_layer_that_ends_the_process_is_refused(synthetic: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "threads_are_safe", lambda: False)
    given = Config.model_validate({"model": {"hidden_size": 4}, "training": {"updates": 2}, "runtime": {"threads": 2}})
    model = fit(synthetic(streams=1), given, ("value",))
    with pytest.raises(ConfigError, match=r"runtime\.threads: 2 need OpenMP or TBB.*or set runtime\.threads: 1"):
        make_detector(given, model, ("value",), ())


@pytest.mark.parametrize(("hidden", "rows", "parallel"), [(32, 200, False), (32, 400, True), (128, 200, True)])
def test_work_decides_whether_threads_share_it(
    synthetic: Make, monkeypatch: pytest.MonkeyPatch, hidden: int, rows: int, parallel: bool
) -> None:
    called = []
    monkeypatch.setattr(engine, "score_parallel", lambda *arguments: called.append(arguments))
    monkeypatch.setattr(engine, "threads_are_safe", lambda: True)
    given = Config.model_validate({"model": {"hidden_size": hidden}, "training": {"updates": 1}})
    detector = make_detector(given, fit(synthetic(streams=1), given, ("value",)), ("value",), ())
    detector.threads = 2
    detector.process_batch(["s"] * rows, None, np.zeros(rows))
    assert bool(called) == parallel
