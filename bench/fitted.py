"""Readings of made-up sensors, and a fitted, frozen model of them."""

from pathlib import Path

import numpy as np

from streamlstm.detect.detector import Detector
from streamlstm.learn.fit import Recording, fit
from streamlstm.model.files import save_model
from streamlstm.types import Float64

_ROWS = 4000
_UPDATES = 20  # as good as none: how long a call takes does not depend on how well it predicts


def readings(minutes: Float64, features: int, seed: int) -> Float64:
    """Readings (*minutes.shape, features): a daily wave with a phase of its own per feature, and noise."""
    rng = np.random.default_rng(seed)
    turns = minutes[..., None] / 1440 + 0.618 * np.arange(features)
    return 20 + 3 * np.sin(2 * np.pi * turns) + 0.3 * rng.standard_normal(turns.shape)


def back_and_forth(count: int) -> Float64:
    """Minutes 0, 1 ... count, ... 1 (2 count): repeated, they never jump, so that no benchmark is one long alarm."""
    return np.abs((np.arange(2 * count) + count) % (2 * count) - count).astype(np.float64)


def model_path(folder: Path, features: int, hidden: int) -> Path:
    """Where `write_model` puts it."""
    return folder / f"model-{features}-{hidden}.safetensors"


def write_model(folder: Path, features: int, hidden: int) -> Path:
    """Fits on one stream, and every stream is live from its second record on; writes once per folder."""
    path = model_path(folder, features, hidden)
    if not path.exists():
        config = Detector(
            {
                "model": {"hidden_size": hidden},
                "training": {"updates": _UPDATES},
                "learning": {"calibrating_rows": 1},
            }
        ).config
        recording = Recording(
            np.arange(_ROWS) * 60 * 10**9, readings(np.arange(_ROWS, dtype=np.float64), features, seed=0)
        )
        save_model(fit({"fitted": recording}, config, tuple(f"f{d}" for d in range(features))), path)
    return path


def saved_detector(folder: Path, features: int, hidden: int) -> Detector:
    """A frozen detector of the model that `write_model` wrote."""
    return Detector.load(model_path(folder, features, hidden))
