"""Every cell's step against the naive one and against ONNX Runtime and PyTorch, and the independence of a row's bits."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import naive
import numba
import numpy as np
import pytest
from layers import random_layer, textbook

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.errors import ModelError
from streamlstm.kernels import layout
from streamlstm.kernels.calls import call_step
from streamlstm.kernels.cells import CELLS, Layer, cell_named
from streamlstm.kernels.cells.tile import STEP
from streamlstm.kernels.compiling import _FEATURES, HAS_FMA, jit
from streamlstm.kernels.step import step_batch
from streamlstm.learn.fit import Recording, fit
from streamlstm.model.files import load_model, save_model
from streamlstm.types import Float32

Make = Callable[..., dict[str, Recording]]
KINDS = CELLS | {f"{name}, layer_norm": cell_named(name, layer_norm=True) for name in CELLS}
SHAPES = [(1, 4), (1, 32), (3, 20), (8, 64)]
SLOTS, MARGIN = 16, 3
NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@jit
def step_rows(step: Any, weights: Any, w0: Any, I: Any, H: Any, z: Any, ldz: Any, slots: Any, first: Any, count: Any,
              state: Any, h0: Any, c0: Any) -> None:  # fmt: skip
    call_step(step, weights, w0, I, H, z, 0, ldz, slots, first, count, state, 0, state.shape[1], h0, c0)


def step_alone(name: str, layer: Layer, x: Float32, state: Float32) -> Float32:
    """h of the only stream after a step with x."""
    cell, hidden = KINDS[name], layer.W_hh.shape[1]
    z = np.concatenate([x, state[0, :hidden], np.zeros(cell.room(hidden), np.float32)])
    step_rows(
        cell.step.address, cell.pack(layer), 0, len(x), hidden, z, len(z), np.zeros(1, np.int32), 0, 1, state, 0, 16
    )
    return state[0, :hidden].copy()


class Case:
    """A random layer with the state of 16 streams: the compiled step beside the naive one."""

    def __init__(self, cell: str, inputs: int, hidden: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.cell, self.inputs, self.hidden, self.padded = KINDS[cell], inputs, hidden, -(-hidden // 16) * 16
        self.layer = random_layer(self.cell, inputs, hidden, rng, 0.3)
        self.weights = np.concatenate([np.zeros(MARGIN, np.float32), self.cell.pack(self.layer)])
        self.x = rng.normal(size=(SLOTS, inputs)).astype(np.float32)
        self.x[0] *= 100  # gates far into saturation
        self.begin = np.zeros((SLOTS, 2 * self.padded + MARGIN), np.float32)
        self.begin[:, :hidden] = rng.uniform(-1, 1, (SLOTS, hidden))
        self.begin[:, self.padded : self.padded + hidden] = rng.normal(size=(SLOTS, hidden))

    def step(self, slots: Any, state: Float32 | None = None) -> Float32:
        """The state of all slots after one step of `slots`."""
        state = (self.begin if state is None else state).copy()
        read = self.inputs + self.hidden
        wide = read + self.cell.room(self.hidden) + 1
        z = np.full((len(slots), wide), np.nan, np.float32)  # what follows must not be read, or be written before
        z[:, : self.inputs] = self.x[slots]
        z[:, self.inputs : read] = state[slots, : self.hidden]
        before = np.array([9, *slots], np.int32)  # the step begins at the second of them
        step_rows(self.cell.step.address, self.weights, MARGIN, self.inputs, self.hidden, z.reshape(-1), wide, before, 1,
                  len(slots), state, 0, self.padded)  # fmt: skip
        return state

    def expected(self, state: Float32) -> tuple[Any, Any]:
        h, c = state[:, : self.hidden], state[:, self.padded : self.padded + self.hidden]
        old = (array.astype(float) for array in (self.x, h, c))
        return naive.cell_step(self.cell.name, *old, textbook(self.cell, self.layer))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("inputs", "hidden"), SHAPES)
def test_step_is_the_naive_one(name: str, inputs: int, hidden: int) -> None:
    case = Case(name, inputs, hidden, seed=inputs)
    bound = 3e-6 if not name.startswith("rnn_relu") else 1e-5  # whose outputs grow without bound
    expected_h, expected_c = case.expected(case.begin)
    for batch in range(1, 14):
        slots = np.arange(SLOTS)[-batch:] if batch % 2 else np.arange(batch)
        state = case.step(slots)
        actual_h, actual_c = state[:, :hidden], state[:, case.padded : case.padded + hidden]
        assert (np.abs(actual_h - expected_h) / np.maximum(1, np.abs(expected_h)))[slots].max() < bound
        assert (np.abs(actual_c - expected_c) / np.maximum(1, np.abs(expected_c)))[slots].max() < bound
        untouched = np.setdiff1d(np.arange(SLOTS), slots)
        assert np.array_equal(state[untouched], case.begin[untouched])
        assert not state[:, hidden : case.padded].any()
        assert not state[:, case.padded + hidden :].any()
    after = case.step(np.arange(SLOTS), state := case.step(np.arange(SLOTS)))
    expected_h = case.expected(state)[0]
    assert (np.abs(after[:, :hidden] - expected_h) / np.maximum(1, np.abs(expected_h))).max() < bound


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("inputs", "hidden"), SHAPES)
def test_a_rows_bits_do_not_depend_on_its_neighbours(name: str, inputs: int, hidden: int) -> None:
    case = Case(name, inputs, hidden, seed=7)
    expected = np.array([case.step([slot])[slot] for slot in range(SLOTS)])
    rng = np.random.default_rng(0)
    for batch in range(1, 14):
        slots = rng.permutation(SLOTS)[:batch]
        assert case.step(slots)[slots].tobytes() == expected[slots].tobytes()


@pytest.mark.parametrize("name", KINDS)
def test_a_missing_number_stays_one_and_wild_ones_end_in_bounds(name: str) -> None:
    case = Case(name, 3, 20, seed=2)
    case.x[:4, 0] = np.nan, np.inf, -np.inf, 3e38
    state = case.step(np.arange(SLOTS))
    for _ in range(50):
        state = case.step(np.arange(SLOTS), state)
    assert np.isnan(state[0, :20]).any()
    assert np.isfinite(state[3:]).all()


@pytest.mark.parametrize("name", KINDS)
def test_weights_go_to_tensors_and_back(name: str) -> None:
    cell = KINDS[name]
    layer = random_layer(cell, 3, 5, np.random.default_rng(1), 1.0)
    for again, given in zip(cell.layer(cell.tensors(layer)), layer, strict=True):
        assert np.array_equal(again, given)


@pytest.mark.parametrize("name", KINDS)
def test_a_bare_step_is_the_same_step(name: str) -> None:
    rng = np.random.default_rng(0)
    for inputs, hidden in SHAPES:
        case = Case(name, inputs, hidden, seed=1)
        slots = rng.permutation(150)[:100].astype(np.int32)  # more rows than a tile holds
        state = np.tile(case.begin[:, :-MARGIN], (10, 1))[:150]
        x = rng.normal(size=(100, inputs)).astype(np.float32)
        actual = state.copy()
        room = case.cell.room(hidden)
        scratch = np.zeros(layout.TILE * (inputs + hidden + room), np.float32)
        step_batch(case.cell.step.address, case.weights[MARGIN:], hidden, x, slots, actual, scratch)
        z = np.concatenate([x, state[slots, :hidden], np.zeros((100, room), np.float32)], axis=1)
        step_rows(case.cell.step.address, case.weights, MARGIN, inputs, hidden, z.reshape(-1), z.shape[1], slots, 0, 100,
                  state, 0, case.padded)  # fmt: skip
        assert actual.tobytes() == state.tobytes()


@pytest.mark.parametrize("name", KINDS)
def test_a_state_of_float16_is_that_of_the_same_step_rounded(name: str) -> None:
    """h and c are read as float32 and written as the nearest float16: no other bit differs."""
    case = Case(name, 3, 20, seed=3)
    slots, padded = np.arange(SLOTS), case.padded
    begin = case.begin.astype(np.float16)
    case.begin = begin.astype(np.float32)
    expected = case.step(slots)[:, : 2 * padded].astype(np.float16)
    wide = 3 + 20 + case.cell.room(20)
    z = np.zeros((SLOTS, wide), np.float32)
    z[:, :3], z[:, 3:23] = case.x, case.begin[:, :20]
    halves = np.zeros((SLOTS, 2 * padded), np.float16)
    halves[:] = begin[:, : 2 * padded]
    rows = halves.view(np.float32)  # offsets count float32
    step_rows(case.cell.step_half.address, case.weights, MARGIN, 3, 20, z.reshape(-1), wide, slots.astype(np.int32), 0, SLOTS,
              rows, 0, padded // 2)  # fmt: skip
    assert halves.tobytes() == expected.tobytes()


def numbers(shape: tuple[int, ...], a: int, b: int) -> Float32:
    return (((np.arange(np.prod(shape)) * a + b) % 17 - 8) / 10).astype(np.float32).reshape(shape)


def reordered(array: Float32, order: tuple[int, ...]) -> Float32:
    """Gates of three units each in another order."""
    return np.concatenate([array.reshape(-1, 3, *array.shape[1:])[gate] for gate in order])


# h of the last layer after each of five steps with I = 2, H = 3 from zero, by onnxruntime 1.32.0 (CPU), operators of opset
# 22, GRU with linear_before_reset; made on 2026-11-26. Our gates in the order in which ONNX has them, and its peepholes.
OF_ONNX = {
    "gru": ((1, 0, 2), [
        [-0.011717225424945354, -0.026265958324074745, -0.4763408303260803],
        [-0.30944883823394775, 0.1012827679514885, -0.12966234982013702],
        [-0.45330604910850525, 0.4446313977241516, 0.10109751671552658],
        [-0.2404104769229889, 0.2632523775100708, -0.45350170135498047],
        [-0.3036220371723175, 0.2529802918434143, -0.056786030530929565],
    ]),
    "rnn_tanh": ((0,), [
        [0.039978623390197754, 0.5005202293395996, -0.8667839169502258],
        [-0.6848142147064209, 0.015095233917236328, -0.6228491067886353],
        [-0.3008953928947449, -0.6618925929069519, -0.6627269983291626],
        [0.239446759223938, 0.5965461730957031, -0.7921320199966431],
        [-0.7233145236968994, 0.31287193298339844, -0.613831639289856],
    ]),
    "rnn_relu": ((0,), [
        [0.03999999165534973, 0.5500000715255737, 0.0],
        [0.0, 0.08199997246265411, 0.0],
        [0.0, 0.0, 0.0],
        [0.09999999403953552, 0.7300000190734863, 0.0],
        [0.0, 0.23799999058246613, 0.0],
    ]),
    "peephole_lstm": ((0, 2, 3, 1), [
        [0.06306400150060654, 0.13813039660453796, -0.06449057906866074],
        [0.1631946861743927, -0.0681728944182396, -0.07335337996482849],
        [0.1394863724708557, -0.04185776039958, -0.07081989198923111],
        [0.10470760613679886, 0.15094484388828278, -0.11356452852487564],
        [0.18378448486328125, -0.10192802548408508, -0.07589994370937347],
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_ONNX)
def test_cells_are_those_of_onnx_runtime(name: str) -> None:
    order, expected = OF_ONNX[name]
    gates = len(order)
    given = {
        "weight_ih": numbers((gates * 3, 2), 7, 3), "weight_hh": numbers((gates * 3, 3), 5, 1),
        "bias_ih": numbers((2 * gates * 3,), 3, 2)[: gates * 3], "bias_hh": numbers((2 * gates * 3,), 3, 2)[gates * 3 :],
    }  # fmt: skip
    tensors = {key: reordered(array, order) for key, array in given.items()}
    if CELLS[name].vectors:
        tensors["weight_ch"] = reordered(numbers((9,), 5, 7), (0, 2, 1))
    x, state = numbers((5, 2), 11, 4), np.zeros((1, 32), np.float32)
    for t in range(5):
        assert np.abs(step_alone(name, CELLS[name].layer(tensors), x[t], state) - expected[t]).max() < 3e-7


def test_lstm_is_that_of_onnx_runtime() -> None:
    """Five steps of an LSTM with I = 2, H = 3 from zero; numbers of onnxruntime 1.31.1 (CPU), operator LSTM of opset 22.

    Made on 2026-11-21; its gates stand in the order i, o, f, c and were reordered, the bias is W's, R's is zero.
    """
    expected_h = np.array([
        [-0.03590814024209976, -0.20914742350578308, -0.06525440514087677],
        [-0.18149828910827637, -0.10853735357522964, 0.06134137138724327],
        [-0.2419479489326477, -0.0018293356988579035, 0.08907817304134369],
        [-0.07351749390363693, -0.18927493691444397, 0.01618685945868492],
        [-0.19909092783927917, -0.10900875926017761, 0.08010654896497726],
    ])  # fmt: skip
    expected_c = [-0.2748668, -0.1893606, 0.2601342]

    tensors = numbers((12, 2), 7, 3), numbers((12, 3), 5, 1), numbers((12,), 3, 2), np.zeros(12, np.float32)
    x, state = numbers((5, 2), 11, 4), np.zeros((1, 32), np.float32)
    for t in range(5):
        h = step_alone("lstm", CELLS["lstm"].layer(dict(zip(NAMES, tensors, strict=True))), x[t], state)
        assert np.abs(h - expected_h[t]).max() < 3e-7
    assert np.abs(state[0, 16:19] - expected_c).max() < 3e-7


def test_lstm_is_that_of_pytorch() -> None:
    """Five steps of two stacked layers, I = 2, H = 4, from zero; numbers of `torch.nn.LSTM`, PyTorch 2.15.0 on a CPU.

    Made on 2026-11-21. Every tensor, in PyTorch's order, is sin(n k + k) / 2 over its entries n, with k from 1 in steps of
    0.37; the input is four times that with k = 0.9. PyTorch's two biases are summed.
    """
    expected_y = np.array([
        [-0.02569650113582611, 0.07343675196170807, -0.04134891554713249, 0.11678991466760635],
        [0.007518703583627939, 0.061213333159685135, -0.01223461702466011, 0.05158289521932602],
        [0.058360643684864044, -0.0968066155910492, 0.015988746657967567, 0.0026379073970019817],
        [0.037693195044994354, -0.13016100227832794, 0.005132223945111036, 0.0964859202504158],
        [0.008358017541468143, -0.04771307110786438, -0.02964118868112564, 0.16333842277526855],
    ])  # fmt: skip
    expected_c = [
        [-0.9055406451225281, 0.11377649009227753, -0.3235609233379364, -0.5687525272369385],
        [0.020502980798482895, -0.07505138963460922, -0.08632795512676239, 0.2576252222061157],
    ]

    def wave(shape: tuple[int, ...], k: float) -> Float32:
        return (np.sin(np.arange(np.prod(shape)) * k + k) * 0.5).astype(np.float32).reshape(shape)

    k, layers = 1.0, []
    for inputs in (2, 4):
        tensors = [wave(shape, k + 0.37 * n) for n, shape in enumerate(((16, inputs), (16, 4), (16,), (16,)))]
        layers.append(CELLS["lstm"].layer(dict(zip(NAMES, tensors, strict=True))))
        k += 4 * 0.37
    x = wave((5, 2), 0.9) * 4
    states = [np.zeros((1, 32), np.float32) for _ in layers]
    for t in range(5):
        z = x[t]
        for layer, state in zip(layers, states, strict=True):
            z = step_alone("lstm", layer, z, state)
        assert np.abs(z - expected_y[t]).max() < 5e-7
    actual_c = [state[0, 16:20] for state in states]
    assert np.abs(np.array(actual_c) - expected_c).max() < 5e-7


@pytest.mark.parametrize("name", KINDS)
def test_steps_hold_packed_instructions_and_no_calls(name: str) -> None:
    wide = [feature for feature in ("avx512f", "avx2", "avx") if _FEATURES.get(feature)]
    if not wide:
        pytest.skip("this host has no vectors of 8 or 16 float32")
    # made anew: cached code shows no assembly
    fresh = numba.cfunc(STEP, error_model="numpy", _nrt=False)(KINDS[name].step.function)
    text = fresh._library.get_asm_str()
    assert "zmm" in text if wide[0] == "avx512f" else "ymm" in text
    assert "vfmadd" in text or not HAS_FMA
    assert len(re.findall(r"\n\s+callq?\s", text)) == 1  # from what makes it a C function


# A detector with each cell.


@pytest.mark.parametrize("name", [name for name in CELLS if name != "lstm"])
def test_a_detector_of_any_cell_learns_and_goes_on_from_files(name: str, synthetic: Make, tmp_path: Path) -> None:
    """Model file, snapshot, batches and online learning keep the bits."""
    settings = {
        "model": {"cell": name, "hidden_size": 12, "num_layers": 2}, "training": {"updates": 80},
        "learning": {"update_every": 16, "learning_rows": 20, "calibrating_rows": 20},
    }  # fmt: skip
    model = fit(synthetic(streams=2, features=2), Config.model_validate(settings), ("a", "b"))
    assert model.network.cell == CELLS[name]
    assert model.network.readout.any()  # it begins at 0
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert again.hash == model.hash
    x = next(iter(synthetic(streams=1, rows=300, features=2, seed=5).values())).x
    time, keys = np.arange(300) * 60_000_000_000, ["s", "t", "s"] * 100
    online = settings | {"learning": settings["learning"] | {"mode": "online"}}
    for config, of in ((settings, model), (online, model), (online, None)):
        whole, parts = (Detector(config, model=of and m, features=("a", "b")) for m in (model, again))
        expected = whole.process_batch(keys, time, x).score
        first = parts.process_batch(keys[:137], time[:137], x[:137]).score
        parts.snapshot(tmp_path / "snapshot")
        rest = Detector.restore(tmp_path / "snapshot").process_batch(keys[137:], time[137:], x[137:]).score
        assert np.array_equal(np.concatenate([first, rest]), expected)
        assert np.isfinite(expected).all()
        assert expected.any()


@pytest.mark.parametrize("name", KINDS)
def test_threads_change_no_bit_of_any_cell(name: str, synthetic: Make) -> None:
    cell = KINDS[name]
    model = {"cell": cell.name, "layer_norm": cell.layer_norm, "hidden_size": 12}
    fitted = fit(synthetic(streams=1), Config.model_validate({"model": model, "training": {"updates": 5}}), ("value",))
    x = np.random.default_rng(0).normal(size=1500)
    found = []
    for threads in (1, 2, 3):
        detector = Detector(model=fitted)
        detector.threads = threads
        scored = detector.process_batch([f"s{n}" for n in np.random.default_rng(1).integers(0, 70, 1500)], None, x)
        found.append(scored.score.tobytes())
    assert found[0] == found[1] == found[2]


def test_a_model_of_another_cell_is_refused(synthetic: Make) -> None:
    config = Config.model_validate({"model": {"cell": "gru", "hidden_size": 4}, "training": {"updates": 1}})
    model = fit(synthetic(streams=1), config, ("value",))
    with pytest.raises(ModelError, match=r"has cell gru, the configuration says lstm; leave model\.cell out"):
        Detector({"model": {"cell": "lstm"}}, model=model)
