"""Training: gradients, steps and fits against the naive ones; model files and what is wrong with bad ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import naive
import numpy as np
import pytest
import safetensors.numpy

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.errors import ConfigError, InputError, ModelError, OutputError
from streamlstm.kernels.bptt import draw_feedback, draw_masks, make_work, theta_size, window_gradient
from streamlstm.kernels.cells import CELLS, Cell, Layer, cell_named
from streamlstm.kernels.losses import Ahead
from streamlstm.kernels.online import write_weights
from streamlstm.kernels.optimisers import ADAM, OPTIMISERS, clip_gradient, update_parameters
from streamlstm.kernels.ridge import add_moments, solve_ridge
from streamlstm.learn import bptt, divergence
from streamlstm.learn import fit as learn_fit
from streamlstm.learn.bptt import Progress, Series, make_lanes
from streamlstm.learn.fit import LEAST_ROWS, Recording, after_gaps, fit, input_statistics
from streamlstm.learn.input_norm import inverse_deviation, normalise_window
from streamlstm.learn.schedules import rate_at
from streamlstm.learn.weight_norm import WeightNorm
from streamlstm.learn.windows import Draws, Windows
from streamlstm.model.files import FORMAT, load_model, save_model
from streamlstm.model.layout import make_layout
from streamlstm.model.network import Model
from streamlstm.model.parameters import fold_inputs, initial_theta, matrices, network_theta, theta_network
from streamlstm.report.training import training_section
from streamlstm.types import NO_TIME

Make = Callable[..., dict[str, Recording]]
PADDED = 16
NOTHING = Ahead(0, np.zeros(0, np.float32), 0.0)


def small(**training: Any) -> Config:
    """A configuration that is fitted in a moment."""
    return Config.model_validate({"model": {"hidden_size": 8}, "training": {"updates": 60} | training})


# Gradients.


def split(cell: Cell, theta: Any, inputs: int, layers: int, features: int, units: int) -> tuple[Any, Any, Any]:
    """Layers, readout and its bias of flat parameters, cut to `units`."""
    found, at, wide, G = [], 0, inputs, cell.gates

    def take(*shape: int) -> Any:
        nonlocal at
        at += int(np.prod(shape))
        return theta[at - int(np.prod(shape)) : at].reshape(shape)

    for _ in range(layers):
        W, bias, vectors = take(wide + PADDED, G, PADDED), take(G, PADDED), take(cell.vectors, PADDED)
        read = units if found else wide
        W_ih, W_hh = (of[..., :units].reshape(len(of), -1).T for of in (W[:read], W[wide : wide + units]))
        found.append(cell.tensors(Layer(W_ih, W_hh, bias[:, :units].reshape(-1), vectors[:, :units].reshape(-1))))
        wide = PADDED
    readout = theta[at:].reshape(PADDED + 1, -1)
    return found, readout[:units, :features], readout[PADDED, :features]


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(("inputs", "features", "layers"), [(1, 1, 1), (3, 2, 1), (2, 2, 2), (1, 1, 3)])
def test_gradient_is_that_of_finite_differences(
    name: str, inputs: int, features: int, layers: int, layer_norm: bool
) -> None:
    T, B, hidden, outputs, huber, scale = 7, 3, 5, 16, 0.4, 0.25
    cell = cell_named(name, layer_norm)
    kernels = cell.kernels(hidden)
    units = hidden if layer_norm else PADDED  # without it padding is like any other unit
    rng = np.random.default_rng(layers)
    theta = initial_theta(cell, inputs, hidden, PADDED, layers, outputs, seed=1)
    assert len(theta) == theta_size(kernels, inputs, PADDED, layers, outputs)
    at, wide = 0, inputs
    for _ in range(layers):  # biases that are not 0: a rectified sum of nothing would stand at its kink
        at += (wide + PADDED) * cell.gates * PADDED
        biases = theta[at : at + cell.gates * PADDED].reshape(cell.gates, PADDED)
        biases[:, :hidden] += rng.normal(0, 0.1, (cell.gates, hidden))
        at, wide = at + (cell.gates + cell.vectors) * PADDED, PADDED
    readout = theta[-(PADDED + 1) * outputs :].reshape(PADDED + 1, outputs)
    readout[:hidden, :features] = rng.normal(0, 0.8, (hidden, features))
    readout[PADDED, :features] = 0.2
    x = rng.normal(size=(T, B, inputs)).astype(np.float32)
    target = rng.normal(size=(T, B, features)).astype(np.float32)
    target[rng.uniform(size=target.shape) < 0.3] = np.nan
    state = np.zeros((2, layers, B, PADDED), np.float32)
    state[..., :hidden] = rng.uniform(-0.5, 0.5, (2, layers, B, hidden))
    h, c = (part.reshape(-1).copy() for part in state)
    actual = np.zeros_like(theta)
    work = make_work(kernels, T, B, inputs, PADDED, layers, outputs)
    draw_masks(work, 0.3, 0.4, rng)
    keep, keep_h = work.keep.reshape(layers, T, B, PADDED), work.keep_h.reshape(layers, B, PADDED)

    def run(out: Any) -> float:
        h[:], c[:] = state[0].reshape(-1), state[1].reshape(-1)
        return window_gradient(kernels, theta, x.reshape(-1), target.reshape(-1), h, c, T, B, inputs, PADDED, layers, features,
                               outputs, huber, scale, NOTHING, work, out)  # fmt: skip

    def loss_of(parameters: Any) -> float:
        parts = split(cell, parameters, inputs, layers, features, units)
        begin = state[..., :units].astype(float)
        return naive.window_loss(name, *parts, x.astype(float), target.astype(float), list(begin[0]), list(begin[1]), huber,
                                 scale, keep[..., :units], keep_h[..., :units])  # fmt: skip

    loss = run(actual)
    assert loss == pytest.approx(loss_of(theta.astype(float)), rel=1e-5)
    hs, cs = (list(part[..., :units].astype(float)) for part in state)
    made = split(cell, theta.astype(float), inputs, layers, features, units)[0]
    for t in range(T):
        naive.network_step(name, x[t].astype(float), hs, cs, made, keep[:, t, :, :units], keep_h[..., :units])
    for of, expected in ((h, hs), (c, cs)):
        of = of.reshape(layers, B, PADDED)
        assert np.abs(of[..., :units] - expected).max() < (1e-5 if layer_norm else 3e-6)
        assert not of[..., hidden:].any()
    learning = np.flatnonzero(actual)
    assert learning.size > (100 if cell.gates == 4 else 30)
    chosen = rng.choice(learning, 150, replace=False) if learning.size > 150 else learning
    padding = np.flatnonzero(theta == 0)
    for p in np.concatenate([chosen, rng.choice(padding, 20, replace=False), [learning[0], learning[-1]]]):
        step = np.zeros(len(theta))
        step[p] = 1e-7
        expected = (loss_of(theta + step) - loss_of(theta - step)) / 2e-7
        rel = 5e-3 if layer_norm else 1e-3  # few units of much the same sum: differences in float32
        assert actual[p] == pytest.approx(expected, rel=rel, abs=2e-6), p
    assert run(np.zeros(0, np.float32)) == loss
    again = actual.copy()
    run(again)
    assert np.allclose(again, 2 * actual, rtol=1e-5, atol=1e-7)


def test_tiles_of_lanes_are_the_whole_window_whatever_the_threads() -> None:
    T, B, I, D, hidden = 6, 75, 2, 3, 20
    rng, cell = np.random.default_rng(1), CELLS["lstm"]
    kernels = cell.kernels(hidden)
    theta = initial_theta(cell, I, hidden, 32, 2, 16, seed=1)
    theta[-(33 * 16) :] = rng.normal(0, 0.3, 33 * 16)
    x, target = (rng.normal(size=(T, B, size)).astype(np.float32) for size in (I, D))
    unfed, linear = np.zeros((4, 0), np.float32), np.zeros((T, B, 0), np.float32)
    found = []

    def draws(seed: int) -> Draws:
        return Draws(0.2, 0.3, 0.0, np.random.default_rng(seed))

    for threads in (1, 2, 3):
        windows = Windows(kernels, T, (I, 32, 2, D, 16), 1.0, NOTHING, threads, unfed)
        h, c, out = np.zeros(2 * B * 32, np.float32), np.zeros(2 * B * 32, np.float32), np.zeros_like(theta)
        losses = [windows.run(theta, x, target, linear, h, c, 0.5, out, draws(5)) for _ in range(2)]
        found.append((losses, h.tobytes(), c.tobytes(), out.tobytes()))
    assert found[0] == found[1] == found[2]
    (h, c), (out, whole) = np.zeros((2, 2 * B * 32), np.float32), np.zeros((2, len(theta)), np.float32)
    work, flat = make_work(kernels, T, B, I, 32, 2, 16), (x.reshape(-1), target.reshape(-1))
    expected = window_gradient(kernels, theta, *flat, h, c, T, B, I, 32, 2, D, 16, 1.0, 0.5, NOTHING, work, whole)
    for of in (h, c):
        of[:] = 0
    windows = Windows(kernels, T, (I, 32, 2, D, 16), 1.0, NOTHING, 1, unfed)
    assert windows.run(theta, x, target, linear, h, c, 0.5, out) == pytest.approx(expected, rel=1e-6)
    assert np.allclose(out, whole, rtol=1e-4, atol=1e-4)


def test_threads_fit_the_same_model(synthetic: Make) -> None:
    data = synthetic(streams=3, rows=2200)
    of = {"model": {"hidden_size": 8}, "training": {"updates": 12, "lanes": 70, "dropout": 0.1}}
    one, two = (fit(data, Config.model_validate(of | {"runtime": {"threads": n}}), ("value",)) for n in (1, 2))
    assert one.hash == two.hash


@pytest.mark.parametrize("name", CELLS)
def test_an_orthogonal_start_turns_and_never_stretches(name: str) -> None:
    cell, H, Hp = CELLS[name], 20, 32
    theta = initial_theta(cell, 3, H, Hp, 2, 16, seed=2, orthogonal=True)
    network = theta_network(cell, theta, np.ones(1, np.float32), np.zeros((2, 9, 1)), 3, H, Hp, 2, 16)
    drawn = set()
    for layer in network.layers:
        for gate in cell.recurrent_gates:
            W = layer.W_hh[gate * H : (gate + 1) * H].astype(float)
            assert np.abs(W @ W.T - np.eye(H)).max() < 1e-6
            drawn.add(W.tobytes())
    assert len(drawn) == 2 * len(cell.recurrent_gates)


@pytest.mark.parametrize("name", CELLS)
def test_padding_is_never_learned(name: str) -> None:
    hidden, layers, rng, cell = 5, 2, np.random.default_rng(0), CELLS[name]
    theta = initial_theta(cell, 1, hidden, PADDED, layers, 16, seed=3)
    own = theta_network(cell, theta, np.ones(1, np.float32), np.zeros((2, 9, 1)), 1, hidden, PADDED, layers, 16)
    units = np.concatenate([part.reshape(-1) for layer in own.layers for part in layer])
    first, second = np.zeros_like(theta), np.zeros_like(theta)
    work = make_work(cell.kernels(8), 4, 2, 1, PADDED, layers, 16)
    for update in range(1, 30):
        h, c = np.zeros(layers * 2 * PADDED, np.float32), np.zeros(layers * 2 * PADDED, np.float32)
        gradient = np.zeros_like(theta)
        x, target = rng.normal(size=8).astype(np.float32), rng.normal(size=8).astype(np.float32)
        window_gradient(
            cell.kernels(8), theta, x, target, h, c, 4, 2, 1, PADDED, layers, 1, 16, 3.0, 0.1, NOTHING, work, gradient
        )
        clip_gradient(gradient, 1.0, np.inf)
        update_parameters(ADAM, theta, gradient, first, second, np.full_like(theta, 0.1), update, 1e-2)
    network = theta_network(cell, theta, np.ones(1, np.float32), np.zeros((2, 9, 1)), 1, hidden, PADDED, layers, 16)
    assert np.array_equal(network_theta(network, PADDED, 16), theta)
    assert not np.array_equal(np.concatenate([p.reshape(-1) for layer in network.layers for p in layer]), units)


@pytest.mark.parametrize("name", CELLS)
def test_weights_are_packed_alike_by_training_and_by_a_network(name: str) -> None:
    for features, exogenous, layers, hidden in ((1, 0, 1, 4), (3, 2, 2, 20), (17, 1, 1, 33)):
        model = {"cell": name, "hidden_size": hidden, "num_layers": layers}
        shape = make_layout(Config.model_validate({"model": model}), features, exogenous, online=True)
        rng, wide, padded = np.random.default_rng(0), features + exogenous, -(-hidden // 16) * 16
        theta = initial_theta(CELLS[name], wide, hidden, padded, layers, shape.num_outputs, seed=0)
        readout = theta[-(padded + 1) * shape.num_outputs :].reshape(padded + 1, -1)
        targets = 3 * features
        readout[:hidden, :targets] = rng.normal(size=(hidden, targets))
        readout[padded, :targets] = rng.normal(size=targets)
        scale = rng.uniform(1, 2, targets).astype(np.float32)
        skip = rng.normal(size=(3, shape.num_regressors, features))
        network = theta_network(CELLS[name], theta, scale, skip, wide, hidden, padded, layers, shape.num_outputs)
        expected = network.packed()
        actual = np.zeros_like(expected)
        write_weights(shape.sizes, theta, scale, skip, actual)
        assert np.array_equal(actual, expected)


def naive_update(kind: str, theta: Any, g: Any, m: Any, v: Any, decay: float, update: int, rate: float) -> Any:
    """The parameters after an update; m and v are written."""
    if kind == "adamw":
        theta = theta - rate * decay * theta
    else:
        g = g + decay * theta
    if kind == "sgd":
        m[:] = 0.9 * m + g
        return theta - rate * m
    v[:] = 0.99 * v + 0.01 * g * g
    if kind == "rmsprop":
        return theta - rate * g / (np.sqrt(v) + 1e-8)
    m[:] = 0.9 * m + 0.1 * g
    return theta - rate * np.sqrt(1 - 0.99**update) / (1 - 0.9**update) * m / (np.sqrt(v) + 1e-8)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("kind", OPTIMISERS)
def test_optimisers_are_the_naive_ones(kind: str, decay: float) -> None:
    rng = np.random.default_rng(0)
    theta = rng.normal(size=200).astype(np.float32)
    expected, m, v = theta.astype(float), np.zeros(200), np.zeros(200)
    first, second, decays = np.zeros_like(theta), np.zeros_like(theta), np.full(200, decay, np.float32)
    for update in range(1, 61):
        gradient = (rng.normal(size=200) * 10.0 ** rng.uniform(-3, 1)).astype(np.float32)
        g = gradient.astype(float)
        g *= min(1, 1 / np.linalg.norm(g))
        clip_gradient(gradient, 1.0, np.inf)
        update_parameters(OPTIMISERS[kind], theta, gradient, first, second, decays, update, 1e-2)
        expected = naive_update(kind, expected, g, m, v, decay, update, 1e-2)
    assert np.abs(theta - expected).max() < 5e-6
    before = theta.copy()
    update_parameters(OPTIMISERS[kind], theta, *np.zeros((4, 200), np.float32), 1, 1e-2)
    assert np.array_equal(theta, before)


# Ten steps of torch.optim with PyTorch 2.15.0, float64, on 2026-11-26, of the gradient a p + b of four parameters p.
OF_PYTORCH = {
    "adam": [0.0472221, -1.0102003, 1.5103402, 2.0024170],
    "adamw": [-0.0014864, -0.8634454, 1.4193809, 1.7586219],
    "rmsprop": [0.5365313, -1.5073764, 1.0922079, 2.4973105],
    "sgd": [0.4742068, -1.1363234, 0.8654191, 1.9427528],
}


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_ten_steps_of_optimisers_are_those_of_pytorch(kind: str) -> None:
    """With weight_decay .1; betas .9 and .99 (alpha .99, momentum .9); rates .1, and .01 for rmsprop and sgd."""
    theta, a, b = np.array([[1, -2, 0.5, 3], [1, 0.5, -2, 0.1], [0.3, -1, 0.2, 2]], np.float32)
    first, second, decay = np.zeros(4, np.float32), np.zeros(4, np.float32), np.full(4, 0.1, np.float32)
    for update in range(1, 11):
        rate = 0.1 if kind.startswith("adam") else 0.01
        update_parameters(OPTIMISERS[kind], theta, a * theta + b, first, second, decay, update, rate)
    assert theta == pytest.approx(OF_PYTORCH[kind], abs=2e-6)


def test_masks_leave_out_the_share_that_is_asked_for() -> None:
    work = make_work(CELLS["lstm"].kernels(PADDED), 50, 8, 1, PADDED, 2, 16)
    draw_masks(work, 0.25, 0.5, np.random.default_rng(0))
    for mask, share in ((work.keep, 0.25), (work.keep_h, 0.5)):
        assert set(mask) == {np.float32(0), np.float32(1 / (1 - share))}
        assert (mask == 0).mean() == pytest.approx(share, abs=0.1)
    draw_masks(work, 0.25, 0.5, None)
    assert set(work.keep) | set(work.keep_h) == {np.float32(1)}


@pytest.mark.parametrize(("name", "layers"), [("lstm", 1), ("gru", 2)])
def test_predictions_that_are_fed_back_are_inputs_like_any_other(name: str, layers: int) -> None:
    """Loss and gradient are those of a window whose inputs are what the naive network says."""
    T, B, I, F, hidden, O = 9, 4, 3, 2, 5, 16
    cell, rng = cell_named(name), np.random.default_rng(layers)
    kernels = cell.kernels(hidden)
    theta = initial_theta(cell, I, hidden, PADDED, layers, O, seed=1)
    theta[-(PADDED + 1) * O :].reshape(PADDED + 1, O)[[*range(hidden), PADDED], :F] = rng.normal(0, 1, (hidden + 1, F))
    x, target = (rng.normal(size=(T, B, width)).astype(np.float32) for width in (I, F))
    linear = rng.normal(size=(T, B, F)).astype(np.float32)
    linear[0, 1] = np.nan
    unit, bound, mean, factor = np.array([[0.5, 2.0], [5.0, 0.7], [0.1, 0.0], [1.5, 1.0]], np.float32)
    state = np.zeros((2, layers, B, PADDED), np.float32)
    state[..., :hidden] = rng.uniform(-0.5, 0.5, (2, layers, B, hidden))
    work = make_work(kernels, T, B, I, PADDED, layers, O, F)
    work.feedback[:] = np.concatenate([unit, bound, mean, factor])
    draw_feedback(work, linear, 0.5, rng)
    fed = ~np.isnan(work.linear.reshape(T, B, F))
    assert 0.3 < fed.mean() < 0.7
    assert np.array_equal(fed[..., 0], fed[..., 1])

    def run(inputs: Any, work: Any) -> Any:
        h, c, out = state[0].reshape(-1).copy(), state[1].reshape(-1).copy(), np.zeros_like(theta)
        loss = window_gradient(kernels, theta, inputs.reshape(-1), target.reshape(-1), h, c, T, B, I, PADDED, layers, F, O,
                               3.0, 0.1, NOTHING, work, out)  # fmt: skip
        return loss, out

    made, V, bias = split(cell, theta.astype(float), I, layers, F, PADDED)
    hs, cs = (list(part.astype(float)) for part in state)
    inputs = x.copy()
    for t in range(T):
        said = np.clip(linear[t] + unit * (hs[-1] @ V + bias), -bound, bound)
        inputs[t, :, :F] = np.where(fed[t], (said - mean) * factor, x[t, :, :F])
        naive.network_step(name, inputs[t].astype(float), hs, cs, made)
    assert np.abs(inputs - x).max() > 0.5
    loss, gradient = run(x, work)
    expected_loss, expected = run(inputs, make_work(kernels, T, B, I, PADDED, layers, O))
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert np.abs(gradient - expected).max() < 1e-5 * np.abs(expected).max()
    draw_feedback(work, linear, 0.5, None)
    expected_loss, expected = run(x, make_work(kernels, T, B, I, PADDED, layers, O))
    loss, gradient = run(x, work)
    assert (loss, gradient.tobytes()) == (expected_loss, expected.tobytes())


@pytest.mark.parametrize("name", CELLS)
def test_the_gradient_of_normalised_weights_is_that_of_finite_differences(name: str) -> None:
    """Any function of the weights will do: here a weighted sum of their squares."""
    cell, I, H, L, O = CELLS[name], 3, 5, 2, 16
    norm, rng = WeightNorm(cell, I, H, PADDED, L), np.random.default_rng(0)
    theta = initial_theta(cell, I, H, PADDED, L, O, seed=1)
    learned = norm.begun(theta)
    assert len(learned) == len(theta) + norm.gains
    assert np.allclose(norm.multiplied_out(learned), theta, rtol=1e-6, atol=0)
    learned[-norm.gains :] *= rng.uniform(0.5, 2, norm.gains)  # a length that is not that of v
    coefficients = rng.normal(size=len(theta))

    def naive_weights(parameters: Any) -> Any:
        """Parameters (float64) with each column of each matrix multiplied out."""
        out, at, gain, wide, G = parameters[: len(theta)].copy(), 0, len(theta), I, cell.gates * PADDED
        for layer in range(L):
            own = wide if layer == 0 else H
            for first, rows in ((at, own), (at + wide * G, H)):
                W = out[first : first + rows * G].reshape(rows, G)
                lengths = np.sqrt((W**2).sum(axis=0))
                for j in np.flatnonzero(lengths):
                    W[:, j] *= parameters[gain + j] / lengths[j]
                gain += G
            at, wide = at + (wide + PADDED + 1) * G + cell.vectors * PADDED, PADDED
        return out

    weights = naive_weights(learned.astype(float))
    assert np.allclose(norm.multiplied_out(learned), weights, rtol=1e-6, atol=1e-9)
    actual = norm.gradient(learned, (2 * coefficients * weights).astype(np.float32))
    padding = np.flatnonzero(learned == 0)
    assert not norm.multiplied_out(learned)[padding[padding < len(theta)]].any()
    for p in rng.permutation(np.flatnonzero(learned))[:150]:
        step = np.zeros(len(learned))
        step[p] = 1e-5
        up, down = ((coefficients * naive_weights(learned.astype(float) + sign * step) ** 2).sum() for sign in (1, -1))
        assert actual[p] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=2e-6), p


@pytest.mark.parametrize("name", CELLS)
def test_folded_weights_make_of_inputs_what_the_others_make_of_normalised_ones(name: str) -> None:
    T, B, I, H, L, O, rng = 20, 5, 3, 6, 2, 16, np.random.default_rng(1)
    cell = CELLS[name]
    theta = initial_theta(cell, I, H, PADDED, L, O, seed=1)
    theta[-(PADDED + 1) * O :].reshape(PADDED + 1, O)[[*range(H), PADDED], :2] = rng.normal(size=(H + 1, 2))
    x = (rng.normal(size=(T, B, I)) * [1, 3, 0.2] + [0, -2, 1]).astype(np.float32)
    target = rng.normal(size=(T, B, 2)).astype(np.float32)
    mean, variance = np.array([0.1, -1.7, 0.9]), np.array([1.2, 8.0, 0.05])
    factor = inverse_deviation(variance)
    folded = fold_inputs(cell, theta, mean, factor, I, H, PADDED, L)
    found = []
    for parameters, inputs in ((theta, ((x - mean) * factor).astype(np.float32)), (folded, x)):
        h, c = np.zeros((2, L * B * PADDED), np.float32)
        work = make_work(cell.kernels(H), T, B, I, PADDED, L, O)
        loss = window_gradient(cell.kernels(H), parameters, inputs.reshape(-1), target.reshape(-1), h, c, T, B, I, PADDED, L,
                               2, O, 3.0, 1.0, NOTHING, work, np.zeros(0, np.float32))  # fmt: skip
        found.append((loss, h))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    assert np.abs(found[1][1] - found[0][1]).max() < 1e-5
    assert np.abs(found[0][1]).max() > 0.1


def test_statistics_of_inputs_run_on_and_pass_padding_by() -> None:
    x = np.arange(24, dtype=np.float32).reshape(4, 2, 3) ** 2
    target = np.zeros((4, 2, 1), np.float32)
    target[3, 1] = np.nan
    running = np.stack([np.zeros(3), np.ones(3)])
    mean, factor = normalise_window(x, target, running)
    rows = x.reshape(8, 3)[:7]
    assert mean == pytest.approx(rows.mean(axis=0))
    assert factor == pytest.approx(1 / np.sqrt(rows.var(axis=0) + 1e-2))
    assert running[0] == pytest.approx(0.1 * rows.mean(axis=0))
    assert running[1] == pytest.approx(0.9 + 0.1 * rows.var(axis=0, ddof=1))
    kept = running.copy()
    target[:] = np.nan
    assert np.array_equal(normalise_window(x, target, running)[0], kept[0])
    assert np.array_equal(running, kept)


def test_a_gradient_is_cut_by_value_then_by_norm() -> None:
    gradient = np.array([3, -4, 0.5], np.float32)
    assert clip_gradient(gradient, 10.0, 1.0) == 1.5
    assert gradient.tolist() == [1, -1, 0.5]
    assert clip_gradient(gradient, 0.75, np.inf) == 1.5
    assert gradient.tolist() == [0.5, -0.5, 0.25]
    wild = np.array([np.inf, 1], np.float32)
    assert clip_gradient(wild, 1.0, np.inf) == np.inf
    assert np.isnan(clip_gradient(np.array([np.nan, 1], np.float32), 1.0, 1.0))


@pytest.mark.parametrize(
    ("schedule", "expected"),  # of updates 1, 10, 30, 50, 51, 75, 76 and 100
    [
        ("cosine", [0.05, 0.4878, 0.7939, 0.5, 0.4843, 0.1464, 0.1355, 0]),
        ("constant", [0.05, 0.5, 1, 1, 1, 1, 1, 1]),
        ("step", [0.05, 0.5, 1, 1, 0.1, 0.1, 0.01, 0.01]),
        ("one_cycle", [0.0426, 0.28, 1, 0.8117, 0.7939, 0.2831, 0.2631, 1e-5]),
    ],
)
def test_schedules(schedule: str, expected: list[float]) -> None:
    actual = [rate_at(schedule, 2.0, update, 100) / 2 for update in (1, 10, 30, 50, 51, 75, 76, 100)]
    assert actual == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize(
    "training",
    [
        {"optimiser": "adamw", "weight_decay": 0.01},
        {"optimiser": "rmsprop", "schedule": "constant"},
        {"recurrent_dropout": 0.2},
        {"weight_norm": True, "weight_decay": 0.001},
        {"input_norm": True, "scheduled_sampling": 0.2},
        {"optimiser": "sgd", "rate": 0.1, "schedule": "one_cycle"},
        {"loss": "squared", "clip_value": 0.1, "schedule": "step"},
    ],
    ids=["adamw", "rmsprop", "dropout", "weight norm", "input norm", "sgd", "squared"],
)  # fmt: skip
def test_a_fit_learns_with_each(training: dict[str, Any], synthetic: Make) -> None:
    """Less is left over on the held-out tail than by the skip alone."""
    model = fit(synthetic(rows=1500), small(updates=200, holdout=0.2, **training), ("value",))
    assert model.training["held_out_loss"] < model.training["held_out_loss_of_skip"]
    assert fit(synthetic(rows=1500), small(updates=200, holdout=0.2, **training), ("value",)).hash == model.hash


def test_biases_do_not_decay() -> None:
    cell = CELLS["peephole_lstm"]
    mask = matrices(cell, 2, 4, PADDED, 2, 16)
    network = theta_network(cell, mask, np.ones(3, np.float32), np.zeros((3, 17, 1)), 2, 4, PADDED, 2, 16)
    for layer in network.layers:
        assert layer.W_ih.all()
        assert layer.W_hh.all()
        assert not layer.bias.any()
        assert not layer.vectors.any()
    assert network.readout.all()
    assert not network.readout_bias.any()


def test_ridge_is_the_naive_one() -> None:
    rng = np.random.default_rng(0)
    for rows, P, D, penalty in ((500, 9, 1, 1.0), (40, 27, 3, 0.1), (5, 9, 2, 10.0)):
        A = rng.normal(size=(rows, P)).astype(np.float32)
        A[:, 0] = 1
        Y = (A @ rng.normal(size=(P, D)) + 5 + rng.normal(size=(rows, D))).astype(np.float32)
        Y[3, D - 1] = np.nan
        gram, cross, actual = np.zeros((P, P)), np.zeros((P, D)), np.zeros((P, D))
        used = add_moments(A[: rows // 2], Y[: rows // 2], gram, cross, 0)
        assert add_moments(A[rows // 2 :], Y[rows // 2 :], gram, cross, used) == rows - 1
        whole = ~np.isnan(Y).any(axis=1)
        for intercept in (True, False):
            solve_ridge(gram, cross, penalty, intercept, np.zeros((P, P)), actual)
            expected = naive.ridge(A[whole].astype(float), Y[whole].astype(float), penalty, intercept)
            assert np.abs(actual - expected).max() < 1e-6 * max(1, np.abs(expected).max())


def test_every_record_lies_in_one_lane() -> None:
    rng = np.random.default_rng(0)
    lengths = [1, 5, 64, 33, 200]
    numbers = iter(range(1, 1000))
    series = []
    for n in lengths:
        values = np.array([next(numbers) for _ in range(n)], np.float32)[:, None]
        series.append(Series(values, values, values))
    for window, lanes in ((8, 4), (32, 1), (16, 64), (4, int(rng.integers(2, 9)))):
        groups = make_lanes(series, window, lanes)
        found = np.concatenate([group.target[~np.isnan(group.target)] for group in groups])
        assert sorted(found.tolist()) == list(range(1, sum(lengths) + 1))
        for group in groups:  # a stretch begins without a record before it
            assert np.isnan(group.linear[0]).all()
            assert np.array_equal(group.linear[1:], group.target[1:], equal_nan=True)
        assert all(len(group.inputs) % window == 0 and group.inputs.shape[1] <= lanes for group in groups)
        assert sum(group.values(1) for group in groups) == sum(lengths)
    assert make_lanes([], 8, 4) == []


# Fits.


@pytest.fixture(scope="module")
def model(synthetic: Make) -> Model:
    return fit(synthetic(features=2, exogenous=1, missing=0.05), small(), ("a", "b"), ("c",))


def test_one_seed_gives_one_model(synthetic: Make, model: Model) -> None:
    data = synthetic(features=2, exogenous=1, missing=0.05)
    assert fit(data, small(), ("a", "b"), ("c",)).hash == model.hash
    assert fit(data, small(seed=1), ("a", "b"), ("c",)).hash != model.hash


def test_the_lstm_is_never_worse_than_the_skip_on_the_held_out_tail(synthetic: Make) -> None:
    noise = {"s": Recording(np.arange(300), np.random.default_rng(0).normal(size=(300, 1)))}
    wild = fit(noise, small(rate=1.0, updates=40, holdout=0.15), ("a",))
    for training in (wild.training, fit(synthetic(), small(patience=1, holdout=0.15), ("a",)).training):
        assert training["held_out_loss"] <= training["held_out_loss_of_skip"]
    assert not wild.network.readout.any() or wild.training["best_update"] > 0


def test_the_lstm_learns_what_the_skip_cannot(synthetic: Make) -> None:
    """A value that depends on the product of an input's sign with the last value is no linear function of them."""
    rng = np.random.default_rng(0)
    known = rng.choice([-1.0, 1.0], 3000)
    x = np.zeros(3000)
    for t in range(1, 3000):
        x[t] = 0.9 * known[t] * np.tanh(2 * x[t - 1]) + 0.3 * rng.normal()
    data = {"s": Recording(np.arange(3000), np.stack([x, known], axis=1))}
    training = fit(data, small(updates=400, rate=1e-2, holdout=0.15), ("x",), ("k",)).training
    assert training["held_out_loss"] < 0.6 * training["held_out_loss_of_skip"]


