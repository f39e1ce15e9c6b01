"""The life of a stream: its stages, what it bears, what it counts, and what a batch costs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from bytecodes import executed_bytecodes

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.errors import StateError, UsageError
from streamlstm.learn.fit import Recording, fit
from streamlstm.model.layout import make_layout
from streamlstm.model.network import Model
from streamlstm.state import pool
from streamlstm.types import NO_TIME, EventBatch, ScoredBatch, Stage

Make = Callable[..., dict[str, Recording]]
MINUTE = 60_000_000_000
QUICK = {
    "model": {"hidden_size": 8},
    "training": {"updates": 60},
    # 50 records do not show a stream's range: no rule about it
    "learning": {"update_every": 16, "learning_rows": 20, "calibrating_rows": 30, "extreme_margin": 0},
}
KINDS = ("fixed", "sigma", "quantile", "contrast")


def one(detector: Detector, values: Any, key: str = "s", first: int = 0) -> ScoredBatch:
    """What the detector says of one stream's values, one a minute."""
    x = np.asarray(values, float)
    return detector.process_batch([key] * len(x), (first + np.arange(len(x))) * MINUTE, x)


def wave(rows: int, seed: int = 0) -> Any:
    return np.sin(np.arange(rows) / 7) + 0.1 * np.random.default_rng(seed).normal(size=rows)


@pytest.fixture(scope="module")
def many(synthetic: Make) -> Model:
    return fit(synthetic(streams=4), Config.model_validate(QUICK), ("value",))


@pytest.fixture(scope="module")
def single() -> Model:
    recordings = {"s": Recording(np.arange(600) * MINUTE, wave(600)[:, None])}
    return fit(recordings, Config.model_validate(QUICK), ("value",))


# Stages.


def test_stages_follow_one_another() -> None:
    detector = Detector(QUICK)
    assert detector.stages() == {"learning": 0, "calibrating": 0, "live": 0}
    actual = one(detector, wave(100))
    expected = [Stage.LEARNING] * 20 + [Stage.CALIBRATING] * 30 + [Stage.LIVE] * 50
    assert actual.stage.tolist() == expected
    live = actual.stage == Stage.LIVE
    assert np.isnan(actual.severity[~live]).all()
    assert np.isnan(actual.threshold[~live]).all()
    assert not actual.flag[~live].any()
    assert np.isfinite(actual.score).all()
    assert not actual.score[:20].any()
    assert np.array_equal(actual.severity[live], actual.score[live] / actual.threshold[live])
    assert (actual.threshold[live] >= 1).all()
    one(detector, wave(25), key="t")
    one(detector, wave(5), key="u")
    assert detector.stages() == {"learning": 1, "calibrating": 1, "live": 1}


def test_a_stream_that_the_model_does_not_know(many: Model, single: Model) -> None:
    of_many, of_one = Detector(model=many), Detector(model=single)
    assert one(of_many, wave(60), key="unseen").stage.tolist() == [0] * 20 + [1] * 30 + [2] * 10
    assert one(of_many, wave(60) + 10, key="stream-1").stage.tolist() == [1] * 30 + [2] * 30
    assert of_many.features == ("value",)
    actual = one(of_one, wave(300, seed=5), key="unseen")
    assert actual.stage.tolist() == [1] * 30 + [2] * 270
    assert not actual.flag.any()
    assert single.starts is not None
    assert np.array_equal(of_one.pool.rows.stats[0], single.starts.stats[0])


def test_another_threshold_than_the_models_is_calibrated(single: Model) -> None:
    config = Config.model_validate(QUICK | {"threshold": {"kind": "sigma"}})
    actual = one(Detector(config, model=single), wave(60))
    assert actual.stage.tolist() == [1] * 30 + [2] * 30


def test_another_score_than_the_models_is_calibrated(single: Model) -> None:
    config = Config.model_validate(QUICK | {"score": {"span": 1}})
    actual = one(Detector(config, model=single), wave(60))
    assert actual.stage.tolist() == [1] * 30 + [2] * 30


@pytest.mark.parametrize("kind", KINDS)
def test_a_spike_is_flagged_once(kind: str) -> None:
    rules = {"threshold": {"kind": kind}, "score": {"span": 1}, "episodes": {"merge_rows": 10}}
    detector = Detector(QUICK | rules)
    x = wave(1200)
    x[1000] += 12
    actual = one(detector, x)
    assert actual.flag[1000]
    assert actual.flag[:1000].mean() < 0.01
    closed = [episode for episode in detector.closed_episodes() if episode.first <= 1000 <= episode.last]
    assert [(episode.key, episode.state, episode.opened) for episode in closed] == [("s", "closed", 1000 * MINUTE)]
    assert closed[0].id == "call/1000"
    assert closed[0].cause == "value_0: unexpected step, above expected"
    assert closed[0].peak_severity == actual.severity[1000] > 1
    assert detector.closed_episodes() == []


