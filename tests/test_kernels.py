"""Every kernel against a slow and obvious one, and the independence of a row's bits from the rows beside it."""

from typing import Any

import naive
import numba
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.kernels import layout, scalars
from streamlstm.kernels.cells.lstm import pack, step_rows
from streamlstm.kernels.compiling import _FEATURES, HAS_FMA
from streamlstm.kernels.episodes import step_episode
from streamlstm.kernels.inputs import CALENDAR
from streamlstm.kernels.matrix import multiply
from streamlstm.kernels.plan import SPARE, plan_batch
from streamlstm.kernels.step import step_batch
from streamlstm.model.network import Model, Network, Starts
from streamlstm.state.keys import KeyTable
from streamlstm.types import Float32

# The LSTM's step.

SHAPES = [(1, 4), (1, 32), (3, 20), (8, 64)]
SLOTS, MARGIN = 16, 3


class Cell:
    """A random layer with the state of 16 streams: the compiled step beside the naive one."""

    def __init__(self, inputs: int, hidden: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.inputs, self.hidden, self.padded = inputs, hidden, -(-hidden // 16) * 16
        shapes = ((4 * hidden, inputs), (4 * hidden, hidden), (4 * hidden,))
        self.layer = tuple(rng.normal(0, 0.3, shape).astype(np.float32) for shape in shapes)
        self.weights = np.concatenate([np.zeros(MARGIN, np.float32), pack(*self.layer)])
        self.x = rng.normal(size=(SLOTS, inputs)).astype(np.float32)
        self.x[0] *= 100  # gates far into saturation
        self.begin = np.zeros((SLOTS, 2 * self.padded + MARGIN), np.float32)
        self.begin[:, :hidden] = rng.uniform(-1, 1, (SLOTS, hidden))
        self.begin[:, self.padded : self.padded + hidden] = rng.normal(size=(SLOTS, hidden))

    def step(self, slots: Any, state: Float32 | None = None) -> Float32:
        """The state of all slots after one step of `slots`."""
        state = (self.begin if state is None else state).copy()
        wide = self.inputs + self.hidden + 1
        z = np.full((len(slots), wide), np.nan, np.float32)  # the last column must not be read
        z[:, : self.inputs] = self.x[slots]
        z[:, self.inputs : -1] = state[slots, : self.hidden]
        before = np.array([9, *slots], np.int32)  # the step begins at the second of them
        step_rows(self.weights, MARGIN, self.inputs, self.hidden, z.reshape(-1), wide, before, 1, len(slots),
                  state, 0, self.padded)  # fmt: skip
        return state

    def expected(self, state: Float32) -> tuple[Any, Any]:
        h, c = state[:, : self.hidden], state[:, self.padded : self.padded + self.hidden]
        return naive.lstm_step(*(a.astype(float) for a in (self.x, h, c, *self.layer)))


@pytest.mark.parametrize(("inputs", "hidden"), SHAPES)
def test_lstm_step_is_the_naive_one(inputs: int, hidden: int) -> None:
    cell = Cell(inputs, hidden, seed=inputs)
    expected_h, expected_c = cell.expected(cell.begin)
    for batch in range(1, 14):
        slots = np.arange(SLOTS)[-batch:] if batch % 2 else np.arange(batch)
        state = cell.step(slots)
        actual_h, actual_c = state[:, :hidden], state[:, cell.padded : cell.padded + hidden]
        assert np.abs(actual_h - expected_h)[slots].max() < 3e-6
        assert (np.abs(actual_c - expected_c) / np.maximum(1, np.abs(expected_c)))[slots].max() < 3e-6
        untouched = np.setdiff1d(np.arange(SLOTS), slots)
        assert np.array_equal(state[untouched], cell.begin[untouched])
        assert not state[:, hidden : cell.padded].any()
        assert not state[:, cell.padded + hidden :].any()
    after = cell.step(np.arange(SLOTS), state := cell.step(np.arange(SLOTS)))
    assert np.abs(after[:, :hidden] - cell.expected(state)[0]).max() < 3e-6


@pytest.mark.parametrize(("inputs", "hidden"), SHAPES)
def test_a_rows_bits_do_not_depend_on_its_neighbours(inputs: int, hidden: int) -> None:
    cell = Cell(inputs, hidden, seed=7)
    expected = np.array([cell.step([slot])[slot] for slot in range(SLOTS)])
    rng = np.random.default_rng(0)
    for batch in range(1, 14):
        slots = rng.permutation(SLOTS)[:batch]
        assert cell.step(slots)[slots].tobytes() == expected[slots].tobytes()


def test_a_bare_step_is_the_same_step() -> None:
    rng = np.random.default_rng(0)
    for inputs, hidden in SHAPES:
        cell = Cell(inputs, hidden, seed=1)
        slots = rng.permutation(150)[:100].astype(np.int32)  # more rows than a tile holds
        state = np.tile(cell.begin[:, :-MARGIN], (10, 1))[:150]
        x = rng.normal(size=(100, inputs)).astype(np.float32)
        actual = state.copy()
        scratch = np.zeros(layout.TILE * (inputs + hidden), np.float32)
        step_batch(cell.weights[MARGIN:], hidden, x, slots, actual, scratch)
        z = np.concatenate([x, state[slots, :hidden]], axis=1).reshape(-1)
        step_rows(cell.weights, MARGIN, inputs, hidden, z, inputs + hidden, slots, 0, 100, state, 0, cell.padded)
        assert actual.tobytes() == state.tobytes()


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

    def numbers(shape: tuple[int, ...], a: int, b: int) -> Float32:
        return (((np.arange(np.prod(shape)) * a + b) % 17 - 8) / 10).astype(np.float32).reshape(shape)

    layer, x = (numbers((12, 2), 7, 3), numbers((12, 3), 5, 1), numbers((12,), 3, 2)), numbers((5, 2), 11, 4)
    state = np.zeros((1, 32), np.float32)
    for t in range(5):
        z = np.concatenate([x[t], state[0, :3]])
        step_rows(pack(*layer), 0, 2, 3, z, 5, np.zeros(1, np.int32), 0, 1, state, 0, 16)
        assert np.abs(state[0, :3] - expected_h[t]).max() < 3e-7
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
        layers.append(pack(tensors[0], tensors[1], tensors[2] + tensors[3]))
        k += 4 * 0.37
    x = wave((5, 2), 0.9) * 4
    states = [np.zeros((1, 32), np.float32) for _ in layers]
    for t in range(5):
        z = x[t]
        for layer, state in zip(layers, states, strict=True):
            inputs = np.concatenate([z, state[0, :4]])
            step_rows(layer, 0, len(z), 4, inputs, len(inputs), np.zeros(1, np.int32), 0, 1, state, 0, 16)
            z = state[0, :4].copy()
        assert np.abs(z - expected_y[t]).max() < 5e-7
    actual_c = [state[0, 16:20] for state in states]
    assert np.abs(np.array(actual_c) - expected_c).max() < 5e-7


def test_hot_kernels_hold_packed_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = [name for name in ("avx512f", "avx2", "avx") if _FEATURES.get(name)]
    if not wide:
        pytest.skip("this host has no vectors of 8 or 16 float32")
    fresh = numba.njit(step_rows.py_func, error_model="numpy", nogil=True, _nrt=False)  # cached code shows no assembly
    monkeypatch.setitem(Cell.step.__globals__, "step_rows", fresh)
    Cell(1, 4, seed=0).step([0, 1])
    text = "\n".join(fresh.inspect_asm().values())
    assert "zmm" in text if wide[0] == "avx512f" else "ymm" in text
    assert "vfmadd" in text or not HAS_FMA


# Matrix products.


def product(a: Float32, w: Float32, start: Float32, *, transposed: bool = False, accumulate: bool = False) -> Float32:
    """start + a w by the kernel; `start` is a row or a matrix."""
    (M, K), N = a.shape, w.shape[1]
    flat, row, k = (a.T.copy(), 1, M) if transposed else (a, K, 1)
    out = start.copy() if accumulate else np.full((M, N), np.nan, np.float32)
    first = out if accumulate else start
    multiply(flat.reshape(-1), 0, row, k, M, K, w.reshape(-1), 0, N, N, first.reshape(-1), 0,
             N if start.ndim == 2 else 0, out.reshape(-1), 0, N)  # fmt: skip
    return out


def test_product_is_that_of_float64() -> None:
    rng = np.random.default_rng(3)
    for K in (1, 7, 64):
        for N in (16, 32, 48, 80):
            w = rng.normal(size=(K, N)).astype(np.float32)
            bias = rng.normal(size=N).astype(np.float32)
            a = rng.normal(size=(19, K)).astype(np.float32)
            whole = product(a, w, bias)
            bound = 2.0**-23 * (K + 1) * (np.abs(a).astype(float) @ np.abs(w) + np.abs(bias))
            for M in range(1, 20):
                actual = product(a[:M], w, bias)
                assert actual.tobytes() == whole[:M].tobytes()
                assert product(a[:M], w, bias, transposed=True).tobytes() == actual.tobytes()
            assert (np.abs(whole - (a.astype(float) @ w + bias)) <= bound).all()
            start = np.tile(bias, (19, 1))
            assert product(a, w, start).tobytes() == whole.tobytes()
            assert product(a, w, start, accumulate=True).tobytes() == whole.tobytes()


# Scalars.


def grid(bound: float) -> Float32:
    small = np.logspace(-30, np.log10(bound), 4000)
    return np.concatenate([np.linspace(-bound, bound, 30_001), small, -small]).astype(np.float32)


def test_exp_sigmoid_and_tanh_over_their_range() -> None:
    x = grid(87)
    actual = np.array([scalars.exp32(v) for v in x])
    expected = np.exp(x.astype(float))
    assert np.array_equal(actual, actual.astype(np.float32))
    assert (np.abs(actual - expected) / np.spacing(expected.astype(np.float32))).max() <= 3
    x = grid(100)
    for function, expected in (
        (scalars.sigmoid32, 1 / (1 + np.exp(-x.astype(float)))),
        (scalars.tanh32, np.tanh(x.astype(float))),
    ):
        actual = np.array([function(v) for v in x])
        assert np.array_equal(actual, actual.astype(np.float32))
        assert np.abs(actual - expected).max() <= 3e-7
        assert (np.diff(np.array([function(v) for v in np.arange(-20, 20, 0.25, np.float32)])) >= 0).all()


@pytest.mark.parametrize(
    ("value", "exp", "sigmoid", "tanh"),
    [
        (np.nan, np.nan, np.nan, np.nan),
        (np.inf, np.exp(87), 1.0, 1.0),
        (-np.inf, np.exp(-87), 0.0, -1.0),
        (3e38, np.exp(87), 1.0, 1.0),
        (-3e38, np.exp(-87), 0.0, -1.0),
        (0.0, 1.0, 0.5, 0.0),
        (-0.0, 1.0, 0.5, 0.0),
        (1e-45, 1.0, 0.5, 0.0),
    ],
)
def test_exp_sigmoid_and_tanh_at_the_ends(value: float, exp: float, sigmoid: float, tanh: float) -> None:
    x = np.float32(value)
    assert scalars.exp32(x) == pytest.approx(exp, rel=4e-7, nan_ok=True)
    assert scalars.sigmoid32(x) == pytest.approx(sigmoid, abs=3e-7, nan_ok=True)
    assert scalars.tanh32(x) == pytest.approx(tanh, abs=3e-7, nan_ok=True)


def test_logarithm() -> None:
    x = np.concatenate([np.logspace(-300, 300, 20_001), np.linspace(0.5, 2, 20_001)])
    actual = np.array([scalars.log(v) for v in x])
    assert np.abs(actual - np.log(x)).max() < 1e-9


# The plan.


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 5), st.integers(0, 2**31 - 1)), max_size=80))
def test_plan_sorts_by_slot_and_keeps_the_order_within(slots: list[int]) -> None:
    B = len(slots)
    order, starts = np.full(B, -1, np.int32), np.full(B + 1, -1, np.int32)
    streams = plan_batch(np.array(slots, np.int32), order, starts, np.zeros(B + SPARE, np.int32))
    expected = sorted(range(B), key=lambda b: slots[b])
    assert order.tolist() == expected
    assert streams == len(set(slots))
    expected_starts = [j for j in range(B) if j == 0 or slots[expected[j]] != slots[expected[j - 1]]]
    assert starts[: streams + 1].tolist() == [*expected_starts, B]


