"""A model: architecture, weights, what it knows of the streams it was fitted on, and how it came to be."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from streamlstm.config import Config
from streamlstm.errors import ModelError
from streamlstm.kernels.cells import Cell, Layer
from streamlstm.kernels.compiling import padded
from streamlstm.kernels.inputs import CALENDAR
from streamlstm.kernels.layout import BARE, HEADS, REGRESSORS
from streamlstm.kernels.wave import skip_lanes
from streamlstm.model.outlook import GAUSSIAN_OUTPUTS, Outlook
from streamlstm.types import Float32, Float64, Int64

_OF_A_MODEL = {"input", "model", "training", "forecast", "learning", "score", "threshold", "episodes"}


@dataclass(frozen=True, slots=True)
class Starts:
    """Where the N fitted streams stand: they are live from their first record.

    keys (N); stats (N, 3 I) float64, mean, variance and spread of the inputs; known (N, W) float32, the columns
    `Layout.known_columns` of a stream's row: usual errors, variability, range and calibration; thresholds (N, T), limits
    (N), scored (N): state of a threshold that has seen the training scores; own (N) int64: which weights are the stream's, 0
    for those of all, n + 1 for `Model.own[n]`.
    """

    keys: tuple[str, ...]
    stats: Float64
    known: Float32
    thresholds: Float32
    limits: Float32
    scored: Int64
    own: Int64


@dataclass(frozen=True, slots=True)
class Network:
    """Weights of the recurrent layers and of the linear skips, float32.

    layers: weights of the recurrent layers, see `Layer`; readout (3 D, H) and readout_bias (3 D), head by head; skip (3, D,
    P), on raw inputs, on clipped ones, on the time alone: constant, lags 1 to 3 and five EWMAs of every feature, known
    inputs, those made of the time (the third skip has weights of these only). Values are standard deviations of the
    normalised inputs.
    """

    cell: Cell
    layers: tuple[Layer, ...]
    readout: Float32
    readout_bias: Float32
    skip: Float32

    @property
    def hidden_size(self) -> int:
        """H, units of a layer."""
        return int(self.layers[0].W_hh.shape[1])

    def tensors(self) -> dict[str, Float32]:
        """All arrays by the names they have in a model file; those of the recurrent layers as in PyTorch."""
        named = {
            f"{self.cell.name}.{name}_l{n}": array
            for n, layer in enumerate(self.layers)
            for name, array in self.cell.tensors(layer).items()
        }
        return named | {"readout.weight": self.readout, "readout.bias": self.readout_bias, "skip.weight": self.skip}

    @classmethod
    def of(cls, cell: Cell, num_layers: int, tensors: Mapping[str, Float32]) -> Self:
        """What `tensors` gave."""
        layers = []
        for n in range(num_layers):
            start, end = f"{cell.name}.", f"_l{n}"
            of_layer = [name for name in tensors if name.startswith(start) and name.endswith(end)]
            layers.append(cell.layer({name[len(start) : -len(end)]: tensors[name] for name in of_layer}))
        return cls(cell, tuple(layers), tensors["readout.weight"], tensors["readout.bias"], tensors["skip.weight"])

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of all arrays, in the order of `tensors`."""
        return tuple(array.shape for array in self.tensors().values())

    def packed(self) -> Float32:
        """All weights in the order in which kernels read them (flat)."""
        D = self.skip.shape[1]
        inputs = self.layers[0].W_ih.shape[1]
        matrices = [(np.concatenate([self.readout_bias[:, None], self.readout], axis=1), padded(len(self.readout)), 0)]
        for head, skip in enumerate(self.skip):
            first, wide = skip_lanes(D, head)
            known = 1 + (REGRESSORS - 1) * D + inputs if head == BARE else 0
            matrices.append((skip[:, known:], wide, head * D - first))
        parts = [self.cell.pack(layer) for layer in self.layers]
        for rows, columns, at in matrices:
            out = np.zeros((rows.shape[1], columns), np.float32)
            out[:, at : at + len(rows)] = rows.T
            parts.append(out.reshape(-1))
        return np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class Model:
    """A network with the columns it reads and what the fit found out; `usual` (3 D) float32 are errors of new streams.

    `own` are networks of single streams, one for each of `starts` where weights are per stream; `network` is for all others.
    `outlook` is there where the configuration has horizons to forecast.
    """

    network: Network
    features: tuple[str, ...]
    exogenous: tuple[str, ...]
    usual: Float32
    starts: Starts | None
    config: Config
    training: dict[str, Any] = field(default_factory=dict)
    outlook: Outlook | None = None
    own: tuple[Network, ...] = ()

    def __post_init__(self) -> None:
        D, K, H = len(self.features), len(self.exogenous), self.network.hidden_size
        wide = D + K
        for n, layer in enumerate(self.network.layers):
            shapes, expected = tuple(of.shape for of in layer), self.network.cell.shapes(wide, H)
            if shapes != expected:
                raise ModelError(f"model: layer {n} has shapes {shapes}, {expected} are those of its cell with H={H}")
            wide = H
        P = 1 + REGRESSORS * D + K + (CALENDAR if self.config.model.calendar else 0)
        if self.network.skip.shape != (HEADS, D, P):
            raise ModelError(f"model: skip has shape {self.network.skip.shape}, {D} features need ({HEADS}, {D}, {P})")
        if any(network.shapes() != self.network.shapes() for network in self.own):
            raise ModelError("model: weights of single streams have other shapes than those of all")
        self._check_outlook(D, H, P)
        for name, array in self.tensors().items():
            if array.dtype == np.float32 and not name.startswith("start.") and not np.isfinite(array).all():
                raise ModelError(f"model: {name} holds values that are not finite; fit it again")

    def _check_outlook(self, D: int, H: int, P: int) -> None:
        wanted = self.config.forecast
        N, Q = wanted.horizons, len(wanted.quantiles) if wanted.loss == "pinball" else GAUSSIAN_OUTPUTS
        found = None if self.outlook is None else self.outlook.shapes()
        expected = ((Q, N, D, H), (Q, N, D), (N, D, P), (N, D)) if N else None
        if found != expected:
            raise ModelError(f"model: its forecast has shapes {found}, {expected} are those of its configuration")

    def tensors(self) -> dict[str, Any]:
        """All arrays by the names they have in a model file; those of the recurrent layers as in PyTorch."""
        named: dict[str, Any] = self.network.tensors() | {"usual": self.usual}
        if self.own:
            each = [network.tensors() for network in self.own]
            named |= {f"own.{name}": np.stack([tensors[name] for tensors in each]) for name in each[0]}
        if self.outlook is not None:
            named |= self.outlook.tensors()
        if self.starts is not None:
            for name in ("stats", "known", "thresholds", "limits", "scored", "own"):
                named[f"start.{name}"] = getattr(self.starts, name)
        return named

    @property
    def settings(self) -> dict[str, Any]:
        """What lies below a configuration: how the model was fitted, without its place of work.

        A folder, a broker or a number of threads is no part of a model.
        """
        base = self.config.model_dump(include=_OF_A_MODEL)
        del base["model"]["file"]
        return base

    def check_columns(self, features: tuple[str, ...], exogenous: tuple[str, ...]) -> None:
        """Raises ModelError unless the data has just the columns that the model was fitted on."""
        if (features, exogenous) != (self.features, self.exogenous):
            raise ModelError(
                f"model: fitted on features {', '.join(self.features)} with exogenous "
                f"{', '.join(self.exogenous) or 'none'}; the data has features {', '.join(features)} with exogenous "
                f"{', '.join(exogenous) or 'none'}; name the columns in `input:` or fit a model on this data"
            )

    def check_architecture(self, config: Config) -> None:
        """Raises ModelError unless the configuration asks for the network that the model holds."""
        found = {
            "cell": self.network.cell.name,
            "layer_norm": self.network.cell.layer_norm,
            "hidden_size": self.network.hidden_size,
            "num_layers": len(self.network.layers),
            "weights": "per_stream" if self.own else "shared",
            "calendar": self.config.model.calendar,
        }
        for name, value in found.items():
            wanted = getattr(config.model, name)
            if wanted != value:
                raise ModelError(f"model: has {name} {value}, the configuration says {wanted}; leave model.{name} out")
        if config.forecast != self.config.forecast:
            raise ModelError(
                f"model: fitted with forecast {self.config.forecast}, the configuration says {config.forecast}; "
                "leave the section out, or fit a model with it"
            )

    @property
    def hash(self) -> str:
        """16 hex digits of SHA-256 over names, shapes and bytes of all tensors, features and stream keys."""
        digest = hashlib.sha256(repr((self.features, self.exogenous, self.starts and self.starts.keys)).encode())
        for name, array in sorted(self.tensors().items()):
            digest.update(f"{name}{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]
