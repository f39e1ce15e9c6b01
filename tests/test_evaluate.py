"""Labels, metrics and the evaluation that collects them."""

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.config.schema import Threshold
from streamlstm.errors import InputError, UsageError
from streamlstm.evaluate import Evaluation, Windows, is_column, load_windows, metrics, parse_start, promised_rate
from streamlstm.evaluate.times import parse_time
from streamlstm.types import NO_TIME, Episode, ScoredBatch, Stage

MINUTE = 60 * 10**9
LABEL = np.array([0, 0, 1, 1, 0, 0, 0, 1, 0, 0], np.uint8)
SCORE = np.array([0.1, 0.2, 0.9, 0.4, 0.3, 0.1, 0.5, 0.6, 0.2, 0.1])
TIED = np.array([1, 1, 2, 2, 1, 1, 2, 1, 1, 1.0])


def scored(keys, time=None, score=None, flag=None, live=None):
    """A ScoredBatch of one feature; everything not given is quiet and live."""
    n = len(keys)
    score = np.zeros(n, np.float32) if score is None else np.asarray(score, np.float32)
    live = np.ones(n, bool) if live is None else np.asarray(live, bool)
    flat = np.zeros((n, 1))
    return ScoredBatch(
        features=("x",),
        keys=pa.array(keys).dictionary_encode(),
        time=np.arange(n, dtype=np.int64) * MINUTE if time is None else np.asarray(time, np.int64),
        row=np.arange(n, dtype=np.int64),
        value=flat,
        score=score,
        threshold=np.ones(n, np.float32),
        severity=np.where(live, score, np.nan).astype(np.float32),
        flag=np.zeros(n, bool) if flag is None else np.asarray(flag, bool),
        stage=np.where(live, Stage.LIVE, Stage.LEARNING).astype(np.uint8),
        change=np.zeros(n, np.uint8),
        imputed=np.zeros(n, np.uint16),
        expected=flat,
        low=flat,
        high=flat,
        attribution=np.ones((n, 1), np.float32),
        detailed=np.ones(n, bool),
        parts=np.zeros((n, 5), np.float32),
        cause=np.zeros(n, np.uint16),
    )


def episode(key, first, last, number=0):
    return Episode(
        id=f"file/{number or first}",
        key=key,
        state="closed",
        opened=first * MINUTE,
        closed=last * MINUTE,
        first=first,
        last=last,
        peak_time=first * MINUTE,
        peak_severity=2.0,
        events=last - first + 1,
        cause="x",
    )