# Keys.


class Keys:
    """A key table beside a dict."""

    def __init__(self) -> None:
        self.table, self.known = KeyTable(), dict[str, int]()

    def add(self, keys: list[str]) -> None:
        expected = [self.known.setdefault(key, len(self.known)) for key in keys]
        assert self.table.slots(pa.array(keys, pa.string())).tolist() == expected

    def check(self) -> None:
        assert self.table.count == len(self.known)
        assert self.table.strings().to_pylist() == list(self.known)
        for key, slot in self.known.items():
            assert self.table.key(slot) == key
            assert self.table.find(key) == slot


words = st.one_of(
    st.text(max_size=12), st.sampled_from(["", "\0", "\0\0", "a", "b", "é", "e\u0301", "\U0001f600", "x" * 5000])
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(words, max_size=30), max_size=6), words)
def test_key_table_is_a_dict(batches: list[list[str]], other: str) -> None:
    keys = Keys()
    for batch in batches:
        keys.add(batch)
    keys.check()
    assert keys.table.find(other) == keys.known.get(other, -1)
    assert keys.table.count == len(keys.known)


def test_key_table_grows() -> None:
    keys = Keys()
    rng = np.random.default_rng(0)
    for count in (1, 127, 128, 129, 3000, 1, 8000):
        keys.add([f"sensor/{n}" for n in rng.integers(0, 20_000, count)])
    keys.check()
    sliced = pa.array(["not", "these", "sensor/1", "new", "nor this"])[2:4]
    assert keys.table.slots(sliced).tolist() == [keys.known.setdefault("sensor/1", len(keys.known)), len(keys.known)]
    assert keys.table.find("not") == -1