def test_scheduled_sampling_lowers_the_free_running_error_on_a_sine_with_noise() -> None:
    """Gaps of 60 records, in which predictions stand in: a network that never read its own ones overfits and runs away."""
    clean = np.sin(2 * np.pi * np.arange(2800) / 25)
    gap = np.arange(2800) % 260 >= 200
    ratios = []
    for seed in range(3):
        noisy = clean + 0.5 * np.random.default_rng(seed).normal(size=len(clean))
        data = {"s": Recording(np.arange(500), noisy[:500, None])}
        then = np.where(gap, np.nan, noisy)[500:]
        errors = []
        for share in (0.0, 1.0):
            training = {"updates": 400, "rate": 0.01, "scheduled_sampling": share, "seed": seed}
            config = Config.model_validate({"model": {"hidden_size": 16, "calendar": False}, "training": training})
            batch = Detector(model=fit(data, config, ("a",))).process_batch(["s"] * len(then), None, then)
            errors.append(np.sqrt(np.mean((batch.expected[:, 0] - clean[500:])[gap[500:]] ** 2)))
        ratios.append(errors[1] / errors[0])
    assert max(ratios) < 0.8, ratios


def test_progress_is_told(synthetic: Make) -> None:
    told: list[Progress] = []
    model = fit(synthetic(), small(updates=5), ("a",), on_progress=told.append)
    assert [progress.update for progress in told] == [1, 2, 3, 4, 5]
    assert all(np.isfinite(progress.loss) and progress.rows_per_second > 0 for progress in told)
    assert model.training["updates"] == 5


