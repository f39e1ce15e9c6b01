"""Every kind of threshold through one contract, and each one against the formula that it is made of."""

from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.detect.detector import Detector
from streamlstm.kernels import layout, thresholds
from streamlstm.kernels.episodes import OPENED, step_episode
from streamlstm.kernels.layout import KINDS, THRESHOLD_WIDTHS
from streamlstm.kernels.thresholds import conformal, contrast, likelihood, ndt, pareto, spot

Draw = Callable[[np.random.Generator, int], Any]
WISHING = ("quantile", "spot", "dspot", "likelihood", "conformal")
"""Kinds that keep a wished rate."""
ADAPTIVE = tuple(kind for kind in KINDS if kind != "fixed")
MINUTE = 60_000_000_000


def setting(**more: float) -> Any:
    """Parameters of a threshold; those of a default configuration but for the tiny floor and the short acceptance."""
    params = np.zeros(layout.PARAMS)
    defaults = {
        "LEVEL": 5.0, "SIGMAS": 4.0, "LIMIT_FLOOR": 1e-3, "MEMORY_ROWS": 10_000, "MIRROR": 1, "DEPTH_ROWS": 450,
        "MIN_ROWS": 1, "MERGE_ROWS": 30, "HYSTERESIS": 0.8, "ACCEPT_AFTER_ROWS": 100,
    }  # fmt: skip
    for name, value in (defaults | more).items():
        params[getattr(layout, name)] = value
    return params


class Stream:
    """The threshold and the episodes of one stream, as the compiled call runs them."""

    def __init__(self, kind: str, tail: float = 1e-3, calibrating: int = 300, **more: float) -> None:
        self.tail, self.calibrating, self.params = tail, calibrating, setting(**more)
        self.sizes = np.zeros(layout.SIZES, np.int64)
        self.sizes[layout.KIND] = KINDS[kind]
        thresholds.connect(self.sizes)
        self.row = np.zeros(THRESHOLD_WIDTHS[KINDS[kind]], np.float32)
        self.mark, self.scalars = np.zeros(layout.MARKS, np.int64), np.zeros(layout.SCALARS, np.float32)
        self.limit, self.rows, self.alarms = np.float32(0), 0, 0

    def find_limit(self, tail: float | None = None) -> np.float32:
        wished = self.tail if tail is None else tail
        return np.float32(thresholds.limit(self.sizes, self.row, wished, self.params))

    def absorb(self, lesson: int, *scores: float) -> None:
        for score in scores:
            thresholds.absorb(self.sizes, self.row, lesson, np.float32(score), self.tail, self.params)

    def learn(self, scores: Any) -> "Stream":
        self.absorb(layout.LEARN, *scores)
        return self

    def step(self, score: np.float32) -> bool:
        """Is the next record anomalous?"""
        live, change, severity = self.rows >= self.calibrating, 0, np.float32(0)
        if live:
            held = thresholds.held_against(self.sizes, self.row, score, self.limit, self.params)
            severity = np.float32(score / held)
            change = step_episode(self.mark, self.scalars, severity, 0, self.rows, 0, self.rows, self.params)
        length, accepted = self.mark[layout.LENGTH], self.params[layout.ACCEPT_AFTER_ROWS]
        lesson = layout.LEARN if live else layout.EARLY
        if change == OPENED:
            lesson = layout.OPENED
            self.alarms += 1
        elif self.mark[layout.OPEN] == 1 and length <= accepted:
            lesson = layout.ACCEPTED if length == accepted else layout.INSIDE
        bounded = live and lesson != layout.ACCEPTED
        self.absorb(lesson, min(score, np.float32(2) * self.limit) if bounded else score)
        self.rows += 1
        if self.rows % thresholds.interval(self.sizes) == 0 or change == OPENED or self.rows == self.calibrating:
            self.limit = self.find_limit()
        return bool(severity > 1)

    def run(self, scores: Any) -> Any:
        return np.array([self.step(score) for score in np.asarray(scores, np.float32)])


def smoothed(x: Any, span: float) -> Any:
    """EWMA of x, from its mean."""
    y, last = np.empty(len(x)), float(np.mean(x))
    for t, value in enumerate(x):
        last = y[t] = last + 2 / (span + 1) * (value - last)
    return y


# The contract.

