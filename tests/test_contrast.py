"""The threshold `contrast`: its arithmetic, what it learns and when, and the alarms that it promises."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamlstm.config import Config
from streamlstm.kernels import layout, thresholds
from streamlstm.kernels.absorb import lesson_of
from streamlstm.kernels.compiling import jit
from streamlstm.kernels.episodes import step_episode
from streamlstm.kernels.layout import ACCEPTED, CONTRAST, EARLY, INSIDE, LEARN, OPENED
from streamlstm.kernels.thresholds import contrast
from streamlstm.model.layout import make_layout
from streamlstm.types import Float32, Float64

LAYOUT = make_layout(Config.model_validate({"threshold": {"kind": "contrast"}}), 1, 0, online=False)
PARAMS, SIZES = LAYOUT.params, LAYOUT.sizes
thresholds.connect(SIZES)
MINUTES = 1 / 1440  # the tail of one alarm a day, one record a minute


class Naive:
    """The rule in float64, with lists: time fades everything at each record, as the kernel does at every step."""

    def __init__(self) -> None:
        self.block: list[float] = []
        self.waiting: list[list[float]] = []
        self.learned = 0
        self.slow = self.deviation = self.peak = self.fatigue = self.offset = self.elapsed = 0.0
        self.frozen: float | None = None

    def level(self) -> float:
        level = max(self.slow + 1.3 + 4.6 * self.deviation, self.peak + 1.2) + self.offset + self.fatigue
        return max(level, self.slow + 1.0)

    def limit(self) -> float:
        return self.level() if self.frozen is None else self.frozen

    def absorb(self, lesson: int, score: float, tail: float) -> None:
        if lesson == OPENED:
            self.frozen = self.level()
            self.block, self.waiting = [], []
            self.fatigue += 0.12 * (self.frozen - self.slow)
            self.offset = min(self.offset + 0.2, 0.0)
        elif lesson == ACCEPTED:
            self.frozen, self.slow, self.peak = None, score, max(self.peak, score)
        elif lesson in (LEARN, EARLY):
            self.frozen = None
            self.block.append(score)
            self.peak = max(self.peak, score) if lesson == EARLY else self.peak
            if len(self.block) == 18:
                self.waiting.append(self.block)
                self.block = []
        if len(self.waiting) > 8:
            block = self.waiting.pop(0)
            self.learned += 1
            weight = max(0.2, 1 / self.learned)
            difference = sum(block) / 18 - self.slow
            self.deviation += weight * (abs(difference) - self.deviation)
            self.slow += weight * difference
            self.peak = max(self.peak, *block)
        self.elapsed += max(tail, 1e-9)
        if self.elapsed >= 1 / 1024:
            if self.peak > self.slow:
                self.peak = self.slow + 1 / (1 / (self.peak - self.slow) + self.elapsed / 3)
            self.fatigue *= 1 - self.elapsed / 1.6
            if lesson != EARLY and self.level() > self.slow + 1.0:
                self.offset -= 0.2 * self.elapsed
            self.elapsed = 0.0


def taught(scores: Any, lesson: int = LEARN, tail: float = MINUTES, row: Float32 | None = None) -> Float32:
    """The row after these scores, all of one lesson."""
    row = np.zeros(layout.THRESHOLD_WIDTHS[CONTRAST], np.float32) if row is None else row
    for score in np.asarray(scores, np.float32):
        thresholds.absorb(SIZES, row, lesson, score, tail, PARAMS)
    return row


def limit(row: Float32) -> float:
    return float(thresholds.limit(SIZES, row, MINUTES, PARAMS))


@jit
def watch(scores, calm, tail, sizes, params, row, mark, scalars, out_opened, out_limit):
    """Runs a stream of scores, live after `calm` records: which records opened an episode, and each one's threshold."""
    level = np.float32(1)
    for t in range(len(scores)):
        live = t >= calm
        out_limit[t] = level
        change = step_episode(mark, scalars, scores[t] / level, 0, 0, 0, t, params) if live else 0
        out_opened[t] = change == 1
        lesson = lesson_of(mark, change, live, params)
        thresholds.absorb(sizes, row, lesson, scores[t], tail, params)
        level = np.float32(thresholds.limit(sizes, row, tail, params))


def watched(scores: Any, calm: int, tail: float = MINUTES) -> tuple[Any, Float32, Float32]:
    """Which records of `scores` opened an episode, each record's threshold, and the row at the end."""
    row = np.zeros(layout.THRESHOLD_WIDTHS[CONTRAST], np.float32)
    opened, limits = np.zeros(len(scores), bool), np.zeros(len(scores), np.float32)
    mark, scalars = np.zeros(layout.MARKS, np.int64), np.zeros(layout.SCALARS, np.float32)
    watch(np.asarray(scores, np.float32), calm, tail, SIZES, PARAMS, row, mark, scalars, opened, limits)
    return opened, limits, row


stretches = st.tuples(
    st.sampled_from([LEARN, LEARN, EARLY, OPENED, INSIDE, ACCEPTED]),
    st.integers(1, 90),
    st.floats(0, 50, width=32),
    st.floats(0, 10, width=32),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(stretches, max_size=8), st.sampled_from([1e-12, 1e-6, MINUTES, 0.02]), st.integers(0, 9))