def test_settings_at_their_ends(synthetic: Make) -> None:
    untrained = fit(synthetic(), small(updates=0), ("a",))
    assert not untrained.network.readout.any()
    assert untrained.training["loss"] is None
    kept = fit(synthetic(), small(holdout=0.0, updates=20), ("a",))
    assert kept.training["best_update"] == kept.training["updates"] == 20
    assert kept.training["held_out_loss"] is not None or kept.network.readout.any()


@pytest.mark.parametrize("value", [0.0, 7.0, -1e12])
def test_fit_on_a_constant(value: float) -> None:
    model = fit({"s": Recording(np.arange(200), np.full((200, 1), value))}, small(), ("a",))
    assert model.starts is not None
    assert all(np.isfinite(array).all() for array in model.tensors().values())
    actual = Detector(model=model).process_batch(["s"] * 300, None, np.full(300, value))
    assert set(actual.stage.tolist()) == {1} or not actual.flag.any()
    assert actual.score.max() < 1


@pytest.mark.parametrize("holdout", [0.0, 0.5])
@pytest.mark.parametrize("training", [{}, {"weight_norm": True, "input_norm": True, "scheduled_sampling": 0.5}])
def test_fit_on_less_than_one_window(training: dict[str, Any], holdout: float) -> None:
    """What is missing of the window counts for nothing; a column that stands still harms none of the others."""
    x = np.stack([np.sin(np.arange(60) / 3), np.full(60, 7.0), np.zeros(60)], axis=1)
    config = small(window=512, holdout=holdout, rate=0.01, **training)
    data = {"s": Recording(np.arange(60), x)}
    model = fit(data, config, ("a", "b"), ("c",))
    assert model.training["curve"][-1][1] < model.training["curve"][0][1]
    assert all(np.isfinite(array).all() for array in model.tensors().values())
    x[30:, 1:] = 8, 1
    actual = Detector(model=model).process_batch(["s"] * 60, None, x)
    assert np.isfinite(actual.score).all()
    assert np.isfinite(actual.expected).all()
    assert np.abs(actual.expected[:30] - x[:30, :2]).max() < 1


