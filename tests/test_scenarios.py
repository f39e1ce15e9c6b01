"""Drawn scenarios: where an episode opens, what it is told to be, how long it lasts, and what it keeps from being learned.

A stream of 15 minutes' readings with a daily pattern, replayed under a model that was fitted on 25 quiet days, and under a
detector that learns as it goes. Where nothing else is said, settings are the defaults.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.kernels.layout import AT_THRESHOLD
from streamlstm.kernels.online import ROWS as ROWS_LEARNED
from streamlstm.kernels.thresholds.contrast import SLOW
from streamlstm.learn.fit import Recording, fit
from streamlstm.model.network import Model
from streamlstm.types import Cause, Episode, Float64, ScoredBatch

QUARTER = 15 * 60_000_000_000
DAY = 96
AT, ROWS = 1200, 2600
"""Where each scenario begins, and the records of its stream."""
SETTINGS: dict[str, Any] = {
    "model": {"hidden_size": 8},
    "training": {"updates": 60},
    "threshold": {"false_alarms_per_day": 0.15},
    "rules": {"flat_rows": 12, "missing_rows": 3, "silent_s": 36_000},
    "learning": {"extreme_margin": 0},  # a rule of its own: test_extremes
}
ACCEPT_AFTER = Config().episodes.accept_after_rows
MERGE = Config().episodes.merge_rows
MODES = ("frozen", "online")


def normal(rows: int, seed: int) -> Float64:
    t, rng = np.arange(rows), np.random.default_rng(seed)
    return 20 + 3 * np.sin(2 * np.pi * t / DAY) + np.sin(4 * np.pi * t / DAY) + 0.2 * rng.normal(size=rows)


@pytest.fixture(scope="module")
def model() -> Model:
    recording = Recording(np.arange(25 * DAY) * QUARTER, normal(25 * DAY, 0)[:, None])
    return fit({"s": recording}, Config.model_validate(SETTINGS), ("v",))


def detector(mode: str, model: Model) -> Detector:
    return Detector(SETTINGS, model=model) if mode == "frozen" else Detector(SETTINGS, features=("v",))


@dataclass
class Replayed:
    """The detector, what it said, and its episodes as (rows after AT, kind of cause)."""

    detector: Detector
    scored: ScoredBatch
    episodes: list[Episode]


def replay(one: Detector, x: Float64, time: Any = None) -> Replayed:
    time = np.arange(len(x)) * QUARTER if time is None else time
    scored = one.process_batch(["s"] * len(x), time, x)
    return Replayed(one, scored, one.closed_episodes() + one.open_episodes())


def told(episode: Episode) -> str:
    return episode.cause.removeprefix("v: ").split(",")[0]


STEP, NOISY, STUCK, MISSING = "unexpected step", "unusually noisy", "stuck at one value", "missing"


def spike(x: Float64) -> None:
    x[AT : AT + 2] += 6


def level_shift(x: Float64) -> None:
    x[AT:] += 6


def slow_drift(x: Float64) -> None:
    x[AT:] += np.minimum(np.arange(len(x) - AT) * 0.03, 12)


def variance_burst(x: Float64) -> None:
    x[AT : AT + 60] += 1.5 * np.random.default_rng(1).normal(size=60)


def stuck_sensor(x: Float64) -> None:
    x[AT : AT + 60] = x[AT]


def dropout(x: Float64) -> None:
    x[AT : AT + 20] = np.nan


def missing_daily_pattern(x: Float64) -> None:
    x[AT : AT + 2 * DAY] = 20 + 0.2 * np.random.default_rng(2).normal(size=2 * DAY)


def new_regime(x: Float64) -> None:
    t = np.arange(len(x) - AT)
    x[AT:] = 30 + 4 * np.sin(2 * np.pi * t / 20) + 0.2 * np.random.default_rng(3).normal(size=len(t))


@dataclass(frozen=True)
class Scenario:
    """What is drawn; records from AT to the opening and to the last anomalous record, at most; causes; episodes at most."""

    draw: Callable[[Float64], None]
    opens: int
    lasts: int
    causes: tuple[str, ...] = (STEP,)
    most: int = 1


SCENARIOS = (
    Scenario(spike, 2, ACCEPT_AFTER),
    Scenario(level_shift, 2, ACCEPT_AFTER + 2),
    Scenario(slow_drift, 80, ACCEPT_AFTER + 80),
    Scenario(variance_burst, 20, ACCEPT_AFTER + 20, (STEP, NOISY)),
    Scenario(stuck_sensor, 11, ACCEPT_AFTER + 11, (STUCK,)),
    Scenario(dropout, 2, 100, (MISSING,), most=2),  # the first values after it may be unexpected
    Scenario(missing_daily_pattern, 40, ACCEPT_AFTER + 40),
    Scenario(new_regime, 2, ACCEPT_AFTER + 2),
)
ids = {"argvalues": SCENARIOS, "ids": lambda scenario: scenario.draw.__name__}


@pytest.mark.parametrize("mode", MODES)
def test_the_quiet_stream_keeps_the_wished_rate(mode: str, model: Model) -> None:
    """0.15 a day, and 25 days: four are wished for."""
    assert len(replay(detector(mode, model), normal(ROWS, 7)).episodes) <= 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scenario", **ids)
def test_one_episode_in_its_place_and_then_quiet(scenario: Scenario, mode: str, model: Model) -> None:
    x = normal(ROWS, 7)
    scenario.draw(x)
    done = replay(detector(mode, model), x)
    assert 1 <= len(done.episodes) <= scenario.most
    episode = done.episodes[0]
    assert 0 <= episode.first - AT <= scenario.opens
    assert episode.last - AT <= scenario.lasts
    assert told(episode) in scenario.causes
    assert episode.state == "closed"
    changes = np.flatnonzero(np.isin(done.scored.change, [1, 3]))
    assert changes[0] == episode.first
    assert changes[1] <= max(episode.last, episode.first + ACCEPT_AFTER) + MERGE + 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scenario", **ids)
def test_an_open_episode_teaches_nothing(scenario: Scenario, mode: str, model: Model) -> None:
    """Usual errors, calibration and the threshold's mean stand still until the episode closes or is accepted."""
    x = normal(ROWS, 7)
    scenario.draw(x)
    one = detector(mode, model)
    sizes, first = one.layout.sizes, AT
    one.process_batch(["s"] * AT, np.arange(AT) * QUARTER, x[:AT])
    while not one.open_episodes():
        one.process_batch(["s"], [first * QUARTER], x[first : first + 1])
        first += 1
    learner = one.engine.learner

    def learned() -> tuple[bytes, ...]:
        state, stats = one.pool.rows.state[0], one.pool.rows.stats[0, :3]
        slow = state[sizes[AT_THRESHOLD] + SLOW]
        return state[one.layout.known_columns].tobytes(), slow.tobytes(), stats.tobytes()

    before, wished = learned(), [] if learner is None else [learner.counters[ROWS_LEARNED]]
    opened_at = first
    for t in range(first, opened_at + ACCEPT_AFTER - 2):
        one.process_batch(["s"], [t * QUARTER], x[t : t + 1])
        if not one.open_episodes():
            break
        assert learned() == before
        if learner is not None:
            wished.append(learner.counters[ROWS_LEARNED])
    if learner is not None:
        # of the segment that was under way, the records before the episode are learned; then none
        later = wished[64:]
        assert later == later[:1] * len(later)