magnitudes = st.sampled_from([0.0, 1e-12, 1e-3, 1.0, 1.0, 2.5, 60.0, 1e12]) | st.floats(0, 50, width=32)
scripts = st.lists(st.tuples(magnitudes, st.sampled_from(range(4)), st.integers(1, 130)), min_size=1, max_size=6)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(script=scripts, tail=st.floats(1e-7, 0.02), noise=st.sampled_from([0.0, 1e-6, 0.3]))
def test_positive_floored_and_finite_whatever_comes(kind: str, script: Any, tail: float, noise: float) -> None:
    stream, rng = Stream(kind, LIMIT_FLOOR=0.25), np.random.default_rng(len(script))
    assert stream.find_limit(tail) >= 0.25
    for score, lesson, times in script:
        scores = score * (1 + noise * rng.exponential(size=times))
        stream.absorb(layout.LEARN, *scores[1:])
        stream.absorb(lesson, scores[0])
        limit = stream.find_limit(tail)
        assert 0.25 <= limit < np.inf
        assert np.isfinite(stream.row).all()
        for judged in (0.0, 1e-12, score, 1e12):
            held = thresholds.held_against(stream.sizes, stream.row, np.float32(judged), limit, stream.params)
            assert 0 < held < np.inf
            assert held <= limit


@pytest.mark.parametrize("kind", WISHING)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(0, 900), draw=st.sampled_from(["exponential", "lognormal", "tied"]))
def test_a_rarer_wish_never_lowers_the_threshold(kind: str, seed: int, count: int, draw: str) -> None:
    rng = np.random.default_rng(seed)
    scores = np.round(rng.exponential(size=count)) if draw == "tied" else getattr(rng, draw)(size=count)
    stream = Stream(kind).learn(scores)
    limits = [stream.find_limit(0.02 / 1.5**n) for n in range(30)]
    assert (np.diff(limits) >= 0).all()
    assert limits[-1] > limits[0] or count < 100


@pytest.mark.parametrize("kind", KINDS)
def test_a_copied_state_goes_on_with_the_same_bits(kind: str) -> None:
    scores = smoothed(np.random.default_rng(1).exponential(size=3000), 9)
    scores[1500:1700] += 4
    straight, copy = Stream(kind, calibrating=200), Stream(kind, calibrating=200)
    straight.run(scores[:1777])
    for name in ("row", "mark", "scalars"):
        setattr(copy, name, getattr(straight, name).copy())
    copy.limit, copy.rows = straight.limit, straight.rows
    for score in scores[1777:].astype(np.float32):
        assert straight.step(score) == copy.step(score)
        assert (straight.limit, straight.row.tobytes()) == (copy.limit, copy.row.tobytes())


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_learned_inside_an_episode(kind: str) -> None:
    stream = Stream(kind).learn(np.random.default_rng(2).gamma(4, size=900))
    stream.absorb(layout.OPENED, 30.0)
    learned: Any = {
        "likelihood": [likelihood.COUNT, likelihood.MEAN, likelihood.VARIANCE],
        "contrast": [
            contrast.SLOW,
            contrast.DEVIATION,
            contrast.LEARNED,
            contrast.WAITING,
            contrast.ROWS,
        ],  # time passes
    }.get(kind, slice(None))
    before = stream.row[learned].copy()
    stream.absorb(layout.INSIDE, *range(100))
    assert stream.row[learned].tobytes() == before.tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("span", [1, 30])
def test_one_anomaly_hardly_moves_the_threshold(kind: str, span: int) -> None:
    """Not when it enters and not when it leaves: the next one is found, too."""
    scores = smoothed(np.random.default_rng(3).gamma(4, 0.25, size=6000), span)
    scores[[2000, 3000, 5900]] += 20
    stream = Stream(kind, calibrating=1500)
    before = stream.run(scores[:2000])
    limit = stream.limit
    flagged = np.concatenate([before, stream.run(scores[2000:])])
    assert flagged[[2000, 3000, 5900]].all()
    assert flagged.mean() < 0.02
    assert stream.limit == pytest.approx(limit, rel=0.35)


@pytest.mark.parametrize(
    "kind", [kind for kind in ADAPTIVE if kind != "contrast"]
)  # it wants logarithms: test_contrast
@pytest.mark.parametrize("height", [3.0, 40.0])
def test_an_accepted_level_is_the_new_normal_within_bounded_time(kind: str, height: float) -> None:
    rng = np.random.default_rng(4)
    scores = smoothed(rng.gamma(4, 0.25, size=4000), 9) * np.where(np.arange(4000) < 1500, 1, height)
    flagged = Stream(kind, calibrating=1000).run(scores)
    assert flagged[1500:1600].mean() > 0.8
    assert flagged[2200:].mean() < 0.05


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_equal_scores_are_no_alarm_nor_is_their_first_wiggle(kind: str) -> None:
    scores = np.full(3000, 2.0)
    scores[2500:] *= 1 + 0.001 * np.sin(np.arange(500))
    stream = Stream(kind, calibrating=200, LIMIT_FLOOR=1.0)
    assert stream.run(scores[:2500]).sum() == 0
    assert stream.run(scores[2500:]).sum() == 0 or kind == "sigma"  # it has no floor on the deviation


