"""Online learning: what an update learns from, against the naive reference."""

import naive
import numpy as np
import numpy.typing as npt

from streamlstm.detect.detector import Detector
from streamlstm.kernels.online import RECORDS, STEPS, UPDATES

N, WINDOW = 32, 16
CONFIG = {
    "model": {"hidden_size": 8},
    # 30 records do not show the range of a sine: no rule about it
    "learning": {
        "update_every": N,
        "window": WINDOW,
        "learning_rows": 10,
        "calibrating_rows": 20,
        "extreme_margin": 0,
    },
}


def wave(rows: int) -> npt.NDArray[np.float64]:
    """A noisy sine, one value per record."""
    return np.sin(np.arange(rows) / 4) + np.random.default_rng(0).normal(0, 0.05, rows)


def test_the_skips_are_the_ridge_regression_of_the_records_so_far() -> None:
    detector = Detector(CONFIG, features=("value",))
    learner = detector.engine.learner
    assert learner is not None
    rows, targets = [], []
    for update in range(3):
        x = wave(3 * N)[update * N : (update + 1) * N]
        detector.process_batch(["a"] * N, None, x)
        known = ~np.isnan(learner.target[:, 0])
        fade = (1 - N / 20_000) ** 0.5  # a weight of the square root scales the moments by 1 - N / 20 000
        rows = [fade * block for block in rows] + [learner.regressors[known].astype(float)]
        targets = [fade * block for block in targets] + [learner.target[known].astype(float)]
        for actual, regressors in zip(learner.skip[:2], np.split(np.concatenate(rows), 2, axis=1), strict=True):
            assert np.abs(actual - naive.ridge(regressors, np.concatenate(targets), 1.0)).max() < 1e-5
    assert known.sum() == N
    assert len(rows[0]) == N - 10  # the records of the first stage teach nothing


def test_the_bare_head_learns_the_time_of_day_and_nothing_else() -> None:
    detector = Detector(CONFIG, features=("value",))
    learner = detector.engine.learner
    assert learner is not None
    moments, cross = np.zeros((6, 6)), np.zeros((6, 1))
    hours = np.arange(4 * N)
    x = np.sin(2 * np.pi * hours / 24) + wave(4 * N)
    for begin in range(0, len(x), N):
        part = slice(begin, begin + N)
        detector.process_batch(["a"] * N, hours[part] * 3_600_000_000_000, x[part])
        known = ~np.isnan(learner.target[:, 0])
        turns, target = learner.regressors[known][:, -6:].astype(float), learner.target[known].astype(float)
        fade = 1 - N / 20_000
        moments, cross = fade * moments + turns.T @ turns, fade * cross + turns.T @ target
    assert np.abs(learner.skip[2, -6:] - np.linalg.solve(moments + np.eye(6), cross)).max() < 1e-5
    assert np.abs(learner.skip[2, -6:]).max() > 0.3
    assert not learner.skip[2, :-6].any()


def test_every_record_enters_one_window() -> None:
    detector = Detector(CONFIG, features=("value",))
    learner = detector.engine.learner
    assert learner is not None
    records, closed = 20 * N, 0
    for begin in range(0, records, N):
        detector.process_batch(["a"] * N, None, wave(records)[begin : begin + N])
        closed += int(learner.closed.sum())
    assert learner.counters[RECORDS] == records
    assert learner.counters[UPDATES] == 20
    assert closed == (records - 10) // WINDOW  # all records after the first stage, each in the window it closes
    assert learner.counters[STEPS] == 20 - 7  # the LSTM begins with the eighth update


def test_the_prediction_gets_better() -> None:
    detector = Detector(CONFIG, features=("value",))
    x = wave(4000)
    actual = detector.process_batch(["a"] * len(x), None, x)
    error = np.abs(actual.expected[:, 0] - x)
    assert error[-500:].mean() < 0.06  # the noise alone has a mean size of 0.04