def test_a_stream_that_was_silent_is_flagged_at_its_next_record(model: Model) -> None:
    time = np.arange(ROWS) * QUARTER
    time[AT:] += 4 * DAY * QUARTER
    done = replay(detector("frozen", model), normal(ROWS, 7), time)
    assert done.episodes[0].first == AT
    assert told(done.episodes[0]) == "was silent"
    assert done.scored.cause[AT] // 4096 == Cause.SILENT
    assert [told(episode) for episode in done.episodes].count("was silent") == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("draw", [level_shift, new_regime])
def test_what_was_accepted_is_watched_as_before(mode: str, draw: Callable[[Float64], None], model: Model) -> None:
    """Two weeks later, at the default rate: first the scores that were accepted must fade from calibration and threshold."""
    x = normal(ROWS, 7)
    draw(x)
    x[AT + 1300 : AT + 1310] += 40
    one = Detector({**SETTINGS, "threshold": {}}, model=model if mode == "frozen" else None, features=("v",))
    done = replay(one, x)
    assert not done.scored.flag[AT + ACCEPT_AFTER + 2 : AT + ACCEPT_AFTER + 100].any()
    assert done.scored.flag[AT + 1300 : AT + 1310].any()


# Bad input

WRONG: dict[str, Any] = {**SETTINGS, "rules": {}, "threshold": {}}  # the model by itself, at the default rate
KNOWN = ("unfitted", "fitted")


def fed(x: Any, *, fitted: Any = None, time: Any = None, **sections: Any) -> Replayed:
    """What becomes of x (n, D), where wished under a model that was fitted on `fitted`."""
    x = np.asarray(x, float)
    names = tuple(f"f{d}" for d in range(x.shape[1]))
    config = Config.model_validate({**WRONG, **sections})
    found = None
    if fitted is not None:
        found = fit({"s": Recording(np.arange(len(fitted)) * QUARTER, np.ascontiguousarray(fitted))}, config, names)
    return replay(Detector(config, model=found, features=names), x, time)


def storms(done: Replayed, after: int = 0, until: int = ROWS) -> int:
    """Episodes opened between two records."""
    return sum(after <= episode.first < until for episode in done.episodes)