DRAWS: dict[str, Draw] = {
    "exponential": lambda rng, n: rng.exponential(size=n),
    "gaussian": lambda rng, n: abs(rng.normal(size=n)),
    "heavy": lambda rng, n: abs(rng.standard_t(3, size=n)),
    "smoothed exponential": lambda rng, n: smoothed(rng.exponential(size=n), 9),
    "smoothed gaussian": lambda rng, n: smoothed(abs(rng.normal(size=n)), 9),
    "smoothed heavy": lambda rng, n: smoothed(abs(rng.standard_t(3, size=n)), 9),
}


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("kind", WISHING)
def test_the_wished_rate_is_kept(kind: str, draw: str) -> None:
    tail, n = 1 / 800, 20_000
    stream = Stream(kind, tail, calibrating=1000)
    stream.run(DRAWS[draw](np.random.default_rng(5), n + 1000))
    factor = 5.0 if kind == "likelihood" else 1.8  # a Gaussian tail for skewed scores
    assert n * tail / factor < stream.alarms < n * tail * factor


# Each kind against its formula.


def test_fixed_is_the_level() -> None:
    assert Stream("fixed").learn([7.0, 9.0]).find_limit() == 5.0
    assert Stream("fixed", LEVEL=0.5, LIMIT_FLOOR=1.0).find_limit() == 1.0


def test_sigma_is_mean_plus_deviations() -> None:
    scores = np.random.default_rng(1).gamma(2.0, size=700)
    actual = Stream("sigma").learn(scores).find_limit()
    assert actual == pytest.approx(scores.mean() + 4 * scores.std(), rel=1e-4)
    faded = Stream("sigma", MEMORY_ROWS=100).learn(np.concatenate([scores + 100, scores, scores]))
    assert faded.find_limit() < 2 * actual


@pytest.mark.parametrize("draw", ["exponential", "lognormal"])
def test_quantile_is_exceeded_as_wished(draw: str) -> None:
    rng = np.random.default_rng(2)
    for n in (500, 5000):
        scores = getattr(rng, draw)(size=n)
        stream = Stream("quantile").learn(scores)
        for tail in (0.5, 0.1, 0.02, 0.01, 8 / n):
            assert stream.find_limit(tail) == pytest.approx(naive.exceeded_by(scores, tail), rel=0.125)
        assert stream.find_limit(1e-9) > scores.max()


def test_quantile_extends_an_exponential_tail() -> None:
    actual = Stream("quantile").learn(np.random.default_rng(3).exponential(size=4000)).find_limit(1e-5)
    assert actual == pytest.approx(-np.log(1e-5), rel=0.2)


def test_quantile_forgets() -> None:
    rng = np.random.default_rng(4)
    scores = np.concatenate([rng.exponential(size=500) + 50, rng.exponential(size=8000)])
    actual = Stream("quantile", MEMORY_ROWS=500).learn(scores).find_limit(0.02)
    assert actual == pytest.approx(-np.log(0.02), rel=0.3)


@pytest.mark.parametrize("sign", [1, -1])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), blocks=st.integers(3, 140), shape=st.sampled_from([0.3, 1.0, 8.0]))
def test_ndt_flags_what_telemanoms_rule_flags(sign: int, seed: int, blocks: int, shape: float) -> None:
    rng = np.random.default_rng(seed)
    scores = (1 + sign * 0.1 * smoothed(rng.gamma(shape, size=20 * blocks), 6)).clip(0.01).astype(np.float32)
    scores[rng.integers(0, len(scores), 3)] += np.float32(sign * rng.uniform(0, 0.7))
    stream = Stream("ndt").learn(scores.clip(0.01))
    cut = scores.clip(np.float32(0.01)).reshape(-1, 20)[-105:].astype(float)
    kept = cut.max(axis=1) if sign == 1 else cut.min(axis=1)
    e = kept if sign == 1 else 2 * kept.mean() - kept
    limit = float(stream.row[ndt.LIMIT if sign == 1 else ndt.MIRRORED])
    assert naive.stands_out(e, limit * (1 + 1e-5), 10, 20)
    assert not naive.stands_out(e, limit * (1 - 1e-5), 10, 20)
    if sign == 1:
        assert stream.find_limit() == np.float32(limit)
    elif blocks >= 105:
        small = np.float32(2 * kept.mean() - 1.1 * limit)
        held = thresholds.held_against(stream.sizes, stream.row, small, np.float32(9), stream.params)
        assert small <= 0 or small / held == pytest.approx(1.1, rel=1e-3)
        off = setting(MIRROR=0)
        assert thresholds.held_against(stream.sizes, stream.row, small, np.float32(9), off) == np.float32(9)