# Episodes: `.` calm, `h` between hysteresis and threshold, `!` anomalous, `+` worse by less than half, `X` much worse.

SEVERITY = {".": 0.5, "h": 0.9, "!": 1.5, "+": 2.0, "X": 4.0, "?": np.nan}


@pytest.mark.parametrize(
    ("rules", "rows", "expected"),
    [
        ({"MERGE_ROWS": 2}, "..!.....", "--O--C--"),
        ({"MERGE_ROWS": 0}, "!.!.", "OCOC"),
        ({"MERGE_ROWS": 2}, "!..!..!...", "O--------C"),
        ({"MERGE_ROWS": 1}, "!hhhh.h..", "O-------C"),
        ({"MERGE_ROWS": 1, "HYSTERESIS": 1.0}, "!hhhh", "O-C--"),
        ({"MIN_ROWS": 3, "MERGE_ROWS": 0}, "!!.!!!!.!", "-----O-C-"),
        ({"REFRACTORY_ROWS": 3, "MERGE_ROWS": 0}, "!.!!!!.", "OC---OC"),
        ({"REFRACTORY_ROWS": 2, "MIN_ROWS": 2, "MERGE_ROWS": 0}, "!!.!!!!.", "-OC---OC"),
        ({"MERGE_ROWS": 0}, "!+XX!.", "O-U--C"),
        ({"MERGE_ROWS": 0}, "?!.", "-OC"),
        ({"MERGE_ROWS": 1, "ACCEPT_AFTER_ROWS": 4}, "!hhhhh", "O---C-"),
    ],
)
def test_episode_scenarios(rules: dict[str, float], rows: str, expected: str) -> None:
    params = np.zeros(layout.PARAMS)
    for name, value in ({"MIN_ROWS": 1, "HYSTERESIS": 0.8, "ACCEPT_AFTER_ROWS": 99} | rules).items():
        params[getattr(layout, name)] = value
    mark, scalar = np.zeros(layout.MARKS, np.int64), np.zeros(layout.SCALARS, np.float32)
    actual = ""
    for n, letter in enumerate(rows):
        actual += "-OUC"[step_episode(mark, scalar, np.float32(SEVERITY[letter]), 0, 100 + n, 3, 1000 + n, params)]
        mark[layout.SEEN] += 1
        assert mark[layout.OPEN] == (actual.count("O") > actual.count("C"))
    assert actual == expected
    first = actual.rindex("O")
    inside = [n for n in range(first, max(actual.rfind("C"), first) + 1) if rows[n] in "!+X"]
    peak = max(inside, key=lambda n: SEVERITY[rows[n]])
    noted = {name: int(mark[getattr(layout, name)]) for name in (
        "FIRST", "LAST", "EVENTS", "OPENED_SOURCE", "OPENED_ROW", "OPENED_TIME", "CLOSED_TIME", "PEAK_TIME"
    )}  # fmt: skip
    assert noted == {
        "FIRST": first, "LAST": inside[-1], "EVENTS": len(inside), "OPENED_SOURCE": 3, "OPENED_ROW": 1000 + first,
        "OPENED_TIME": 100 + first, "CLOSED_TIME": 100 + inside[-1], "PEAK_TIME": 100 + peak,
    }  # fmt: skip
    assert scalar[layout.PEAK] == np.float32(SEVERITY[rows[peak]])


