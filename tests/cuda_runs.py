"""Frozen detectors on a device, and what they say on the CPU; as a program, one group of them under the simulator.

python tests/cuda_runs.py FOLDER GROUP  loads the models of a group from FOLDER, lets the device score, and writes what it
said and what it keeps. NUMBA_ENABLE_CUDASIM=1 and NUMBA_DISABLE_JIT=1 make the simulator the device.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from runs import LEARNING, RULES, records

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.kernels.cells import CELLS
from streamlstm.kernels.interpreting import INTERPRETED
from streamlstm.kernels.layout import KINDS
from streamlstm.learn.fit import Recording, fit
from streamlstm.model.files import load_model, save_model

NAMES = tuple("abcdefgh")
QUICK = {"updates": 2, "lanes": 2, "window": 8}
ROWS = 24

# name: settings that the model is fitted with, features, exogenous
CASES: dict[str, tuple[dict[str, Any], int, int]] = {
    **{f"cell/{name}": ({"model": {"cell": name, "hidden_size": 5}}, 1, 0) for name in CELLS},
    "cell/lstm, float16": ({"model": {"hidden_size": 5, "state": "float16"}}, 1, 0),
    "cell/gru_before, layer_norm": ({"model": {"cell": "gru_before", "hidden_size": 5, "layer_norm": True}}, 2, 0),
    "cell/lstm, layer_norm": ({"model": {"hidden_size": 17, "layer_norm": True}}, 1, 0),
    **{f"threshold/{kind}": (
        {"model": {"hidden_size": 4, "cell": "rnn_tanh"}, "threshold": {"kind": kind, "memory_rows": 100}}, 1, 0)
       for kind in KINDS},
    "shape/layers": ({"model": {"hidden_size": 6, "num_layers": 2, "calendar": False}}, 3, 2),
    "shape/units": ({"model": {"hidden_size": 35}}, 1, 1),
    "shape/own weights": ({"model": {"hidden_size": 5, "weights": "per_stream"}}, 1, 0),
    "shape/rules": ({"model": {"hidden_size": 4}} | RULES, 2, 0),
    "shape/decay": (
        {"model": {"hidden_size": 4, "state": "float16"}, "time": {"gap_s": 900, "on_gap": "decay"}}, 1, 0),
    "shape/forecast": ({"model": {"hidden_size": 4}, "forecast": {"horizons": 2}}, 1, 0),
}  # fmt: skip
GROUPS = ("cell", "threshold", "shape")


def models(folder: Path, group: str) -> None:
    """Fits the models of a group, so that no process under the simulator has to."""
    for name, (settings, features, exogenous) in CASES.items():
        if name.startswith(group):
            keys, when, x = records(240, features, exogenous)
            series = {key: Recording(when[keys == key], x[keys == key]) for key in "st"}
            config = Config.model_validate({"learning": LEARNING, "training": QUICK, **settings})
            model = fit(series, config, NAMES[:features], NAMES[features:][:exogenous])
            save_model(model, folder / file_of(name))


def file_of(name: str) -> str:
    """Where the model of a case lies."""
    return f"{name.replace('/', ' ')}.safetensors"


def outcome(folder: Path, group: str, backend: str, rows: int = ROWS) -> dict[str, Any]:
    """All that the detectors of a group say of the last records, in batches of two sizes, and all that they keep."""
    found: dict[str, Any] = {}
    for name, (_, features, exogenous) in CASES.items():
        if not name.startswith(group):
            continue
        detector = Detector({"runtime": {"backend": backend}}, model=load_model(folder / file_of(name)))
        keys, when, x = (of[-rows:] for of in records(240, features, exogenous))
        for first, end in ((0, rows // 3), (rows // 3, rows)):
            scored = detector.process_batch(list(keys[first:end]), when[first:end], x[first:end])
            for column in scored.__dataclass_fields__:
                value = getattr(scored, column)
                if isinstance(value, np.ndarray):
                    found[f"{name}: {column} {first}"] = value
        one = detector.process("s", int(when[-1]) + 10**12, [5.0] * (features + exogenous))
        found[f"{name}: one"] = np.array([one.score, one.threshold, *one.expected])
        if detector.config.forecast.horizons:
            found[f"{name}: forecast"] = np.array(detector.forecast("s").mean)
        columns = detector.pool.columns()
        found |= {f"{name}: {column}": columns[f"pool.{column}"] for column in ("state", "stats", "marks")}
    return found


def make_small() -> None:
    """Blocks of few threads: each is a thread of Python, and the simulator asks one after the other whether it waits."""
    from streamlstm.kernels.cuda import machine, memory, step

    sys.setswitchinterval(1e-5)
    machine._PREPARE_THREADS = machine._PREDICT_THREADS = machine._JUDGE_THREADS = memory._THREADS = 8
    step.TILES = step.TILES[-2:]


if __name__ == "__main__":
    if INTERPRETED:
        make_small()
    np.savez(Path(sys.argv[1]) / "found.npz", **outcome(Path(sys.argv[1]), sys.argv[2], "cuda"))
