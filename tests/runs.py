"""Detectors, fits and thresholds whose numbers do not depend on how the kernels run; as a program, in a process of its own.

python tests/runs.py FILE GROUP  writes the numbers of a group of runs.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.kernels.cells import CELLS
from streamlstm.kernels.layout import KINDS
from streamlstm.learn.fit import Recording, fit

LEARNING = {"update_every": 16, "learning_rows": 10, "calibrating_rows": 10}
RULES = {
    "rules": {"maximum": {"a": 40.0}, "max_step": {"a": 15.0}, "flat_rows": 5, "missing_rows": 2, "silent_s": 90_000},
    "time": {"late": "drop", "gap_s": 50_000},
}


def records(rows: int, features: int, exogenous: int) -> tuple[Any, Any, Any]:
    """Keys, times and values of three streams: a day's wave and noise, a spike, a level, values missing, a gap."""
    rng = np.random.default_rng(features)
    angle = 2 * np.pi * (np.arange(rows)[:, None] / 72 + rng.uniform(size=features + exogenous))
    x = 5 + np.sin(angle) + 0.1 * rng.normal(size=angle.shape)
    x[rng.uniform(size=x.shape) < 0.03] = np.nan
    x[rows // 2] += 9
    x[3 * rows // 4 : 3 * rows // 4 + 30, 0] += 3
    x[-40:-20, 0] = 5
    when = np.arange(rows) * 1_200 * 10**9
    when[rows // 3 :] += 10**14
    when[rows // 5] = 0  # late
    return np.array(["s", "t", "s", "s", "u", "s"] * rows)[:rows], when, x


def detected(
    settings: Any, *, features: int = 1, exogenous: int = 0, rows: int = 200, model: Any = None
) -> dict[str, Any]:
    """All that a detector says of the records, and all that it keeps."""
    names = tuple("abcdefghijklmnopqrstuvw")
    keys, when, x = records(rows, features, exogenous)
    detector = Detector(settings, model=model, features=names[:features], exogenous=names[features:][:exogenous])
    scored = detector.process_batch(list(keys), when, x)
    columns = ("score", "threshold", "severity", "change", "expected", "low", "high", "attribution", "parts", "cause")
    found = {name: np.asarray(getattr(scored, name)) for name in columns}
    found |= {name: rows.copy() for name, rows in detector.pool.rows._asdict().items()}
    learner = detector.engine.learner
    return found | ({"theta": learner.theta, "skip": learner.skip, "counters": learner.counters} if learner else {})


def fitted(training: Any, model: Any) -> dict[str, Any]:
    """A model fitted with these settings, and what a frozen detector says by it."""
    settings = {"model": {"hidden_size": 4} | model, "learning": LEARNING,
                "training": {"updates": 4, "lanes": 2, "window": 8} | training}  # fmt: skip
    keys, when, x = records(240, 2, 0)
    of = {key: keys == key for key in "su"}
    series = {key: Recording(when[rows], x[rows]) for key, rows in of.items()}
    made = fit(series, Config.model_validate(settings), ("a", "b"))
    return {"weights": made.network.packed()} | detected({}, features=2, rows=100, model=made)


RUNS: dict[str, Any] = {
    **{f"cell/{name}": lambda name=name: detected({"model": {"cell": name, "hidden_size": 5}, "learning": LEARNING})
       for name in CELLS},
    **{f"cell/{name}, layer_norm": lambda name=name: detected(
        {"model": {"cell": name, "hidden_size": 17, "layer_norm": True}, "learning": LEARNING}, rows=150)
       for name in CELLS},
    **{f"threshold/{kind}": lambda kind=kind: detected(
        {"model": {"hidden_size": 4}, "learning": LEARNING, "threshold": {"kind": kind, "memory_rows": 100}}, rows=400)
       for kind in KINDS},
    "shape/layers": lambda: detected(
        {"model": {"hidden_size": 6, "num_layers": 2, "calendar": False}, "learning": LEARNING}, features=3, exogenous=2),
    "shape/wide": lambda: detected({"model": {"hidden_size": 4}, "learning": LEARNING}, features=17, rows=60),
    "shape/rules": lambda: detected({"model": {"hidden_size": 4}, "learning": LEARNING} | RULES, rows=300),
    **{f"shape/{name}": lambda time=time: detected(
        {"model": {"hidden_size": 4, "num_layers": 2}, "learning": LEARNING, "time": time}, rows=150)
       for name, time in {"decay": {"gap_s": 50_000, "on_gap": "decay"},
                          "reorder": {"late": "reorder", "reorder_s": 3_000}}.items()},
    "fit/adam": lambda: fitted({}, {"num_layers": 2}),
    "fit/adamw": lambda: fitted({"optimiser": "adamw", "weight_decay": 0.1, "dropout": 0.2, "recurrent_dropout": 0.2},
                                {"cell": "gru", "num_layers": 2}),
    "fit/rmsprop": lambda: fitted({"optimiser": "rmsprop", "loss": "squared", "clip_value": 0.1},
                                  {"cell": "gru_before", "layer_norm": True}),
    "fit/sgd": lambda: fitted({"optimiser": "sgd"}, {"cell": "peephole_lstm", "layer_norm": True}),
}  # fmt: skip
GROUPS = ("cell", "threshold", "shape", "fit")


def outcome(group: str) -> dict[str, Any]:
    """The numbers of all runs of a group."""
    found = {name: run() for name, run in RUNS.items() if name.startswith(group)}
    return {f"{name}: {part}": np.asarray(array) for name, parts in found.items() for part, array in parts.items()}


if __name__ == "__main__":
    np.savez(Path(sys.argv[1]), **outcome(sys.argv[2]))
