"""Weights of Keras 3: `.keras` and `.weights.h5` with `LSTM`, `GRU` or `SimpleRNN` layers and one `Dense`.

Keras has kernels (inputs, G H) and its GRU's gates as z, r, n; a `.weights.h5` does not tell activations, the usual ones
are taken.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from streamlstm.errors import ModelError
from streamlstm.interop.foreign import Forecaster, cell_of, refuse, swapped, wanted

_CLASSES = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "rnn_tanh"}
_ORDER = {"lstm": (0, 1, 2, 3), "gru": (1, 0, 2), "gru_before": (1, 0, 2), "rnn_tanh": (0,), "rnn_relu": (0,)}


def read(path: str, cell: str | None = None) -> Forecaster:
    """The forecaster of a file; `cell: rnn_relu` where a `.weights.h5` holds `SimpleRNN(activation="relu")`."""
    h5py = wanted("h5py", path)
    try:
        if not zipfile.is_zipfile(path):
            with h5py.File(path) as file:
                return _forecaster(path, _groups(file), cell)
        with zipfile.ZipFile(path) as archive:
            cell = _checked(path, json.loads(archive.read("config.json"))) or cell
            with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
                return _forecaster(path, _groups(file), cell)
    except (OSError, KeyError, ValueError) as error:
        raise ModelError(f"{path}: no model or weights of Keras 3: {error}") from error


def _checked(path: str, config: dict[str, Any]) -> str | None:
    """The cell that a saved model's configuration speaks of; ModelError for what we do not have."""
    cell = None
    for name, options in _layers(config):
        if name == "Bidirectional":
            refuse(path, "Bidirectional", "a layer that reads forwards alone")
        if name == "Dense" and options.get("activation", "linear") != "linear":
            refuse(path, f"Dense(activation={options['activation']!r})", "a linear one")
        if name not in _CLASSES:
            continue
        cell = _CLASSES[name]
        activation = options.get("activation", "tanh")
        if cell == "rnn_tanh" and activation == "relu":
            cell = "rnn_relu"
        elif activation != "tanh":
            refuse(path, f"{name}(activation={activation!r})", "tanh")
        if options.get("recurrent_activation", "sigmoid") != "sigmoid":
            refuse(path, f"{name}(recurrent_activation={options['recurrent_activation']!r})", "sigmoid")
        if options.get("go_backwards"):
            refuse(path, f"{name}(go_backwards=True)", "False")
        if options.get("reset_after") is False:
            cell = "gru_before"
    return cell


def _layers(config: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Class name and options of everything in a configuration that looks like a layer."""
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str) and isinstance(config.get("config"), dict):
            yield config["class_name"], config["config"]
        for value in config.values():
            yield from _layers(value)
    elif isinstance(config, list):
        for value in config:
            yield from _layers(value)


def _groups(file: Any) -> dict[str, list[Any]]:
    """The arrays of each layer that has some, by the layer's path, in the order in which Keras numbers equal layers."""
    found: dict[str, list[Any]] = {}

    def visit(name: str, item: Any) -> None:
        place, _, last = name.rpartition("/")
        if place.endswith("/vars") and last.isdecimal():
            found.setdefault(place.removesuffix("/vars"), []).append((int(last), np.array(item)))

    file.visititems(visit)
    ordered = {name: [array for _, array in sorted(arrays, key=lambda pair: pair[0])] for name, arrays in found.items()}
    # lstm, lstm_1, .. lstm_10
    return dict(sorted(ordered.items(), key=lambda item: [int(n or 0) for n in re.findall(r"_(\d+)(?:/|$)", item[0])]))


def _forecaster(path: str, groups: dict[str, list[Any]], cell: str | None) -> Forecaster:
    recurrent = [arrays for name, arrays in groups.items() if name.endswith("/cell")]
    dense = [
        arrays for name, arrays in groups.items() if name.startswith(("layers/", "_layer")) and "/cell" not in name
    ]
    dense = [arrays for arrays in dense if arrays[0].ndim == 2]
    if not recurrent or len(dense) != 1:
        raise ModelError(
            f"{path}: has {len(recurrent)} recurrent and {len(dense)} dense layers ({', '.join(groups) or 'none'}); "
            "one or more LSTM, GRU or SimpleRNN of one kind and one Dense are wanted"
        )
    H = recurrent[0][1].shape[0]
    kind = cell_of(path, "a recurrent layer", recurrent[0][1].T, cell)
    if kind == "gru" and (cell == "gru_before" or any(of.ndim == 1 for of in recurrent[0][2:])):
        kind = "gru_before"  # a GRU with reset_after has two rows of biases
    layers = tuple(_layer(path, arrays, kind) for arrays in recurrent)
    kernel, *bias = dense[0]
    if kernel.shape[0] != H:
        raise ModelError(f"{path}: the dense layer reads {kernel.shape[0]} values, the recurrent one gives {H}")
    return Forecaster(
        kind, layers, kernel.T.astype(np.float32), bias[0] if bias else np.zeros(kernel.shape[1], np.float32)
    )


def _layer(path: str, arrays: list[Any], kind: str) -> dict[str, Any]:
    kernel, recurrent, *rest = arrays
    order, wide = _ORDER[kind], recurrent.shape[1]
    bias = rest[0] if rest else np.zeros((2, wide) if kind == "gru" else wide, np.float32)
    of_inputs, of_h = bias if bias.ndim == 2 else (bias, np.zeros(wide, np.float32))
    return {
        "weight_ih": swapped(kernel.T, order),
        "weight_hh": swapped(recurrent.T, order),
        "bias_ih": swapped(of_inputs, order),
        "bias_hh": swapped(of_h, order),
    }
