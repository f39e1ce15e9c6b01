"""Time policies: records that come late or twice, and gaps."""

from itertools import chain, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamlstm.config import Config, load
from streamlstm.detect.detector import Detector
from streamlstm.errors import ConfigError
from streamlstm.kernels.fading import fade_memory, faded
from streamlstm.kernels.layout import (
    AT_LAYERS,
    BACKWARD,
    DROPPED,
    KEPT,
    LAST_ROW,
    LAYERS,
    MARKS,
    PADDED,
    REPEATED,
    SIZES,
    WINDOW_AT,
)
from streamlstm.learn.fit import Recording, fit
from streamlstm.model.network import Model
from streamlstm.types import NO_TIME, ScoredBatch, Stage

S = 1_000_000_000
SETTINGS = {
    "model": {"hidden_size": 4},
    "training": {"updates": 0},
    "learning": {"update_every": 16, "learning_rows": 10, "calibrating_rows": 20},
    "threshold": {"kind": "fixed", "level": 5.0},
    "episodes": {"merge_rows": 2},
    "time": {"late": "drop", "repeated": "drop"},
}
FIELDS = ("score", "threshold", "severity", "flag", "stage", "change", "imputed", "expected", "attribution", "cause")
STREAMS = 3


def wave(rows: int, seed: int = 0) -> Any:
    return np.sin(np.arange(rows) / 5) + 0.1 * np.random.default_rng(seed).normal(size=rows)


def detector(mode: str, model: Model, **sections: Any) -> Detector:
    config = SETTINGS | {"learning": SETTINGS["learning"] | {"mode": mode}} | sections
    return Detector(config, model=model if mode == "frozen" else None, features=("v",))


@pytest.fixture(scope="module")
def model() -> Model:
    return fit({"0": Recording(np.arange(200) * S, wave(200)[:, None])}, Config.model_validate(SETTINGS), ("v",))


def bits(scored: ScoredBatch) -> list[list[bytes]]:
    return [[row.tobytes() for row in getattr(scored, name)] for name in FIELDS]


def naive_drops(keys: list[str], times: list[int], late: str, repeated: str) -> list[bool]:
    """Which records are dropped."""
    latest: dict[str, int] = {}
    dropped = []
    for key, time in zip(keys, times, strict=True):
        before = latest.get(key)
        drop = before is not None and time != NO_TIME and (
            (late == "drop" and time < before) or (repeated == "drop" and time == before)
        )  # fmt: skip
        if time != NO_TIME:
            latest[key] = time if before is None else max(before, time)
        dropped.append(drop)
    return dropped


records = st.lists(
    st.tuples(st.integers(0, STREAMS - 1), st.one_of(st.just(NO_TIME), st.integers(0, 40).map(lambda t: t * S))),
    min_size=1, max_size=60,
)  # fmt: skip
policies = st.sampled_from(["accept", "drop"])
often = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("mode", ["frozen", "online"])
@often
@given(records, policies, policies, st.lists(st.integers(0, 60), max_size=4), st.integers(0, 9))
def test_dropped_records_leave_no_trace(
    mode: str, model: Model, script: list[tuple[int, int]], late: str, repeated: str, cuts: list[int], seed: int
) -> None:
    """Whatever the batches; the detector that never saw them says the same, where weights are frozen."""
    keys, times = [str(stream) for stream, _ in script], [time for _, time in script]
    x, n = 3 * wave(len(script), seed), len(script)
    policy = {"late": late, "repeated": repeated}
    dropped = np.array(naive_drops(keys, times, late, repeated))
    whole, parts = detector(mode, model, time=policy), detector(mode, model, time=policy)
    actual = whole.process_batch(keys, times, x)
    edges = [0, *sorted(min(cut, n) for cut in cuts), n]
    pieces = [bits(parts.process_batch(keys[a:b], times[a:b], x[a:b])) for a, b in pairwise(edges)]
    assert [list(chain(*columns)) for columns in zip(*pieces, strict=True)] == bits(actual)
    assert whole.time_faults()[2] == dropped.sum()
    assert not actual.score[dropped].any()
    assert not actual.flag[dropped].any()
    assert np.isnan(actual.severity[dropped]).all()
    if mode == "frozen":
        kept = np.flatnonzero(~dropped)
        other = detector(mode, model, time={"late": "accept", "repeated": "accept"})
        expected = other.process_batch([keys[b] for b in kept], [times[b] for b in kept], x[kept])
        assert [[column[b] for b in kept] for column in bits(actual)] == bits(expected)
        counters = [LAST_ROW, BACKWARD, REPEATED, DROPPED]
        for key in set(keys):
            one, two = whole.pool.copy_of(key), other.pool.copy_of(key)
            assert one.state.tobytes() == two.state.tobytes()
            assert one.stats.tobytes() == two.stats.tobytes()
            assert np.array_equal(np.delete(one.marks, counters, 1), np.delete(two.marks, counters, 1))


