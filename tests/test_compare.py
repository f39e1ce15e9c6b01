"""`streamlstm compare`: what two runs' outputs have in common and what not."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlstm.cli.app import run as run_cli
from streamlstm.errors import InputError, UsageError
from streamlstm.evaluate.compare import Alerts, Scores, _aligned, compare
from streamlstm.sinks import open_sink
from streamlstm.sinks.schemas import episodes_schema, flags_schema, scores_schema
from streamlstm.sinks.tables import episodes_table, flags_table, scores_table
from streamlstm.types import NO_TIME, Episode, ScoredBatch, Stage

MINUTE = 60_000_000_000
SUFFIXES = (".csv", ".jsonl", ".parquet", ".csv.gz", ".jsonl.zst")
NAN = float("nan")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def scored(keys: list[str], row: list[int], score: list[float], *, flag: list[bool] | None = None) -> ScoredBatch:
    """Records a minute apart with an awkward fraction; flagged where the score is above 1 or where `flag` says so."""
    B = len(row)
    values = np.array(score, np.float32)
    flags = np.array(flag if flag is not None else values > 1, np.bool_)
    detail = np.linspace(0.1, 0.7, 2 * B).reshape(B, 2)
    return ScoredBatch(
        features=("a", "b"),
        keys=pa.array(keys, pa.string()).dictionary_encode(),
        time=np.array(row, np.int64) * MINUTE + 123_456_789,
        row=np.array(row, np.int64),
        value=detail + 1,
        score=values,
        threshold=np.full(B, 1.1, np.float32),
        severity=values / np.float32(1.1),
        flag=flags,
        stage=np.full(B, Stage.LIVE, np.uint8),
        change=np.zeros(B, np.uint8),
        imputed=np.zeros(B, np.int32),
        expected=detail,
        low=detail - 0.1,
        high=detail + 0.1,
        attribution=np.full((B, 2), 0.5),
        detailed=np.ones(B, np.bool_),
        parts=np.zeros((B, 5), np.float32),
        cause=np.zeros(B, np.uint16),
    )


def write_scores(path: str, batch: ScoredBatch, *, detail: bool = False) -> str:
    sink = open_sink(path, scores_schema(batch.features, detail=detail))
    sink.write(scores_table(batch, detail=detail))
    sink.close()
    return path


def write_flags(path: str, *batches: ScoredBatch, source: str = "topic/0", config: str = "c") -> str:
    sink = open_sink(path, flags_schema(("a", "b")))
    for batch in batches:
        sink.write(flags_table(batch, source=source, model="m", config=config))
    sink.close()
    return path


def episode(key: str, first: int, last: int, **more: Any) -> Episode:
    facts: dict[str, Any] = {
        "id": f"topic/0/{first}", "key": key, "state": "closed", "opened": first * MINUTE, "closed": last * MINUTE,
        "peak_time": first * MINUTE, "peak_severity": 1.7, "events": 3, "cause": "a above expected (90 %)",
        "first": first, "last": last,
    }  # fmt: skip
    return Episode(**{**facts, **more})


def write_episodes(path: str, *episodes: Episode) -> str:
    sink = open_sink(path, episodes_schema())
    if episodes:
        sink.write(episodes_table(episodes))
    sink.close()
    return path


def alerts(a: str, b: str) -> Alerts:
    found = compare(a, b)
    assert isinstance(found, Alerts)
    return found


def scores(a: str, b: str) -> Scores:
    found = compare(a, b)
    assert isinstance(found, Scores)
    return found


# ---- the same in any format


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["scores", "flags", "episodes"])
def test_one_output_in_two_formats_is_the_same(kind: str, suffix: str) -> None:
    batch = scored(["NA", "", "2024-01-01", "null"] * 5, list(range(20)), [n / 7 for n in range(19)] + [NAN])
    write: dict[str, Callable[[str], str]] = {
        "scores": lambda path: write_scores(path, batch, detail=True),
        "flags": lambda path: write_flags(path, batch),
        "episodes": lambda path: write_episodes(
            path, episode("NA", 1, 5), episode("b", 2, 9, state="open", closed=NO_TIME, peak_severity=NAN)
        ),
    }
    a, b = write[kind]("a.parquet"), write[kind](f"b{suffix}")
    found = compare(a, b)
    assert found.same
    assert found.kind == kind
    assert found.counts == {"scores": (20, 20), "flags": (11, 11), "episodes": (2, 2)}[kind]
    assert compare(b, a).same


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_outputs_without_rows(suffix: str) -> None:
    none = write_flags(f"none{suffix}")
    assert compare(none, write_flags("other.jsonl")).same
    found = alerts(none, write_flags("one.csv", scored(["k"], [5], [2.0])))
    assert (len(found.appeared), found.same) == (1, False)
    assert scores(
        write_scores("s.jsonl", scored([], [], [])), write_scores("t.csv", scored(["k"], [5], [2.0]))
    ).missing == (0, 1)


# ---- alerts


def test_episodes_appear_vanish_move_and_change() -> None:
    a = [episode("p", 10, 20), episode("p", 40, 50), episode("q", 11, 20), episode("q", 60, 70), episode("r", 5, 6)]
    b = [
        episode("p", 10, 20),
        episode("p", 45, 55),  # another id, overlapping
        replace(a[2], peak_severity=2.5),
        replace(a[3], peak_time=65 * MINUTE),
        episode("s", 5, 6, id="topic/0/s"),  # the stream of none in A
    ]
    found = alerts(write_episodes("a.jsonl", *a), write_episodes("b.parquet", *b))
    assert (found.counts, found.equal, found.repeats) == ((5, 5), 1, (0, 0))
    assert [(one.id, other.id) for one, other in found.moved] == [
        ("topic/0/40", "topic/0/45"),
        ("topic/0/60", "topic/0/60"),
    ]
    assert [(one.severity, other.severity) for one, other in found.changed] == [pytest.approx((1.7, 2.5))]
    assert [alert.key for alert in found.appeared] == ["s"]
    assert [(alert.key, alert.begin, alert.end) for alert in found.vanished] == [
        ("r", "1970-01-01T00:05:00Z", "1970-01-01T00:06:00Z")
    ]
    assert not found.same


def test_each_episode_moves_to_one_at_most_and_an_open_one_lasts() -> None:
    a = [episode("p", 10, 30, id="a1"), episode("p", 31, 32, id="a2"), episode("q", 5, 6, id="a3", closed=NO_TIME)]
    b = [episode("p", 12, 14, id="b1"), episode("p", 16, 18, id="b2"), episode("q", 500, 501, id="b3")]
    found = alerts(write_episodes("a.csv", *a), write_episodes("b.csv", *b))
    assert [(one.id, other.id) for one, other in found.moved] == [("a1", "b1"), ("a3", "b3")]
    assert [alert.id for alert in found.vanished] == ["a2"]
    assert [alert.id for alert in found.appeared] == ["b2"]


def test_episodes_without_times_overlap_in_rows() -> None:
    gone = {"opened": NO_TIME, "closed": NO_TIME, "peak_time": NO_TIME}
    a = write_episodes("a.csv", episode("p", 10, 20, **gone))
    assert len(alerts(a, write_episodes("b.csv", episode("p", 15, 25, **gone))).moved) == 1
    assert alerts(a, write_episodes("b.csv", episode("p", 21, 25, **gone))).moved == []


def test_flags_of_another_source_have_moved_and_another_configuration_is_no_difference() -> None:
    batch = scored(["p", "q", "p"], [1, 2, 3], [2.0, 3.0, 4.0])
    a = write_flags("a.csv", batch)
    assert compare(a, write_flags("b.csv", batch, config="other")).same
    found = alerts(a, write_flags("b.csv", batch, source="other.csv"))
    assert [(one.id, other.id) for one, other in found.moved] == [
        ("topic/0/1", "other.csv/1"),
        ("topic/0/2", "other.csv/2"),
        ("topic/0/3", "other.csv/3"),
    ]
    changed = alerts(a, write_flags("b.csv", replace(batch, expected=batch.expected + 1e-12)))
    assert (len(changed.changed), changed.equal) == (3, 0)


def test_repeats_of_an_id_are_counted_once() -> None:
    batch = scored(["p"], [7], [2.0])
    found = alerts(write_flags("a.csv", batch), write_flags("b.csv", batch, batch, batch))
    assert (found.counts, found.repeats, found.equal, found.same) == ((1, 3), (0, 2), 1, True)


# ---- scores


def test_scores_that_differ() -> None:
    keys, rows = ["p", "q", "p", "q", "r"], [0, 0, 1, 1, 0]
    one = scored(keys, rows, [0.25, 0.5, NAN, 0.5, 0.125])
    other = scored(keys, rows, [0.25, 0.75, 0.25, 1.5, 0.125])
    found = scores(write_scores("a.csv", one), write_scores("b.parquet", other))
    assert (found.counts, found.missing, found.rows) == ((5, 5), (0, 0), 3)
    columns = {column.name: (column.rows, column.largest) for column in found.columns}
    assert columns["score"] == (3, 1.0)
    assert columns["flag"] == (1, None)
    assert "threshold" not in columns
    assert [(first.key, first.row, first.columns) for first in found.streams] == [
        ("q", 0, ("score", "severity")),
        ("p", 1, ("score", "severity")),
    ]
    assert found.streams[0].time == "1970-01-01T00:00:00.123Z"


def test_scores_in_another_order_and_with_rows_missing() -> None:
    one = scored(["p", "q", "p", "p"], [0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4])  # row 1 of p stands twice: two files
    other = scored(["q", "p", "p", "p", "s"], [0, 1, 0, 1, 9], [0.2, 0.3, 0.1, 0.4, 0.9])
    a, b = write_scores("a.csv", one), write_scores("b.csv", other)
    found = scores(a, b)
    assert (found.rows, found.missing, found.same) == (0, (0, 1), False)
    assert scores(b, a).missing == (1, 0)


@given(
    st.lists(st.tuples(st.sampled_from("pqr"), st.integers(0, 3)), max_size=12),
    st.lists(st.tuples(st.sampled_from("pqr"), st.integers(0, 3)), max_size=12),
)
def test_rows_are_aligned_as_a_loop_would(a: list[tuple[str, int]], b: list[tuple[str, int]]) -> None:
    def table(rows: list[tuple[str, int]]) -> pa.Table:
        return pa.table(
            {"key": pa.array([k for k, _ in rows], pa.string()), "row": pa.array([r for _, r in rows], pa.int64())}
        )

    left = list(enumerate(b))
    expected = []
    for n, name in enumerate(a):
        match = next((pair for pair in left if pair[1] == name), None)
        if match is not None:
            left.remove(match)
            expected.append((n, match[0]))
    at_a, at_b = _aligned(table(a), table(b))
    assert list(zip(at_a.tolist(), at_b.tolist(), strict=True)) == expected


# ---- the command


def test_the_command_says_what_and_exits_like_diff(capfd: pytest.CaptureFixture[str]) -> None:
    a = write_episodes("a.csv", episode("p", 10, 20), *(episode("q", n, n, id=f"a{n}") for n in range(100, 130)))
    b = write_episodes("b.csv", episode("p", 10, 21))
    assert run_cli(["compare", a, a]) == 0
    assert "31 equal, 0 appeared, 0 vanished, 0 moved, 0 changed" in capfd.readouterr().out
    assert run_cli(["compare", a, b, "--json", "d.json"]) == 1
    out = capfd.readouterr().out
    assert "31 in A, 1 in B; 0 equal, 0 appeared, 30 vanished, 1 moved, 0 changed" in out
    assert "1970-01-01T00:20:00Z -> 1970-01-01T00:21:00Z" in out
    assert "and 10 more; --json has all" in out
    told = json.loads(Path("d.json").read_text())
    assert (told["same"], len(told["vanished"]), told["moved"][0][1]["end"]) == (False, 30, "1970-01-01T00:21:00Z")

    s = write_scores("s.csv", scored(["[bold]p", "q"], [0, 0], [0.5, 0.5]))
    t = write_scores("t.csv", scored(["[bold]p", "q"], [0, 0], [0.75, 0.5]))
    assert run_cli(["compare", s, t]) == 1
    out = capfd.readouterr().out
    assert "2 rows in A, 2 rows in B; 1 differ" in out
    assert "score: 1 row, by 0.25 at most" in out
    assert "[bold]p" in out
    assert run_cli(["compare", s, t, "--json", "-"]) == 1
    assert json.loads(capfd.readouterr().out)["rows"] == 1


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("gone.csv", None, "gone.csv: no such file; check the path"),
        ("a.txt", b"x", "a.txt: the suffix does not say what it holds"),
        ("a.csv", b"when,value\n1,2\n", "a.csv: is not an output of `streamlstm replay`: its columns are when, value"),
        ("a.csv", b"", "a.csv: cannot be read: "),
        ("a.parquet", b"PAR1 or not", "a.parquet: cannot be read: "),
        ("a.csv.gz", b"no gzip", "a.csv.gz: cannot be read: "),
        ("a.jsonl", b"{no", "a.jsonl: line 1 is no JSON: "),
        ("a.jsonl", b"5\n", "a.jsonl: line 1 is no JSON object"),
        ("a.csv", b"id,key,time,row,severity\n1,2,yesterday,4,5\n", "a.csv: cannot be read: "),
    ],
)
def test_files_that_are_no_outputs(name: str, content: bytes | None, expected: str) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        compare(name, name)
    assert str(caught.value).startswith(expected)
    assert len(str(caught.value).splitlines()) == 1


def test_two_kinds_are_not_compared() -> None:
    with pytest.raises(UsageError, match=r"a\.csv holds flags and b\.csv holds episodes"):
        compare(write_flags("a.csv"), write_episodes("b.csv"))
