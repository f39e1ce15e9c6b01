"""`time.late: reorder`: records wait for older ones of their stream, whatever the batches and restarts."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pytest
from bytecodes import executed_bytecodes
from daemons import ONLINE, Place, Running, model, place, readings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamlstm.config import load
from streamlstm.detect.detector import Detector
from streamlstm.detect.reorder import Reorder, batch_of, columns_of, make_reorder, reordered
from streamlstm.errors import ConfigError, OutputError, UsageError
from streamlstm.learn.fit import Recording, fit
from streamlstm.model.network import Model
from streamlstm.service.forecasting import forecast_files
from streamlstm.service.opening import open_source
from streamlstm.service.replay import replay
from streamlstm.service.snapshots import MANIFEST
from streamlstm.service.training import fit_files, read_recordings
from streamlstm.state.stores import FolderStore, TopicStore
from streamlstm.types import NO_TIME, EventBatch, ScoredBatch

__all__ = ["model", "place"]  # fixtures
S = 1_000_000_000
WINDOW_S, STREAMS = 5, 4
SETTINGS: dict[str, Any] = {
    "model": {"hidden_size": 4},
    "training": {"updates": 0},
    "learning": {"update_every": 16, "learning_rows": 4, "calibrating_rows": 4},
    "threshold": {"kind": "fixed", "level": 5.0},
    "episodes": {"merge_rows": 2},
    "time": {"late": "reorder", "reorder_s": WINDOW_S},
}
FIELDS = ("row", "time", "value", "score", "threshold", "severity", "flag", "stage", "change", "expected", "cause")
Event = tuple[str, int, int]  # stream, time, row


def naive(
    events: Sequence[Event], most: int = 4096, most_streams: float = float("inf")
) -> tuple[list[Event], list[Event]]:
    """The events that are released, in order, and those that wait in the end, by sorted lists."""
    waiting: OrderedDict[str, list[Event]] = OrderedDict()
    released = []
    for event in events:
        key, time, _ = event
        if time == NO_TIME:
            released.append(event)
            continue
        if key not in waiting and len(waiting) == most_streams:
            released += waiting.popitem(last=False)[1]
        mine = sorted([*waiting.pop(key, []), event], key=lambda other: other[1])
        while mine[0][1] <= mine[-1][1] - WINDOW_S * S or len(mine) > most:
            released.append(mine.pop(0))
        waiting[key] = mine
    return released, [event for mine in waiting.values() for event in mine]


def batch(events: Sequence[Event], source: str = "call", *, labelled: bool = False) -> EventBatch:
    """The events with values and labels that tell which they are."""
    row = np.array([row for *_, row in events], np.int64)
    keys = pa.array([key for key, *_ in events], pa.string())
    time = np.array([time for _, time, _ in events], np.int64)
    return EventBatch(keys, time, np.stack([row + 0.5, -row], axis=1), row, source, row % 2 == 1 if labelled else None)


def events_of(batches: Sequence[EventBatch]) -> list[Event]:
    for one in batches:
        assert np.array_equal(one.x, np.stack([one.row + 0.5, -one.row], axis=1))
        assert one.label is None or np.array_equal(one.label, one.row % 2 == 1)
    return [event for one in batches for event in zip(one.keys.to_pylist(), one.time.tolist(), one.row.tolist())]  # noqa: B905


def moved(reorder: Reorder, *bounds: int | None) -> Reorder:
    """Another one to which a snapshot brought what waits."""
    other = Reorder(WINDOW_S, *bounds)
    for one in reorder.held():
        for part in (one.part(0, len(one) // 2), one.part(len(one) // 2, len(one))):
            other.hold(batch_of({name: np.array(array) for name, array in columns_of(part).items()}))
    assert len(other) == len(reorder)
    return other


times = st.one_of(st.just(NO_TIME), st.integers(0, 30).map(lambda t: t * S), st.sampled_from([NO_TIME + 1, 2**63 - 1]))
scripts = st.lists(st.tuples(st.sampled_from("abcdef"), times), max_size=70)
often = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(often, max_examples=300)
@given(
    script=scripts, cuts=st.lists(st.integers(0, 70), max_size=6), most=st.sampled_from([1, 2, 3, 4096]),
    most_streams=st.sampled_from([None, 1, 2, 4]), restored=st.booleans(), labelled=st.booleans(),
)  # fmt: skip
def test_what_is_released_is_what_sorted_lists_say(
    script: list[tuple[str, int]], cuts: list[int], most: int, most_streams: int | None, restored: bool, labelled: bool
) -> None:
    events = [(key, time, row) for row, (key, time) in enumerate(script)]
    expected, waiting = naive(events, most, most_streams or float("inf"))
    reorder, actual = Reorder(WINDOW_S, most_streams, most), []
    for first, end in pairwise([0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]):
        if restored:
            reorder = moved(reorder, most_streams, most)
        actual += events_of(reorder.release(batch(events[first:end], labelled=labelled)))
    assert actual == expected
    assert events_of(reorder.held()) == waiting
    assert len(reorder) == len(waiting)
    assert events_of(reorder.release_all()) == waiting
    assert len(reorder) == 0
    assert reorder.release_all() == []


def test_each_batch_is_of_one_source() -> None:
    reorder = Reorder(WINDOW_S)
    first = reorder.release(batch([("a", 9 * S, 0), ("b", 8 * S, 1), ("c", 1 * S, 2)], "one.csv"))
    assert [len(one) for one in first] == [0]
    second = reorder.release(batch([("b", 20 * S, 0), ("a", 12 * S, 1), ("a", 20 * S, 2)], "two.csv"))
    assert [(one.source, one.row.tolist()) for one in second] == [("one.csv", [1, 0]), ("two.csv", [1])]
    rest = reorder.release_all()
    assert [(one.source, one.row.tolist()) for one in rest] == [("one.csv", [2]), ("two.csv", [0, 2])]


def test_keys_without_end_take_no_memory_without_end() -> None:
    reorder, rows = Reorder(WINDOW_S, 64), 500
    for n in range(40):
        released = reorder.release(batch([(f"{n}-{row}", n * S, row) for row in range(rows)]))
        assert sum(map(len, released)) == (rows - 64 if n == 0 else rows)
        reorder.release(batch([(f"untimed-{n}-{row}", NO_TIME, row) for row in range(rows)]))
    assert len(reorder) == 64
    assert reorder._keys.count <= 2 * rows + 64
    assert len(reorder._free) <= 4 * rows


# Detectors


@pytest.fixture(scope="module")
def fitted() -> Model:
    x = np.sin(np.arange(200) / 5) + 0.1 * np.random.default_rng(0).normal(size=200)
    config = load(SETTINGS | {"time": {}}, environ={})
    return fit({"0": Recording(np.arange(200) * S, x[:, None])}, config, ("v",))


def detector(mode: str, model: Model, **sections: Any) -> Detector:
    config = SETTINGS | {"learning": SETTINGS["learning"] | {"mode": mode}} | sections
    return Detector(config, model=model if mode == "frozen" else None, features=("v",))


def bits(scored: Sequence[ScoredBatch], fields: Sequence[str] = FIELDS) -> list[list[Any]]:
    """All records of all batches, each as its key and the bytes of its fields."""
    joined = ScoredBatch.joined(scored)
    columns = [[value.tobytes() for value in getattr(joined, name)] for name in fields]
    return [list(record) for record in zip(joined.keys.to_pylist(), *columns, strict=True)]


@pytest.mark.parametrize("mode", ["frozen", "online"])
@often
@given(script=st.lists(st.tuples(st.integers(0, STREAMS - 1), times), min_size=1, max_size=80),
       cuts=st.lists(st.integers(0, 80), max_size=4), seed=st.integers(0, 9))  # fmt: skip
def test_scores_are_those_of_the_records_in_order(
    mode: str, fitted: Model, tmp_path: Path, script: list[tuple[int, int]], cuts: list[int], seed: int
) -> None:
    """Whatever the batches, across snapshots, and the same as of a detector that gets them in order and drops what is late."""
    keys, time = [str(stream) for stream, _ in script], np.array([time for _, time in script])
    n, x = len(script), 3 * np.random.default_rng(seed).normal(size=len(script))
    released, waiting = naive([(key, int(t), row) for row, (key, t) in enumerate(zip(keys, time, strict=True))])
    order = [row for *_, row in (*released, *waiting)]
    other = detector(mode, fitted, time={"late": "drop"})
    expected = bits([other.process_batch([keys[row] for row in order], time[order], x[order])], FIELDS[1:])
    one, actual = detector(mode, fitted), []
    for first, end in pairwise([0, *sorted(min(cut, n) for cut in cuts), n]):
        one.snapshot(tmp_path / "snapshot")
        one = Detector.restore(tmp_path / "snapshot")
        actual.append(one.process_batch(keys[first:end], time[first:end], x[first:end]))
    assert one.reorder is not None
    assert len(one.reorder) == len(waiting)
    actual.append(one.flush())
    assert ScoredBatch.joined(actual).row.tolist() == order
    assert bits(actual, FIELDS[1:]) == expected
    assert one.time_faults() == other.time_faults()
    assert len(one.flush()) == 0


def test_late_records_are_dropped_and_counted(fitted: Model) -> None:
    one = detector("frozen", fitted)
    scored = one.process_batch(["s"] * 5, np.array([10, 12, 20, 11, 13]) * S, np.ones(5))
    assert scored.row.tolist() == [0, 1, 3, 4]
    assert (scored.score != 0).tolist() == [True, True, False, True]
    assert one.flush().row.tolist() == [2]
    assert one.time_faults() == (1, 0, 1)


def test_memory_may_be_bounded_too(fitted: Model) -> None:
    """Spilled and forgotten streams, several threads, one more record than a stream may have waiting."""
    rng = np.random.default_rng(1)
    n = 6000
    keys = [f"s{k}" for k in rng.integers(0, 90, n)]
    time, x = (np.arange(n) + rng.integers(0, 300, n)) * S // 20, rng.normal(size=n)
    sections = {"learning": SETTINGS["learning"] | {"mode": "frozen", "max_known_streams": 64}}
    whole, parts = (
        detector("frozen", fitted, **sections),
        detector("frozen", fitted, **sections, runtime={"max_streams": 64}),
    )
    whole.threads = 2
    expected = bits([whole.process_batch(keys, time, x), whole.flush()])
    cuts = [0, 1, 7, 1000, 1000, 5000, n]
    actual = [parts.process_batch(keys[a:b], time[a:b], x[a:b]) for a, b in pairwise(cuts)]
    assert bits([*actual, parts.flush()]) == expected
    assert len(expected) == n


def test_an_event_has_no_answer_of_its_own(fitted: Model) -> None:
    one = detector("frozen", fitted)
    with pytest.raises(UsageError, match=r"time\.late: reorder\) has no answer of its own yet; use process_batch and"):
        one.process("s", 5 * S, [1.0])
    with pytest.raises(UsageError, match="process_batch"):
        one.peek("s", 5 * S, [1.0])
    with pytest.raises(UsageError, match="flush: the detector has seen no record yet"):
        Detector().flush()
    assert len(detector("frozen", fitted, time={}).flush()) == 0
    assert one.process_batch(["s"], [5 * S], [1.0]).keys.to_pylist() == []


@pytest.mark.parametrize(("section", "words"), [
    ({"late": "reorder"}, r"time: late: reorder needs reorder_s, .*; set it"),
    ({"reorder_s": 3}, r"time: reorder_s is for late: reorder alone, and late is accept; set reorder_s: null"),
    ({"late": "drop", "reorder_s": 3}, r"time: reorder_s is for late: reorder alone, and late is drop"),
    ({"late": "reorder", "reorder_s": 0}, r"time\.reorder_s: must be above 0"),
])  # fmt: skip
def test_a_window_belongs_to_reorder_alone(section: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load({"time": section}, environ={})


def test_python_does_nothing_per_event(fitted: Model) -> None:
    one, first = detector("frozen", fitted), 0
    batches = []
    for rows in (100_000, 100_000, 1000, 100_000, 1000):
        keys = pa.DictionaryArray.from_arrays(np.arange(rows, dtype=np.int32) % 100, [f"s{n}" for n in range(100)])
        row = np.arange(first, first + rows)
        batches.append(EventBatch(keys, (row + 300 * (row % 7)) * S // 1000, np.sin(row / 999)[:, None], row, "file"))
        first += rows
    for start in batches[:2]:  # arrays grow, caches fill
        one.process_events(start)
    counts = [executed_bytecodes(lambda batch=batch: one.process_events(batch)) for batch in batches[2:]]
    assert 0 < counts[0] < 8000
    assert counts[0] == counts[1] == counts[2]


def test_without_it_nothing_waits() -> None:
    for late in ("accept", "drop"):
        assert make_reorder(load({"time": {"late": late}}, environ={})) is None


# Files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, list[int]]]:
    """Two days of three streams out of order, also across midnight; and the times of each, sorted."""
    rng, folder = np.random.default_rng(3), tmp_path_factory.mktemp("days")
    minutes = np.repeat(np.arange(800), 3)
    key = np.tile(["a", "b", "c"], 800)
    value = np.sin(minutes / 9) + 0.1 * rng.normal(size=2400) + 9.0 * (minutes % 190 == 189)
    order = np.argsort(minutes + rng.uniform(0, 8, 2400))
    table = pa.table(
        {"time": 60 * minutes + 1_700_000_000, "key": key, "value": value, "odd": 1 * (minutes % 190 == 189)}
    )
    for n, rows in enumerate(np.split(order, 2)):
        pa_csv.write_csv(table.take(rows), folder / f"{n}.csv")
    return [str(folder / f"{n}.csv") for n in range(2)], {
        name: (60 * minutes[::3] + 1_700_000_000).tolist() for name in "abc"
    }


OVERRIDES = {
    "time.late": "reorder",
    "time.reorder_s": 600,
    "learning.calibrating_rows": 50,
    "score.span": 1,
    "model.hidden_size": 8,
}


def test_a_replay_releases_everything_at_its_end(files: Any, tmp_path: Path) -> None:
    inputs, sorted_times = files
    written = []
    for rows in (65536, 100):
        names = {name: str(tmp_path / f"{name}-{rows}.csv") for name in ("flags", "scores", "episodes")}
        names["report"] = str(tmp_path / "report.html")
        summary = replay(inputs, overrides=OVERRIDES | {"runtime.batch_rows": rows}, labels="odd", **names)
        assert (summary.records, summary.streams, summary.dropped, summary.backward) == (2400, 3, 0, 0)
        assert summary.evaluation is not None
        assert summary.evaluation.total.records == 2400
        flags, scores, episodes = (Path(names[name]).read_text() for name in ("flags", "scores", "episodes"))
        written.append((flags, scores, sorted(episodes.splitlines())))
    assert written[0] == written[1]
    table = pa_csv.read_csv(tmp_path / "scores-100.csv")
    found = {name: table.filter(pc.equal(table["key"], name))["time"].to_numpy() for name in sorted_times}
    for name, expected in sorted_times.items():
        assert (found[name].astype("datetime64[s]").astype(np.int64)).tolist() == expected
    ids = pa_csv.read_csv(tmp_path / "flags-100.csv")["id"].to_pylist()
    assert {name.rsplit("/", 1)[0] for name in ids} == set(inputs)


def test_labels_go_with_their_records(files: Any, tmp_path: Path) -> None:
    """The same judgement as of the records in order from the start."""
    inputs, _ = files
    in_order = str(tmp_path / "sorted.csv")
    tables = pa.concat_tables([pa_csv.read_csv(name) for name in inputs])
    pa_csv.write_csv(tables.sort_by([("time", "ascending")]), in_order)
    plain = {key: value for key, value in OVERRIDES.items() if not key.startswith("time.")}
    frozen = {"learning.mode": "frozen", "model.file": str(tmp_path / "m.safetensors")}
    fit_files([in_order], tmp_path / "m.safetensors", overrides=plain | {"training.updates": 5}, label="odd")
    found = [
        replay(names, overrides=more | frozen, labels="odd", workers=workers).evaluation
        for names, more, workers in ((inputs, OVERRIDES, 1), (inputs, OVERRIDES, 2), ([in_order], plain, 1))
    ]
    assert found[0] is not None
    assert found[0].total.auc_pr > 0.1
    assert (
        sorted(map(repr, found[0].streams))
        == sorted(map(repr, found[1].streams))
        == sorted(map(repr, found[2].streams))
    )


def test_forecasts_follow_the_last_record_in_order(files: Any, tmp_path: Path) -> None:
    inputs, _ = files
    in_order, model = str(tmp_path / "sorted.csv"), str(tmp_path / "m.safetensors")
    tables = pa.concat_tables([pa_csv.read_csv(name).drop(["odd"]) for name in inputs])
    pa_csv.write_csv(tables.sort_by([("time", "ascending")]), in_order)
    plain = {key: value for key, value in OVERRIDES.items() if not key.startswith("time.")}
    fit_files([in_order], model, overrides=plain | {"training.updates": 5, "forecast.horizons": 2})
    written = []
    for n, (names, more) in enumerate(((inputs, OVERRIDES), ([in_order], plain))):
        assert forecast_files(names, str(tmp_path / f"{n}.csv"), model=model, overrides=more) == 3
        written.append(sorted((tmp_path / f"{n}.csv").read_text().splitlines()))
    assert written[0] == written[1]


def test_a_fit_reads_the_records_in_order(files: Any) -> None:
    inputs, sorted_times = files
    config = load({}, overrides=OVERRIDES, environ={})
    source = open_source(inputs, config, None, label="odd", on_dead_letter=print, on_note=print)
    recordings = read_recordings(reordered(source, config), None)
    assert {key: (of.time // S).tolist() for key, of in recordings.items()} == sorted_times


def test_a_fit_leaves_out_what_comes_too_late(tmp_path: Path) -> None:
    minutes = np.append(np.arange(200), 30)
    table = pa.table({"time": 60 * minutes + 1_700_000_000, "value": np.sin(np.arange(201) / 9)})
    pa_csv.write_csv(table, tmp_path / "a.csv")
    model = fit_files([str(tmp_path / "a.csv")], tmp_path / "m", overrides=OVERRIDES | {"training.updates": 1})
    assert model.training["rows"] == 200


# Daemons


def shuffled(first: int, count: int, name: str = "sensor") -> Iterator[Any]:
    """Readings of seven streams out of order within five minutes, some by much more."""
    rows = list(readings(first, count, name=name))
    order = np.argsort(np.arange(count) + np.random.default_rng(first).uniform(0, 35, count))
    order[[count // 4, count // 2]] = order[[count // 2, count // 4]]
    return (rows[n] for n in order)


def settled(here: Place, running: Running) -> bool:
    """Whether a snapshot holds everything that was sent."""
    found = here.manifest()
    return found is not None and found.next_offset == here.ends()[f"{here.topic}/0"]


@pytest.mark.parametrize(("learning", "mode", "store"), [
    ("frozen", "at_least_once", "folder"), ("frozen", "exactly_once", "topic"),
    ("online", "at_least_once", "topic"), ("online", "exactly_once", "folder"),
])  # fmt: skip
def test_a_daemon_goes_on_with_what_waits(
    place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch, learning: str, mode: str, store: str
) -> None:
    """Killed behind a snapshot, stopped, started anew: each record that is released is scored once, and with the same bits."""
    monkeypatch.setattr(TopicStore, "chunk_bytes", 1024)
    here = place().configure(time={"late": "reorder", "reorder_s": 360})
    if mode == "exactly_once":
        here.exactly_once()
    if learning == "online":
        here.configure(**ONLINE)
    if store == "topic":
        name = here.make_topic(1, **{"cleanup.policy": "compact", "max.message.bytes": str(1 << 20)})
        here.configure(delivery={"snapshots": f"kafka:{name}"})
    here.send(shuffled(0, 420))
    first = here.start()
    here.until(lambda: settled(here, first))
    assert first.daemon is not None
    waiting = first.daemon.status().waiting
    assert waiting > 7
    assert f"waiting {waiting} " in first.daemon.status().line()
    here.send(shuffled(420, 140))
    here.until_read()
    first.break_off()  # perhaps behind its last snapshot
    here.send(shuffled(560, 140))
    second = here.start()
    here.until_read()
    second.stop()
    manifest = here.manifest()
    assert manifest is not None
    assert len(manifest.waiting) > (0 if store == "folder" else 1)
    third = here.start()
    here.send(shuffled(700, 140))
    end = here.send(readings(10**6, 7))  # a week later: whatever waited is released, and these wait
    here.until_read()
    third.stop()
    here.check(repeats=mode == "at_least_once", waiting=range(end - 7, end))


def test_what_was_said_of_waiting_records_is_not_said_again(place: Callable[..., Place]) -> None:
    """After a crash a hundred offsets are read again in silence: what they release was sent, what waits then was not."""
    here = place().exactly_once().configure(time={"late": "reorder", "reorder_s": 360})
    here.configure(delivery={"snapshot_interval_s": 1000})
    here.send(shuffled(0, 280))
    first = here.start()
    here.until_read()
    first.stop()
    here.send(shuffled(280, 140))
    second = here.start()
    here.until_read()
    second.break_off()
    manifest = here.manifest()
    assert manifest is not None
    assert manifest.next_offset == 280
    assert manifest.waiting
    here.send(shuffled(420, 140))
    end = here.send(readings(10**6, 7))
    third = here.start()
    here.until_read()
    third.stop()
    here.check(waiting=range(end - 7, end))


def test_rows_do_not_mix_with_waiting_records_of_another_age(
    place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the rows of a snapshot and its manifest."""
    original, failing, written = FolderStore.put, threading.Event(), []

    def put(self: FolderStore, partition: str, name: str, blob: Any) -> None:
        if failing.is_set():
            if name.endswith(MANIFEST):
                raise OutputError("the disk is full")
            written.append(name)
        original(self, partition, name, blob)

    monkeypatch.setattr(FolderStore, "put", put)
    here = place().configure(time={"late": "reorder", "reorder_s": 360})
    here.send(shuffled(0, 280))
    first = here.start()
    here.until(lambda: settled(here, first))
    failing.set()
    here.send(shuffled(280, 140))
    here.until_read()
    here.until(lambda: len(written) > 1)
    first.break_off()
    failing.clear()
    manifest = here.manifest()
    assert manifest is not None
    assert manifest.next_offset == 280
    end = here.send(readings(10**6, 7))
    second = here.start()
    here.until_read()
    second.stop()
    here.check(repeats=True, waiting=range(end - 7, end))


def test_a_partition_that_moves_takes_along_what_waits(place: Callable[..., Place]) -> None:
    here = place(2).exactly_once().configure(time={"late": "reorder", "reorder_s": 360})
    ends = []

    def send(first: int) -> None:
        for partition in range(2):
            here.send(shuffled(first, 140, f"sensor{partition}"), partition)

    send(0)
    one = here.start(0)
    here.until(lambda: len(one.partitions()) == 2)
    send(140)
    two = here.start(1)
    here.until(lambda: one.partitions() and two.partitions())
    send(280)
    here.until_read()
    one.stop()
    here.until(lambda: len(two.partitions()) == 2)
    for partition in range(2):
        ends.append(here.send(readings(10**6, 7, name=f"sensor{partition}"), partition))
    here.until_read()
    two.stop()
    assert ends[0] == ends[1]
    here.check(waiting=range(ends[0] - 7, ends[0]))