def test_a_dropped_record_keeps_its_place(model: Model) -> None:
    """Its row is answered with the stream's stage; an episode counts it as one of the stream's records."""
    x = np.append(wave(60), [0.0, 9.0])
    times = [*range(30), 3, *range(30, 60), 70]
    one = detector("frozen", model)
    actual = one.process_batch(["s"] * 62, [t * S for t in times], x)
    assert actual.stage[[19, 30, 61]].tolist() == [Stage.CALIBRATING, Stage.LIVE, Stage.LIVE]
    assert (actual.score[30], actual.flag[61]) == (0, True)
    assert one.open_episodes()[0].first == 61
    assert one.open_episodes()[0].id == "call/61"
    assert one.time_faults() == (1, 0, 1)


def test_peek_and_process_drop_alike(model: Model) -> None:
    one = detector("frozen", model)
    one.process("s", 5 * S, [1.0])
    assert one.peek("s", 5 * S, [1.0]).score == one.process("s", 5 * S, [1.0]).score == 0
    assert one.time_faults() == (0, 1, 1)


def test_a_late_stream_goes_on_after_a_clock_that_ran_ahead(model: Model) -> None:
    one = detector("frozen", model)
    actual = one.process_batch(["s"] * 5, [S, 90 * S, 2 * S, 89 * S, 91 * S], wave(5))
    assert (actual.score != 0).tolist()[2:4] == [False, False]
    assert one.time_faults() == (2, 0, 2)
    assert one.process("s", 92 * S, [40.0]).score > 0


# Gaps


def gapped(mode: str, model: Model, on_gap: str, gap: int) -> tuple[Detector, ScoredBatch]:
    one = detector(mode, model, time={"gap_s": 100, "on_gap": on_gap})
    times = np.arange(200) * S
    times[120:] += gap * S
    return one, one.process_batch(["s"] * 200, times, wave(200))


@pytest.mark.parametrize("mode", ["frozen", "online"])
def test_after_a_gap_a_stream_calibrates_anew(mode: str, model: Model) -> None:
    _, none = gapped(mode, model, "carry", 0)
    one, actual = gapped(mode, model, "reset", 100)
    assert actual.stage[119] == Stage.LIVE
    assert (actual.stage[120:140] == Stage.CALIBRATING).all()
    assert (actual.stage[140:] == Stage.LIVE).all()
    assert np.isnan(actual.severity[120:140]).all()
    assert bits(actual)[0][:120] == bits(none)[0][:120]
    assert bits(actual)[0][120:] != bits(none)[0][120:]
    assert one.stages()["live"] == 1


@pytest.mark.parametrize(("on_gap", "gap"), [("reset", 99), ("decay", 99), ("carry", 1000)])
def test_a_stream_carries_on(model: Model, on_gap: str, gap: int) -> None:
    assert bits(gapped("frozen", model, on_gap, gap)[1]) == bits(gapped("frozen", model, "carry", gap)[1])


@pytest.mark.parametrize("gap", [100.5, 130.0, 250.0, 2000.0, 2200.0, 1e9])
@pytest.mark.parametrize(("mode", "state"), [("frozen", "float32"), ("frozen", "float16"), ("online", "float32")])
def test_after_a_gap_the_memory_fades(mode: str, state: str, gap: float, model: Model) -> None:
    """As if h and c had been multiplied by exp(1 - gap / gap_s) by hand; nothing else comes to know of the gap."""
    given = SETTINGS | {"model": {"hidden_size": 20, "num_layers": 2, "state": state}, "training": {"updates": 20}}
    given |= {"learning": SETTINGS["learning"] | {"mode": mode}}
    if mode == "frozen":
        model = fit({"0": Recording(np.arange(200) * S, wave(200)[:, None])}, Config.model_validate(given), ("v",))

    def made(on_gap: str) -> Detector:
        settings = given | {"time": {"gap_s": 100, "on_gap": on_gap}}
        return Detector(settings, model=model if mode == "frozen" else None, features=("v",))

    x, when = 3 * wave(160), np.arange(160) * S
    when[120:] += round((gap - 1) * S)
    fading, by_hand, untouched = made("decay"), made("carry"), made("carry")
    for one in (fading, by_hand, untouched):
        one.process_batch(["s"] * 120, when[:120], x[:120])
    sizes = fading.layout.sizes
    begin, end = sizes[AT_LAYERS], sizes[AT_LAYERS] + 2 * sizes[LAYERS] * sizes[KEPT]

    def memory(one: Detector) -> Any:
        return one.pool.rows.state[0, begin:end].view(np.float16 if state == "float16" else np.float32)

    assert memory(fading).tobytes() == memory(by_hand).tobytes() == memory(untouched).tobytes()
    memory(by_hand)[:] = memory(by_hand).astype(np.float64) * np.exp(1 - gap / 100)
    by_hand.pool.rows.marks[0, WINDOW_AT] = 0
    for one in (fading, by_hand, untouched):
        one.process_batch(["s"], when[120:121], x[120:121])
    exact = 1e-3 if state == "float16" else 1e-6
    assert np.abs(memory(fading) - memory(by_hand)).max() < exact
    assert gap < 110 or np.abs(memory(fading) - memory(untouched)).max() > 0.01
    rest = [one.process_batch(["s"] * 39, when[121:], x[121:]) for one in (fading, by_hand)]
    assert np.abs(rest[0].expected - rest[1].expected).max() < 10 * exact
    assert np.abs(rest[0].score - rest[1].score).max() < 10 * exact
    assert (rest[0].stage == Stage.LIVE).all()