# The whole way of a record.


def model_by_hand(features: int, exogenous: int, layers: int, hidden: int, seed: int) -> Model:
    """A random network with one stream of which everything is known."""
    rng = np.random.default_rng(seed)
    wide, cells = features + exogenous, []
    for _ in range(layers):
        shapes = ((4 * hidden, wide), (4 * hidden, hidden), (4 * hidden,))
        cells.append(tuple(rng.normal(0, 0.4, shape).astype(np.float32) for shape in shapes))
        wide = hidden
    values = rng.normal(0, 0.05, (2, features, 1 + 8 * features + exogenous + CALENDAR)).astype(np.float32)
    skip = np.concatenate([values, values[:1]])
    skip[:2, :, 1 : 1 + features] += np.float32(0.6) * np.eye(features, dtype=np.float32)
    readout = rng.normal(0, 0.4, (3 * features, hidden)).astype(np.float32)
    network = Network(tuple(cells), readout, rng.normal(0, 0.1, 3 * features).astype(np.float32), skip)
    spread = rng.uniform(0.5, 3, features + exogenous)
    stats = np.concatenate([rng.normal(0, 20, features + exogenous), spread**2, spread])[None]
    known = [
        rng.uniform(0.2, 0.6, 3 * features), rng.uniform(0.1, 0.3, features), rng.uniform(0.005, 0.1, features),
        rng.uniform(-2, -1, features), rng.uniform(1, 2, features), rng.uniform(0.3, 1, 5), rng.uniform(0.001, 0.1, 5),
    ]  # fmt: skip
    starts = Starts(
        ("s",), stats, np.concatenate(known)[None].astype(np.float32),
        np.zeros((1, layout.THRESHOLD_WIDTHS[layout.CONTRAST]), np.float32), np.full(1, 3, np.float32), np.array([1000]),
    )  # fmt: skip
    config = Config.model_validate({"model": {"hidden_size": hidden, "num_layers": layers}})
    names = tuple(f"v{d}" for d in range(features)), tuple(f"w{k}" for k in range(exogenous))
    return Model(network, *names, starts.known[0, : 3 * features], starts, config)


