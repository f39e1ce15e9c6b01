"""Forecasts: their losses, their fit, what they are worth, and that no event knows of them."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import naive
import numpy as np
import pytest

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.errors import InputError, ModelError, UsageError
from streamlstm.kernels.bptt import make_work, window_gradient
from streamlstm.kernels.cells import CELLS
from streamlstm.kernels.layout import RAW
from streamlstm.kernels.losses import Ahead, write_losses
from streamlstm.learn.fit import LEAST_ROWS, Recording, fit
from streamlstm.model.files import load_model, save_model
from streamlstm.model.network import Model
from streamlstm.model.parameters import initial_theta
from streamlstm.types import Forecast

Make = Callable[..., dict[str, Recording]]
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


# What a forecast is.


def settings(horizons: int = 3, loss: str = "gaussian", **training: Any) -> Config:
    """A configuration that is fitted in a moment."""
    forecast = {"horizons": horizons, "loss": loss}
    training = {"updates": 60} | training
    return Config.model_validate({"model": {"hidden_size": 8}, "training": training, "forecast": forecast})


@pytest.fixture(scope="module")
def data(synthetic: Make) -> dict[str, Recording]:
    return synthetic(features=2, exogenous=1, rows=3100, missing=0.02)


@pytest.fixture(scope="module")
def model(data: dict[str, Recording]) -> Model:
    return fit(data, settings(), ("a", "b"), ("c",))


def scored(model: Model, data: dict[str, Recording], rows: int = 3000) -> Detector:
    """A detector that has seen the first rows of one stream."""
    detector, one = Detector(model=model), data["stream-1"]
    detector.process_batch(["stream-1"] * rows, one.time[:rows], one.x[:rows])
    return detector


def same(one: Forecast, other: Forecast) -> bool:
    """Whether both say the same to the bit."""
    pairs = ((one.mean, other.mean), (one.scale, other.scale), (one.quantiles, other.quantiles))
    return all(b is None if a is None else b is not None and a.tobytes() == b.tobytes() for a, b in pairs)


@pytest.mark.parametrize("horizon", [0, 2])
def test_it_reads_the_network_as_the_next_prediction_does(
    model: Model, data: dict[str, Recording], horizon: int
) -> None:
    """With the raw head's weights in its place, a horizon says what the next record is then compared with."""
    assert model.outlook is not None
    network, outlook = model.network, model.outlook
    assert network.readout.any()
    assert np.array_equal(outlook.skip[0], network.skip[RAW])  # fitted on the same rows
    weight, bias, skip = outlook.weight.copy(), outlook.bias.copy(), outlook.skip.copy()
    unit = outlook.scale[horizon]
    weight[0, horizon] = network.readout[:2] / unit[:, None]
    bias[0, horizon] = network.readout_bias[:2] / unit
    skip[horizon] = network.skip[RAW]
    weight[1, horizon], bias[1, horizon] = 0, [0.5, -7]
    detector = scored(replace(model, outlook=replace(outlook, weight=weight, bias=bias, skip=skip)), data)
    spread = detector.pool.rows.stats[0, 6:8]
    for n in range(3000, 3010):
        time, x = int(data["stream-1"].time[n]), data["stream-1"].x[n]
        forecast = detector.forecast("stream-1", x[2:])
        assert forecast.mean is not None
        assert forecast.scale is not None
        assert forecast.mean[horizon] == pytest.approx(detector.process("stream-1", time, x).expected, abs=1e-5)
        expected = spread * unit * np.exp(5 * np.tanh(np.array([0.1, -1.4])))
        assert forecast.scale[horizon] == pytest.approx(expected, rel=1e-5)


def test_quantiles_ascend_whatever_the_readout_says(data: dict[str, Recording]) -> None:
    model = fit(data, settings(loss="pinball"), ("a", "b"), ("c",))
    assert model.outlook is not None
    crossed = replace(model, outlook=replace(model.outlook, bias=model.outlook.bias[::-1].copy()))
    for one in (model, crossed):
        forecast = scored(one, data).forecast("stream-1")
        assert forecast.quantiles is not None
        assert forecast.quantiles.shape == (3, 3, 2)
        assert (np.diff(forecast.quantiles, axis=0) >= 0).all()
        assert forecast.levels == (0.05, 0.5, 0.95)
        assert forecast.mean is forecast.scale is None


