"""Rules beside the model: what breaks them, in every stage, and what a broken one keeps from being learned."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamlstm.config import Config, load
from streamlstm.detect.detector import Detector
from streamlstm.errors import ConfigError
from streamlstm.kernels.layout import AT_THRESHOLD, BINS
from streamlstm.kernels.thresholds.contrast import DEVIATION
from streamlstm.learn.fit import Recording, fit
from streamlstm.model.layout import make_layout
from streamlstm.model.network import Model
from streamlstm.types import CAUSE_KIND, NO_TIME, Cause, Stage, cause_text

S = 1_000_000_000
NAN = float("nan")
SETTINGS: dict[str, Any] = {
    "model": {"hidden_size": 4},
    "training": {"updates": 0},
    "learning": {"update_every": 16, "learning_rows": 10, "calibrating_rows": 20, "extreme_margin": 0},
    "threshold": {"kind": "fixed", "level": 1e6},  # rules alone flag
    "episodes": {"merge_rows": 2, "accept_after_rows": 40},
}
RULES: dict[str, Any] = {
    "minimum": {"a": -5, "b": 0},
    "maximum": {"a": 5},
    "max_step": {"b": 6},
    "flat_rows": {"a": 3},
    "missing_rows": {"a": 2, "b": 1},
    "silent_s": 60,
}


def wave(rows: int, seed: int = 0) -> Any:
    return np.sin(np.arange(rows) / 5) + 0.1 * np.random.default_rng(seed).normal(size=rows)


def detector(rules: dict[str, Any], features: tuple[str, ...] = ("v",), **sections: Any) -> Detector:
    return Detector(SETTINGS | {"rules": rules} | sections, features=features)


@pytest.fixture(scope="module")
def model() -> Model:
    config = Config.model_validate(SETTINGS)
    return fit({"s": Recording(np.arange(200) * S, wave(200)[:, None])}, config, ("v",))


def naive_causes(rows: list[tuple[float, float, int]]) -> list[tuple[Cause, int, int] | None]:
    """What RULES say of records of `a`, `b` and time: cause, feature, and 1 for below."""
    told: list[tuple[Cause, int, int] | None] = []
    for t, (*values, time) in enumerate(rows):
        found = []
        for d, value in enumerate(values):
            past = [row[d] for row in rows[: t + 1]]
            known = [v for v in past if v == v]
            if value != value:
                if d == 1 or (t >= 1 and past[-2] != past[-2]):
                    found.append((Cause.MISSING, d, 0))
                continue
            if d == 0 and len(known) >= 3 and known[-3:] == [value] * 3:
                found.append((Cause.STUCK, d, 0))
            if (abs(value) > 5) if d == 0 else (value < 0):
                found.append((Cause.OUT_OF_RANGE, d, int(value < 0)))
            if d == 1 and len(known) > 1 and abs(known[-2] - value) > 6:
                found.append((Cause.JUMP, d, int(value < known[-2])))
        before = [row[2] for row in rows[:t] if row[2] != NO_TIME]
        if before and time != NO_TIME and time - max(before) > 60 * S:
            found.append((Cause.SILENT, 0, 0))
        told.append(max(found, key=lambda f: f[0]) if found else None)
    return told


values = st.sampled_from([NAN, -6.0, -5.0, 0.0, 1.0, 1.0, 5.0, 7.0])
times = st.sampled_from([NO_TIME, 0, 10 * S, 70 * S, 71 * S, 140 * S, 300 * S])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(values, values, times), min_size=1, max_size=50), st.integers(0, 50))
def test_equals_the_naive_rules_in_every_stage(rows: list[tuple[float, float, int]], cut: int) -> None:
    one = detector(RULES, ("a", "b"))
    x, time = np.array([row[:2] for row in rows]), np.array([row[2] for row in rows])
    parts = [one.process_batch(["s"] * len(x[at]), time[at], x[at]) for at in (slice(cut), slice(cut, None))]
    flag, cause = (np.concatenate([getattr(part, name) for part in parts]) for name in ("flag", "cause"))
    expected = naive_causes(rows)
    assert flag.tolist() == [told is not None for told in expected]
    codes = [told[0] * CAUSE_KIND + 2 * told[1] + told[2] if told else 0 for told in expected]
    assert cause.tolist() == codes


def test_an_episode_names_the_rule(model: Model) -> None:
    """Opened by the model, then stuck: the rule is the cause, and stays it."""
    x = wave(400)
    x[200:230] = 8.0
    config = SETTINGS | {"rules": {"flat_rows": 10}, "threshold": {"kind": "fixed", "level": 5.0}}
    one = Detector(config, model=model)
    actual = one.process_batch(["s"] * 400, None, x)
    closed = one.closed_episodes()
    assert [episode.cause for episode in closed] == ["v: stuck at one value"]
    assert closed[0].first < 205
    assert cause_text(actual.cause[202], ("v",)) != closed[0].cause
    assert actual.change[209] == 2
    assert actual.flag[209:230].all()


@pytest.mark.parametrize("row", [4, 20, 60])
def test_a_rule_waits_for_no_stage_and_no_further_record(row: int) -> None:
    one = detector({"maximum": {"v": 5}}, episodes={"min_rows": 5, "merge_rows": 2})
    x = wave(80)
    x[row] = 9
    actual = one.process_batch(["s"] * 80, None, x)
    assert np.flatnonzero(actual.flag).tolist() == [row]
    assert np.flatnonzero(actual.change).tolist() == [row, row + 3]
    assert actual.detailed.all()
    assert np.isclose(actual.attribution.sum(axis=1), 1).all()
    (episode,) = one.closed_episodes()
    assert (episode.first, episode.last, episode.events, episode.peak_severity) == (row, row, 1, 1.0)
    assert episode.cause == "v: outside its allowed range, above expected"


def test_mean_and_spread_are_not_learned_from_it() -> None:
    one, x = detector({"maximum": {"v": 5}}), wave(13)
    x[4] = 9
    one.process_batch(["s"] * 13, None, x)
    taught = np.delete(x, [4, 5, 6])  # until the episode closes
    assert one.stages()["calibrating"] == 1
    assert one.pool.rows.stats[0, :2] == pytest.approx([taught.mean(), taught.var()])


@pytest.mark.parametrize("kind", ["contrast", "quantile", "sigma"])
@pytest.mark.parametrize(
    ("mode", "first"), [("online", 5), ("frozen", 14), ("online", 20), ("frozen", 60), ("online", 60)]
)
def test_nothing_is_learned_while_its_episode_is_open(mode: str, first: int, kind: str, model: Model) -> None:
    """Usual errors, calibration, normaliser and threshold, in every stage."""
    config = SETTINGS | {
        "rules": {"silent_s": 60},
        "threshold": {"kind": kind, "false_alarms_per_day": 1e-9},
        "learning": SETTINGS["learning"] | {"mode": mode},
    }
    one = Detector(config, model=model if mode == "frozen" else None, features=("v",))
    # further on, `contrast` counts time
    start = int(one.layout.sizes[AT_THRESHOLD])
    end = start + {"contrast": DEVIATION + 1, "sigma": 3, "quantile": BINS + 1}[kind]

    def known() -> bytes:
        rows = one.pool.rows  # of the stats, mean, variance and spread: the least and largest value are no model
        parts = rows.state[0, one.layout.known_columns], rows.state[0, start:end], rows.stats[0, :3]
        return b"".join(part.tobytes() for part in parts)

    x, time = wave(140), np.arange(140) * S
    time[first:] += np.minimum(np.arange(1, 141 - first), 4) * 100 * S  # values that the model finds nothing wrong with
    one.process_batch(["s"] * first, time[:first], x[:first])
    before = known()
    for t in range(first, first + 6):
        assert one.process("s", int(time[t]), [x[t]]).flag or t >= first + 4
        assert len(one.open_episodes()) == 1
        assert known() == before
    one.process_batch(["s"] * (134 - first), time[first + 6 :], x[first + 6 :])
    assert known() != before


def test_weights_do_not_learn_from_it() -> None:
    one, x = detector({"maximum": {"v": 5}}), wave(160)
    x[80:112] = 9
    one.process_batch(["s"] * 80, None, x[:80])
    learner = one.engine.learner
    assert learner is not None
    rows = int(learner.counters[3])
    for begin in (80, 96):
        one.process_batch(["s"] * 16, None, x[begin : begin + 16])
        assert np.isnan(learner.target).all()
    assert learner.counters[3] == rows
    one.process_batch(["s"] * 48, None, x[112:])
    assert learner.counters[3] > rows


def test_a_violation_that_lasts_is_one_episode_and_is_accepted() -> None:
    one, x = detector({"maximum": {"v": 5}}), wave(300)
    x += 20
    actual = one.process_batch(["s"] * 300, None, x)
    assert actual.flag.all()
    assert np.count_nonzero(actual.change == 1) == 1
    assert actual.stage[:49].tolist() == [Stage.LEARNING] * 49  # 40 until it is accepted, then 10 that teach
    assert actual.stage[-1] == Stage.LIVE
    assert actual.expected[-50:].mean() == pytest.approx(20, abs=0.5)


def test_memory_is_paid_by_those_who_ask() -> None:
    def size(rules: dict[str, Any]) -> int:
        return make_layout(Config.model_validate({"rules": rules}), 10, 0, online=False).bytes_per_stream

    plain = size({})
    assert size({"minimum": {"a": 1}, "silent_s": 5}) == plain
    assert size({"max_step": {"a": 1}}) == plain + 80
    assert size({"flat_rows": 5}) == plain + 120
    assert size({"missing_rows": 5}) == plain + 40


@pytest.mark.parametrize("rule", ["minimum", "maximum", "max_step", "flat_rows", "missing_rows"])
def test_a_feature_that_there_is_not(rule: str) -> None:
    message = rf"rules\.{rule}: there is no feature 'c'; the features are: a, b"
    with pytest.raises(ConfigError, match=message):
        detector({rule: {"c": 3}}, ("a", "b"))
    recording, config = Recording(np.arange(60) * S, np.zeros((60, 2))), {"rules": {rule: {"c": 3}}}
    with pytest.raises(ConfigError, match=message):
        fit({"s": recording}, Config.model_validate(SETTINGS | config), ("a", "b"))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"minimum": {"a": "x"}}, "rules.minimum: must be a mapping of names, each to a number, got {'a': 'x'}"),
        ({"max_step": {"a": -1}}, "rules.max_step: must be a mapping of names, each to a number at least 0, got"),
        ({"minimum": {"a": 2}, "maximum": {"a": 1}}, "rules: the minimum of 'a', 2.0, lies above its maximum, 1.0"),
        ({"silent_s": 0}, "rules.silent_s: must be above 0 or null, got 0"),
        ({"flat_rows": 1}, "must be a whole number between 2 and 1000000 or a mapping of names, each to"),
    ],
)
def test_rules_that_make_no_sense(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"rules": rules}, environ={})
    assert message in str(caught.value)


def test_a_snapshot_carries_the_rules_on(tmp_path: Any) -> None:
    one = detector(RULES, ("a", "b"))
    x = np.array([[1.0, 2.0], [1.0, NAN]])
    one.process_batch(["s"] * 2, [0, S], x)
    one.snapshot(tmp_path / "s")
    two = Detector.restore(tmp_path / "s")
    for actual in (one, two):
        stuck = actual.process("s", 2 * S, [1.0, 2.0])
        assert (stuck.cause, stuck.flag) == ("a: stuck at one value", True)
        assert actual.process("s", 90 * S, [2.0, 2.0]).cause == "was silent"
