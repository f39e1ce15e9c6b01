"""Snapshots: everything that the next record depends on, in one safetensors file, with checks on the way back."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from streamlstm.config import Config
from streamlstm.detect.reorder import batch_of, columns_of
from streamlstm.errors import ModelError, StateError
from streamlstm.model.files import FORMAT, describe, model_from, read_tensors, save_tensors
from streamlstm.version import VERSION

if TYPE_CHECKING:
    from streamlstm.detect.detector import Detector

log = logging.getLogger(__name__)
D = TypeVar("D", bound="Detector")


def save(detector: "Detector", path: str | Path) -> None:
    """Writes the snapshot; raises OutputError where it cannot, StateError before the first record."""
    if not detector.features:
        raise StateError("snapshot: the detector has seen no record yet; there is nothing to keep")
    tensors: dict[str, Any] = detector.pool.columns()
    if detector.model is not None:
        tensors |= {f"model.{name}": array for name, array in detector.model.tensors().items()}
    tensors |= detector.engine.learned(len(detector.pool))
    waiting = detector.reorder.held() if detector.reorder is not None else []
    for n, batch in enumerate(waiting):
        tensors |= {f"waiting.{n}.{name}": array for name, array in columns_of(batch).items()}
    description = {
        "config": detector.config.model_dump(mode="json"),
        "features": detector.features,
        "exogenous": detector.exogenous,
        "sources": detector.log.sources,
        "rows_of_calls": detector.rows_of_calls,
        "waiting": len(waiting),
        "model": describe(detector.model) if detector.model else None,
        "class_changes": detector.class_changes,
    }
    metadata = {
        "streamlstm": "snapshot",
        "format": FORMAT,
        "version": VERSION,
        "arithmetic": detector.engine.arithmetic,
    }
    save_tensors(path, tensors, metadata | {"description": json.dumps(description)})


def load(cls: type[D], path: str | Path, backend: str | None, on_class_change: str) -> D:
    """The detector of a snapshot; see `Detector.restore`. Raises StateError where the file is damaged, or another
    arithmetic class wrote it and such a change is not accepted."""
    try:
        tensors, metadata = read_tensors(path, "snapshot")
        description = json.loads(metadata["description"])
        model = None
        if description["model"] is not None:
            model = model_from(_of("model.", tensors), description["model"])
        settings = description["config"]
        if backend is not None:
            settings["runtime"]["backend"] = backend
        detector = cls(
            Config.model_validate(settings),
            model=model,
            features=description["features"],
            exogenous=description["exogenous"],
        )
        then, now = metadata["arithmetic"], detector.engine.arithmetic
        if then != now:
            if on_class_change != "accept":
                raise StateError(
                    f"{path}: written with arithmetic class {then}, this is class {now}: the bits would differ; restore "
                    "on a processor of that class, or with on_class_change='accept'"
                )
            log.warning(
                "%s: goes on from arithmetic class %s under %s: scores agree to rounding alone", path, then, now
            )
        detector.go_on_from(then, description["class_changes"], f"row {description['rows_of_calls']}")
        detector.pool.extend(tensors)
        detector.log.sources = description["sources"]
        detector.rows_of_calls = description["rows_of_calls"]
        detector.engine.take_learned(tensors)
        for n in range(description["waiting"]):
            assert detector.reorder is not None, "another configuration than that of the snapshot"
            detector.reorder.hold(batch_of(_of(f"waiting.{n}.", tensors)))
    except (ModelError, KeyError, ValueError) as error:
        raise StateError(f"{path}: cannot restore: {error}") from error
    return detector


def _of(prefix: str, tensors: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
