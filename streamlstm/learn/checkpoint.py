"""Where a training stands, and the file that keeps it over an interrupt."""

import hashlib
import json
import math
import time
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from streamlstm.config import Config
from streamlstm.errors import ModelError
from streamlstm.model.files import FORMAT, read_tensors, save_tensors
from streamlstm.types import Float32, Float64
from streamlstm.version import VERSION

_EVERY_S = 60.0


@dataclass(slots=True)
class Course:
    """All that the next update depends on besides the data: what is learned (see `weight_norm`), the optimiser's moments of
    it, the best parameters so far, the carried state h and c, running mean and variance of the inputs (2, I), the next window
    (`group`, `begin`), counters, losses and the draws of dropout and of scheduled sampling."""

    theta: Float32
    first: Float32
    second: Float32
    best: Float32
    h: Float32
    c: Float32
    inputs: Float64
    rng: np.random.Generator
    update: int = 0
    group: int = 0
    begin: int = 0
    best_update: int = 0
    worse: int = 0
    rows: int = 0
    loss: float = math.nan
    since: float = 0.0  # mean loss since the last point of the curve
    held_loss: float = math.nan
    best_loss: float = math.inf
    least: float = math.inf  # training loss at the looks of a training that holds nothing out
    untrained: float = math.inf
    rate: float = math.nan
    stopped: str = ""  # why there can be no further update
    curve: list[tuple[int, float, float]] = field(default_factory=list)

    @classmethod
    def begun(cls, theta: Float32, best: Float32, I: int, seed: int) -> Self:
        """Before the first update."""
        nothing = np.zeros(0, np.float32)
        zeros = np.zeros_like(theta)
        inputs = np.stack([np.zeros(I), np.ones(I)])
        return cls(theta, zeros, zeros.copy(), best, nothing, nothing, inputs, np.random.default_rng(seed))

    def copy(self) -> Self:
        """One that shares nothing with this one."""
        return deepcopy(self)


_ARRAYS = ("theta", "first", "second", "best", "h", "c", "inputs")


class Checkpoint:
    """The file `path` of one training: another training's is refused, by a hash of its settings and data."""

    def __init__(self, path: str | Path, config: Config, data: Iterable[Float32]) -> None:
        self._path = Path(path)
        digest = hashlib.sha256(config.model_dump_json(include={"model", "training", "forecast"}).encode())
        for array in data:
            digest.update(np.ascontiguousarray(array).tobytes())
        self._of = digest.hexdigest()
        self._due = time.monotonic() + _EVERY_S

    def read(self, begun: Course) -> Course | None:
        """The course that the file holds, None where there is no file; ModelError for a damaged or another training's."""
        if not self._path.exists():
            return None
        tensors, metadata = read_tensors(self._path, "training")
        if metadata.get("of") != self._of:
            raise ModelError(
                f"{self._path}: a training of other data or settings; remove it to begin anew, or name another file"
            )
        try:
            facts: dict[str, Any] = json.loads(metadata["course"])
            begun.rng.bit_generator.state = facts.pop("rng")
            facts["curve"] = [tuple(point) for point in facts["curve"]]
            arrays: dict[str, Any] = {name: np.array(tensors[name]) for name in _ARRAYS}
            return Course(rng=begun.rng, **arrays, **facts)
        except (KeyError, ValueError, TypeError) as error:
            raise ModelError(f"{self._path}: damaged: {error}; remove it to begin anew") from error

    def write(self, course: Course) -> None:
        """Writes the file; raises OutputError where it cannot."""
        facts = {of.name: getattr(course, of.name) for of in fields(course) if of.name not in _ARRAYS}
        facts["rng"] = course.rng.bit_generator.state
        metadata = {"streamlstm": "training", "format": FORMAT, "version": VERSION, "of": self._of}
        arrays = {name: getattr(course, name) for name in _ARRAYS}
        save_tensors(self._path, arrays, metadata | {"course": json.dumps(facts)})

    def write_at_times(self, course: Course) -> None:
        """Writes the file once a minute."""
        if time.monotonic() >= self._due:
            self.write(course)
            self._due = time.monotonic() + _EVERY_S

    def remove(self) -> None:
        """Removes the file, if there is one."""
        self._path.unlink(missing_ok=True)