# What a stream bears.


def test_missing_values_are_imputed_and_counted(many: Model) -> None:
    x = np.stack([wave(400), wave(400, seed=1)], axis=1)
    rng = np.random.default_rng(0)
    x[rng.uniform(size=x.shape) < 0.2] = np.nan
    x[200:220] = np.nan
    x[300, 0] = np.inf
    x[301, 1] = -np.inf
    missing = ~np.isfinite(x)
    actual = Detector(QUICK).process_batch(["s"] * 400, None, x)
    ready = actual.stage > 0
    assert np.array_equal(actual.imputed[ready], missing.sum(axis=1)[ready])
    assert np.isfinite(actual.score).all()
    assert np.isfinite(actual.expected[ready]).all()
    assert (actual.score[201:220] == actual.score[200]).all()  # after what record 199 taught
    assert not actual.flag[200:220].any()
    assert np.isfinite(actual.severity[60:]).all()


def test_a_stream_without_any_value() -> None:
    detector = Detector(QUICK)
    actual = one(detector, np.full(200, np.nan))
    assert not actual.flag.any()
    assert np.isfinite(actual.score).all()
    later = one(detector, wave(400), first=200)
    assert np.isfinite(later.score).all()
    assert later.stage[-1] == Stage.LIVE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 5.0, -1e9])
def test_a_constant_is_never_flagged(kind: str, value: float) -> None:
    detector = Detector(QUICK | {"threshold": {"kind": kind}})
    actual = one(detector, np.full(600, value))
    assert not actual.flag.any()
    assert actual.score[300:].max() < 0.1


def test_a_constants_first_wiggle_is_small() -> None:
    x = np.full(400, 100.0)
    x[300] = 100.0001
    assert one(Detector(QUICK), x).score[300:].max() < 1


@pytest.mark.parametrize("value", [1e30, -1e300])
def test_a_wild_value_is_forgotten(value: float, single: Model) -> None:
    for detector in (Detector(model=single), Detector(QUICK)):
        x = wave(3000)
        x[1000] = value
        expected = one(type(detector)(detector.config, model=detector.model), wave(3000))
        actual = one(detector, x)
        assert actual.flag[1000]
        assert np.isfinite(actual.score).all()
        assert np.isfinite(actual.severity[60:]).all()
        assert np.isfinite(actual.expected[60:]).all()
        assert np.abs(actual.expected - expected.expected)[1500:].max() < 0.25
        assert not actual.flag[2200:].any()


def test_a_wild_value_does_not_blind(single: Model) -> None:
    for detector in (Detector(model=single), Detector(QUICK)):
        x = wave(3000)
        x[1000], x[2500] = 1e30, 30
        assert one(detector, x).flag[2500]


@pytest.mark.parametrize("row", [5, 30])
@pytest.mark.parametrize("value", [1e30, 1e200])
def test_a_wild_value_before_live_is_forgotten(row: int, value: float) -> None:
    x = wave(3000)
    x[row], x[2500] = value, 30
    actual = one(Detector(QUICK), x)
    assert np.isfinite(actual.expected[20:]).all()
    assert actual.flag[2500]


def test_times_that_repeat_or_go_back_are_counted(many: Model) -> None:
    detector = Detector(model=many)
    assert detector.time_faults() == (0, 0, 0)
    times = np.array([0, 5, 5, 3, 6, 6, 1, 7, NO_TIME, 7, -4]) * 1
    detector.process_batch(["stream-0"] * len(times), times, np.zeros(len(times)))
    assert detector.time_faults() == (3, 3, 0)
    detector.process_batch(["stream-1"] * 2, [9, 9], np.zeros(2))
    assert detector.time_faults() == (3, 4, 0)
    detector.process_batch(["stream-1"] * 2, None, np.zeros(2))
    assert detector.time_faults() == (3, 4, 0)


@pytest.mark.parametrize("mode", ["frozen", "online"])
def test_a_level_shift_is_accepted(mode: str, single: Model) -> None:
    episodes = {"accept_after_rows": 100, "merge_rows": 5}
    config = Config.model_validate(QUICK | {"episodes": episodes})
    detector = Detector(config, model=single if mode == "frozen" else None)
    x = wave(5000)
    x[1000:] += 12
    actual = one(detector, x)
    assert actual.flag[1000:1100].any()
    assert detector.open_episodes() == []
    assert not actual.flag[-500:].any()
    closed = [episode for episode in detector.closed_episodes() if episode.opened >= 1000 * MINUTE]
    assert 1 <= len(closed) <= 3
    assert closed[0].last - closed[0].first >= 50


# Files and calls.


