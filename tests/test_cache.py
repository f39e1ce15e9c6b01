"""Many processes that fill one cache at once: each function that is found there is the one that was asked for."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core import caching

from streamlstm.kernels.compiling import jit

ROOT = Path(__file__).parent.parent
PROGRAM = """
import sys
import numpy as np
from streamlstm.kernels.cells import CELLS, cell_named
from streamlstm.model.recurrent import RecurrentLayer

names = list(CELLS)
turn = int(sys.argv[1])
found = {}
for name in names[turn:] + names[:turn]:
    for norm in (False, True):
        cell, rng = cell_named(name, norm), np.random.default_rng(0)
        layer = cell.zeros(3, 20)
        for array in layer:
            array[:] = rng.normal(0, 0.3, array.shape)
        bare = RecurrentLayer(name, cell.tensors(layer), 4, layer_norm=norm)
        found[f"{name} {norm}"] = bare.sequence(rng.normal(size=(5, 3)).astype(np.float32), 1)
np.savez(sys.argv[2], **found)
"""


def test_two_who_write_one_index_at_once_do_not_take_the_same_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def adding(k: int) -> Any:
        def add(x: int) -> int:
            return x + k

        return jit(add)

    read = caching.IndexDataCacheFile._load_index

    def read_slowly(self: Any) -> Any:
        index = read(self)
        time.sleep(0.2)
        return index

    monkeypatch.setattr(caching.IndexDataCacheFile, "_load_index", read_slowly)
    kernels = [adding(k) for k in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda k: kernels[k]._cache._cache_file.save(f"key {k}", f"code {k}"), range(3)))
    found = [kernels[0]._cache._cache_file.load(f"key {k}") for k in range(3)]
    assert found == ["code 0", "code 1", "code 2"]


@pytest.mark.timeout(280)
def test_eight_processes_fill_one_cache_at_once(tmp_path: Path) -> None:
    def start(turn: int, folder: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {"STREAMLSTM_CACHE_DIR": str(tmp_path / folder)}
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(turn), tmp_path / f"{turn}.npz"], cwd=ROOT, env=environment
        )

    together = [start(turn, "shared") for turn in range(8)]
    assert [process.wait() for process in together] == [0] * 8
    assert start(8, "shared").wait() == 0  # finds all of them in the cache
    assert start(9, "alone").wait() == 0
    expected = dict(np.load(tmp_path / "9.npz"))
    assert len(expected) == 12
    for turn in range(9):
        found = np.load(tmp_path / f"{turn}.npz")
        assert [name for name in expected if not np.array_equal(found[name], expected[name])] == []
