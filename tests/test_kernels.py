"""Every kernel against a slow and obvious one, and the independence of a row's bits from the rows beside it."""

import numpy as np
import pyarrow as pa
import pytest
from by_hand import hold_against_naive
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.kernels import layout, scalars
from streamlstm.kernels.episodes import step_episode
from streamlstm.kernels.matrix import HALF, multiply
from streamlstm.kernels.plan import SPARE, plan_batch
from streamlstm.state.keys import KeyTable
from streamlstm.types import Float32

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
        for N in (HALF, 16, 32, 48, 80):
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


@pytest.mark.parametrize(
    ("cell", "features", "exogenous", "layers", "hidden"),
    [
        ("lstm", 1, 0, 1, 32), ("lstm", 3, 1, 1, 20), ("lstm", 1, 1, 2, 12), ("lstm", 3, 0, 3, 33),
        ("peephole_lstm", 2, 1, 2, 20), ("gru", 2, 1, 2, 20), ("rnn_tanh", 2, 1, 2, 20), ("rnn_relu", 2, 1, 2, 20),
        ("gru_before", 2, 1, 2, 20), ("lstm, layer_norm", 2, 1, 2, 20), ("gru_before, layer_norm", 3, 0, 1, 33),
    ],
)  # fmt: skip
def test_scores_are_those_of_the_naive_stream(
    cell: str, features: int, exogenous: int, layers: int, hidden: int
) -> None:
    hold_against_naive(cell, features, exogenous, layers, hidden)
