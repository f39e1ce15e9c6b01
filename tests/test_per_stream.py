"""Weights of each stream alone: fitted at once, scored with the same bits, and shared ones for all other streams."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.errors import ConfigError, ModelError, UsageError
from streamlstm.learn.bptt import Progress
from streamlstm.learn.fit import Recording, fit
from streamlstm.model.files import load_model, save_model
from streamlstm.model.network import Model

Make = Callable[..., dict[str, Recording]]
MINUTE = 60_000_000_000


def settings(**other: Any) -> Config:
    """A small network, its weights per stream."""
    model = {"hidden_size": 8, "num_layers": 2, "weights": "per_stream"} | other
    return Config.model_validate({"model": model, "training": {"updates": 40}, "runtime": {"threads": 2}})


@pytest.fixture
def data(synthetic: Make) -> dict[str, Recording]:
    return synthetic(streams=3, rows=500, features=2)


def scored(model: Model, keys: list[str], x: Any, threads: int = 1) -> Any:
    detector = Detector(model=model)
    detector.threads = threads
    return detector.process_batch(keys, np.arange(len(x)) * MINUTE, x)


def test_each_stream_is_scored_by_the_network_of_its_own_records(data: dict[str, Recording]) -> None:
    model = fit(data, settings(), ("a", "b"))
    keys = list(data)
    assert len({network.packed().tobytes() for network in (model.network, *model.own)}) == 4
    x = np.random.default_rng(1).normal(size=(900, 2)).cumsum(axis=0)
    mixed = scored(model, (keys + keys[::-1]) * 150, x)
    for key, recording in data.items():
        alone = fit({key: recording}, settings(weights="shared"), ("a", "b"))
        at = np.flatnonzero(np.array((keys + keys[::-1]) * 150) == key)
        detector = Detector(model=alone)
        expected = detector.process_batch([key] * len(at), at * MINUTE, x[at])
        assert expected.expected.tobytes() == mixed.expected[at].tobytes()
        assert expected.score.tobytes() == mixed.score[at].tobytes()


def test_other_streams_have_the_weights_of_all(data: dict[str, Recording]) -> None:
    own, shared = (fit(data, settings(weights=weights), ("a", "b")) for weights in ("per_stream", "shared"))
    x = np.random.default_rng(2).normal(size=(300, 2))
    few = {"usual": shared.usual}
    first, second = (scored(replace(of, **few), ["new"] * 300, x) for of in (own, shared))
    assert first.score.tobytes() == second.score.tobytes()
    assert first.score.any()


def test_files_snapshots_batches_and_threads_keep_the_bits(data: dict[str, Recording], tmp_path: Path) -> None:
    seen: list[Progress] = []
    model = fit(data, settings(), ("a", "b"), on_progress=seen.append)
    assert [(at.update, at.updates) for at in seen[-3:]] == [(1, 3), (2, 3), (3, 3)]
    assert (
        fit(data, Config.model_validate(settings().model_dump() | {"runtime": {"threads": 1}}), ("a", "b")).hash
        == model.hash
    )
    save_model(model, tmp_path / "m")
    again = load_model(tmp_path / "m")
    assert again.hash == model.hash
    keys = [*data, "new"] * 200
    x = np.random.default_rng(3).normal(size=(len(keys), 2)).cumsum(axis=0)
    expected = scored(model, keys, x).score
    assert scored(again, keys, x, threads=2).score.tobytes() == expected.tobytes()
    parts = Detector(model=again)
    first = parts.process_batch(keys[:301], np.arange(301) * MINUTE, x[:301]).score
    parts.snapshot(tmp_path / "s")
    rest = Detector.restore(tmp_path / "s").process_batch(keys[301:], np.arange(301, len(keys)) * MINUTE, x[301:]).score
    assert np.concatenate([first, rest]).tobytes() == expected.tobytes()
    tight = Detector({"runtime": {"max_streams": 64}}, model=again)
    assert tight.process_batch(keys, np.arange(len(keys)) * MINUTE, x).score.tobytes() == expected.tobytes()


ONLINE = {"mode": "online", "update_every": 16, "learning_rows": 20, "calibrating_rows": 30}


def learning(**other: Any) -> dict[str, Any]:
    """Online settings with weights per stream."""
    model = {"hidden_size": 8, "weights": "per_stream"} | other
    return {"model": model, "learning": ONLINE}


def walk(rows: int, seed: int) -> Any:
    t = np.arange(rows)[:, None]
    return np.sin(t / (5, 9)) + 0.1 * np.random.default_rng(seed).normal(size=(rows, 2))


def test_a_stream_learns_as_if_it_were_alone() -> None:
    keys, x, time = ["a", "b", "a", "c"] * 300, walk(1200, 1), np.arange(1200) * MINUTE
    detector = Detector(learning(), features=("u", "v"))
    mixed = detector.process_batch(keys, time, x)
    for key in ("a", "b", "c"):
        at = np.flatnonzero(np.array(keys) == key)
        alone = Detector(learning(weights="shared"), features=("u", "v"))
        expected = alone.process_batch([key] * len(at), time[at], x[at])
        assert expected.score.tobytes() == mixed.score[at].tobytes()
        assert expected.expected.tobytes() == mixed.expected[at].tobytes()
    theta = detector.engine.learner.theta
    assert len({theta[1 + n].tobytes() for n in range(3)} | {theta[0].tobytes()}) == 4


def test_learning_keeps_its_bits_over_batches_snapshots_and_growth(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    keys = [f"s{n}" for n in rng.integers(0, 90, 6000)]  # more than the first 64 rows
    x, time = walk(6000, 2), np.arange(6000) * MINUTE
    whole = Detector(learning(), features=("u", "v"))
    expected = whole.process_batch(keys, time, x)
    parts = Detector(learning(), features=("u", "v"))
    first = parts.process_batch(keys[:2500], time[:2500], x[:2500]).score
    parts.snapshot(tmp_path / "s")
    again = Detector.restore(tmp_path / "s")
    middle = [again.process(keys[n], int(time[n]), x[n].tolist()) for n in range(2500, 2800)]
    known = again.peek(keys[2800], int(time[2800]), x[2800].tolist())
    assert np.isnan(again.peek("never seen", 0, [0.0, 0.0]).severity)
    rest = again.process_batch(keys[2800:], time[2800:], x[2800:]).score
    assert np.float32(known.score) == rest[0]
    found = np.concatenate([first, np.array([of.score for of in middle], np.float32), rest])
    assert found.tobytes() == expected.score.tobytes()
    assert again.engine.learned(90).keys() == whole.engine.learned(90).keys()
    for name, array in whole.engine.learned(90).items():
        assert array.tobytes() == again.engine.learned(90)[name].tobytes(), name


def test_learning_goes_on_from_the_network_of_each_stream(data: dict[str, Recording]) -> None:
    model = fit(data, settings(), ("a", "b"))
    config = {"learning": ONLINE}
    detector = Detector(config, model=model)
    keys = [*data, "new"] * 40
    x = np.random.default_rng(3).normal(size=(len(keys), 2)).cumsum(axis=0)
    frozen = scored(model, keys[:4], x[:4])
    first = detector.process_batch(keys[:4], np.arange(4) * MINUTE, x[:4])
    assert first.expected[:3].tobytes() == frozen.expected[:3].tobytes()
    assert len(set(first.expected[:3, 0])) == 3
    detector.process_batch(keys[4:], np.arange(4, len(x)) * MINUTE, x[4:])
    steps = detector.engine.learner.counters[4 : 4 + 4]
    assert (steps[:, 0] == 40).all()


@pytest.mark.parametrize("weights", ["shared", "per_stream"])
def test_what_another_network_learned_is_not_taken(weights: str) -> None:
    small, large = (Detector(learning(weights=weights, hidden_size=H), features=("u", "v")) for H in (8, 20))
    for detector in (small, large):
        detector.process_batch(["a"] * 40, None, walk(40, 1))
    with pytest.raises(ValueError, match="broadcast"):
        large.engine.take_learned(small.engine.learned(1))


def test_a_forgotten_stream_begins_with_new_weights() -> None:
    config = learning()
    config["learning"] = ONLINE | {"max_known_streams": 64}
    x = walk(400, 5)
    time = np.arange(10_000) * MINUTE
    detector = Detector(config, features=("u", "v"))
    before = detector.process_batch(["s"] * 400, time[:400], x).score
    detector.process_batch([f"other {n}" for n in range(70)], time[400:470], x[:70])
    again = detector.process_batch(["s"] * 400, time[470:870], x).score
    assert detector.pool.forgotten > 0
    fresh = Detector(config, features=("u", "v")).process_batch(["s"] * 400, time[470:870], x).score
    assert again.tobytes() == fresh.tobytes()
    assert before.any()


def test_what_does_not_go_together_is_said(data: dict[str, Recording]) -> None:
    with pytest.raises(
        UsageError, match=r"per_stream keeps what each stream learns in memory; leave runtime\.max_streams"
    ):
        Detector(learning() | {"runtime": {"max_streams": 100}}, features=("a", "b"))
    ahead = Config.model_validate(settings().model_dump() | {"forecast": {"horizons": 3}})
    with pytest.raises(ConfigError, match=r"forecast\.horizons: a forecast needs model\.weights: shared"):
        fit(data, ahead, ("a", "b"))
    model = fit(data, settings(), ("a", "b"))
    with pytest.raises(ModelError, match="has weights per_stream, the configuration says shared"):
        Detector({"model": {"weights": "shared"}}, model=model)
    other = fit(data, settings(hidden_size=4), ("a", "b"))
    with pytest.raises(ModelError, match="weights of single streams have other shapes"):
        replace(model, own=other.own)
