"""The rule of the value never seen, against plain loops, and what a detector makes of it."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.kernels.extremes import absorb_extremes, distance_outside
from streamlstm.learn.fit import Recording, fit
from streamlstm.types import NO_TIME, Cause, Change, ScoredBatch, cause_text

SETTINGS: dict[str, Any] = {
    "model": {"hidden_size": 8},
    "training": {"updates": 0},
    "learning": {"update_every": 16, "learning_rows": 20, "calibrating_rows": 30},
    "threshold": {"kind": "fixed", "level": 1000.0},  # never reached: every alarm is the rule's
}
VALUES = st.one_of(st.just(float("nan")), st.floats(-1e6, 1e6), st.sampled_from([0.0, 1.0, 1e30, -1e30]))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=30), st.floats(1e-3, 10))
def test_distances_are_those_of_plain_loops(rows: list[tuple[float, float]], spread: float) -> None:
    stat = np.full(10, np.nan)
    stat[4:6] = spread
    low: list[float | None] = [None, None]
    high: list[float | None] = [None, None]
    for row in rows:
        outside, present = 0.0, 0
        for d, value in enumerate(row):
            if np.isnan(value):
                continue
            present += 1
            below, above = low[d], high[d]
            if below is None or above is None:
                low[d] = high[d] = value
                continue
            room = above - below
            if room > 0:
                outside += min(max(below - value, value - above, 0) / max(room, spread), 1000) ** 2
                value = min(max(value, below - room), above + room)
            low[d], high[d] = min(below, value), max(above, value)
        x = np.array(row)
        assert distance_outside(x, stat, 2, 2) == pytest.approx((outside / max(present, 1)) ** 0.5)
        absorb_extremes(x, stat, 2, 2)
        assert stat[6:].tolist() == pytest.approx([np.nan if v is None else v for v in low + high], nan_ok=True)


def noise(rows: int) -> npt.NDArray[np.float64]:
    """Values between 0 and 1 that reach both ends while the stream learns."""
    x = np.random.default_rng(0).uniform(0, 1, rows)
    x[3], x[7] = 0, 1
    return x


def scored(x: npt.NDArray[np.float64], **learning: float) -> ScoredBatch:
    detector = Detector(SETTINGS | {"learning": SETTINGS["learning"] | learning}, features=("value",))
    return detector.process_batch(["s"] * len(x), None, x)


@pytest.mark.parametrize(("value", "side"), [(1.06, "above"), (-0.06, "below")])
def test_a_value_never_seen_is_an_alarm_at_once(value: float, side: str) -> None:
    x = noise(200)
    x[150] = value
    batch = scored(x)
    assert np.flatnonzero(batch.change == Change.OPENED).tolist() == [150]
    assert batch.severity[150] == pytest.approx(0.06 / 0.05, rel=1e-4)
    assert batch.parts[150].sum() == pytest.approx(batch.score[150], rel=1e-5)
    text = cause_text(int(batch.cause[150]), ("value",))
    assert text == f"value: value never seen, {side} expected"
    assert int(batch.cause[150]) // 4096 == Cause.NEVER_SEEN


def test_within_the_margin_or_without_the_rule_it_is_none() -> None:
    x = noise(200)
    x[150] = 1.04
    assert not scored(x).flag.any()
    x[150] = 2.0
    assert scored(x).flag.sum() == 1
    assert not scored(x, extreme_margin=0).flag.any()
    assert not scored(x, calibrating_rows=180).flag.any()  # not before the stream is live


def test_a_peek_knows_the_rule() -> None:
    detector = Detector(SETTINGS, features=("value",))
    detector.process_batch(["s"] * 150, None, noise(150))
    peeked = detector.peek("s", NO_TIME, [3.0])
    assert peeked.score == detector.process("s", NO_TIME, [3.0]).score > 1000


def test_an_extreme_becomes_known_and_a_wild_one_does_not_blind() -> None:
    x = noise(400)
    x[150], x[250], x[350] = 1e30, 1.5, 4.0
    opened = np.flatnonzero(scored(x).change == Change.OPENED)
    assert opened.tolist() == [150, 350]  # the first widened the range to 2 at most


def test_a_growing_stream_gives_few_alarms() -> None:
    x = np.arange(3000.0) + np.random.default_rng(0).normal(size=3000)
    assert (scored(x).change == Change.OPENED).sum() <= 1


def test_frozen_weights_know_no_such_rule() -> None:
    x = noise(300)
    model = fit({"s": Recording(np.full(300, NO_TIME), x[:, None])}, Config.model_validate(SETTINGS), ("value",), ())
    later = noise(200)
    later[150] = 3.0
    assert not Detector(model=model).process_batch(["s"] * 200, None, later).flag.any()