@pytest.mark.parametrize("setting", ["weight_norm", "input_norm"])
def test_fit_on_constants_alone(setting: str) -> None:
    config = small(holdout=0.2, scheduled_sampling=0.5, **{setting: True})
    model = fit({"s": Recording(np.arange(200), np.full((200, 2), 3.0))}, config, ("a", "b"))
    actual = Detector(model=model).process_batch(["s"] * 300, None, np.full((300, 2), 3.0))
    assert np.abs(actual.expected - 3).max() < 1e-3
    assert not actual.flag.any()


def wild(**training: Any) -> Config:
    """A configuration whose training runs away within 40 updates, whatever the seed: rectified sums, steps without bounds."""
    steps = {
        "optimiser": "sgd",
        "rate": 1.0,
        "clip_norm": 1e30,
        "loss": "squared",
        "schedule": "constant",
        "updates": 60,
    }
    model = {"cell": "rnn_relu", "hidden_size": 64, "num_layers": 2}
    return Config.model_validate({"model": model, "training": steps | {"patience": 99} | training})


def test_a_training_that_runs_away_says_so(synthetic: Make) -> None:
    data = synthetic(features=2)
    with pytest.raises(
        InputError, match=r"fit: the gradient is not finite at update \d+, largest for feature '[ab]'; lower"
    ):
        fit(data, wild(updates=600), ("a", "b"))  # looks at its parameters after 50
    for config in (wild(), wild(holdout=0.2)):
        kept = fit(data, config, ("a", "b"))
        assert "is not finite at update" in kept.training["stopped"]
        assert kept.training["best_update"] < kept.training["updates"] < 60
        assert np.abs(kept.network.readout).max() < 100
        assert "It stopped early: the gradient" in training_section(kept.training)
    assert kept.training["held_out_loss"] <= kept.training["held_out_loss_of_skip"]
    assert "stopped" not in fit(data, small(), ("a", "b")).training