@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize("level", [0.0, 5.0, 1e-12, 1e12])
def test_a_constant_stream(known: str, level: float) -> None:
    x = np.full((ROWS, 1), level)
    x[2000:2005] += 0.5 * level or 1.0
    done = fed(x, fitted=x[:500] if known == "fitted" else None)
    assert storms(done, 0, 2000) == 0
    assert done.scored.flag[2000:2005].any()
    assert storms(done, 2000) <= 3


@pytest.mark.parametrize("known", KNOWN)
def test_a_stream_that_becomes_constant(known: str) -> None:
    x = normal(ROWS, 7)[:, None]
    x[1000:2000] = x[999]
    x[2300:2310] += 40
    done = fed(x, fitted=normal(DAY * 25, 0)[:, None] if known == "fitted" else None)
    assert storms(done, 1000, 2000) <= 4
    assert done.scored.flag[2300:2310].any()


@pytest.mark.parametrize("known", KNOWN)
def test_a_stream_that_begins_with_an_anomaly(known: str) -> None:
    x = normal(ROWS, 7)[:, None]
    x[:20] += 100
    x[2000:2010] += 40
    done = fed(x, fitted=normal(DAY * 25, 0)[:, None] if known == "fitted" else None)
    assert storms(done, 0, 2000) <= 1.5 * 2000 / DAY
    assert done.scored.flag[2000:2010].any()


@pytest.mark.parametrize("known", KNOWN)
def test_tiny_and_huge_side_by_side(known: str) -> None:
    def make(seed: int) -> Float64:
        return np.stack([1e-12 * normal(ROWS, seed), 1e12 * normal(ROWS, seed + 1)], axis=1)

    for feature in range(2):
        x = make(7)
        x[2000:2010, feature] *= 3
        done = fed(x, fitted=make(3) if known == "fitted" else None)
        assert np.isfinite(done.scored.score).all()
        assert storms(done, 0, 2000) <= 1.5 * 2000 / DAY
        assert done.scored.flag[2000:2010].any()
        assert done.scored.attribution[2009, feature] > 0.5


@pytest.mark.parametrize("rules", [{}, {"missing_rows": 3}])
@pytest.mark.parametrize("known", KNOWN)
def test_a_feature_that_is_always_missing(known: str, rules: dict[str, Any]) -> None:
    x = np.stack([normal(ROWS, 7), np.full(ROWS, np.nan)], axis=1)
    x[2000:2010, 0] += 40
    fitted = np.stack([normal(ROWS, 3), normal(ROWS, 4)], axis=1) if known == "fitted" else None
    done = fed(x, fitted=fitted, rules=rules)
    assert storms(done, 0, 2000) <= 1.5 * 2000 / DAY
    assert (done.scored.severity[2000:2010] > 1).any()
    if rules:
        assert done.scored.flag[2:].all()
        assert [told(episode) for episode in done.episodes] == ["f1: missing"]


def test_one_event_a_day_and_a_thousand_a_second_in_one_fleet() -> None:
    """Each stream keeps its own time: the wished rate is one of days for both."""
    day, ms = 86_400_000_000_000, 1_000_000
    slow, fast = normal(700, 7), normal(50_000, 8)
    slow[650], fast[40_000] = 80.0, 80.0
    keys = ["slow"] * 700 + ["fast"] * 50_000
    one = Detector(WRONG, features=("v",))
    scored = one.process_batch(keys, [*np.arange(700) * day, *np.arange(50_000) * ms], [*slow, *fast])
    opened = [(episode.key, episode.first) for episode in one.closed_episodes() + one.open_episodes()]
    assert scored.flag[650:653].any()
    assert scored.flag[700 + 40_000 : 700 + 40_003].any()
    assert sum(key == "slow" for key, _ in opened) <= 20
    assert sum(key == "fast" for key, _ in opened) <= 3


@pytest.mark.parametrize(
    ("x", "threshold", "expected"),
    [
        (np.full(ROWS, 5.0), {}, [0]),
        (np.full(ROWS, 5.0), {"kind": "sigma"}, []),
        (np.full(300, 5.0), {}, []),
        (normal(ROWS, 7), {"false_alarms_per_day": 0.05}, []),
        # quarters of an hour: 96 records a day, of which at most 2 % may be alarms
        (normal(ROWS, 7), {"kind": "quantile", "false_alarms_per_day": 5}, [0.02 * 96 * ROWS / (ROWS - 1)]),
    ],
    ids=["constant", "another threshold", "not live", "normal", "rare"],
)
def test_a_stream_that_cannot_keep_the_wished_rate_says_so(
    x: Float64, threshold: dict[str, Any], expected: list[float]
) -> None:
    one = Detector(WRONG | {"threshold": threshold}, features=("v",))
    assert not len(one.possible_rates())
    replay(one, x)
    assert one.possible_rates().tolist() == pytest.approx(expected)