class TestLabels:
    def test_csv_with_keys_reads_utc_inclusive_windows(self, tmp_path):
        path = tmp_path / "labels.csv"
        path.write_text(
            "key,start,end\n"
            "a,1970-01-01T00:01:00,1970-01-01 00:02:00\n"
            "a,1970-01-01T01:01:30+01:00,1970-01-01T00:03:00Z\n"
            "b,1970-01-01,1970-01-01T00:00:00.123456789\n"
        )
        windows = load_windows(str(path))
        assert windows.keys == ("a", "b")
        assert windows.for_key("a").tolist() == [[MINUTE, 3 * MINUTE]]
        assert windows.for_key("b").tolist() == [[0, 123456789]]
        assert windows.for_key("c").shape == (0, 2)
        assert windows.unused(["a", "c"]) == ("b",)

    def test_csv_without_key_column_holds_for_every_stream(self, tmp_path):
        path = tmp_path / "labels.csv"
        path.write_text("start,end\n1970-01-01T00:01:00,1970-01-01T00:02:00\n")
        windows = load_windows(str(path))
        assert windows.for_key("anything").tolist() == [[MINUTE, 2 * MINUTE]]
        assert windows.unused(["anything"]) == ()

    def test_nab_json_matches_the_stem_of_the_file(self, tmp_path):
        path = tmp_path / "windows.json"
        window = ["1970-01-01 00:01:00.000000", "1970-01-01 00:02:00.000000"]
        path.write_text(json.dumps({"realX/file.csv": [window], "plain": [window], "realX/none.csv": []}))
        windows = load_windows(str(path))
        for key in ("file", "realX/file.csv", "/other/file.csv.gz", "plain"):
            assert windows.for_key(key).tolist() == [[MINUTE, 2 * MINUTE]]
        assert len(windows.for_key("none")) == 0
        assert windows.unused(["file"]) == ("plain", "realX/none.csv")

    def test_a_key_with_a_dot_is_no_file(self):
        windows = Windows({"pump.7": [(0, 1)]})
        assert len(windows.for_key("pump")) == 0
        assert len(windows.for_key("pump.7")) == 1

    def test_a_stem_of_two_files_is_refused(self):
        with pytest.raises(InputError, match=r"'x' could be 'a/x.csv' or 'b/x.csv'"):
            Windows({"a/x.csv": [(0, 1)], "b/x.csv": [(2, 3)]}).for_key("x")

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("l.csv", "", "line 1: no column 'start'"),
            ("l.csv", "key,begin,end\n", "line 1: no column 'start', got key, begin, end"),
            ("l.csv", "start,end\n2024-01-01,2024-01-02\n2024-01-01,soon\n", "line 3: end: 'soon' is not an ISO 8601"),
            ("l.csv", "start,end\n2024-01-01\n", "line 2: end is expected, got None"),
            ("l.csv", "start,end\n2024-01-02,2024-01-01\n", "line 2: the end .* lies before the start .* swap them"),
            ("l.csv", "start,end\n0001-01-01,2024-01-01\n", "line 2: start: '0001-01-01' is outside the years"),
            ("l.json", "{", "line 1: .*labels in JSON are"),
            ("l.json", "[]", "an object is expected, got list"),
            ("l.json", '{"a": 3}', "key 'a': a list of windows is expected, got 3"),
            ("l.json", '{"a": [["2024-01-01"]]}', "key 'a': window 1: a start and an end are expected"),
            ("l.json", '{"a": [["2024-01-01", 5]]}', "key 'a': window 1"),
        ],
    )
    def test_errors_name_file_place_and_remedy(self, tmp_path, name, text, message):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(InputError, match=message) as caught:
            load_windows(str(path))
        assert str(caught.value).startswith(str(path))

    def test_missing_and_binary_files_are_input_errors(self, tmp_path):
        with pytest.raises(InputError, match="check the path"):
            load_windows(str(tmp_path / "none.csv"))
        path = tmp_path / "binary.csv"
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(InputError, match="not UTF-8 at byte 0"):
            load_windows(str(path))

    def test_is_column(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("labels").write_text("start,end\n")
        assert is_column("is_anomaly")
        assert is_column("label.x")
        assert not is_column("labels")
        assert not is_column("missing.csv")
        assert not is_column("missing.JSON")
        assert not is_column("folder/missing")


class TestTimes:
    def test_parse_start_knows_fractions_and_times(self):
        assert parse_start("0.25") == 0.25
        assert isinstance(parse_start("0"), float)
        assert parse_start("1970-01-01T00:01") == MINUTE

    @pytest.mark.parametrize("text", ["1", "-0.1", "nan", "yesterday", ""])
    def test_parse_start_refuses_the_rest(self, text):
        with pytest.raises(UsageError, match=r"start: .*fraction"):
            parse_start(text)

    @given(st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)))
    def test_parse_time_equals_numpy(self, moment):
        assert parse_time(moment.isoformat()) == int(np.datetime64(moment, "ns").astype(np.int64))


