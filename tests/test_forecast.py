"""Forecasts: their losses, their fit, what they are worth, and that no event knows of them."""

import math
from typing import Any

import naive
import numpy as np
import pytest

from streamlstm.kernels.bptt import make_work, window_gradient
from streamlstm.kernels.cells import CELLS
from streamlstm.kernels.losses import Ahead, write_losses
from streamlstm.model.parameters import initial_theta

LEVELS = np.array([0.1, 0.5, 0.8], np.float32)
NO_LEVELS = np.zeros(0, np.float32)


# Losses.


@pytest.mark.parametrize("levels", [NO_LEVELS, LEVELS], ids=["gaussian", "pinball"])
@pytest.mark.parametrize("huber", [1.5, math.inf])
def test_losses_are_the_naive_ones_and_their_gradient_that_of_finite_differences(levels: Any, huber: float) -> None:
    rng = np.random.default_rng(0)
    D, M, weight, scale = 3, 4, 0.3, 0.25
    outputs = D + M * (len(levels) or 2)
    for wild in (1.0, 4.0, 30.0):
        y = np.zeros(16, np.float32)
        y[:outputs] = rng.normal(size=outputs) * min(wild, 4.0)
        target = (rng.normal(size=D + M) * wild).astype(np.float32)
        target[[0, D + 2]] = np.nan

        def loss_of(y: Any, target: Any = target) -> Any:
            return naive.row_loss(y, target.astype(float), D, huber, levels.astype(float), weight)

        actual = y.copy()
        loss = write_losses(actual, target, D, huber, scale, Ahead(M, levels, weight), 2.0)
        expected = y[:outputs].astype(float)
        assert loss - 2.0 == pytest.approx(loss_of(expected), rel=2e-6)
        for k in range(outputs):
            step = np.zeros(outputs)
            step[k] = 1e-6
            slope = (loss_of(expected + step) - loss_of(expected - step)) / 2e-6
            assert actual[k] == pytest.approx(scale * slope, rel=2e-5, abs=1e-6), k
        assert not actual[outputs:].any()
        assert not actual[[0, *range(D + 2, outputs, M)]].any()  # nothing is learned where nothing is known


@pytest.mark.parametrize("levels", [NO_LEVELS, LEVELS], ids=["gaussian", "pinball"])
def test_the_network_learns_from_heads_and_forecast(levels: Any) -> None:
    """The whole gradient, down to the weights of the recurrent layers, of a window with both kinds of targets."""
    T, B, I, H, L, D, M, O, huber, weight = 6, 3, 2, 16, 2, 3, 4, 32, 1.5, 0.5
    rng, cell = np.random.default_rng(0), CELLS["lstm"]
    theta = initial_theta(cell, I, H, H, L, O, seed=1)
    outputs = D + M * (len(levels) or 2)
    theta[-(H + 1) * O :].reshape(H + 1, O)[:, :outputs] = rng.normal(0, 0.5, (H + 1, outputs))
    x = rng.normal(size=(T, B, I)).astype(np.float32)
    target = rng.normal(size=(T, B, D + M)).astype(np.float32)
    target[rng.uniform(size=target.shape) < 0.3] = np.nan
    kernels, gradient = cell.kernels(H), np.zeros_like(theta)
    h, c = np.zeros((2, L * B * H), np.float32)
    loss = window_gradient(kernels, theta, x.reshape(-1), target.reshape(-1), h, c, T, B, I, H, L, D, O, huber, 0.25,
                           Ahead(M, levels, weight), make_work(kernels, T, B, I, H, L, O), gradient)  # fmt: skip

    def loss_of(theta: Any) -> Any:
        layers, at, wide = [], 0, I
        for _ in range(L):
            W = theta[at : at + (wide + H) * 4 * H].reshape(wide + H, 4 * H)
            bias = theta[at + W.size : at + W.size + 4 * H]
            layers.append({"weight_ih": W[:wide].T, "weight_hh": W[wide:].T, "bias_ih": bias, "bias_hh": 0 * bias})
            at, wide = at + W.size + 4 * H, H
        readout = theta[at:].reshape(H + 1, O)
        begin, ones = [np.zeros((B, H))] * L, np.ones((L, T, B, H))
        return naive.window_loss("lstm", layers, readout[:H, :outputs], readout[H, :outputs], x.astype(float),
                                 target.astype(float), begin, begin, huber, 0.25, ones, ones[:, 0], D,
                                 levels.astype(float), weight)  # fmt: skip

    theta = theta.astype(float)
    assert loss == pytest.approx(loss_of(theta), rel=1e-5)
    for p in rng.choice(np.flatnonzero(gradient), 80, replace=False):
        step = np.zeros(len(theta))
        step[p] = 1e-7
        expected = (loss_of(theta + step) - loss_of(theta - step)) / 2e-7
        assert gradient[p] == pytest.approx(expected, rel=2e-3, abs=2e-6), p