def test_no_event_knows_of_it(data: dict[str, Recording]) -> None:
    """Scores of two models that differ in the outlook alone, one of them asked all the time, are the same bits."""
    asked = fit(data, settings(), ("a", "b"), ("c",))
    silent = replace(asked, outlook=None, config=settings(0))
    one, other = (Detector(model=of) for of in (asked, silent))
    time, x = data["stream-1"].time, data["stream-1"].x
    for n in range(0, 600, 20):
        at = slice(n, n + 20)
        actual, expected = (of.process_batch(["stream-1"] * 20, time[at], x[at]) for of in (one, other))
        assert one.forecast("stream-1").mean is not None
        assert actual.score.tobytes() == expected.score.tobytes()
        assert actual.expected.tobytes() == expected.expected.tobytes()


def test_it_depends_on_the_streams_own_records_alone(model: Model, data: dict[str, Recording], tmp_path: Path) -> None:
    """The same bits one by one, in batches among other streams, in bounded memory, from a file, from a snapshot."""
    rows, own = 400, data["stream-1"]
    expected = scored(model, data, rows).forecast("stream-1")
    single = Detector(model=model)
    for time, x in zip(own.time[:rows].tolist(), own.x[:rows], strict=True):
        single.process("stream-1", time, x.tolist())
    save_model(model, tmp_path / "m.safetensors")
    mixed = Detector({"runtime": {"max_streams": 64}}, model=load_model(tmp_path / "m.safetensors"))
    for n in range(rows):
        keys = ["stream-1", "stream-0", *(f"other-{n}-{k}" for k in range(5))]
        mixed.process_batch(keys, np.full(7, own.time[n]), np.tile(own.x[n], (7, 1)))
    single.snapshot(tmp_path / "s.safetensors")
    for detector in (single, mixed, Detector.restore(tmp_path / "s.safetensors")):
        assert same(detector.forecast("stream-1"), expected)
        assert same(detector.forecast("stream-1"), expected)


def test_known_inputs_of_the_next_record_may_be_given(model: Model, data: dict[str, Recording]) -> None:
    detector = scored(model, data, 300)
    mean = float(detector.pool.rows.stats[0, 2])
    left_out = detector.forecast("stream-1")
    for missing in ([math.nan], [math.inf], [mean]):
        assert same(detector.forecast("stream-1", missing), left_out)
    assert not same(detector.forecast("stream-1", [mean + 1]), left_out)


def test_data_without_times(model: Model, data: dict[str, Recording]) -> None:
    detector = Detector(model=model)
    detector.process_batch(["stream-1"] * 300, None, data["stream-1"].x[:300])
    mean = detector.forecast("stream-1").mean
    assert mean is not None
    assert np.isfinite(mean).all()


# What it is worth.


def noisy(rows: int, seed: int) -> Any:
    """Two waves of 24 records: noise of .1, and noise that is .05 in one half of each wave and .4 in the other; both (n, 2)."""
    rng = np.random.default_rng(seed)
    t = np.arange(rows)[:, None]
    noise = np.concatenate([np.full((rows, 1), 0.1), np.where(t % 24 < 12, 0.05, 0.4)], axis=1)
    return np.sin(2 * np.pi * t / 24) + noise * rng.normal(size=(rows, 2)), noise


def forecasts(model: Model, rows: int, horizons: int) -> tuple[list[Forecast], Any, Any, Any]:
    """Forecasts after each of the later rows of a new series: with the true values, their noise, and the last values."""
    x, noise = noisy(rows, seed=1)
    detector = Detector(model=model)
    begin = 500
    detector.process_batch(["s"] * begin, None, x[:begin])
    said, true, of_noise, last = [], [], [], []
    for t in range(begin, rows - horizons):
        said.append(detector.forecast("s"))
        true.append(x[t : t + horizons])
        of_noise.append(noise[t : t + horizons])
        last.append(x[t - 1])
        detector.process_batch(["s"], None, x[t : t + 1])
    return said, np.array(true), np.array(of_noise), np.array(last)[:, None]


@pytest.fixture(scope="module")
def history() -> dict[str, Recording]:
    x, _ = noisy(6000, seed=0)
    return {"s": Recording(np.arange(len(x)), x)}


def test_mean_and_scale_of_a_noisy_wave(history: dict[str, Recording]) -> None:
    model = fit(history, settings(8, updates=400), ("even", "uneven"))
    said, true, noise, last = forecasts(model, 2000, 8)
    mean, scale = np.array([of.mean for of in said]), np.array([of.scale for of in said])
    rms, naive_rms, least = (np.sqrt((e**2).mean(axis=0)) for e in (mean - true, last - true, noise))
    assert (rms[3:] < 0.5 * naive_rms[3:]).all()
    assert (rms < 1.25 * least).all()  # what cannot be known
    inside = (np.abs(mean - true) < 1.645 * scale).mean(axis=0)
    assert inside == pytest.approx(np.full((8, 2), 0.9), abs=0.06)
    quiet, loud = (scale[:, :, 1][noise[:, :, 1] == of].mean() for of in (0.05, 0.4))
    assert loud > 3 * quiet
    assert scale[:, :, 0].mean() == pytest.approx(0.1, rel=0.25)