class TestMetrics:
    def test_sequences(self):
        assert metrics.sequences(LABEL).tolist() == [[2, 3], [7, 7]]
        assert metrics.sequences(np.ones(3)).tolist() == [[0, 2]]
        assert metrics.sequences(np.zeros(0)).shape == (0, 2)

    def test_overlap_counts_and_delays(self):
        labelled = np.array([[10, 19], [30, 39], [50, 59]])
        found = np.array([[5, 10], [15, 16], [35, 36], [42, 45]])
        assert metrics.overlap_counts(found, labelled) == (2, 1, 1)
        assert metrics.delays(found, labelled).tolist() == [0, 5, -1]

    def test_one_episode_over_two_sequences_finds_both(self):
        assert metrics.overlap_counts(np.array([[0, 100]]), np.array([[10, 19], [30, 39]])) == (2, 0, 0)

    def test_nothing_against_nothing(self):
        none = np.empty((0, 2), np.int64)
        assert metrics.overlap_counts(none, none) == (0, 0, 0)
        assert metrics.delays(none, np.array([[1, 2]])).tolist() == [-1]
        assert metrics.precision_recall_f1(0, 0, 0) == (None, None, None)
        assert metrics.precision_recall_f1(0, 0, 2) == (None, 0.0, 0.0)
        assert metrics.precision_recall_f1(0, 2, 0) == (0.0, None, 0.0)
        assert metrics.precision_recall_f1(2, 2, 0) == (0.5, 1.0, pytest.approx(2 / 3))

    def test_areas_without_labels_are_none(self):
        assert metrics.average_precision(np.zeros(5), np.arange(5.0)) is None
        assert metrics.vus_pr(np.zeros(5), np.arange(5.0)) is None

    def test_average_precision_by_hand(self):
        # precision at the three hits from above: 1/1, 2/2, 3/4
        assert metrics.average_precision(LABEL, SCORE) == pytest.approx((1 + 1 + 3 / 4) / 3)
        # tied: 2 of 3 at the upper score, 3 of 10 at the lower
        assert metrics.average_precision(LABEL, TIED) == pytest.approx(2 / 3 * 2 / 3 + 1 / 3 * 3 / 10)
        assert metrics.average_precision(LABEL, np.zeros(10)) == pytest.approx(0.3)

    @pytest.mark.parametrize(
        ("score", "window", "levels", "expected"),
        [
            (SCORE, 0, 10, 0.9166666666666666),
            (SCORE, 4, 5, 0.8461064690222322),
            (SCORE, 100, 250, 0.9976673136752645),
            (TIED, 100, 250, 0.9845148145503297),
        ],
    )
    def test_vus_pr_against_reference(self, score, window, levels, expected):
        # From the project's prototype detection_recipe.py, which equals TSB-AD's generate_curve(.., "opt", ..).
        assert metrics.vus_pr(LABEL, score, window, levels) == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize(
        ("windows", "lift", "expected", "narrow"),
        [
            ([(400, 450), (1200, 1200), (2000, 2300)], 0.7, 0.8606155615387998, 0.8476848868076278),
            ([(500, 540), (570, 580), (640, 700), (761, 820)], 0.5, 0.6465388614858799, 0.6143981190838558),
            ([(0, 20), (1500, 1520), (2970, 2999)], 0.3, 0.3455415919460881, 0.31422436647229923),
        ],
        ids=["apart", "margins touch", "at both ends"],
    )
    def test_vus_pr_equals_tsb_ad(self, windows, lift, expected, narrow):
        # Expected: generate_curve(label, score, window, "opt", 250)[-1] of TSB-AD 1.5 (numpy 1.26), windows 100 and 20.
        label = np.zeros(3000, np.int64)
        for first, last in windows:
            label[first : last + 1] = 1
        noise = (np.arange(1, 3001) + 7919) * 2654435761 % 2**32 / 2**32
        assert metrics.vus_pr(label, noise + lift * label) == pytest.approx(expected, abs=1e-9)
        assert metrics.vus_pr(label, noise + lift * label, 20) == pytest.approx(narrow, abs=1e-9)

    def test_vus_pr_of_tied_and_constant_scores_equals_tsb_ad(self):
        label = np.zeros(3000, np.int64)
        label[400:451] = label[1200] = label[2000:2301] = 1
        noise = (np.arange(1, 3001) + 7919) * 2654435761 % 2**32 / 2**32
        assert metrics.vus_pr(label, np.round(4 * (noise + 0.6 * label))) == pytest.approx(0.5897312801433716, abs=1e-9)
        assert metrics.vus_pr(label, np.ones(3000)) == pytest.approx(0.16012639192674216, abs=1e-9)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=1, max_size=60))
    def test_areas_stay_within_bounds_and_follow_the_order_only(self, rows):
        label = np.array([a for a, _ in rows])
        score = np.array([b for _, b in rows], np.float64)
        for area in (metrics.average_precision, metrics.vus_pr):
            value = area(label, score)
            assert (value is None) == (not label.any())
            if value is not None:
                assert 0 <= value <= 1 + 1e-12
                assert area(label, np.exp(score)) == pytest.approx(value, abs=1e-12)


