"""The promise of the same bits: outputs depend on the partition's sequence of records alone.

Frozen, they depend on the stream's own records alone, so streams may be permuted and interleaved too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.learn.fit import Recording, fit
from streamlstm.types import EventBatch, Scored, ScoredBatch

Make = Callable[..., dict[str, Recording]]
ROWS, STREAMS = 700, 7
FIELDS = (
    "score",
    "threshold",
    "severity",
    "flag",
    "stage",
    "change",
    "imputed",
    "expected",
    "low",
    "high",
    "attribution",
)
SETTINGS = {
    "model": {"hidden_size": 8},
    "training": {"updates": 60},
    "learning": {"update_every": 16, "learning_rows": 20, "calibrating_rows": 20},
    "threshold": {"kind": "quantile"},
    "episodes": {"merge_rows": 2, "accept_after_rows": 12},
}


@dataclass(frozen=True, repr=False)  # a failing property shows its arguments
class Records:
    """A partition's records in their order."""

    keys: list[str]
    time: Any
    x: Any

    def __len__(self) -> int:
        return len(self.keys)

    def at(self, rows: Any) -> "Records":
        return Records([self.keys[b] for b in rows], self.time[rows], self.x[rows])


Makers = dict[str, Callable[[], Detector]]


class Expected(dict[str, dict[str, list[bytes]]]):
    """The output of each mode as bytes."""

    __repr__ = object.__repr__


def score(detector: Detector, records: Records) -> ScoredBatch:
    return detector.process_batch(records.keys, records.time, records.x)


def bits(scored: ScoredBatch) -> dict[str, list[bytes]]:
    """The output, record by record, as bytes."""
    return {name: [row.tobytes() for row in getattr(scored, name)] for name in FIELDS}


def bits_of_parts(detector: Detector, records: Records, cuts: list[int]) -> dict[str, list[bytes]]:
    """The output where the records come in batches that end at `cuts`."""
    edges = [0, *sorted(min(cut, len(records)) for cut in cuts), len(records)]
    parts = [bits(score(detector, records.at(np.arange(begin, end)))) for begin, end in pairwise(edges)]
    return {name: [row for part in parts for row in part[name]] for name in FIELDS}


def bits_of_one(scored: Scored) -> dict[str, bytes]:
    """The output of one event as bytes, in the types of a batch."""
    kinds = {"score": "f4", "threshold": "f4", "severity": "f4", "flag": "?", "stage": "u1", "change": "u1",
             "imputed": "u2"}  # fmt: skip
    return {name: np.array(getattr(scored, name), kinds.get(name, "f8")).tobytes() for name in FIELDS}


def same(actual: dict[str, list[bytes]], expected: dict[str, list[bytes]]) -> None:
    for name in FIELDS:
        differing = [b for b, pair in enumerate(zip(actual[name], expected[name], strict=True)) if pair[0] != pair[1]]
        assert not differing, f"{name} differs first at record {differing[0]}"


@pytest.fixture(scope="module")
def records() -> Records:
    """Records of 7 streams, some common and some rare, with missing values, spikes, a shift and wild times."""
    rng = np.random.default_rng(11)
    share = np.array([0.4, 0.2, 0.15, 0.1, 0.08, 0.05, 0.02])
    stream = rng.choice(STREAMS, ROWS, p=share)
    stream[200:260] = 0  # a stretch of one stream: many waves of one row
    t = np.arange(ROWS)
    x = np.stack([np.sin(t / 5), np.cos(t / 9)], axis=1) + stream[:, None] + 0.1 * rng.normal(size=(ROWS, 2))
    x[rng.uniform(size=x.shape) < 0.05] = np.nan
    x[rng.integers(300, ROWS, 12)] += 30
    x[450:520] += 9
    x[333, 0], x[334, 1] = np.inf, 1e30
    time = 1_700_000_000_000_000_000 + t * 60_000_000_000 - rng.integers(0, 2, ROWS) * 120_000_000_000
    return Records([f"stream-{n}" for n in stream], time, x)


