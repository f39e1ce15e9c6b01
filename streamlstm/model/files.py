"""Model files: one `.safetensors` with weights, starting states, and all else as JSON in its metadata."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from streamlstm.config import Config
from streamlstm.errors import ConfigError, ModelError, OutputError
from streamlstm.kernels.cells import cell_named
from streamlstm.model.network import Model, Network, Starts
from streamlstm.model.outlook import Outlook
from streamlstm.version import VERSION

FORMAT = "5"


def save_tensors(path: str | Path, tensors: dict[str, Any], metadata: dict[str, str]) -> None:
    """Writes a safetensors file with a checksum of its tensors; a failure leaves no half file behind."""
    path = Path(path)
    metadata = metadata | {"checksum": checksum(tensors)}
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(safetensors.numpy.save(tensors, metadata))
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True) if part.parent.is_dir() else None
        raise OutputError(f"{path}: cannot write: {error.strerror}; choose another place with --model") from error


def checksum(tensors: dict[str, Any]) -> str:
    """SHA-256 over the names and bytes of all tensors."""
    digest = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def read_tensors(path: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors and metadata of a safetensors file of ours; ModelError where it is missing, damaged or another's."""
    path = Path(path)
    if not path.is_file():
        writer = f"`streamlstm fit INPUT --model {path}`" if kind == "model" else "`Detector.snapshot`"
        raise ModelError(f"{path}: no such file; {writer} writes a {kind}")
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(f"{path}: damaged or not a safetensors file: {error}") from error
    if metadata.get("streamlstm") != kind:
        raise ModelError(f"{path}: a safetensors file, but not a {kind} of streamlstm; {_advice(metadata)}")
    if metadata.get("format") != FORMAT:
        raise ModelError(f"{path}: {kind} format {metadata.get('format')}, this version reads format {FORMAT}")
    if metadata.get("checksum") != checksum(tensors):
        raise ModelError(f"{path}: damaged: its content does not have the checksum that its metadata states")
    return tensors, metadata


def _advice(metadata: dict[str, str]) -> str:
    found = metadata.get("streamlstm")
    return f"it is a {found}" if found else "its metadata has no entry 'streamlstm'"


def describe(model: Model) -> dict[str, Any]:
    """All of a model but its tensors, for JSON."""
    return {
        "features": model.features,
        "exogenous": model.exogenous,
        "keys": model.starts.keys if model.starts else None,
        "config": model.config.model_dump(mode="json"),
        "training": model.training,
    }


def save_model(model: Model, path: str | Path) -> None:
    """Writes the model; raises OutputError where it cannot."""
    metadata = {"streamlstm": "model", "format": FORMAT, "version": VERSION, "hash": model.hash}
    save_tensors(path, model.tensors(), metadata | {"description": json.dumps(describe(model))})


def load_model(path: str | Path) -> Model:
    """Reads and checks a model file; raises ModelError with what is wrong with it."""
    tensors, metadata = read_tensors(path, "model")
    try:
        model = model_from(tensors, json.loads(metadata["description"]))
    except (KeyError, ValueError, ConfigError) as error:
        raise ModelError(f"{path}: damaged model: {error}") from error
    return model


def model_from(tensors: dict[str, Any], description: dict[str, Any]) -> Model:
    """The model of named tensors and their description."""
    config = Config.model_validate(description["config"])
    cell = cell_named(config.model.cell, config.model.layer_norm)
    network = Network.of(cell, config.model.num_layers, tensors)
    each = {name.removeprefix("own."): array for name, array in tensors.items() if name.startswith("own.")}
    streams = len(description["keys"] or ()) if each else 0
    own = tuple(
        Network.of(cell, config.model.num_layers, {name: array[n] for name, array in each.items()})
        for n in range(streams)
    )
    starts = None
    if description["keys"] is not None:
        names = ("stats", "known", "thresholds", "limits", "scored", "own")
        starts = Starts(tuple(description["keys"]), *(tensors[f"start.{name}"] for name in names))
    return Model(
        network,
        tuple(description["features"]),
        tuple(description["exogenous"]),
        tensors["usual"],
        starts,
        config,
        description["training"],
        Outlook.of(tensors) if config.forecast.horizons else None,
        own,
    )