@pytest.mark.parametrize(
    ("features", "exogenous", "layers", "hidden"), [(1, 0, 1, 32), (3, 1, 1, 20), (1, 1, 2, 12), (3, 0, 3, 33)]
)
def test_scores_are_those_of_the_naive_stream(features: int, exogenous: int, layers: int, hidden: int) -> None:
    model = model_by_hand(features, exogenous, layers, hidden, seed=5)
    starts = model.starts
    assert starts is not None
    rng = np.random.default_rng(6)
    mean, spread = starts.stats[0, : features + exogenous], starts.stats[0, -(features + exogenous) :]
    x = mean + spread * np.cumsum(rng.normal(0, 0.3, (300, features + exogenous)), axis=0) * 0.3
    x += spread * rng.normal(0, 0.3, x.shape)
    x[150:154] += 8 * spread  # beyond the clip of the network's inputs
    x[rng.uniform(size=x.shape) < 0.1] = np.nan
    x[40:43] = np.nan
    network, known = model.network, starts.known[0].astype(float)
    usual, variability, ranges, parts = np.split(known, np.cumsum([3 * features, 2 * features, 2 * features]))
    stream = naive.Stream(
        [tuple(a.astype(float) for a in layer) for layer in network.layers],
        network.readout.T.astype(float), network.readout_bias.astype(float),
        network.skip.transpose(0, 2, 1).astype(float), mean, spread, usual.reshape(3, -1),
        variability.reshape(2, -1), ranges.reshape(2, -1), parts.reshape(2, -1), span=max(1, 70 / features**0.5),
    )  # fmt: skip
    times = np.arange(len(x)) * 3_600_000_000_000
    expected = [stream.score(row, time) for row, time in zip(x, times, strict=True)]
    actual = Detector(model=model).process_batch(["s"] * len(x), times, x)
    assert actual.stage.tolist() == [1] * len(x)  # the first 300 records in use calibrate
    assert np.array_equal(actual.imputed, np.isnan(x[:, :features]).sum(axis=1))
    wished = np.array([values for values, _ in expected])
    assert (np.abs(actual.expected - wished) / spread[:features]).max() < 2e-5
    wished = np.array([parts for _, parts in expected])
    assert np.abs(actual.parts - wished).max() < 2e-4
    assert np.abs(actual.score - wished.sum(axis=1)).max() < 3e-4
    assert np.abs(actual.attribution.sum(axis=1) - 1).max() < 1e-6