@pytest.fixture(scope="module")
def makers(synthetic: Make) -> Makers:
    """New detectors of each mode."""
    config = Config.model_validate(SETTINGS)
    # The streams 0 to 3 are live from the first record; 4 to 6 learn their scale by themselves.
    model = fit(synthetic(streams=4, features=2), config, ("a", "b"))
    online = Config.model_validate(SETTINGS | {"learning": SETTINGS["learning"] | {"mode": "online", "rate": 1e-2}})
    return {
        "frozen": lambda: Detector(model=model),
        "online": lambda: Detector(online, features=("a", "b")),
        "online from a model": lambda: Detector(online, model=model),
    }


MODES = ("frozen", "online", "online from a model")


@pytest.fixture(scope="module")
def expected(makers: Makers, records: Records) -> Expected:
    """What each mode says of the records in one batch."""
    found = Expected()
    for mode, make in makers.items():
        scored = score(make(), records)
        found[mode] = bits(scored)
        assert scored.flag.any()
        assert {0, 1, 2, 3} <= set(scored.change.tolist()) | {2}
        assert set(scored.stage.tolist()) == {0, 1, 2}
        assert np.isfinite(scored.score).all()
    assert found["online"]["score"] != found["online from a model"]["score"] != found["frozen"]["score"]
    return found


often = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
rarely = settings(often, max_examples=12)
cut_lists = st.lists(st.integers(0, ROWS), max_size=25)


@pytest.mark.parametrize("mode", MODES)
@often
@given(cuts=cut_lists)
def test_splits_into_batches_change_nothing(
    mode: str, makers: Makers, records: Records, expected: Expected, cuts: list[int]
) -> None:
    same(bits_of_parts(makers[mode](), records, cuts), expected[mode])


@pytest.mark.parametrize("mode", MODES)
def test_batches_of_one_change_nothing(mode: str, makers: Makers, records: Records, expected: Expected) -> None:
    same(bits_of_parts(makers[mode](), records, list(range(ROWS))), expected[mode])


@pytest.mark.parametrize("mode", MODES)
def test_one_by_one_is_the_batch(mode: str, makers: Makers, records: Records, expected: Expected) -> None:
    detector = makers[mode]()
    actual = [
        bits_of_one(detector.process(key, int(time), x.tolist()))
        for key, time, x in zip(records.keys, records.time, records.x, strict=True)
    ]
    same({name: [row[name] for row in actual] for name in FIELDS}, expected[mode])


@pytest.mark.parametrize("mode", MODES)
@rarely
@given(threads=st.integers(1, 3), cuts=st.lists(st.integers(0, ROWS), max_size=2))
def test_threads_change_nothing(
    mode: str, makers: Makers, records: Records, expected: Expected, threads: int, cuts: list[int]
) -> None:
    detector = makers[mode]()
    detector.threads = threads
    same(bits_of_parts(detector, records, cuts), expected[mode])


@often
@given(random=st.randoms(use_true_random=False), cuts=cut_lists, threads=st.integers(1, 2))
def test_frozen_streams_may_be_interleaved_anyhow(
    makers: Makers, records: Records, expected: Expected, random: Any, cuts: list[int], threads: int
) -> None:
    keys = list(records.keys)
    random.shuffle(keys)
    places = {key: iter(np.flatnonzero(np.array(records.keys) == key)) for key in set(keys)}
    order = np.array([next(places[key]) for key in keys])
    detector = makers["frozen"]()
    detector.threads = threads
    actual = bits_of_parts(detector, records.at(order), cuts)
    same(actual, {name: [rows[b] for b in order] for name, rows in expected["frozen"].items()})


def test_frozen_streams_do_not_touch_each_other(makers: Makers, records: Records, expected: Expected) -> None:
    for key in sorted(set(records.keys)):
        own = np.flatnonzero(np.array(records.keys) == key)
        actual = bits(score(makers["frozen"](), records.at(own)))
        same(actual, {name: [rows[b] for b in own] for name, rows in expected["frozen"].items()})


