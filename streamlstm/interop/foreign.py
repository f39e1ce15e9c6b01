"""A forecaster of another framework, in the terms that all readers share, and the model that is made of it."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn

import numpy as np

from streamlstm.config import Config
from streamlstm.errors import ModelError, UsageError
from streamlstm.kernels.cells import CELLS
from streamlstm.kernels.layout import HEADS, REGRESSORS
from streamlstm.model.network import Model, Network
from streamlstm.types import Float32

_OF_GATES = {4: "lstm", 3: "gru", 1: "rnn_tanh"}


@dataclass(frozen=True, slots=True)
class Forecaster:
    """Recurrent layers and a dense readout.

    cell    name of a `Cell`
    layers  of each layer the arrays that `Cell.layer` takes: weight_ih (G H, I), weight_hh (G H, H), bias_ih and bias_hh
            (G H), gates in PyTorch's order; weight_ch (3 H) of peepholes
    readout, bias  (D, H) and (D)
    """

    cell: str
    layers: tuple[dict[str, Float32], ...]
    readout: Float32
    bias: Float32


def to_model(found: Forecaster, path: str, features: tuple[str, ...], exogenous: tuple[str, ...]) -> Model:
    """The model of `found`, read from `path`, that predicts each feature's next value from features and exogenous columns.

    All three heads predict what the forecaster does, without a skip. No stream is known: each learns its own mean, spread,
    usual errors and threshold. Raises ModelError where sizes do not fit the columns.
    """
    D, K = len(features), len(exogenous)
    P = 1 + REGRESSORS * D + K
    cell = CELLS[found.cell]
    reads, writes = found.layers[0]["weight_ih"].shape[1], len(found.readout)
    if reads != D + K or writes != D:
        raise ModelError(
            f"{path}: reads {reads} values and predicts {writes}; {D} features and {K} exogenous columns were named. "
            "It has to read the features, then the exogenous columns, and predict the next value of each feature"
        )
    layers = []
    for n, tensors in enumerate(found.layers):
        try:
            layers.append(cell.layer(tensors))
        except (ValueError, IndexError) as error:
            raise ModelError(f"{path}: layer {n} does not have the shapes of a {found.cell}: {error}") from error
    H = layers[0].W_hh.shape[1]
    config = Config.model_validate(
        {"model": {"cell": found.cell, "hidden_size": H, "num_layers": len(layers), "calendar": False}}
    )
    network = Network(
        cell,
        tuple(layers),
        np.tile(found.readout.astype(np.float32), (HEADS, 1)),
        np.tile(found.bias.astype(np.float32), HEADS),
        np.zeros((HEADS, D, P), np.float32),
    )
    return Model(network, features, exogenous, np.ones(HEADS * D, np.float32), None, config, {"imported from": path})


def cell_of(path: str, name: str, W_hh: Any, cell: str | None) -> str:
    """The cell of recurrent weights (G H, H) called `name`; of a plain RNN it is `cell`, where that is given."""
    rows, H = W_hh.shape
    gates, rest = divmod(rows, H)
    if rest or gates not in _OF_GATES:
        raise ModelError(f"{path}: {name} has {gates} blocks of rows; an LSTM has 4, a GRU 3, an RNN 1")
    return cell if gates == 1 and cell else _OF_GATES[gates]


def swapped(array: Any, order: tuple[int, ...]) -> Float32:
    """`array` (G H, ...) with its G blocks of rows in another order."""
    blocks = np.split(np.asarray(array, np.float32), len(order))
    return np.concatenate([blocks[block] for block in order])


def wanted(package: str, path: str) -> Any:
    """A package of the extra `interop` that the file `path` needs; UsageError where it is missing."""
    try:
        return import_module(package)
    except ImportError:
        raise UsageError(
            f"{path}: needs the package {package}; install it with: pip install 'streamlstm[interop]'"
        ) from None


def refuse(path: str, what: str, works: str) -> NoReturn:
    """Raises the ModelError of an option that we do not have."""
    raise ModelError(f"{path}: {what} is not supported; {works} would work")