def test_ndt_finds_scores_that_are_too_small() -> None:
    scores = 1 + 0.1 * smoothed(np.random.default_rng(6).normal(size=4000), 6)
    scores[3000:3050] = 0.2
    flagged = Stream("ndt", calibrating=2500).run(scores)
    assert flagged[3000:3050].all()
    assert flagged.sum() == 50
    assert not Stream("ndt", calibrating=2500, MIRROR=0).run(scores).any()


@pytest.mark.parametrize("gamma", [-0.3, -0.05, 0.0, 0.1, 0.3, 0.45])
@pytest.mark.parametrize("n", [20, 128])
def test_pareto_fit_is_the_most_likely_one(gamma: float, n: int) -> None:
    u = np.random.default_rng(7).uniform(size=n)
    for scale in (1e-6, 0.05, 3e5):
        y = (scale * (-np.log(u) if gamma == 0 else (u**-gamma - 1) / gamma)).astype(np.float32)
        sigma, found = pareto.fit(y, 0, n)
        assert -0.5 <= found <= 0.5
        grid = np.meshgrid(y.mean() * np.geomspace(0.3, 3, 150), np.linspace(-0.5, 0.5, 152))
        best = naive.pareto_likelihood(y.astype(float), *grid).max()
        actual = naive.pareto_likelihood(y.astype(float), [[sigma]], [[found or 1e-9]])[0, 0]
        assert actual > best - (0.002 if abs(found) < 0.5 else 0.05)
        assert found == pytest.approx(gamma, abs=3 * (1 + gamma) / np.sqrt(n))


def test_pareto_fit_bears_ties_and_bounds_the_tail() -> None:
    assert pareto.fit(np.zeros(9, np.float32), 0, 9) == (0.0, 0.0)
    assert pareto.fit(np.full(9, 2, np.float32), 0, 9) == pytest.approx((2.0, 0.0))
    sigma, gamma = pareto.fit(np.geomspace(1e-2, 1e2, 60).astype(np.float32), 0, 60)
    assert (sigma > 0, gamma) == (True, 0.5)


