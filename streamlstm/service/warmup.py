"""Compiles every kernel into the cache, so that no event waits for a compiler and no two processes fill it at once."""

import numpy as np

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.kernels.compiling import CACHE_DIR
from streamlstm.learn.fit import Recording, fit


def warm_up() -> str:
    """Runs each compiled function once on a small series; returns the cache folder.

    Kernels take their sizes as arguments, so one run serves every configuration of this version on this host.
    """
    quick = Config.model_validate({
        "model": {"hidden_size": 4},
        "training": {"updates": 2},
        "learning": {"update_every": 16, "learning_rows": 10, "calibrating_rows": 10},
    })  # fmt: skip
    rows = 400
    x = np.sin(np.arange(rows) / 5)[:, None]
    time = np.arange(rows) * 60_000_000_000
    model = fit({"warm-up": Recording(time, x)}, quick, ("value",))
    frozen = Detector(quick, model=model)
    keys = [f"warm-up-{n % 4}" for n in range(rows)]
    frozen.process_batch(keys, time, x)
    frozen.threads = 2
    frozen.process_batch(keys, time, x)
    frozen.peek("warm-up", 0, [0.0])
    Detector(quick, features=("value",)).process_batch(keys, time, x)
    return str(CACHE_DIR)
