"""A model made by hand, one stream of which everything is known, held against the naive stream."""

from typing import Any

import naive
import numpy as np
from layers import random_layer, textbook

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.kernels import layout
from streamlstm.kernels.cells import Cell, cell_named
from streamlstm.kernels.inputs import CALENDAR
from streamlstm.model.network import Model, Network, Starts


def model_by_hand(cell: Cell, features: int, exogenous: int, layers: int, hidden: int, seed: int) -> Model:
    """A random network with one stream of which everything is known."""
    rng = np.random.default_rng(seed)
    wide, made = features + exogenous, []
    for _ in range(layers):
        made.append(
            random_layer(cell, wide, hidden, rng, 0.4 if cell.gates > 1 else 0.15)
        )  # a plain one is chaotic soon
        wide = hidden
    values = rng.normal(0, 0.05, (2, features, 1 + 8 * features + exogenous + CALENDAR)).astype(np.float32)
    skip = np.concatenate([values, values[:1]])
    skip[:2, :, 1 : 1 + features] += np.float32(0.6) * np.eye(features, dtype=np.float32)
    readout = rng.normal(0, 0.4, (3 * features, hidden)).astype(np.float32)
    network = Network(cell, tuple(made), readout, rng.normal(0, 0.1, 3 * features).astype(np.float32), skip)
    spread = rng.uniform(0.5, 3, features + exogenous)
    stats = np.concatenate([rng.normal(0, 20, features + exogenous), spread**2, spread])[None]
    known = [
        rng.uniform(0.2, 0.6, 3 * features), rng.uniform(0.1, 0.3, features), rng.uniform(0.005, 0.1, features),
        rng.uniform(-2, -1, features), rng.uniform(1, 2, features), rng.uniform(0.3, 1, 5), rng.uniform(0.001, 0.1, 5),
    ]  # fmt: skip
    starts = Starts(
        ("s",), stats, np.concatenate(known)[None].astype(np.float32),
        np.zeros((1, layout.THRESHOLD_WIDTHS[layout.CONTRAST]), np.float32), np.full(1, 3, np.float32), np.array([1000]),
        np.zeros(1, np.int64),
    )  # fmt: skip
    network_of = {"cell": cell.name, "layer_norm": cell.layer_norm, "hidden_size": hidden, "num_layers": layers}
    config = Config.model_validate({"model": network_of})
    names = tuple(f"v{d}" for d in range(features)), tuple(f"w{k}" for k in range(exogenous))
    return Model(network, *names, starts.known[0, : 3 * features], starts, config)


def hold_against_naive(
    cell: str, features: int, exogenous: int, layers: int, hidden: int, *, rows: int = 300, settings: Any = None
) -> None:
    """Asserts that a detector says of one stream what the naive one says; `cell` may end in ", layer_norm"."""
    kind, _, layer_norm = cell.partition(", ")
    model = model_by_hand(cell_named(kind, bool(layer_norm)), features, exogenous, layers, hidden, seed=5)
    starts = model.starts
    assert starts is not None
    rng = np.random.default_rng(6)
    mean, spread = starts.stats[0, : features + exogenous], starts.stats[0, -(features + exogenous) :]
    x = mean + spread * np.cumsum(rng.normal(0, 0.3, (rows, features + exogenous)), axis=0) * 0.3
    x += spread * rng.normal(0, 0.3, x.shape)
    x[rows // 2 : rows // 2 + 4] += 8 * spread  # beyond the clip of the network's inputs
    x[rng.uniform(size=x.shape) < 0.1] = np.nan
    x[rows // 7 : rows // 7 + 3] = np.nan
    network, known = model.network, starts.known[0].astype(float)
    usual, variability, ranges, parts = np.split(known, np.cumsum([3 * features, 2 * features, 2 * features]))
    stream = naive.Stream(
        kind, [textbook(network.cell, layer) for layer in network.layers],
        network.readout.T.astype(float), network.readout_bias.astype(float),
        network.skip.transpose(0, 2, 1).astype(float), mean, spread, usual.reshape(3, -1),
        variability.reshape(2, -1), ranges.reshape(2, -1), parts.reshape(2, -1), span=max(1, 70 / features**0.5),
    )  # fmt: skip
    times = np.arange(len(x)) * 3_600_000_000_000
    expected = [stream.score(row, time) for row, time in zip(x, times, strict=True)]
    actual = Detector(settings, model=model).process_batch(["s"] * len(x), times, x)
    assert actual.stage.tolist() == [1] * len(x)  # the first 300 records in use calibrate
    assert np.array_equal(actual.imputed, np.isnan(x[:, :features]).sum(axis=1))
    wished = np.array([values for values, _ in expected])
    assert (np.abs(actual.expected - wished) / spread[:features]).max() < 2e-5
    wished = np.array([parts for _, parts in expected])
    assert np.abs(actual.parts - wished).max() < 2e-4
    assert np.abs(actual.score - wished.sum(axis=1)).max() < 3e-4
    assert np.abs(actual.attribution.sum(axis=1) - 1).max() < 1e-6