@given(p=st.floats(1e-12, 1), gamma=st.floats(-0.5, 0.5))
def test_pareto_quantile_is_its_formula(p: float, gamma: float) -> None:
    expected = -np.log(p) if abs(gamma) < 1e-9 else np.expm1(-gamma * np.log(p)) / gamma
    assert pareto.exceeded_with(p, 3.0, gamma) == pytest.approx(3 * expected, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("kind", ["spot", "dspot"])
def test_spot_finds_the_quantile_far_beyond_its_level(kind: str) -> None:
    stream = Stream(kind, MERGE_ROWS=0).learn(np.random.default_rng(8).exponential(size=12_000))
    level = stream.row[spot.LEVEL] + (stream.row[-1] if kind == "dspot" else 0)
    assert level == pytest.approx(-np.log(0.02), rel=0.1)
    assert stream.find_limit(1e-4) == pytest.approx(-np.log(1e-4), rel=0.15)


def test_spot_keeps_the_peak_of_each_cluster() -> None:
    rng = np.random.default_rng(9)
    stream = Stream("spot", MERGE_ROWS=5).learn(rng.uniform(size=100))
    level, filled, at = stream.row[spot.LEVEL], int(stream.row[spot.FILLED]), int(stream.row[spot.AT])
    stream.learn([0, 0, 0, 0, 0, 0, 2.0, 3.0, 0, 0, 0, 0, 2.5, 0, 0, 0, 0, 0, 0, 1.5])
    assert stream.row[spot.FILLED] == filled + 2  # the cluster that was open, and the one of 2, 3 and 2.5
    assert stream.row[spot.PEAKS + at + 1] == pytest.approx(3 - level, rel=0.2)  # the level moves on the way


def test_dspot_follows_a_drift_that_spot_cannot() -> None:
    rng = np.random.default_rng(10)
    scores = smoothed(rng.exponential(size=12_000), 9) + 8 * np.sin(np.arange(12_000) / 1500) ** 2
    margins = {}
    for kind in ("spot", "dspot"):
        stream, limits = Stream(kind, 1e-3, calibrating=2000, DEPTH_ROWS=100), []
        for score in scores.astype(np.float32):
            limits.append(stream.limit)
            stream.step(score)
        margins[kind] = (np.array(limits) - scores)[2000:].mean()
    assert margins["dspot"] < 0.5 * margins["spot"]


def test_deviations_are_the_normal_tail() -> None:
    tails = np.geomspace(0.5, 1e-12, 300)
    found = [likelihood.deviations(tail) for tail in tails]
    assert found == pytest.approx([-NormalDist().inv_cdf(tail) for tail in tails], abs=6e-4)
    assert (np.diff(found) > 0).all()


def test_likelihood_judges_the_mean_of_ten() -> None:
    scores = np.random.default_rng(11).gamma(4, size=2000)
    stream = Stream("likelihood").learn(scores)
    means = np.array([scores[max(t - 9, 0) : t + 1].mean() for t in range(2000)])
    level = means.mean() - NormalDist().inv_cdf(1e-3) * means.std()
    assert stream.find_limit() == pytest.approx(10 * level - scores[-9:].sum(), rel=2e-3)
    stream.absorb(layout.INSIDE, *[30.0] * 9)
    assert stream.find_limit() == pytest.approx(level, rel=2e-3)
    quiet = Stream("likelihood").learn(np.zeros(50))
    assert quiet.find_limit() == pytest.approx(10 * (0.03 - NormalDist().inv_cdf(1e-3) * 0.0003**0.5), rel=1e-3)


def test_conformal_is_where_the_p_value_is_the_wished_one() -> None:
    scores = np.random.default_rng(12).exponential(size=20 * 200).astype(np.float32)
    stream = Stream("conformal", MEMORY_ROWS=1e9).learn(scores)
    largest = np.sort(scores.reshape(-1, 20).max(axis=1))[::-1]
    for tail in (0.02, 0.01, 0.004, 5.5 / 201 / 20):
        limit = stream.find_limit(tail)
        p = [(1 + (largest >= limit * shift).sum()) / 201 for shift in (1 - 1e-6, 1 + 1e-6)]
        assert min(p) - 1 / 201 <= 20 * tail <= max(p) + 1 / 201
    beyond = largest[4] + (largest[4] - largest[20]) / np.log(21 / 5) * np.log(5 / 201 / (20 * 1e-5))
    assert stream.find_limit(1e-5) == pytest.approx(beyond, rel=1e-5)


def test_conformal_forgets_all_heights_alike_and_follows_the_alarms() -> None:
    rng = np.random.default_rng(13)
    stream = Stream("conformal").learn(
        np.concatenate([rng.exponential(size=4200) + 50, rng.exponential(size=20 * 1500)])
    )
    assert stream.row[conformal.SORTED :].max() < 30
    assert (np.diff(stream.row[conformal.SORTED :]) >= 0).all()
    before = stream.find_limit()
    stream.absorb(layout.OPENED, 1.0)
    assert stream.find_limit() > before
    stream.absorb(layout.LEARN, *rng.exponential(size=4000))
    assert stream.find_limit() < before


# In a detector.


@pytest.mark.parametrize("kind", KINDS)
def test_a_detector_flags_a_shift_and_goes_on_from_a_snapshot_with_the_same_bits(kind: str, tmp_path: Path) -> None:
    config = {
        "model": {"hidden_size": 4},
        "learning": {"learning_rows": 100, "calibrating_rows": 300},
        "score": {"span": 5},
        "threshold": {"kind": kind, "level": 3.0},
        "episodes": {"accept_after_rows": 50},
    }
    rng = np.random.default_rng(14)
    x = np.sin(np.arange(1200) / 9) + 0.1 * rng.normal(size=1200)
    x[900:905] += 5
    times = np.arange(1200) * MINUTE
    straight, first = Detector(config), Detector(config)
    expected = straight.process_batch(["s"] * 1200, times, x)
    assert expected.flag[900:910].any()
    assert expected.flag[400:900].mean() < 0.1
    live = expected.stage == 2
    assert (expected.threshold[live] > 0).all()
    begun = first.process_batch(["s"] * 902, times[:902], x[:902])
    first.snapshot(tmp_path / "s")
    rest = Detector.restore(tmp_path / "s").process_batch(["s"] * 298, times[902:], x[902:])
    for name in ("score", "threshold", "severity", "flag", "change"):
        whole = np.concatenate([getattr(begun, name), getattr(rest, name)])
        assert whole.tobytes() == getattr(expected, name).tobytes()


def test_no_state_is_larger_than_a_kilobyte() -> None:
    assert set(THRESHOLD_WIDTHS) == set(KINDS.values())
    assert 4 * max(THRESHOLD_WIDTHS.values()) <= 1024
