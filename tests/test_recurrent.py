"""The bare layer: any size against the naive reference, and what is wrong with wrong arguments."""

from typing import Any

import naive
import numpy as np
import pytest
from layers import random_layer, textbook

from streamlstm.errors import UsageError
from streamlstm.kernels.cells import CELLS, cell_named
from streamlstm.model.recurrent import RecurrentLayer


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(("inputs", "hidden"), [(1, 4), (512, 5), (7, 509), (512, 512)])
def test_a_layer_of_any_size_is_the_naive_one(name: str, inputs: int, hidden: int, layer_norm: bool) -> None:
    rng, cell = np.random.default_rng(inputs), cell_named(name, layer_norm)
    layer = random_layer(cell, inputs, hidden, rng, 0.5 / (inputs + hidden) ** 0.5)
    bare = RecurrentLayer(name, cell.tensors(layer), 7, layer_norm=layer_norm)
    h, c = np.zeros((7, hidden)), np.zeros((7, hidden))
    for _ in range(3):
        streams = rng.permutation(7)[:5].astype(np.int32)
        x = rng.normal(size=(5, inputs)).astype(np.float32)
        out = bare.step(x, streams)
        h[streams], c[streams] = naive.cell_step(name, x.astype(float), h[streams], c[streams], textbook(cell, layer))
        assert np.abs(out - h[streams]).max() < 1e-5
    assert np.abs(bare.state[:, :hidden] - h).max() < 1e-5


@pytest.mark.parametrize("name", CELLS)
def test_a_sequence_is_its_steps(name: str) -> None:
    rng = np.random.default_rng(2)
    tensors = CELLS[name].tensors(random_layer(CELLS[name], 3, 20, rng, 0.3))
    whole, parts = RecurrentLayer(name, tensors, 2), RecurrentLayer(name, tensors, 2)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    steps = [parts.step(x[t : t + 1], np.array([1], np.int32))[0] for t in range(40)]
    assert whole.sequence(x, 1).tobytes() == np.array(steps).tobytes()
    assert whole.state.tobytes() == parts.state.tobytes()
    assert not whole.state[0].any()


def weights(**other: Any) -> dict[str, Any]:
    cell = CELLS["lstm"]
    return cell.tensors(random_layer(cell, 3, 8, np.random.default_rng(0), 0.3)) | other


def made(cell: str = "lstm", streams: int = 4, **other: Any) -> RecurrentLayer:
    return RecurrentLayer(cell, weights(**other), streams)


def filled(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


STREAMS = np.arange(2, dtype=np.int32)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: made("elman"), "cell: 'elman' is none of lstm, peephole_lstm, gru"),
        (lambda: made("peephole_lstm"), "weight_ih, weight_hh, bias_ih, bias_hh are given, a peephole_lstm has .* weight_ch"),
        (lambda: made("gru"), r"weight_ih: has shape \(32, 3\), \(24, 3\) is needed"),
        (lambda: made(weight_ih=filled(32, 513)), "weight_ih: reads 513 inputs; 1 to 512 are possible"),
        (lambda: made(weight_ih=filled(32, 0)), "weight_ih: reads 0 inputs"),
        (lambda: made(weight_hh=filled(12, 3)), "weight_hh: has 3 units; 4 to 512 are possible"),
        (lambda: made(weight_hh=filled(32)), r"weight_hh: a matrix .* is needed, \(32,\) is given"),
        (lambda: made(bias_ih=filled(31)), r"bias_ih: has shape \(31,\), \(32,\) is needed"),
        (lambda: made(bias_hh=np.zeros(32)), "bias_hh: is float64, an array of float32 is needed"),
        (lambda: made(bias_hh=[0.0] * 32), "bias_hh: is list, an array of float32"),
        (lambda: made(weight_ih=filled(3, 32).T), r"weight_ih: has strides .*; give numpy\.ascontiguousarray of it"),
        (lambda: made(bias_ih=np.full(32, np.nan, np.float32)), "bias_ih: holds values that are not finite"),
        (lambda: made(streams=0), "streams: 0; at least 1"),
        (lambda: made().step(filled(2, 4), STREAMS), r"x: has shape \(2, 4\), \(2, 3\) is needed"),
        (lambda: made().step(np.zeros((2, 3)), STREAMS), "x: is float64"),
        (lambda: made().step(filled(3, 2).T, STREAMS), "x: has strides"),
        (lambda: made().step(filled(2, 3), STREAMS.astype(np.int64)), "streams: is int64, an array of int32"),
        (lambda: made().step(filled(2, 3), STREAMS + np.int32(3)), "streams: 3 to 4; there are 4, from 0 on"),
        (lambda: made().step(filled(2, 3), STREAMS - np.int32(1)), "streams: -1 to 0; there are 4"),
        (lambda: made().step(filled(2, 3), STREAMS * np.int32(0)), "streams: one is named twice"),
        (lambda: made().sequence(filled(5, 3), 4), "stream: 4; there are 4, from 0 on"),
        (lambda: made().sequence(filled(5, 2), 0), r"x: has shape \(5, 2\), \(5, 3\) is needed"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_before_any_step(call: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call()
