"""Compiles kernels into the cache, so that no event waits for a compiler and no two processes fill it at once."""

import numpy as np
import pyarrow as pa

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.evaluate.metrics import vus_pr
from streamlstm.kafka_client import take_batches
from streamlstm.kernels.cells import CELLS
from streamlstm.kernels.compiling import CACHE_DIR
from streamlstm.kernels.layout import KINDS
from streamlstm.learn.fit import Recording, fit
from streamlstm.model.network import Model
from streamlstm.sources.decoders.opening import open_decoder
from streamlstm.types import EventBatch, RawBlock


def warm_up_daemon(config: Config, model: Model | None) -> None:
    """Compiles what a daemon of this configuration needs: its decoder and its detector."""
    detector = Detector(config, model=model, features=config.input.features, exogenous=config.input.exogenous)
    no_bytes = np.full((1, 2), -1, np.int64)
    one = np.zeros(1, np.int64)
    block = RawBlock("warm-up/0", np.zeros(1, np.uint8), no_bytes, no_bytes, one, one)
    open_decoder(config, detector.features, detector.exogenous).decode(block, lambda letter: None)
    x = np.full((1, len(detector.features) + len(detector.exogenous)), np.nan)
    detector.process_events(EventBatch(pa.array(["warm-up"]), one, x, one, "warm-up/0"))


def warm_up() -> str:
    """Runs each compiled function once on a small series; returns the cache folder.

    Kernels take their sizes as arguments, so one run serves every configuration of this version on this host.
    """
    quick = Config.model_validate({
        "model": {"hidden_size": 4},
        "training": {"updates": 2},
        "forecast": {"horizons": 1},
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
    frozen.forecast(keys[0])
    for weights in ("shared", "per_stream"):
        Detector(
            quick.model_dump() | {"model": {"hidden_size": 4, "weights": weights}}, features=("value",)
        ).process_batch(keys, time, x)
    waiting = Detector(quick.model_dump() | {"time": {"late": "reorder", "reorder_s": 60}}, model=model)
    waiting.process_batch(keys, time, x)
    waiting.flush()
    for kind in ("json", "array", "csv", "float32", "float64"):
        named = {"format": kind, "columns": ["value"]} if kind != "json" else {"format": kind}
        warm_up_daemon(Config.model_validate(quick.model_dump() | {"messages": named}), model)
    for cell in CELLS.values():
        cell.compile()
    for threshold in KINDS:
        Detector({"threshold": {"kind": threshold}}, model=model)
    take_batches()
    vus_pr(np.array([0, 1]), np.zeros(2))
    return str(CACHE_DIR)
