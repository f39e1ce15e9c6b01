"""NAB's score against cases worked out by hand from its published rules."""

import math

import numpy as np
import pytest

from streamlstm.errors import InputError
from streamlstm.evaluate import nab

ROWS = 100  # of which 15 are probation
WINDOW = np.array([[40, 49]])
NONE = np.empty((0, 2), np.int64)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def alarms(*rows, at=1.0):
    score = np.zeros(ROWS)
    score[list(rows)] = at
    return score


def standard(score, windows=WINDOW):
    return nab.sweep({"a": windows}, {"a": score}).at(0.5)


class TestByHand:
    def test_silence_is_0_and_one_alarm_at_the_start_of_each_window_is_100(self):
        assert standard(alarms()) == 0
        assert standard(alarms(40)) == pytest.approx(100)
        assert standard(alarms(20, 60), np.array([[20, 29], [60, 99]])) == pytest.approx(100)

    @pytest.mark.parametrize(("row", "place"), [(44, -0.6), (49, -0.1)])
    def test_a_later_alarm_in_a_window_earns_less(self, row, place):
        # (2 s(-5 place) - 1) / (2 s(5) - 1) of the 2 between a missed and a perfectly met window
        earned = (2 * sigmoid(-5 * place) - 1) / (2 * sigmoid(5) - 1)
        assert standard(alarms(row)) == pytest.approx(100 * (1 + earned) / 2)

    def test_of_the_alarms_in_a_window_only_the_best_placed_counts(self):
        assert standard(alarms(*range(40, 50))) == pytest.approx(100)
        assert standard(alarms(44, 47, 49)) == standard(alarms(44))

    def test_a_false_alarm_costs_more_the_further_it_lies_behind_a_window(self):
        # The window is 9 rows wide from first to last: row 52 lies a third of it behind, row 58 one width.
        assert standard(alarms(52)) == pytest.approx(100 * 0.11 * (2 * sigmoid(-5 / 3) - 1) / 2)
        assert standard(alarms(58)) == pytest.approx(100 * 0.11 * (2 * sigmoid(-5) - 1) / 2)
        assert standard(alarms(76)) == pytest.approx(-100 * 0.11 / 2)  # three widths
        assert standard(alarms(30)) == pytest.approx(-100 * 0.11 / 2)  # before the first window
        assert standard(alarms(30, 76, 99)) == pytest.approx(-3 * 100 * 0.11 / 2)

    def test_profiles_weigh_false_alarms_and_misses(self):
        windows, score = np.array([[20, 29], [60, 69]]), alarms(18, 20)
        expected = {"standard": (2 - 0.11) / 4, "reward_low_FP": (2 - 0.22) / 4, "reward_low_FN": (3 - 0.11) / 6}
        for name, value in expected.items():
            assert nab.sweep({"a": windows}, {"a": score}, nab.PROFILES[name]).at(1.0) == pytest.approx(100 * value)

    def test_probation_counts_for_nothing(self):
        assert [nab.probation(rows) for rows in (100, 1001, 4999, 5000, 22_695)] == [15, 150, 749, 750, 750]
        assert standard(alarms(0, 14)) == 0
        assert standard(alarms(15)) < 0

    def test_a_window_that_begins_in_probation_counts_from_its_end(self):
        early = np.array([[10, 19]])
        assert standard(alarms(10), early) == 0
        assert standard(alarms(15), early) == standard(alarms(40 + 5))

    def test_one_threshold_for_all_files_is_the_best_for_their_sum(self):
        windows = {"a": WINDOW, "b": WINDOW, "quiet": NONE}
        scores = {"a": alarms(40, at=0.9) + alarms(30, at=0.7), "b": alarms(40, at=0.6), "quiet": alarms(60, at=0.8)}
        sweep = nab.sweep(windows, scores)
        assert sweep.thresholds.tolist() == [np.inf, 0.9, 0.8, 0.7, 0.6, 0]
        expected = [0, 50, 50 - 2.75, 50 - 5.5, 100 - 5.5]
        assert sweep.scores[:-1] == pytest.approx(expected)
        assert sweep.best() == (0.6, pytest.approx(94.5))
        assert [sweep.at(level) for level in (1.0, 0.9, 0.85, 0.65)] == pytest.approx([0, 50, 50, 44.5])
        assert sweep.scores[-1] < 0

    def test_silence_is_best_where_every_alarm_is_false(self):
        sweep = nab.sweep({"a": WINDOW}, {"a": alarms(20)})
        assert sweep.best() == (np.inf, 0)


def test_distances_behind_a_window_of_one_row_are_in_rows():
    assert standard(alarms(41), np.array([[40, 40]])) == pytest.approx(100 * 0.11 * (2 * sigmoid(-5) - 1) / 2)


class TestWhatIsRefused:
    @pytest.mark.parametrize("missing", ["windows", "scores"])
    def test_a_missing_file_which_would_raise_the_score(self, missing):
        both = {"windows": {"a": WINDOW, "b": NONE}, "scores": {"a": alarms(40), "b": alarms(20)}}
        del both[missing]["b"]
        with pytest.raises(InputError, match=r"1 files lack windows or scores: b; every file counts"):
            nab.sweep(both["windows"], both["scores"])

    @pytest.mark.parametrize(
        "windows", [[[49, 40]], [[40, 100]], [[-1, 3]], [[40, 49], [49, 60]], [[40, 49], [20, 30]]]
    )
    def test_windows_that_are_none(self, windows):
        with pytest.raises(InputError, match="a: windows must be ascending, apart and within 100 rows"):
            standard(alarms(), np.array(windows))

    def test_scores_that_are_not_known(self):
        with pytest.raises(InputError, match="a: 1 scores are NaN"):
            standard(alarms(50, at=np.nan))

    @pytest.mark.parametrize("windows", [NONE, np.array([[2, 9]])])
    def test_nothing_to_find(self, windows):
        with pytest.raises(InputError, match="no file has a window behind its probation"):
            standard(alarms(), windows)
