"""What a detector says of 400 records, learning online and with a model fitted here; as a program, for other processors."""

import sys
from typing import Any

import numpy as np

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.kernels.compiling import ARITHMETIC
from streamlstm.learn.fit import Recording, fit
from streamlstm.types import Float64

ROWS, STREAMS, FEATURES, MINUTE_NS = 400, 3, ("a", "b"), 60_000_000_000
SETTINGS = {
    "model": {"hidden_size": 12}, "training": {"updates": 30},
    "learning": {"update_every": 16, "learning_rows": 20, "calibrating_rows": 20}, "episodes": {"accept_after_rows": 12},
}  # fmt: skip
ONLINE = SETTINGS | {"learning": SETTINGS["learning"] | {"mode": "online"}}


def readings(tick: Any, stream: Any, seed: int) -> Float64:
    """Two waves at each stream's own level, with noise."""
    waves = np.stack([np.sin(tick / 9), np.cos(tick / 15)], axis=1) + np.reshape(stream, (-1, 1))
    return waves + 0.1 * np.random.default_rng(seed).normal(size=waves.shape)


def outputs() -> dict[str, Any]:
    """Scores and flags of either detector by MODE/BATCH/FIELD, in one batch and in batches of 37; the `arithmetic`."""
    row = np.arange(ROWS)
    history = {f"stream-{n}": Recording(row * MINUTE_NS, readings(row, n, seed=n)) for n in range(STREAMS)}
    model = fit(history, Config.model_validate(SETTINGS), FEATURES)
    tick, stream = np.divmod(row, STREAMS)
    x = readings(tick, stream, seed=9)
    x[[250, 251, 252, 300, 320, 321, 322, 350, 380, 381]] += 8
    keys = [f"stream-{n}" for n in stream]
    found: dict[str, Any] = {"arithmetic": ARITHMETIC}
    for mode, config, of in (("online", ONLINE, None), ("frozen", SETTINGS, model)):
        for batch in (ROWS, 37):
            detector = Detector(config, model=of, features=FEATURES)
            slices = [slice(at, at + batch) for at in range(0, ROWS, batch)]
            parts = [detector.process_batch(keys[at], tick[at] * MINUTE_NS, x[at]) for at in slices]
            for field in ("score", "flag"):
                found[f"{mode}/{batch}/{field}"] = np.concatenate([getattr(part, field) for part in parts])
    return found


if __name__ == "__main__":
    np.savez(sys.argv[1], **outputs())