def test_a_damaged_snapshot(tmp_path: Path, many: Model) -> None:
    path = tmp_path / "s"
    for detector in (Detector(model=many), Detector(QUICK)):
        one(detector, wave(100))
        detector.snapshot(path)
        data = path.read_bytes()
        header = 8 + int.from_bytes(data[:8], "little")
        other = data.replace(b'"arithmetic":"', b'"arithmetic":"x')
        other = (int.from_bytes(data[:8], "little") + 1).to_bytes(8, "little") + other[8:]
        for damaged in (b"", data[:7], data[: header // 2], data[:-1], data + b"x", data[9:], b"a,b\n1,2\n", other):
            path.write_bytes(damaged)
            with pytest.raises(StateError):
                Detector.restore(path)
    with pytest.raises(StateError):
        Detector.restore(tmp_path / "none")
    with pytest.raises(StateError, match="has seen no record yet"):
        Detector(QUICK).snapshot(path)


def test_a_snapshot_with_a_flipped_bit(tmp_path: Path) -> None:
    path, detector = tmp_path / "s", Detector(QUICK)
    one(detector, wave(100))
    detector.snapshot(path)
    data = bytearray(path.read_bytes())
    data[-100] ^= 64
    path.write_bytes(data)
    with pytest.raises(StateError):
        Detector.restore(path)


def test_calls_that_make_no_sense(many: Model) -> None:
    detector = Detector(model=many)
    with pytest.raises(UsageError, match="frozen needs a model"):
        Detector({"learning": {"mode": "frozen"}})
    with pytest.raises(UsageError, match="got 2 columns, this detector reads 1: value"):
        detector.process("s", 0, [1.0, 2.0])
    with pytest.raises(UsageError, match="got 2 columns"):
        detector.process_batch(["s"], None, [[1.0, 2.0]])
    for values in ([], [1.0], [1.0, 2.0, 3.0]):
        for call in (two := Detector(QUICK, features=("a", "b"))).process, two.peek:
            with pytest.raises(UsageError, match=f"got {len(values)} columns, this detector reads 2: a, b"):
                call("s", 0, values)
    with pytest.raises(UsageError, match="B rows each"):
        detector.process_batch(["s", "t"], None, [1.0])
    with pytest.raises(UsageError, match="B rows each"):
        detector.process_batch(["s"], [1, 2], [1.0])
    assert len(detector.pool) == 0
    assert len(detector.process_batch([], None, np.zeros((0, 1)))) == 0


@pytest.mark.parametrize("kind", ["contrast", "quantile"])
def test_memory_of_a_stream(kind: str) -> None:
    layout = make_layout(Config.model_validate({"threshold": {"kind": kind}}), 1, 0, online=False)
    assert layout.hidden_size == 32
    assert layout.bytes_per_stream <= 1024


@pytest.mark.parametrize("mode", ["frozen", "online"])
def test_python_does_nothing_per_event(mode: str, many: Model) -> None:
    config = QUICK | {"threshold": {"kind": "fixed", "level": 1e6}}
    detector = Detector(config, model=many if mode == "frozen" else None)

    def events(rows: int) -> EventBatch:
        names = pa.array([f"stream-{n}" for n in range(100)])
        keys = pa.DictionaryArray.from_arrays(pa.array(np.arange(rows, dtype=np.int32) % 100), names)
        x = np.random.default_rng(0).normal(size=(rows, 1))
        return EventBatch(keys, np.arange(rows), x, np.arange(rows), "file.csv")

    small, large = events(1000), events(100_000)
    for batch in (large, small):  # arrays grow, caches fill
        assert not detector.process_events(batch).flag.any()
    counts = [executed_bytecodes(lambda batch=batch: detector.process_events(batch)) for batch in (small, large, small)]
    assert 0 < counts[0] < 5000
    assert counts[0] == counts[1] == counts[2]


def test_no_stream_is_live_without_a_threshold(single: Model) -> None:
    config = {"threshold": {"kind": "fixed", "level": 1e6}, "learning": {"calibrating_rows": 1}}
    actual = one(Detector({**single.config.model_dump(), **config}, model=single), wave(40))
    assert not actual.flag.any()
    assert (actual.threshold[actual.stage == Stage.LIVE] == np.float32(1e6)).all()


@pytest.mark.parametrize("memory", [None, 1 << 60])
def test_many_new_streams_are_no_reason_to_copy_all_others(monkeypatch: pytest.MonkeyPatch, memory: int | None) -> None:
    """But where address space is rationed: a machine with so much memory cannot give it all at once."""
    if memory is not None:
        monkeypatch.setattr(pool, "_memory", lambda: memory)
    detector = Detector({"model": {"hidden_size": 4}}, features=("value",))
    keys = [f"s{n}" for n in range(30_000)]
    detector.process_batch(keys[:5000], None, np.arange(5000.0))
    rows = detector.pool.rows
    before = rows.stats[:5000].copy()
    detector.process_batch(keys[5000:], None, np.zeros(25_000))
    assert (detector.pool.rows is rows) == (memory is None)
    assert np.array_equal(detector.pool.rows.stats[:5000], before, equal_nan=True)
