"""The report: what it keeps of a run, and the file it writes. No browser is needed."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from streamlstm.errors import OutputError
from streamlstm.evaluate import Evaluation, Windows
from streamlstm.report import SeriesCollector, write_report
from streamlstm.report.decimate import BoundedSeries, Buckets
from streamlstm.types import NO_TIME, Episode, ScoredBatch, Stage

SECOND = 10**9
HOSTILE = "</script><script>alert('&\u2028')</script>"


def scored(stream, time, value, score, keys, detailed=None, attribution=None):
    """A ScoredBatch: stream (B) indices into keys, value (B, D); threshold 1, flagged above it, live from the start."""
    n, features = value.shape
    score = np.asarray(score, np.float32)
    return ScoredBatch(
        features=tuple(f"f{i}" for i in range(features)),
        keys=pa.DictionaryArray.from_arrays(pa.array(stream, pa.int32()), pa.array(keys)),
        time=np.asarray(time, np.int64),
        row=np.arange(n),
        value=value,
        score=score,
        threshold=np.ones(n, np.float32),
        severity=score.copy(),
        flag=score > 1,
        stage=np.full(n, Stage.LIVE, np.uint8),
        change=np.zeros(n, np.uint8),
        imputed=np.zeros(n, np.uint16),
        expected=value - 0.5,
        low=value - 1.5,
        high=value + 0.5,
        attribution=np.full((n, features), 1 / features, np.float32) if attribution is None else attribution,
        detailed=np.ones(n, bool) if detailed is None else detailed,
        parts=np.zeros((n, 5), np.float32),
        cause=np.zeros(n, np.uint16),
    )


def one_stream(rows, features=1, seed=0, **options):
    rng = np.random.default_rng(seed)
    return scored(
        np.zeros(rows, np.int32),
        np.arange(rows) * SECOND,
        rng.normal(size=(rows, features)),
        rng.random(rows),
        ["pump"],
        **options,
    )


def episode(key, first, last, timed=True, cause="f0 above expected"):
    opened, closed = (first * SECOND, last * SECOND) if timed else (NO_TIME, NO_TIME)
    return Episode(f"file/{first}", key, "closed", opened, closed, first, last, opened, 2.5, last - first + 1, cause)


def write(path, collector, episodes=(), **options):
    options = {
        "title": "a run",
        "summary": {"records": str(collector.records)},
        "config_yaml": "a: 1\n",
        "versions": {"numpy": "2"},
    } | options
    write_report(str(path), collector=collector, episodes=episodes, **options)
    return path.read_text("utf-8")


class Page(HTMLParser):
    """The elements and the text outside scripts and styles of a page, and its embedded data."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.data, self._inside = [], "", "", None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = (tag, dict(attrs))

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside and self._inside[0] == "script":
            if self._inside[1].get("id") == "data":
                self.data += data
        elif not self._inside or self._inside[0] != "style":
            self.text += data

    @property
    def streams(self):
        return json.loads(self.data)["streams"]


def decoded(array):
    return array["offset"] + array["scale"] * np.frombuffer(base64.b64decode(array["v"]), "<f4").astype(np.float64)


