"""Synthetic recordings for all tests, and a compile cache that is full before workers start."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from streamlstm.learn.fit import Recording

ROOT = Path(__file__).parent.parent
Make = Callable[..., dict[str, Recording]]


def pytest_configure(config: pytest.Config) -> None:
    """Under pytest-xdist: compiles all kernels once, before several workers would fill the cache at once."""
    if hasattr(config, "workerinput") or not getattr(config.option, "numprocesses", None):
        return
    code = "from streamlstm.service.warmup import warm_up; warm_up()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.fixture(scope="session")
def synthetic() -> Make:
    """Makes recordings of several streams: a daily wave, its second harmonic and noise, each stream at its own level."""

    def make(
        streams: int = 3, rows: int = 400, features: int = 1, exogenous: int = 0, missing: float = 0.0, seed: int = 0
    ) -> dict[str, Recording]:
        rng = np.random.default_rng(seed)
        out = {}
        for n in range(streams):
            phase = 2 * np.pi * (np.arange(rows)[:, None] / 48 + rng.uniform(size=features + exogenous))
            x = 10 * n + np.sin(phase) + 0.3 * np.sin(2 * phase) + 0.1 * rng.normal(size=phase.shape)
            x[rng.uniform(size=x.shape) < missing] = np.nan
            out[f"stream-{n}"] = Recording(np.arange(rows) * 60_000_000_000, x)
        return out

    return make