@example([(OPENED, 1, 5.0, 0.0)] * 9, MINUTES, 0)
def test_equals_the_float64_rule(script: list[tuple[int, int, float, float]], tail: float, seed: int) -> None:
    rng, row, expected = np.random.default_rng(seed), taught([]), Naive()
    for lesson, count, mean, spread in script:
        count = count if lesson in (LEARN, EARLY, INSIDE) else 1
        for score in np.abs(mean + spread * rng.normal(size=count)).astype(np.float32):
            expected.absorb(lesson, float(score), tail)
            taught([score], lesson, tail, row)
            # at its floor the level may fall by one step more or less: 0.2 times a tail of 0.02
            assert limit(row) == pytest.approx(expected.limit(), rel=1e-3, abs=5e-3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 2**100, width=32)), max_size=400), st.floats(0, 0.02))
def test_bears_any_score(script: list[tuple[int, float]], tail: float) -> None:
    row = taught([])
    for lesson, score in script:
        taught([score], lesson, tail, row)
        assert 1 <= limit(row) < np.inf
    assert np.isfinite(row).all()


def test_learns_late_and_never_from_an_alarm() -> None:
    calm = np.abs(np.random.default_rng(0).normal(1, 0.3, size=2000))
    row = taught(calm)
    before = limit(row)
    taught(np.full(140, 30.0), row=row)
    assert limit(row) < before
    opened = taught([30.0], OPENED, row=row.copy())
    after = taught(calm[:500], row=taught(np.full(100, 30.0), INSIDE, row=opened))
    assert limit(after) < 2 * before
    taught(np.full(20, 30.0), row=row)
    assert limit(row) > 30


def test_the_level_stands_still_while_an_episode_is_open() -> None:
    row = taught(np.abs(np.random.default_rng(1).normal(size=1000)))
    level = limit(row)
    taught([9.0], OPENED, row=row)
    for _ in range(50):
        taught([9.0], INSIDE, row=row)
        assert limit(row) == pytest.approx(level)
    taught([9.0], ACCEPTED, row=row)
    assert limit(row) > 9


def test_early_records_teach_without_lowering_the_level() -> None:
    early, live = taught(np.zeros(20_000), EARLY), taught(np.zeros(20_000))
    assert limit(early) == pytest.approx(1.3)
    assert limit(live) == 1.0
    assert limit(taught([7.0], EARLY)) > 7.5


@pytest.mark.parametrize("tail", [1e-7, 1e-5, 1e-4])
def test_time_is_counted_in_wished_alarms(tail: float) -> None:
    row = taught([], tail=tail)
    row[contrast.PEAK], row[contrast.FATIGUE_NOW] = 8.0, 2.0
    records = 30_000
    taught(np.zeros(records), INSIDE, tail, row)
    alarms = records * tail - row[contrast.ELAPSED]
    assert row[contrast.PEAK] == pytest.approx(8 / (1 + 8 * alarms / contrast.PEAK_MEMORY), rel=1e-3)
    assert row[contrast.FATIGUE_NOW] == pytest.approx(2 * np.exp(-alarms / contrast.FATIGUE_MEMORY), rel=1e-3)
    assert row[contrast.OFFSET] == pytest.approx(-contrast.SHIFT * alarms, rel=1e-2)


def smooth(x: Float64, span: int) -> Float64:
    out, y = np.empty(len(x)), 0.0
    for t, value in enumerate(x.tolist()):
        y += 2 / (span + 1) * (value - y)
        out[t] = y
    return out


NORMAL = {
    "gaussian": lambda rng, n: 3 * np.log1p(np.maximum(0, 5 * smooth(rng.normal(size=n), 50))),
    "heavy": lambda rng, n: 2 * np.log1p(np.abs(smooth(rng.standard_t(2, size=n), 20))),
    "rare": lambda rng, n: np.maximum(0, smooth(rng.normal(size=n), 10) - 0.5) * 8,
    "quick": lambda rng, n: 0.4 * rng.exponential(size=n),
    "restless": lambda rng, n: np.abs(3 + 4 * smooth(rng.normal(size=n), 30)),
}


@pytest.mark.parametrize("kind", list(NORMAL))
@pytest.mark.parametrize("per_day", [0.1, 1.0, 5.0])
def test_the_wished_rate_is_kept(kind: str, per_day: float) -> None:
    days = max(30, round(20 / per_day))
    scores = NORMAL[kind](np.random.default_rng(5), (days + 5) * 1440)
    opened, _, _ = watched(scores, 5 * 1440, per_day / 1440)
    assert 0.5 < opened.sum() / (days * per_day) < 2


@pytest.mark.parametrize("score", [0.0, 0.7, 40.0])
def test_a_constant_score_never_alarms_and_can_be_told(score: float) -> None:
    opened, limits, row = watched(np.full(40 * 1440, score), 200)
    assert not opened.any()
    assert limits[-1] == pytest.approx(row[contrast.SLOW] + PARAMS[layout.LIMIT_FLOOR])


@pytest.mark.parametrize(("height", "every"), [(15.0, 60), (10.0, 120), (40.0, 45)])
def test_a_spike_that_comes_back_is_no_alert_storm(height: float, every: int) -> None:
    days = 60
    spikes = np.where(np.arange(days * 1440) % every == every // 2, height, 0.5)
    opened, _, _ = watched(spikes, 200)
    assert 0 < opened.sum() < 3 * days
    assert opened[days // 2 * 1440 :].sum() < 2.6 * days / 2
    after, _, _ = watched(np.concatenate([spikes, np.full(days * 1440, 0.5), [height]]), 200)
    assert after[-1]


def test_a_level_shift_is_one_alarm() -> None:
    scores = np.abs(np.random.default_rng(3).normal(1, 0.3, size=6000))
    scores[4000:] += 8
    opened, limits, _ = watched(scores, 200)
    assert np.flatnonzero(opened).tolist() == [4000]
    assert limits[4000 + int(PARAMS[layout.ACCEPT_AFTER_ROWS])] > 9