def test_quantiles_of_a_noisy_wave(history: dict[str, Recording]) -> None:
    model = fit(history, settings(8, "pinball", updates=400), ("even", "uneven"))
    said, true, _, _ = forecasts(model, 2000, 8)
    below = (true < np.array([of.quantiles for of in said]).swapaxes(0, 1)).mean(axis=(1, 2))
    assert below == pytest.approx(np.array([[0.05] * 2, [0.5] * 2, [0.95] * 2]), abs=0.05)


# Where there is none.


def test_what_cannot_be_forecast(model: Model, data: dict[str, Recording]) -> None:
    x = data["stream-1"].x
    detector = Detector(model=model)
    with pytest.raises(UsageError, match="stream 'stream-1' has had no record"):
        detector.forecast("stream-1")
    detector.process_batch(["new"] * 100, None, x[:100])
    with pytest.raises(
        UsageError, match=r"'new' is still learning .* more than learning.learning_rows \(100\) records"
    ):
        detector.forecast("new")
    detector.process_batch(["new"], None, x[100:101])
    with pytest.raises(UsageError, match="got 2 exogenous values, the model reads 1"):
        detector.forecast("new", [1.0, 2.0])
    assert detector.forecast("new").features == ("a", "b")
    assert detector.keys() == ["new"]
    online = Detector({"learning": {"mode": "online"}}, model=model)
    without = Detector(features=("a", "b"), exogenous=("c",))
    silent = Detector(model=replace(model, outlook=None, config=settings(0)))
    for one, words in ((online, "learn online"), (without, "learn online"), (silent, "forecast.horizons=12")):
        one.process_batch(["new"] * 2, None, x[:2])
        with pytest.raises(UsageError, match=words):
            one.forecast("new")


def test_a_model_and_its_configuration_agree(model: Model) -> None:
    assert model.outlook is not None
    with pytest.raises(ModelError, match="its forecast has shapes None"):
        replace(model, outlook=None)
    with pytest.raises(ModelError, match="are those of its configuration"):
        replace(model, config=settings(4))
    with pytest.raises(ModelError, match=r"forecast.scale holds values that are not finite"):
        replace(model, outlook=replace(model.outlook, scale=np.full((3, 2), np.nan, np.float32)))
    with pytest.raises(
        ModelError, match=r"fitted with forecast horizons=3 .* says horizons=4 .* leave the section out"
    ):
        Detector({"forecast": {"horizons": 4}}, model=model)
    louder = replace(model, outlook=replace(model.outlook, scale=2 * model.outlook.scale))
    assert louder.hash != model.hash


def test_a_history_must_reach_ahead(synthetic: Make) -> None:
    short = synthetic(rows=LEAST_ROWS + 2)
    with pytest.raises(
        InputError, match=f"has {LEAST_ROWS + 2} records, at least {LEAST_ROWS + 3} are needed for 3 horizons"
    ):
        fit(short, settings(), ("a",))
    assert fit(short, settings(2), ("a",)).outlook is not None


def test_targets_end_with_their_stream(synthetic: Make) -> None:
    """A short stream beside a long one, and a feature with few values, leave nothing that is not finite."""
    data = synthetic(rows=300, features=2) | {"short": synthetic(rows=LEAST_ROWS, features=2)["stream-0"]}
    for one in data.values():
        one.x[3:, 1] = np.nan
    for loss in ("gaussian", "pinball"):
        model = fit(data, settings(100, loss, updates=5), ("a", "b"))
        assert model.outlook is not None
        assert np.isfinite(model.outlook.scale).all()
        assert (model.outlook.scale[4:, 1] == 1).all()


def test_an_interrupted_training_goes_on(data: dict[str, Recording], tmp_path: Path) -> None:
    def interrupt(progress: Any) -> None:
        if progress.update == 20:
            raise KeyboardInterrupt

    kept = tmp_path / "training"
    with pytest.raises(KeyboardInterrupt):
        fit(data, settings(), ("a", "b"), ("c",), on_progress=interrupt, checkpoint=kept)
    with pytest.raises(ModelError, match="a training of other data or settings"):
        fit(data, settings(2), ("a", "b"), ("c",), checkpoint=kept)
    assert (
        fit(data, settings(), ("a", "b"), ("c",), checkpoint=kept).hash
        == fit(data, settings(), ("a", "b"), ("c",)).hash
    )
