"""Weights of PyTorch: a `state_dict` saved as safetensors, of `nn.LSTM`, `nn.GRU` or `nn.RNN` and one `nn.Linear`."""

import re
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from streamlstm.errors import ModelError
from streamlstm.interop.foreign import Forecaster, cell_of, refuse
from streamlstm.types import Float32

_KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def read(path: str, cell: str | None = None) -> Forecaster:
    """The forecaster of a file; `cell: rnn_relu` for `nn.RNN(nonlinearity="relu")`, which its weights do not tell."""
    try:
        tensors: dict[str, Any] = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a safetensors file: {error}") from error
    tensors = _folded(tensors)
    for name in tensors:
        if "_reverse" in name:
            refuse(path, f"{name}: a bidirectional layer", "one that reads forwards alone")
        if "weight_hr_l" in name:
            refuse(path, f"{name}: proj_size", "an LSTM without projection")
    first = [name for name in tensors if name.endswith("weight_ih_l0")]
    if len(first) != 1:
        raise ModelError(
            f"{path}: {len(first)} recurrent modules (…weight_ih_l0) among {_named(tensors)}; one is wanted"
        )
    start = first[0].removesuffix("weight_ih_l0")
    count = sum(bool(re.fullmatch(re.escape(start) + r"weight_ih_l\d+", name)) for name in tensors)
    layers = tuple(_layer(path, tensors, start, n) for n in range(count))
    others = {name: array for name, array in tensors.items() if not name.startswith(f"{start}weight_")}
    H = layers[0]["weight_hh"].shape[1]
    dense = [name for name, array in others.items() if name.endswith("weight") and array.ndim == 2]
    if len(dense) != 1 or others[dense[0]].shape[1] != H:
        raise ModelError(f"{path}: one dense readout (features, {H}) is wanted, found {_named(dense) or 'none'}")
    readout = others[dense[0]]
    bias = others.get(dense[0].removesuffix("weight") + "bias", np.zeros(len(readout), np.float32))
    return Forecaster(cell_of(path, first[0], layers[0]["weight_hh"], cell), layers, readout, bias)


def _layer(path: str, tensors: dict[str, Any], start: str, n: int) -> dict[str, Any]:
    found = {kind: tensors.get(f"{start}{kind}_l{n}") for kind in _KINDS}
    if found["weight_hh"] is None or found["weight_ih"] is None:
        raise ModelError(f"{path}: {start}weight_ih_l{n} or {start}weight_hh_l{n} is missing")
    zeros = np.zeros(len(found["weight_hh"]), np.float32)  # bias=False
    return {kind: zeros if array is None else array for kind, array in found.items()}


def _folded(tensors: dict[str, Any]) -> dict[str, Any]:
    """The tensors with weight normalisation multiplied out: g v / |v|, row by row, under either of PyTorch's names."""
    found = {}
    for name, array in tensors.items():
        if (old := re.fullmatch(r"(.*weight_[ih]h_l\d+)_v", name)) is not None:
            found[old[1]] = _times_unit(tensors[f"{old[1]}_g"], array)
        elif (new := re.fullmatch(r"(.*)parametrizations\.(weight_[ih]h_l\d+)\.original1", name)) is not None:
            found[new[1] + new[2]] = _times_unit(tensors[name.removesuffix("1") + "0"], array)
        elif not re.fullmatch(r".*weight_[ih]h_l\d+(_g|\.original0)", name):
            found[name] = array
    return found


def _times_unit(g: Any, v: Any) -> Float32:
    length = np.sqrt((v.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
    return np.asarray(g.reshape(-1, 1) * v / length, np.float32)


def _named(names: Any) -> str:
    return ", ".join(names)
