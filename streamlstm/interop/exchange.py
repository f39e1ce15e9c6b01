"""Which reader a file of another framework needs."""

from collections.abc import Callable
from pathlib import Path

from streamlstm.errors import ModelError, UsageError
from streamlstm.interop import keras, onnx_reading, pytorch
from streamlstm.interop.foreign import Forecaster, to_model
from streamlstm.model.network import Model

FORMATS: dict[str, Callable[[str, str | None], Forecaster]] = {
    ".safetensors": pytorch.read,
    ".keras": keras.read,
    ".weights.h5": keras.read,
    ".onnx": onnx_reading.read,
}


def import_model(path: str, features: tuple[str, ...], exogenous: tuple[str, ...], cell: str | None = None) -> Model:
    """The model of a forecaster's file; ModelError says what is wrong with it, UsageError what to give instead."""
    if not Path(path).is_file():
        raise ModelError(f"{path}: no such file")
    for suffix, read in FORMATS.items():
        if path.endswith(suffix):
            return to_model(read(path, cell), path, features, exogenous)
    hint = "; save the state_dict with safetensors.torch.save_file" if path.endswith((".pt", ".pth", ".bin")) else ""
    raise UsageError(f"{path}: weights are read from {', '.join(FORMATS)}{hint}")