@pytest.mark.parametrize("beyond", [0.001, 0.3, 1.0, 5.0, 19.9, 20.1])
@pytest.mark.parametrize("half", [False, True])
def test_what_fades_is_the_nearest_of_its_kind(half: bool, beyond: float) -> None:
    """Of every float16 that there is, by NumPy's conversion."""
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    values = np.where(np.isfinite(values), values, np.float16(1))
    row = (values if half else values.astype(np.float32)).copy().view(np.float32)
    sizes, mark = np.zeros(SIZES, np.int64), np.zeros(MARKS, np.int64)
    sizes[LAYERS], sizes[PADDED], sizes[KEPT] = 1, len(values) // 2, len(row) // 2
    fade_memory(row, mark, round((1 + beyond) * 100 * S), sizes, 100.0 * S)
    left = np.float32(np.exp(-beyond)) if beyond < 20 else np.float32(0)
    assert abs(float(faded((1 + beyond) * 1e11, 1e11)) - float(left)) <= 4e-7 * left
    expected = values.astype(np.float32) * faded((1 + beyond) * 1e11, 1e11)
    kind = np.float16 if half else np.float32
    assert np.array_equal(row.view(kind), expected.astype(kind))


@pytest.mark.parametrize("mode", ["frozen", "online"])
@often
@given(records, st.lists(st.integers(0, 60), max_size=4), st.integers(0, 9))
def test_a_memory_that_fades_keeps_its_bits(
    mode: str, model: Model, script: list[tuple[int, int]], cuts: list[int], seed: int
) -> None:
    keys, times = [str(stream) for stream, _ in script], [time for _, time in script]
    x, n = 3 * wave(len(script), seed), len(script)
    policy = {"gap_s": 3, "on_gap": "decay"}
    whole, parts = detector(mode, model, time=policy), detector(mode, model, time=policy)
    expected = bits(whole.process_batch(keys, times, x))
    edges = [0, *sorted(min(cut, n) for cut in cuts), n]
    pieces = [bits(parts.process_batch(keys[a:b], times[a:b], x[a:b])) for a, b in pairwise(edges)]
    assert [list(chain(*columns)) for columns in zip(*pieces, strict=True)] == expected


def test_the_memory_after_a_gap_is_that_of_a_beginning(model: Model) -> None:
    """What was said before has no part in the prediction: another past, the same expectation."""
    one, two = detector("frozen", model, time={"gap_s": 100}), detector("frozen", model, time={"gap_s": 100})
    one.process_batch(["s"] * 50, np.arange(50) * S, wave(50))
    two.process_batch(["s"] * 30, np.arange(30) * S, 5 + wave(30, 3))
    for t in range(20):
        event = ("s", (1000 + t) * S, [float(wave(20, 9)[t])])
        assert one.process(*event).expected == two.process(*event).expected


def test_an_open_episode_ends_after_a_gap(model: Model) -> None:
    one = detector("frozen", model, time={"gap_s": 100})
    x = wave(60)
    x[50:] += 30
    one.process_batch(["s"] * 60, np.arange(60) * S, x)
    assert len(one.open_episodes()) == 1
    after = one.process_batch(["s"] * 3, (1000 + np.arange(3)) * S, wave(3))
    assert after.change.tolist() == [0, 0, 3]
    assert one.open_episodes() == []


def test_a_policy_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match=r"time\.late: must be one of: accept, drop, reorder; got 'sort'"):
        load({"time": {"late": "sort"}}, environ={})