class TestBoundedSeries:
    def collect(self, rows, cuts, capacity):
        series = BoundedSeries(0, rows.value.shape[1])
        for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True):
            part = slice(a, b)
            v = rows.value[part]
            series.add(
                Buckets(
                    rows.time[part],
                    np.ones(b - a, np.int64),
                    v,
                    v,
                    v - 0.5,
                    v - 1.5,
                    v + 0.5,
                    rows.score[part],
                    rows.threshold[part],
                    rows.severity[part],
                    rows.flag[part].astype(np.int64),
                ),
                capacity,
            )
        return series

    def test_keeps_extremes_in_bounded_space(self):
        rows = one_stream(1003, features=2)
        rows.score[700] = rows.severity[700] = 9
        rows.flag[700] = True
        rows.value[401] = np.nan
        series = self.collect(rows, [5, 6, 300, 999], 64)
        buckets = series.buckets
        assert (len(buckets), series.width, buckets.records.sum()) == (63, 16, 1003)
        for i in range(len(buckets)):
            part = rows.value[i * 16 : (i + 1) * 16]
            np.testing.assert_array_equal(buckets.lowest[i], np.nanmin(part, axis=0))
            np.testing.assert_array_equal(buckets.highest[i], np.nanmax(part, axis=0))
            np.testing.assert_allclose(buckets.expected[i], np.nanmean(part, axis=0) - 0.5)
            assert buckets.score[i] == rows.score[i * 16 : (i + 1) * 16].max()
        np.testing.assert_array_equal(buckets.time, rows.time[::16])
        assert np.flatnonzero(buckets.flags).tolist() == [700 // 16]

    def test_batch_cuts_change_nothing(self):
        rows = one_stream(500)
        whole, parts = self.collect(rows, [], 50).buckets, self.collect(rows, list(range(1, 500)), 50).buckets
        for name in ("time", "records", "lowest", "highest", "low", "high", "score", "threshold", "severity", "flags"):
            np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name), err_msg=name)
        np.testing.assert_allclose(whole.expected, parts.expected)

    def test_before_live_the_largest_score_stands_for_a_bucket(self):
        rows = one_stream(8)
        rows.severity[:] = np.nan
        assert self.collect(rows, [], 1).buckets.score.tolist() == [rows.score.max()]
        rows.severity[2] = 0.1
        assert self.collect(rows, [], 1).buckets.score.tolist() == [rows.score[2]]

    def test_mean_of_huge_values_does_not_overflow(self):
        rows = one_stream(8)
        rows.value[:] = 1.7e308
        assert np.isfinite(self.collect(rows, [], 1).buckets.expected).all()


class TestCollector:
    def test_counts_and_order(self):
        stream = np.tile(np.arange(3, dtype=np.int32), 100)
        score = np.full(300, 0.2)
        score[[4, 7]] = 3.0  # stream 1
        score[5] = 7.0  # stream 2
        collector = SeriesCollector(("f0",))
        for part in (slice(0, 100), slice(100, 300)):
            collector.add(
                scored(stream[part], np.arange(300)[part] * SECOND, np.zeros((300, 1))[part], score[part], "abc")
            )
        streams = collector.streams()
        assert [s.key for s in streams] == ["c", "b", "a"]
        assert [s.flags for s in streams] == [1, 2, 0]
        assert [s.records for s in streams] == [100] * 3
        assert (streams[2].begin, streams[2].end, streams[2].timed) == (0, 297 * SECOND, True)
        assert (len(collector), collector.records, collector.flags) == (3, 300, 3)

    def test_points_are_bounded_with_many_streams(self):
        collector = SeriesCollector(("f0",), max_points=10_000)
        stream = np.tile(np.arange(1000, dtype=np.int32), 20)
        keys = [f"s{i}" for i in range(1000)]
        score = np.where(stream == 777, 5.0, 0.1)
        for _ in range(20):
            collector.add(scored(stream, np.arange(len(stream)), np.zeros((len(stream), 1)), score, keys))
        kept = [s for s in collector.streams() if s.series is not None]
        assert len(collector.streams()) == 1000
        assert kept[0].key == "s777"
        assert kept[0].series.buckets.records.sum() == 400
        assert 2 * sum(len(s.series.buckets) for s in kept) <= 10_000

    def test_a_stream_that_turns_bad_has_its_series_from_then_on(self):
        collector = SeriesCollector(("f0",), max_points=256)  # room for one series
        for stream, score in ((0, 0.5), (1, 0.1), (1, 0.9)):
            ids = np.full(10, stream, np.int32)
            collector.add(scored(ids, np.arange(10), np.zeros((10, 1)), np.full(10, score), ["early", "late"]))
        early, late = sorted(collector.streams(), key=lambda s: s.key)
        assert early.series is None
        assert (late.series.first, late.records) == (10, 20)

    def test_rows_without_detail_have_no_expectation(self):
        collector = SeriesCollector(("f0",))
        collector.add(one_stream(10, detailed=np.arange(10) >= 5))
        buckets = collector.streams()[0].series.buckets
        assert np.isnan(buckets.expected[:5]).all()
        assert np.isfinite(buckets.low[5:]).all()