def test_many_streams_and_tiles_are_alike(makers: Makers, records: Records) -> None:
    """More streams than one group holds, each with the same records: all rows of a wave have the same bits."""
    one = [b for b, key in enumerate(records.keys) if key == "stream-5"][:20]
    single = records.at(np.array(one))
    streams = 1201
    keys = [f"stream-{100 + n}" for n in range(streams)] * len(one)
    many = Records(keys, np.repeat(single.time, streams), np.repeat(single.x, streams, axis=0))
    expected_bits = bits(score(makers["frozen"](), Records(["stream-100"] * len(one), single.time, single.x)))
    for threads in (1, 2):
        detector = makers["frozen"]()
        detector.threads = threads
        actual = bits(score(detector, many))
        for name in FIELDS:
            assert [set(actual[name][n : n + streams]) for n in range(0, len(many), streams)] == [
                {row} for row in expected_bits[name]
            ]


@pytest.mark.parametrize("mode", MODES)
def test_unused_keys_of_a_dictionary_change_nothing(
    mode: str, makers: Makers, records: Records, expected: Expected
) -> None:
    keys = pa.array(["unused", *records.keys, "also unused"]).dictionary_encode()[1 : ROWS + 1]
    scored = makers[mode]().process_events(
        EventBatch(keys, records.time, records.x, np.arange(ROWS), "call"), detail=True
    )
    same(bits(scored), expected[mode])


@pytest.mark.parametrize("mode", MODES)
@rarely
@given(cut=st.integers(1, ROWS - 1))
def test_restoring_a_snapshot_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, mode: str, makers: Makers, records: Records, expected: Expected, cut: int
) -> None:
    path = tmp_path_factory.mktemp("snapshot") / "s.safetensors"
    straight, first = makers[mode](), makers[mode]()
    score(straight, records)
    begin = bits(score(first, records.at(np.arange(cut))))
    closed = first.closed_episodes()
    first.snapshot(path)
    second = Detector.restore(path)
    assert second.open_episodes() == first.open_episodes()
    assert second.stages() == first.stages()
    rest = bits(score(second, records.at(np.arange(cut, ROWS))))
    same({name: begin[name] + rest[name] for name in FIELDS}, expected[mode])
    assert closed + second.closed_episodes() == straight.closed_episodes()
    assert second.open_episodes() == straight.open_episodes()
    assert second.time_faults() == straight.time_faults()
    assert everything(second) == everything(straight)


def everything(detector: Detector) -> list[bytes]:
    """All that a record may change."""
    pool, learner = detector.pool, detector.engine.learner
    arrays = [rows[: len(pool)] for rows in (pool.rows.state, pool.rows.stats, pool.rows.marks)] + [
        detector.engine.weights
    ]
    if learner is not None:
        arrays += [getattr(learner, name) for name in ("counters", "theta", "first", "second", "gram", "cross", "skip")]
    counts = [pool.keys.strings().to_pylist(), detector.rows_of_calls, detector.log.sources]
    return [*(array.tobytes() for array in arrays), repr(counts).encode()]


@pytest.mark.parametrize("mode", MODES)
def test_peek_changes_nothing_and_is_process(mode: str, makers: Makers, records: Records, expected: Expected) -> None:
    detector = makers[mode]()
    for b, (key, time, x) in enumerate(zip(records.keys, records.time, records.x, strict=True)):
        if b % 5 == 0 or 440 < b < 470 or b < 40:
            before = everything(detector)
            peeked = detector.peek(key, int(time), x.tolist())
            assert everything(detector) == before
            actual = detector.process(key, int(time), x.tolist())
            assert bits_of_one(peeked) == bits_of_one(actual) == {name: expected[mode][name][b] for name in FIELDS}
            assert (peeked.key, peeked.time, repr(peeked.value)) == (actual.key, actual.time, repr(actual.value))
        else:
            detector.process(key, int(time), x.tolist())


def test_the_path_of_a_snapshot_is_a_file(tmp_path: Path, makers: Makers, records: Records) -> None:
    detector = makers["frozen"]()
    score(detector, records)
    detector.snapshot(tmp_path / "s")
    detector.snapshot(str(tmp_path / "s"))
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