class TestEvaluation:
    def test_counts_with_label_column(self):
        evaluation = Evaluation(None, promised=2.0)
        label = np.zeros(100, np.uint8)
        label[20:30] = label[60:70] = 1
        flag = np.zeros(100, bool)
        flag[[22, 23, 80]] = True
        batch = scored(["a"] * 100, score=np.where(flag, 3.0, 0.1), flag=flag)
        evaluation.add(batch, label)
        evaluation.add_episode(episode("a", 22, 23))
        evaluation.add_episode(episode("a", 80, 80))
        result = evaluation.result()
        (a,) = result.streams
        assert (a.true, a.false, a.missed, a.not_live, a.episodes) == (1, 1, 1, 0, 2)
        assert (a.precision, a.recall, a.f1) == (0.5, 0.5, 0.5)
        assert (a.delay_rows, a.delay_seconds) == (2.0, 120.0)
        assert a.flagged_share == pytest.approx(0.03)
        assert a.days == pytest.approx(79 / 1440)
        assert result.kept == pytest.approx(1440 / 79)
        assert result.promised == 2.0

    def test_batches_and_interleaved_streams_change_nothing(self):
        rng = np.random.default_rng(1)
        keys = np.array(["a", "b", "c"])[rng.integers(0, 3, 300)]
        score, label = rng.random(300), (rng.random(300) < 0.1).astype(np.uint8)
        whole, parts = Evaluation(None), Evaluation(None)
        time = np.arange(300) * MINUTE
        whole.add(scored(keys, time, score, score > 0.9), label)
        for i in range(0, 300, 7):
            s = slice(i, i + 7)
            parts.add(scored(keys[s], time[s], score[s], score[s] > 0.9), label[s])
        for evaluation in (whole, parts):
            for key in "abc":
                evaluation.add_episode(episode(key, 5, 9))
        assert whole.result() == parts.result()

    def test_windows_by_time_whatever_the_order_of_records(self):
        evaluation = Evaluation(Windows({"a": [(10 * MINUTE, 12 * MINUTE)], "other": [(0, 1)]}))
        time = np.arange(20) * MINUTE
        time[[11, 13]] = time[[13, 11]]
        evaluation.add(scored(["a"] * 20, time))
        evaluation.add_episode(episode("a", 13, 14))
        result = evaluation.result()
        assert (result.total.true, result.total.false, result.total.missed) == (1, 0, 0)
        assert result.unused_labels == ("other",)

    def test_records_that_are_not_live_never_count(self):
        evaluation = Evaluation(None)
        label = np.zeros(50, np.uint8)
        label[5:8] = label[18:23] = label[40:42] = 1
        evaluation.add(scored(["a"] * 50, live=np.arange(50) >= 20, flag=np.ones(50, bool)), label)
        evaluation.add_episode(episode("a", 2, 4))
        evaluation.add_episode(episode("a", 21, 22))
        a = evaluation.result().streams[0]
        assert (a.true, a.false, a.missed, a.not_live) == (1, 0, 1, 1)
        assert (a.live, a.flagged) == (30, 30)

    @pytest.mark.parametrize("start", [0.5, 25 * MINUTE])
    def test_start_drops_what_came_before(self, start):
        evaluation = Evaluation(None, start)
        label = np.zeros(50, np.uint8)
        label[5:8] = label[23:30] = 1
        evaluation.add(scored(["a"] * 50), label)
        evaluation.add_episode(episode("a", 10, 12))
        evaluation.add_episode(episode("a", 24, 26))
        evaluation.add_episode(episode("a", 27, 31))
        a = evaluation.result().streams[0]
        assert (a.records, a.episodes, a.true, a.false, a.missed) == (25, 1, 1, 0, 0)
        assert a.delay_rows == 2.0

    def test_open_episode_is_replaced_when_it_closes(self):
        evaluation = Evaluation(None)
        evaluation.add(scored(["a"] * 10), np.zeros(10, np.uint8))
        evaluation.add_episode(episode("a", 2, 3))
        evaluation.add_episode(episode("a", 2, 8))
        assert evaluation.result().total.episodes == 1

    def test_records_without_times_count_as_minutes(self):
        evaluation = Evaluation(None)
        evaluation.add(scored(["a"] * 1440, np.full(1440, NO_TIME)), np.zeros(1440, np.uint8))
        evaluation.add_episode(episode("a", 2, 3))
        total = evaluation.result().total
        assert (total.days, total.false_per_day, total.delay_seconds) == (1.0, 1.0, None)

    def test_promise_is_per_stream_and_day_outside_labels(self):
        evaluation = Evaluation(None, promised=0.5)
        label = np.zeros(2 * 1440, np.uint8)
        label[:1440] = 1
        for key in "abc":
            evaluation.add(scored([key] * 2880, np.full(2880, NO_TIME)), label)
        for key, first in (("a", 1500), ("b", 2000), ("b", 10)):
            evaluation.add_episode(episode(key, first, first))
        result = evaluation.result()
        assert (result.total.days, result.promised_alarms, result.total.false) == (3.0, 1.5, 2)
        assert result.kept == pytest.approx(2 / 3)

    @pytest.mark.parametrize(
        ("threshold", "expected"),
        [
            ({}, 1.0),
            ({"false_alarms_per_day": 0.2}, 0.2),
            ({"false_alarms_per_day": 3, "scope": "fleet", "expected_streams": 12}, 0.25),
            ({"false_alarms_per_day": 3, "expected_streams": 12}, 3.0),
            ({"kind": "fixed"}, None),
            ({"kind": "sigma"}, None),
        ],
    )
    def test_what_a_threshold_promises_each_stream(self, threshold, expected):
        assert promised_rate(Threshold(**threshold)) == expected

    def test_nab_score_of_alarms_at_the_detectors_own_threshold(self):
        evaluation = Evaluation(
            Windows({"a": [(40 * MINUTE, 49 * MINUTE)], "b": [(60 * MINUTE, 79 * MINUTE)], "c": []})
        )
        for key in "abc":
            evaluation.add(scored([key] * 100))
        for key, first in (("a", 40), ("a", 44), ("a", 5), ("c", 30)):
            evaluation.add_episode(episode(key, first, first + 60))
        # a is met at its start, b is missed, c has one false alarm, and row 5 is probation
        scores = evaluation.result().nab_scores()
        assert scores["standard"] == pytest.approx(100 * (2 - 0.11) / 4)
        assert scores["reward_low_FP"] == pytest.approx(100 * (2 - 0.22) / 4)
        assert scores["reward_low_FN"] == pytest.approx(100 * (3 - 0.11) / 6)

    def test_nab_score_wants_windows_and_every_labelled_file(self):
        by_column = Evaluation(None)
        by_column.add(scored(["a"]), np.ones(1, np.uint8))
        with pytest.raises(InputError, match="needs windows"):
            by_column.result().nab_scores()
        partial = Evaluation(Windows({"a": [(40 * MINUTE, 49 * MINUTE)], "b": []}))
        partial.add(scored(["a"] * 100))
        with pytest.raises(InputError, match="1 labelled files are not in the data"):
            partial.result().nab_scores()

    def test_what_cannot_be_judged_is_said(self):
        with pytest.raises(UsageError, match="0/1 column"):
            Evaluation(None).add(scored(["a"]))
        with pytest.raises(InputError, match="no records"):
            Evaluation(None).result()
        with pytest.raises(UsageError, match=r"got 1\.5"):
            Evaluation(None, 1.5)
        untimed = scored(["a"] * 3, np.full(3, NO_TIME))
        by_window = Evaluation(Windows({"a": [(0, 1)]}))
        by_window.add(untimed)
        with pytest.raises(InputError, match="windows need times"):
            by_window.result()
        from_time = Evaluation(None, MINUTE)
        from_time.add(untimed, np.zeros(3, np.uint8))
        with pytest.raises(InputError, match="give a fraction"):
            from_time.result()

    def test_tables_and_json(self):
        evaluation = Evaluation(None, promised=1.0)
        evaluation.add(scored(["a", "b"] * 20), np.zeros(40, np.uint8))
        result = evaluation.result()
        header, *rows = result.rows()
        assert [row[0] for row in rows] == ["a", "b", "all streams"]
        assert rows[0][header.index("F1")] == "-"
        content = json.loads(json.dumps(result.as_dict(), allow_nan=False))
        assert content["promised_false_alarms_per_day"] == 1.0
        assert content["kept_false_alarms_per_day"] == 0.0
        assert content["total"]["records"] == 40