class TestReport:
    def test_loads_nothing(self, tmp_path):
        collector = SeriesCollector(("f0",))
        collector.add(one_stream(50))
        page = Page(write(tmp_path / "r.html", collector))
        for tag, attributes in page.elements:
            assert not {"src", "href", "srcset", "action", "poster", "data"} & set(attributes), tag
            assert tag not in {"link", "img", "iframe", "object", "embed", "base"}
        policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none'")
        assert sum(tag == "script" for tag, _ in page.elements) == 3

    def test_data_holds_what_was_put_in(self, tmp_path):
        batch = one_stream(200, features=2)
        batch.value[:, 1] += 1.7e9  # a counter, whose steps float32 alone would lose
        batch.value[7, 0] = np.nan
        batch.flag[150:153] = True
        collector = SeriesCollector(("f0", "f1"))
        collector.add(batch)
        episodes = [episode("pump", 150, 152)]
        windows = Windows({"pump": [(140 * SECOND, 160 * SECOND)]})
        (stream,) = Page(write(tmp_path / "r.html", collector, episodes, labels=windows)).streams
        assert (stream["key"], stream["timed"], stream["width"]) == ("pump", True, 1)
        np.testing.assert_array_equal(np.frombuffer(base64.b64decode(stream["x"]), "<f8"), batch.time / 1e6)
        for i, feature in enumerate(stream["features"]):
            assert feature["name"] == f"f{i}"
            np.testing.assert_allclose(decoded(feature["lowest"]) - 1.7e9 * i, batch.value[:, i] - 1.7e9 * i, atol=1e-5)
            np.testing.assert_allclose(decoded(feature["expected"]), batch.expected[:, i], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(decoded(stream["score"]), batch.score, atol=1e-6)
        assert np.flatnonzero(np.frombuffer(base64.b64decode(stream["flags"]), "u1")).tolist() == [150, 151, 152]
        assert stream["episodes"] == [[150_000.0, 152_000.0]]
        assert stream["windows"] == [[140_000.0, 160_000.0]]

    def test_records_without_times_are_numbered(self, tmp_path):
        batch = one_stream(20)
        batch.time[:] = NO_TIME
        collector = SeriesCollector(("f0",))
        collector.add(batch)
        page = Page(write(tmp_path / "r.html", collector, [episode("pump", 5, 6, timed=False)]))
        assert page.streams[0]["episodes"] == [[5.0, 6.0]]
        assert np.frombuffer(base64.b64decode(page.streams[0]["x"]), "<f8").tolist() == list(range(20))
        assert "record 5" in page.text

    def test_of_many_features_the_blamed_ones_are_drawn(self, tmp_path):
        attribution = np.zeros((50, 9), np.float32)
        attribution[:, [1, 2, 4, 5, 7, 8]] = 1 / 6
        batch = one_stream(50, features=9, attribution=attribution)
        batch.flag[10] = True
        collector = SeriesCollector(batch.features)
        collector.add(batch)
        (stream,) = Page(write(tmp_path / "r.html", collector)).streams
        assert [f["name"] for f in stream["features"]] == ["f1", "f2", "f4", "f5", "f7", "f8"]
        assert stream["omitted"] == 3

    def test_hostile_texts_stay_texts(self, tmp_path):
        collector = SeriesCollector((HOSTILE,))
        collector.add(
            scored(np.arange(20, dtype=np.int32) % 2, np.arange(20), np.ones((20, 1)), [0] * 20, [HOSTILE, "b"])
        )
        evaluation = Evaluation(Windows({HOSTILE: [(0, 5)]}))
        evaluation.add(one_stream(5))
        text = write(
            tmp_path / "r.html",
            collector,
            [episode(HOSTILE, 2, 3, cause=HOSTILE)],
            title=HOSTILE,
            summary={HOSTILE: HOSTILE},
            config_yaml=HOSTILE,
            versions={HOSTILE: HOSTILE},
            stages={HOSTILE: HOSTILE},
            evaluation=evaluation.result(),
        )
        page = Page(text)
        assert sum(tag == "script" for tag, _ in page.elements) == 3
        assert "<script>alert" not in text
        assert page.text.count(HOSTILE) >= 10
        assert {s["key"] for s in page.streams} == {HOSTILE, "b"}

    def test_quality_is_told(self, tmp_path):
        batch = one_stream(100)
        collector, evaluation = (
            SeriesCollector(("f0",)),
            Evaluation(Windows({"pump": [(10 * SECOND, 20 * SECOND)]}), promised=3),
        )
        collector.add(batch)
        evaluation.add(batch)
        evaluation.add_episode(episode("pump", 12, 14))
        text = Page(write(tmp_path / "r.html", collector, evaluation=evaluation.result())).text
        assert "1 of 1" in text
        assert "the configuration promises 3" in text
        assert "2.00 s" in text or "2 s" in text

    @pytest.mark.parametrize(("streams", "rows"), [(100, 10_000), (1, 200_000)])
    def test_size_is_bounded(self, tmp_path, streams, rows):
        collector = SeriesCollector(("f0",))
        keys = [f"stream-{i}" for i in range(streams)]
        rng = np.random.default_rng(0)
        for begin in range(0, rows, 2000):
            n = 2000 * streams
            stream = np.repeat(np.arange(streams, dtype=np.int32), 2000)
            time = np.tile(np.arange(begin, begin + 2000), streams) * SECOND
            collector.add(scored(stream, time, rng.normal(size=(n, 1)), rng.random(n) * 1.001, keys))
        episodes = [episode(key, i * 40, i * 40 + 5) for key in keys for i in range(50)]
        path = tmp_path / "r.html"
        page = Page(write(path, collector, episodes))
        assert path.stat().st_size < 10_000_000
        assert len(page.streams) == streams
        assert sum(1 for tag, a in page.elements if tag == "tr" and "data-from" in a) == min(50 * streams, 2000)

    def test_size_is_bounded_with_wide_keys_of_thousands(self, tmp_path):
        keys = [f"{i}" + "<\U0001f600" * 100 for i in range(3000)]
        collector = SeriesCollector(("f0",))
        collector.add(scored(np.arange(3000, dtype=np.int32), np.arange(3000), np.ones((3000, 1)), [0] * 3000, keys))
        path = tmp_path / "r.html"
        write(path, collector, [episode(key, 0, 1, cause=key) for key in keys])
        assert path.stat().st_size < 10_000_000

    def test_extreme_values_are_drawn_without_warnings(self, tmp_path):
        batch = one_stream(20)
        batch.value[:10], batch.value[10:15] = 1.7e308, -1.7e308
        batch.score[3] = np.inf
        collector = SeriesCollector(("f0",))
        collector.add(batch)
        (stream,) = Page(write(tmp_path / "r.html", collector)).streams
        assert decoded(stream["features"][0]["lowest"])[0] == pytest.approx(1.7e308)

    def test_an_empty_run_and_no_episodes(self, tmp_path):
        page = Page(write(tmp_path / "r.html", SeriesCollector(("f0",))))
        assert page.streams == []
        assert "There was no episode." in page.text

    def test_a_path_that_cannot_be_written_is_an_output_error(self, tmp_path):
        with pytest.raises(OutputError, match=r"cannot write .*none/r\.html: .*choose a file"):
            write(tmp_path / "none" / "r.html", SeriesCollector(("f0",)))

    def test_plotly_itself_cannot_end_its_script(self, tmp_path):
        text = write(tmp_path / "r.html", SeriesCollector(("f0",)))
        assert len(re.findall(r"</script", text, re.IGNORECASE)) == 3