def test_the_best_parameters_of_a_training_that_breaks_are_kept(
    synthetic: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its 30th update meets an infinite parameter; after each fifth one it had looked at the parameters."""
    step, calls = bptt.update_parameters, 0

    def broken(kind: int, theta: Any, *others: Any) -> None:
        nonlocal calls
        calls += 1
        step(kind, theta, *others)
        if calls == 29:
            theta[:] = np.inf

    straight = fit(synthetic(), small(updates=60, schedule="constant"), ("a",))
    monkeypatch.setattr(bptt, "update_parameters", broken)
    told: list[Progress] = []
    model = fit(synthetic(), small(updates=60, schedule="constant"), ("a",), on_progress=told.append)
    assert (
        model.training["stopped"] == "the loss is not finite at update 30, for feature 'a'; lower training.rate (0.003)"
    )
    best = model.training["best_update"]
    assert (best in (5, 10, 15, 20, 25), model.training["updates"], len(told)) == (True, 30, 30)
    monkeypatch.undo()
    monkeypatch.setattr(bptt, "_CHECKS", 1)
    assert model.hash == fit(synthetic(), small(updates=best, schedule="constant"), ("a",)).hash != straight.hash


def test_the_features_to_blame_are_named() -> None:
    top, target = np.ones((4, 2), np.float32), np.zeros((4, 6), np.float32)
    target[0] = np.nan
    readout = np.zeros((3, 6), np.float32)
    readout[2, 5] = 3
    losses = divergence.losses_by_feature(top, readout, target)
    assert losses.tolist() == [0, 27]
    assert divergence.told(losses, ("a", "b")) == "largest for feature 'b'"
    readout[0, 2] = np.inf
    assert divergence.told(divergence.losses_by_feature(top, readout, target), ("a", "b")) == "for feature 'a'"
    assert divergence.told(np.array([np.nan, 1, np.inf]), ("a", "b", "c")) == "for features 'a', 'c'"
    assert divergence.told(np.full(2, np.nan), ("a", "b")) == "for every feature"


def test_fit_with_a_feature_missing_half_of_the_time() -> None:
    rng = np.random.default_rng(0)
    x = np.stack([np.sin(np.arange(600) / 7), np.cos(np.arange(600) / 7)], axis=1) + 0.05 * rng.normal(size=(600, 2))
    x[rng.uniform(size=600) < 0.5, 1] = np.nan
    x[:30, 0] = np.nan
    model = fit({"s": Recording(np.arange(600), x)}, small(), ("a", "b"))
    actual = Detector(model=model).process_batch(["s"] * 600, None, x)
    assert np.isfinite(actual.score).all()
    assert np.isfinite(actual.expected).all()
    assert actual.score[200:].max() < 5


def test_fit_where_one_stream_lacks_a_feature(synthetic: Make) -> None:
    data = synthetic(features=2)
    data["stream-1"].x[:, 1] = np.nan
    model = fit(data, small(updates=10), ("a", "b"))
    actual = Detector(model=model).process_batch(["stream-1"] * 100, None, data["stream-1"].x[:100])
    assert np.isfinite(actual.score).all()
    assert set(actual.imputed.tolist()) == {1}


def test_the_first_record_after_a_gap_is_no_lesson(synthetic: Make) -> None:
    """Where a stream begins anew in use; where it goes on, the record counts like any other."""
    one = next(iter(synthetic(streams=1, rows=600).values()))
    time = one.time.copy()
    time[300:] += 3_600_000_000_000
    masked = {}
    for on_gap in ("reset", "carry"):
        config = Config.model_validate({"time": {"gap_s": 600, "on_gap": on_gap}, "training": {"updates": 4}})
        layout = make_layout(config, 1, 0, online=False)
        series = learn_fit._regress(Recording(time, one.x), input_statistics(one.x, 1), layout, 5.0)
        masked[on_gap] = np.flatnonzero(np.isnan(series.target[:, 0])).tolist()
        assert fit({"s": Recording(time, one.x)}, config, ("value",)).training["rows"] == 600
    assert masked == {"reset": [300], "carry": []}
    assert after_gaps(np.array([0, 5, NO_TIME, 100, 3, 101]), 20).tolist() == [False, False, False, True, False, False]
    assert not after_gaps(np.array([NO_TIME] * 3), 20).any()


def test_what_cannot_be_fitted(synthetic: Make) -> None:
    short = synthetic(rows=LEAST_ROWS - 1)
    with pytest.raises(InputError, match=f"longest stream has {LEAST_ROWS - 1} records, at least {LEAST_ROWS}"):
        fit(short, small(), ("a",))
    with pytest.raises(InputError, match="longest stream has 0 records"):
        fit({}, small(), ("a",))
    mixed = synthetic() | {"short": short["stream-0"]}
    assert fit(mixed, small(updates=0), ("a",)).training["streams_too_short"] == 1
    empty = {key: Recording(one.time, np.full_like(one.x, np.nan)) for key, one in synthetic().items()}
    with pytest.raises(InputError, match="feature 'a' has no value"):
        fit(empty, small(), ("a",))
    normalised = Config.model_validate({"model": {"layer_norm": True}, "training": {"input_norm": True}})
    with pytest.raises(ConfigError, match=r"training\.input_norm: there is no such thing with model\.layer_norm"):
        fit(synthetic(), normalised, ("a",))


# Model files.


def test_a_model_comes_back_from_its_file(tmp_path: Path, synthetic: Make, model: Model) -> None:
    path = tmp_path / "m.safetensors"
    save_model(model, path)
    back = load_model(path)
    assert back.hash == model.hash
    assert (back.features, back.exogenous, back.config) == (model.features, model.exogenous, model.config)
    assert back.training == model.training
    assert model.starts is not None
    assert back.starts is not None
    assert back.starts.keys == model.starts.keys
    x = synthetic(features=2, exogenous=1)["stream-1"].x
    expected, actual = (Detector(model=one).process_batch(["stream-1"] * len(x), None, x) for one in (model, back))
    assert actual.score.tobytes() == expected.score.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]
    with pytest.raises(OutputError, match="cannot write"):
        save_model(model, tmp_path / "no" / "such" / "folder")


def test_damaged_model_files(tmp_path: Path, model: Model) -> None:
    path, good = tmp_path / "m.safetensors", tmp_path / "good.safetensors"
    save_model(model, good)
    data = good.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    flipped = bytearray(data)
    flipped[header + 100] ^= 1
    for damaged in (b"", b"x", data[:7], data[: header // 2], data[:header], data[:-1], data + b"x", data[9:], flipped):
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"m\.safetensors: "):
            load_model(path)
    with pytest.raises(ModelError, match="no such file"):
        load_model(tmp_path / "none.safetensors")
    with pytest.raises(ModelError):
        load_model(tmp_path)


def test_files_that_are_no_models(tmp_path: Path, model: Model) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors.numpy.save({"weight": np.zeros(3, np.float32)}))
    with pytest.raises(ModelError, match="not a model of streamlstm"):
        load_model(path)
    path.write_text("timestamp,value\n1,2\n")
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_model(path)
    detector = Detector(model=model)
    detector.snapshot(path)
    with pytest.raises(ModelError, match="it is a snapshot"):
        load_model(path)
    ours = {"streamlstm": "model", "format": "99", "description": "{}"}
    for metadata, words in ((ours, "format 99"), (ours | {"format": FORMAT}, "damaged")):
        path.write_bytes(safetensors.numpy.save({"weight": np.zeros(3, np.float32)}, metadata))
        with pytest.raises(ModelError, match=words):
            load_model(path)


def test_a_model_for_other_columns(model: Model) -> None:
    with pytest.raises(ModelError, match="fitted on features a, b with exogenous c"):
        Detector(model=model, features=("a",))
    with pytest.raises(ModelError, match="has hidden_size 8, the configuration says 16"):
        Detector({"model": {"hidden_size": 16}}, model=model)


# Interrupted trainings.


class _Interrupter:
    """Raises KeyboardInterrupt after some updates, as Ctrl-C does."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, progress: Any) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 7, 23, 59])
def test_an_interrupted_training_goes_on_to_the_same_model(synthetic: Make, tmp_path: Path, after: int) -> None:
    data = synthetic(features=2)
    config = small(window=16, lanes=4, dropout=0.1, recurrent_dropout=0.2, optimiser="adamw", holdout=0.2, patience=50,
                   scheduled_sampling=0.5, weight_norm=True, input_norm=True)  # fmt: skip
    kept = tmp_path / "training"
    with pytest.raises(KeyboardInterrupt):
        fit(data, config, ("a", "b"), on_progress=_Interrupter(after), checkpoint=kept)
    with pytest.raises(KeyboardInterrupt):  # and once more
        fit(data, config, ("a", "b"), on_progress=_Interrupter(1), checkpoint=kept)
    resumed = fit(data, config, ("a", "b"), checkpoint=kept)
    assert not kept.exists()
    straight = fit(data, config, ("a", "b"))
    assert resumed.hash == straight.hash
    assert resumed.training["curve"] == straight.training["curve"]
    assert {name for name in straight.training if straight.training[name] != resumed.training[name]} <= {"seconds"}


def test_an_update_that_was_cut_in_two_counts_for_nothing(
    synthetic: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, kept, calls = synthetic(), tmp_path / "training", 0
    step = bptt.update_parameters

    def cut(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        step(*arguments)
        if calls == 9:
            raise KeyboardInterrupt

    monkeypatch.setattr(bptt, "update_parameters", cut)
    with pytest.raises(KeyboardInterrupt):
        fit(data, small(), ("a",), checkpoint=kept)
    monkeypatch.undo()
    assert fit(data, small(), ("a",), checkpoint=kept).hash == fit(data, small(), ("a",)).hash


def test_another_training_is_not_taken_for_this_one(synthetic: Make, tmp_path: Path) -> None:
    kept = tmp_path / "training"
    with pytest.raises(KeyboardInterrupt):
        fit(synthetic(), small(), ("a",), on_progress=_Interrupter(3), checkpoint=kept)
    for data, config in ((synthetic(seed=1), small()), (synthetic(), small(rate=1e-2))):
        with pytest.raises(ModelError, match="a training of other data or settings; remove it to begin anew"):
            fit(data, config, ("a",), checkpoint=kept)
    kept.write_bytes(kept.read_bytes()[:-5])
    with pytest.raises(ModelError, match="damaged"):
        fit(synthetic(), small(), ("a",), checkpoint=kept)


def test_the_report_shows_how_the_training_went(synthetic: Make) -> None:
    training = fit(synthetic(), small(holdout=0.2), ("a",)).training
    assert [point[0] for point in training["curve"]] == list(range(1, 61))
    section = training_section(training)
    assert section.count("<path") == 5  # two curves, their two legends and the axes
    assert "60 updates" in section
    assert "nan" not in section
    assert training_section({}) == ""
    assert training_section({"curve": [[1, None, None], [2, None, None]]}) == ""
