"""Files of every format give the same records, and bad input is named instead of guessed."""

import gzip
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamlstm.config.schema import Input
from streamlstm.errors import InputError, UsageError
from streamlstm.sources import FileSource, MemorySource, Source, open_files
from streamlstm.sources.csv import CsvReader
from streamlstm.sources.jsonl import JsonLinesReader
from streamlstm.sources.lines import Lines
from streamlstm.types import NO_TIME, Columns, DeadLetter, EventBatch

NS = 10**9
BEGIN = 1_700_000_000 * NS


@dataclass
class Run:
    """Everything a source gave: batches, joined columns, dead letters, notes, and the error that ended it."""

    source: FileSource | None = None
    batches: list[EventBatch] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: InputError | None = None

    @property
    def rows(self) -> list[tuple[str, str, int, tuple[float | None, ...], int]]:
        return [
            (batch.source, key, int(row), tuple(None if np.isnan(v) else float(v) for v in values), int(time))
            for batch in self.batches
            for key, row, values, time in zip(batch.keys.to_pylist(), batch.row, batch.x, batch.time, strict=True)
        ]

    @property
    def x(self) -> list[float | None]:
        return [values[0] for _, _, _, values, _ in self.rows]

    @property
    def times(self) -> list[int]:
        return [time for *_, time in self.rows]

    @property
    def keys(self) -> list[str]:
        return [key for _, key, *_ in self.rows]

    @property
    def numbers(self) -> list[int]:
        return [row for _, _, row, _, _ in self.rows]


def read(*inputs: Path | str, label: str | None = None, batch_rows: int = 65_536, **columns: Any) -> Run:
    """Reads to the end or to the error."""
    run = Run()
    try:
        run.source = open_files(
            [str(path) for path in inputs],
            Input(**columns),
            batch_rows=batch_rows,
            label=label,
            on_dead_letter=run.dead.append,
            on_note=run.notes.append,
        )
        run.batches.extend(check(batch, batch_rows) for batch in run.source)
    except InputError as error:
        run.error = error
    return run


def check(batch: EventBatch, batch_rows: int) -> EventBatch:
    """What every batch promises."""
    assert 0 < len(batch) <= batch_rows
    assert batch.x.dtype == np.float64
    assert batch.x.flags.c_contiguous
    assert not np.isinf(batch.x).any()
    assert (batch.time.dtype, batch.row.dtype) == (np.int64, np.int64)
    assert batch.keys.type == pa.dictionary(pa.int32(), pa.string())
    assert len(batch.keys) == len(batch.x) == len(batch.time) == len(batch)
    names = batch.keys.dictionary.to_pylist()
    assert len(set(names)) == len(names)
    assert batch.keys.null_count == 0
    return batch


def write(path: Path, text: str | bytes) -> Path:
    """Writes `text`, compressed as the suffix says."""
    data = text.encode() if isinstance(text, str) else text
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(data)
        data = sink.getvalue().to_pybytes()
    path.write_bytes(data)
    return path


def write_table(path: Path, table: dict[str, Sequence[Any]]) -> Path:
    """Writes columns in the format of the suffixes."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table(dict(table)), path)
        return path
    rows = list(zip(*table.values(), strict=True))
    if ".csv" in path.suffixes:
        lines = [",".join(table)] + [",".join("" if cell is None else str(cell) for cell in row) for row in rows]
    else:
        lines = [json.dumps(dict(zip(table, row, strict=True))) for row in rows]
    return write(path, "\n".join(lines) + "\n")


FORMATS = ("csv", "csv.gz", "csv.zst", "jsonl", "jsonl.gz", "ndjson.zst", "json", "parquet")
each_format = pytest.mark.parametrize("suffix", FORMATS)


# What every format must do.


@each_format
def test_contract(tmp_path: Path, suffix: str) -> None:
    size = 500
    time = [1_700_000_000_000 + 250 * n for n in range(size)]
    keys = [f"pump-{n % 7}" for n in range(size)]
    a = [None if n % 11 == 0 else n * 0.1 for n in range(size)]
    b = [n * n for n in range(size)]
    note = ["all is well"] * size
    flag = [n % 2 for n in range(size)]
    table = {"timestamp": time, "key": keys, "a": a, "note": note, "b": b, "flag": flag}
    path = write_table(tmp_path / f"x.{suffix}", table)
    actual = read(path, batch_rows=64, label="flag")
    assert actual.error is None
    assert actual.source is not None
    assert actual.source.columns == Columns("timestamp", "key", ("a", "b"), (), "flag")
    assert actual.rows == [(str(path), keys[n], n, (a[n], float(b[n])), time[n] * 1_000_000) for n in range(size)]
    assert [int(v) for batch in actual.batches for v in batch.label] == flag  # type: ignore[union-attr]
    assert actual.notes == [f"{path}: column 'note' holds text: ignored", "timestamp: epoch milliseconds"]
    assert actual.dead == []
    assert actual.source.progress() == (path.stat().st_size, path.stat().st_size)
    again = [row for batch in actual.source for row in batch.row]
    assert again == actual.numbers


@each_format
def test_the_file_is_the_stream_without_a_key(tmp_path: Path, suffix: str) -> None:
    path = write_table(tmp_path / f"pump.7.{suffix}", {"value": [1.5, -2.0, float("nan")]})
    actual = read(path)
    assert actual.rows == [(str(path), "pump.7", n, (v,), NO_TIME) for n, v in enumerate([1.5, -2.0, None])]


@each_format
def test_numeric_keys_become_text(tmp_path: Path, suffix: str) -> None:
    assert read(write_table(tmp_path / f"x.{suffix}", {"key": [17, 4, 17], "v": [1, 2, 3]})).keys == ["17", "4", "17"]


@each_format
def test_iso_times(tmp_path: Path, suffix: str) -> None:
    cells = ["2023-11-14T22:13:20", "2023-11-14 22:13:20.5", "2023-11-14 22:13:20.000000001", "2023-11-15"]
    expected = [BEGIN, BEGIN + NS // 2, BEGIN + 1, 1_700_006_400 * NS]
    actual = read(write_table(tmp_path / f"x.{suffix}", {"time": cells, "v": [1, 2, 3, 4]}))
    assert actual.times == expected
    assert actual.notes == ["time: ISO 8601 without a zone, read as UTC"]
    cells = ["2023-11-14T22:13:20Z", "2023-11-15T00:13:20.5+02:00", "2023-11-14 17:13:20.000000001-0500"]
    actual = read(write_table(tmp_path / f"y.{suffix}", {"time": cells, "v": [1, 2, 3]}))
    assert actual.times == expected[:3]
    assert actual.notes == ["time: ISO 8601 with a zone"]


@each_format
@pytest.mark.parametrize(("unit", "name"), [(1, "seconds"), (10**3, "milli"), (10**6, "micro"), (10**9, "nano")])
def test_epoch_times(tmp_path: Path, suffix: str, unit: int, name: str) -> None:
    path = write_table(
        tmp_path / f"x.{suffix}", {"timestamp": [1_700_000_000 * unit, 1_700_000_001 * unit], "v": [1, 2]}
    )
    actual = read(path)
    assert actual.times == [BEGIN, BEGIN + NS]
    assert name in actual.notes[0]


@each_format
def test_fractions_of_an_epoch_unit(tmp_path: Path, suffix: str) -> None:
    actual = read(
        write_table(tmp_path / f"x.{suffix}", {"timestamp": [1_700_000_000.25, 1_700_000_001.0], "v": [1, 2]})
    )
    assert actual.times == [BEGIN + NS // 4, BEGIN + NS]


@each_format
def test_the_unit_can_be_named(tmp_path: Path, suffix: str) -> None:
    path = write_table(tmp_path / f"x.{suffix}", {"t": [0, 5, 1_700_000_000_000], "v": [1, 2, 3]})
    actual = read(path, time="t", time_unit="ms")
    assert actual.times == [0, 5_000_000, BEGIN]
    assert actual.notes == []


@each_format
def test_named_columns(tmp_path: Path, suffix: str) -> None:
    table = {"t": [1_700_000_000] * 2, "a": [1, 2], "sensor": ["p", "q"], "b": [3, 4], "c": [5, 6], "d": [7, 8]}
    actual = read(
        write_table(tmp_path / f"x.{suffix}", table), time="t", key="sensor", features=("c", "a"), exogenous=("d",)
    )
    assert actual.source is not None
    assert actual.source.columns == Columns("t", "sensor", ("c", "a"), ("d",))
    assert [row[3] for row in actual.rows] == [(5.0, 1.0, 7.0), (6.0, 2.0, 8.0)]
    assert actual.keys == ["p", "q"]


@each_format
def test_an_unknown_column_is_named_with_its_nearest(tmp_path: Path, suffix: str) -> None:
    path = write_table(tmp_path / f"x.{suffix}", {"timestamp": [1_700_000_000], "pressure": [1], "temp": [2]})
    expected = f"{path}: no column 'presure'; the columns are timestamp, pressure, temp; nearest: 'pressure'"
    assert str(read(path, features=("presure",)).error) == expected
    assert "no column 'flag'" in str(read(path, label="flag").error)


@each_format
def test_values_that_are_no_numbers(tmp_path: Path, suffix: str) -> None:
    cells = ["1.5", "abc", "NaN", "NA", "null", "", "-2e3", "12 apples"]
    path = write_table(tmp_path / f"x.{suffix}", {"v": cells, "w": ["1"] * 8})
    actual = read(path, features=("v", "w"))
    assert actual.x == [1.5, None, None, None, None, -2000.0]
    assert actual.numbers == [0, 2, 3, 4, 5, 6]
    first = {"csv": 2, "parquet": 0}.get(suffix.split(".")[0], 1)
    assert [(letter.line, letter.reason) for letter in actual.dead] == [
        (first + 1, "column 'v': 'abc' is not a number"),
        (first + 7, "column 'v': '12 apples' is not a number"),
    ]
    assert "12 apples" in actual.dead[1].text
    assert actual.dead[0].source == str(path)


@each_format
def test_records_without_key_time_or_label(tmp_path: Path, suffix: str) -> None:
    table = {
        "timestamp": [1_700_000_000_000, 1_700_000_000_001, None, 1_700_000_000_003, 1_700_000_000, 1_700_000_000_005],
        "key": ["a", None, "a", "", "a", "b"],
        "v": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        "y": [0, 1, 0, 1, 0, 3],
    }
    actual = read(write_table(tmp_path / f"x.{suffix}", table), label="y")
    assert actual.numbers == [0]
    reasons = [letter.reason for letter in actual.dead]
    assert len(reasons) == 5
    assert "has no key" in reasons[0]
    assert "has no time" in reasons[1]
    assert "has no key" in reasons[2]
    assert "mixed time formats: '1700000000' is epoch seconds" in reasons[3]
    assert "the label is '3'" in reasons[4]


@each_format
def test_infinities_are_missing_and_counted(tmp_path: Path, suffix: str) -> None:
    actual = read(write_table(tmp_path / f"x.{suffix}", {"v": [1.0, float("inf"), float("-inf"), float("nan")]}))
    assert actual.x == [1.0, None, None, None]
    assert actual.source is not None
    assert actual.source.infinities == 2


@each_format
def test_the_time_format_is_that_of_most_first_rows(tmp_path: Path, suffix: str) -> None:
    cells = ["soon", "1", *(f"2023-11-14T22:13:2{n}Z" for n in range(5)), "2023-02-30T00:00:00Z", "2023-11-14 00:00:00"]
    actual = read(write_table(tmp_path / f"x.{suffix}", {"timestamp": cells, "v": list(range(9))}))
    assert actual.times == [BEGIN + n * NS for n in range(5)]
    reasons = [letter.reason for letter in actual.dead]
    assert "'soon' is not a time" in reasons[0]
    assert "mixed time formats: '1' is epoch seconds, but the file began with ISO 8601 with a zone" in reasons[1]
    assert "'2023-02-30T00:00:00Z' cannot be read as ISO 8601" in reasons[2]
    assert "mixed time formats" in reasons[3]


@each_format
def test_a_column_that_holds_no_time(tmp_path: Path, suffix: str) -> None:
    path = write_table(tmp_path / f"x.{suffix}", {"timestamp": ["a", "b"], "v": [1, 2]})
    assert "none of the first 2 cells of column 'timestamp' is a time, e.g. 'a'" in str(read(path).error)


@each_format
def test_no_feature_at_all(tmp_path: Path, suffix: str) -> None:
    path = write_table(tmp_path / f"x.{suffix}", {"key": ["a"], "note": ["b c"]})
    assert "no column is a feature" in str(read(path).error)


@each_format
def test_a_later_file_must_have_the_columns_in_any_order(tmp_path: Path, suffix: str) -> None:
    first = write_table(tmp_path / f"a.{suffix}", {"key": ["p"], "v": [1], "w": [2]})
    second = write_table(tmp_path / f"b.{suffix}", {"w": [3], "extra": [9], "v": [4], "key": ["q"]})
    actual = read(second, first)
    assert [(row[0], row[1], row[2], row[3]) for row in actual.rows] == [
        (str(first), "p", 0, (1.0, 2.0)),
        (str(second), "q", 0, (4.0, 3.0)),
    ]
    third = write_table(tmp_path / f"c.{suffix}", {"key": ["p"], "v": [1]})
    actual = read(first, third)
    assert len(actual.rows) == 1
    assert str(actual.error).startswith(f"{third}: no column 'w'")


@pytest.mark.parametrize("suffix", [name for name in FORMATS if name.endswith((".gz", ".zst"))])
def test_truncated_compressed_files_give_their_good_rows_first(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).normal(size=20_000)
    path = write_table(tmp_path / f"x.{suffix}", {"v": noise.tolist()})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    actual = read(path)
    assert len(actual.x) > 4000
    assert actual.x == noise[: len(actual.x)].tolist()
    assert f"{path}: damaged or truncated" in str(actual.error)
    assert f"after {len(actual.x)} rows" in str(actual.error)


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(b"v\n1\n2\n")
    assert "x.csv.gz: damaged or truncated gzip after 0 rows" in str(read(path).error)
    path = write_table(tmp_path / "x.parquet", {"v": [1.0, 2.0]})
    path.write_bytes(path.read_bytes()[:-5])
    assert "x.parquet: damaged or truncated .parquet after 0 rows" in str(read(path).error)
    path.write_bytes(b"")
    assert "x.parquet: damaged" in str(read(path).error)


# Which files.


def test_folders_and_patterns(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.csv", "a.csv", "deep/c.jsonl"):
        write_table(tmp_path / name, {"v": [1]})
    (tmp_path / "README.md").write_text("not data")
    (tmp_path / ".hidden.csv").write_text("not data")
    everything = [str(tmp_path / name) for name in ("a.csv", "b.csv", "deep/c.jsonl")]
    assert [row[0] for row in read(tmp_path).rows] == everything
    assert [row[0] for row in read(tmp_path, tmp_path / "a.csv", f"{tmp_path}/*").rows] == everything
    assert [row[0] for row in read(f"{tmp_path}/**/*.jsonl").rows] == everything[2:]
    assert read(tmp_path).source.progress()[1] == sum(Path(p).stat().st_size for p in everything)  # type: ignore[union-attr]


def test_inputs_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("1")
    (tmp_path / "plain.gz").write_text("1")
    assert "no such file or folder" in str(read(tmp_path / "y.csv").error)
    assert "pattern matches no file" in str(read(f"{tmp_path}/*.csv").error)
    assert "folder holds no file" in str(read(tmp_path).error)
    assert "unknown kind of file '.txt'; known are .csv, .jsonl" in str(read(tmp_path / "x.txt").error)
    assert "unknown kind of file" in str(read(tmp_path / "plain.gz").error)
    assert "no input" in str(read().error)


@pytest.mark.parametrize(
    ("text", "words"), [("", "is empty"), ("\n\n", "is empty"), ("a,b\n\n", "has a header but no rows")]
)
def test_files_without_rows(tmp_path: Path, text: str, words: str) -> None:
    empty = write(tmp_path / "b.csv", text)
    assert words in str(read(empty).error)
    first, last = (write(tmp_path / f"{name}.csv", "v\n1\n") for name in "ac")
    actual = read(first, empty, last)
    assert actual.error is None
    assert [row[0] for row in actual.rows] == [str(first), str(last)]
    assert actual.notes == [f"{read(empty).error}: skipped"]
    assert read(empty, last).x == [1.0]
    other = write(tmp_path / "d.csv", text)
    assert "none of the 2 files has a row" in str(read(empty, other).error)


def test_parquet_and_json_lines_without_rows(tmp_path: Path) -> None:
    assert "has columns but no rows" in str(read(write_table(tmp_path / "x.parquet", {"v": pa.array([], "f8")})).error)
    assert "is empty" in str(read(write(tmp_path / "x.jsonl", "")).error)


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def put(data: bytes) -> None:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))

    return put


@pytest.mark.parametrize("data", [b"v,key\n1,a\n2,b\n", b'\n {"v": 1, "key": "a"}\n{"v": 2, "key": "b"}'])
def test_standard_input(stdin: Callable[[bytes], None], data: bytes) -> None:
    stdin(data)
    actual = read("-")
    assert [row[:4] for row in actual.rows] == [("stdin", "a", 0, (1.0,)), ("stdin", "b", 1, (2.0,))]
    assert actual.source is not None
    assert actual.source.progress() == (len(data), 0)
    with pytest.raises(InputError, match="only once"):
        list(actual.source)


def test_empty_standard_input(stdin: Callable[[bytes], None]) -> None:
    stdin(b"")
    assert "stdin: is empty" in str(read("-").error)


# CSV.


def test_csv_lines_that_are_no_records(tmp_path: Path) -> None:
    lines = [
        b"key,v",
        b"a,1",
        b"",
        b"a,1,2",
        b"a",
        b"\xff,3",
        b'"a,4',
        b"a\rb,5",
        b'"x, y",6\r',
        b'"say ""hi""",7',
        b'q"q,8',
    ]
    actual = read(write(tmp_path / "x.csv", b"\n".join(lines)))
    assert list(zip(actual.numbers, actual.keys, actual.x, strict=True)) == [
        (0, "a", 1.0),
        (6, "x, y", 6.0),
        (7, 'say "hi"', 7.0),
        (8, 'q"q', 8.0),
    ]
    assert [(letter.line, letter.text) for letter in actual.dead] == [
        (4, "a,1,2"),
        (5, "a"),
        (6, "�,3"),
        (7, '"a,4'),
        (8, "a\rb,5"),
    ]
    words = [
        "has 3 fields, the header has 2",
        "has 1 fields",
        "not UTF-8",
        "quote that is not closed",
        "carriage return",
    ]
    assert all(word in letter.reason for word, letter in zip(words, actual.dead, strict=True))


def test_a_quote_may_not_swallow_lines(tmp_path: Path) -> None:
    actual = read(write(tmp_path / "x.csv", 'key,v\n"a\nb",1\nc,2\n'))
    assert (actual.keys, actual.x, [letter.line for letter in actual.dead]) == (['b"', "c"], [1.0, 2.0], [2])


def test_csv_headers(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    assert "names 'v' twice" in str(read(write(path, "v,w,v\n1,2,3\n")).error)
    assert "the first line holds only numbers (1.5, 2" in str(read(write(path, "1.5,2\n3,4\n")).error)
    assert "header is not UTF-8" in str(read(write(path, b"t\xe9mp,v\n1,2\n")).error)
    assert "UTF-16" in str(read(write(path, "v\n1\n".encode("utf-16"))).error)
    assert "none of the first lines is a record; line 2 has 2 fields" in str(read(write(path, "v\n1,2\n")).error)
    assert read(write(path, "0,1\n3,4\n")).x == [3.0]
    assert read(write(path, b"\xef\xbb\xbfv , w\r\n1,2\r\n")).source.columns.features == ("v", "w")  # type: ignore[union-attr]
    actual = read(write(path, ",v\n0,5\n1,6\n"))
    assert actual.x == [5.0, 6.0]
    assert actual.notes == [f"{path}: a column without a name is ignored"]


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_other_delimiters(tmp_path: Path, mark: str, name: str) -> None:
    path = write(tmp_path / "x.csv", f"key{mark}v\na{mark}1\na,b{mark}2\nc{mark}x\n")
    actual = read(path)
    assert (actual.keys, actual.x) == (["a", "a,b"], [1.0, 2.0])
    assert actual.notes == [f"{path}: fields are separated by {name}"]
    assert [letter.line for letter in actual.dead] == [4]


def test_a_single_column_of_values(tmp_path: Path) -> None:
    actual = read(write(tmp_path / "x.csv", "1\n2\n\n3.5"))
    assert actual.x == [1.0, 2.0, 3.5]
    assert "its only column is called 'value'" in actual.notes[0]
    assert read(write(tmp_path / "y.csv", "temp\n1\n2\n")).x == [1.0, 2.0]


def test_a_key_may_look_like_a_missing_number(tmp_path: Path) -> None:
    assert read(write(tmp_path / "x.csv", "key,v\nNA,1\nnan,2\nnull,NA\n")).keys == ["NA", "nan", "null"]


def test_an_empty_column_is_said(tmp_path: Path) -> None:
    actual = read(write(tmp_path / "x.csv", "v,w\n1,\n2,\n"))
    assert [row[3] for row in actual.rows] == [(1.0, None), (2.0, None)]
    assert "column 'w' has no value in the first 2 rows" in actual.notes[0]


# JSON lines.


def test_json_lines_that_are_no_records(tmp_path: Path) -> None:
    lines = [
        b'{"key": "a", "v": 1}', b"null", b"[1]", b'{"key": "a", "v": 2', b'{"key": "\xff", "v": 1}', b"  ",
        b'{"key": "\\ud83d", "v": 1}', b'{"key": "a", "v": {"x": 1}}', b'{"key": "a"}', b'{"key": "a", "v": "2.5"}',
        b'{"key": true, "v": true}', b'{"key": 1.50, "v": false, "other": [1, {}]}', b'{"key": "a", "v": null}',
        b'{"key": "a", "v": NaN}', b'{"key": "a", "v": 1}{"key": "b", "v": 2}', b"[" * 100_000,
        b'{"v": 1}',
    ]  # fmt: skip
    actual = read(write(tmp_path / "x.jsonl", b"\n".join(lines)))
    assert list(zip(actual.numbers, actual.keys, actual.x, strict=True)) == [
        (0, "a", 1.0),
        (8, "a", None),
        (9, "a", 2.5),
        (10, "true", 1.0),
        (11, "1.50", 0.0),
        (12, "a", None),
        (13, "a", None),
    ]
    expected = {
        2: "not an object", 3: "not an object", 4: "is not JSON", 5: "not UTF-8", 6: "is not JSON", 7: "surrogate",
        8: "column 'v': '{\"x\": ", 15: "is not JSON", 16: "nested too deeply", 17: "has no key",
    }  # fmt: skip
    assert [letter.line for letter in sorted(actual.dead, key=lambda letter: letter.line)] == list(expected)
    assert [letter for letter in actual.dead if expected[letter.line] not in letter.reason] == []


def test_a_json_file_that_is_one_value_is_explained(tmp_path: Path) -> None:
    assert "none of the first lines is a record; line 1" in str(read(write(tmp_path / "x.json", "[\n1,\n2]\n")).error)


def test_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamlstm.sources.lines.BLOCK_BYTES", 64)
    monkeypatch.setattr("streamlstm.sources.lines.MAX_LINE_BYTES", 1000)
    assert read(write(tmp_path / "x.csv", "v\n" + "0" * 500 + "7\n")).x == [7.0]
    assert "a line is longer than 1000 bytes" in str(read(write(tmp_path / "x.csv", "v\n1\n" + "1" * 5000)).error)


# Parquet.


def test_parquet_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "time": pa.array([BEGIN // 1000, None, BEGIN // 1000 + 1], pa.timestamp("us", "Europe/Paris")),
            "key": pa.array(["a", "b", "a"]).dictionary_encode(),
            "f4": pa.array([1.5, 2.5, None], pa.float32()),
            "u8": pa.array([1, 2, 3], pa.uint64()),
            "flag": pa.array([True, False, None]),
            "list": pa.array([[1], [2], [3]]),
        }
    )
    path = tmp_path / "x.parquet"
    pq.write_table(table, path)
    actual = read(path)
    assert actual.rows == [
        (str(path), "a", 0, (1.5, 1.0, 1.0), BEGIN),
        (str(path), "a", 2, (None, 3.0, None), BEGIN + 1000),
    ]
    assert [(letter.line, letter.reason) for letter in actual.dead] == [(1, "column 'time': has no time")]
    assert actual.notes == [f"{path}: column 'list' is of type list<element: int64>, not numbers: ignored"]
    assert "must hold numbers" in str(read(path, features=("list",)).error)
    assert "is nested" in str(read(path, key="list").error)


def test_parquet_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"key": [f"k{n % 13}" for n in range(1000)], "v": np.arange(1000.0)}), path, row_group_size=90
    )
    actual = read(path, batch_rows=64)
    assert (actual.x, actual.numbers) == (list(np.arange(1000.0)), list(range(1000)))
    assert actual.keys == [f"k{n % 13}" for n in range(1000)]


# The quick and the careful reading are one.

numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(
        ["", "NaN", "null", "NA", "inf", "-Infinity", "1e400", "+1", ".5", "5.", "007", " 1 ", "-0", "1E-7"]
    ),
)
good_times = st.integers(-(10**9), 10**9).map(lambda n: str(BEGIN // 10**6 + n)) | st.just("1700000000123.456789")
bad_csv = st.sampled_from(
    ["1700000000000,a", "1700000000000,a,x,1", "17,a,1,1", ",a,1,1", "1700000000000,,1,1", "1700000000000,a,0x10,1",
     '1700000000000,"a,1,1', 'later,a,1,1', "1700000000000,a,1_0,1", "a\rb", "9e30,a,1,1", "1700000000000,a,,,"]
)  # fmt: skip
csv_keys = st.sampled_from(["a", "b", "NA", " c", 'q"', '"x,y"', '"d"', "7", "é"])
good_csv = st.tuples(good_times, csv_keys, numbers, numbers).map(",".join)
csv_lines = st.lists(st.one_of(good_csv, good_csv, good_csv, bad_csv, st.just("")), min_size=1, max_size=30)

json_numbers = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.integers(-(2**70), 2**70), st.none(), st.booleans(),
    st.sampled_from(["1.5", "x", "", "NaN", {"a": 1}, [], "true"]),
)  # fmt: skip
good_json = st.fixed_dictionaries(
    {
        "timestamp": st.integers(1_600_000_000_000, 1_700_000_000_000),
        "key": st.sampled_from(["a", "é", "\U0001f600", 7, "7"]),
    },
    optional={"v": json_numbers, "w": st.floats(-1e9, 1e9), "other": json_numbers},
).map(json.dumps)
plain_json = st.builds(
    '{{"timestamp": {}, "key": "{}", "v": {}, "w": {}}}'.format,
    st.integers(1_600_000_000_000, 1_700_000_000_000), st.sampled_from("abc"), st.floats(-1e9, 1e9), st.integers(-9, 9),
)  # fmt: skip
bad_json = st.sampled_from(
    ["null", "[1]", "{", "{}", "}{", "1", " ", '{"key": "a"}', '{"timestamp": 1600000000000,',
     '{"timestamp": 5, "v": 1}', '{"timestamp": "1600000000000", "key": null}',
     '{"timestamp": 1600000000000.5, "key": "a", "v": -Inf}',
     '{"timestamp": 1600000000000, "key": {"a": 1}, "v": 1}', '{"timestamp": 1e400, "key": "a", "v": 1e400}']
)  # fmt: skip
json_lines = st.lists(st.one_of(plain_json, plain_json, good_json, bad_json, st.just("")), min_size=1, max_size=30)
quickly = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def agree(path: Path, monkeypatch: pytest.MonkeyPatch, reader: type, quick: str, block_bytes: int) -> None:
    """Whole blocks, line by line, and blocks of a few lines give the same."""
    columns = {"time": "timestamp", "key": "key", "features": ("v", "w"), "time_unit": "ms"}
    usual = read(path, **columns)
    with monkeypatch.context() as patch:
        patch.setattr(reader, quick, lambda *_: None)
        careful = read(path, **columns)
    with monkeypatch.context() as patch:
        patch.setattr("streamlstm.sources.lines.BLOCK_BYTES", block_bytes)
        small = read(path, **columns)
    for other in (careful, small):
        assert other.rows == usual.rows
        assert sorted(other.dead, key=lambda letter: letter.line) == sorted(usual.dead, key=lambda letter: letter.line)
        assert str(other.error) == str(usual.error)
        assert (other.source is None) == (usual.source is None)
        if other.source is not None and usual.source is not None:
            assert other.source.infinities == usual.source.infinities


@quickly
@given(lines=csv_lines, block_bytes=st.integers(20, 400))
def test_csv_read_whole_or_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], block_bytes: int
) -> None:
    text = "\n".join(["timestamp,key,v,w", "1700000000000,a,1,1", *lines])
    agree(write(tmp_path / "x.csv", text), monkeypatch, CsvReader, "_parsed", block_bytes)


@quickly
@given(lines=json_lines, block_bytes=st.integers(90, 600))
def test_json_lines_read_whole_or_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], block_bytes: int
) -> None:
    text = "\n".join(['{"timestamp": 1600000000000, "key": "a", "v": 1, "w": 1}', *lines])
    path = write(tmp_path / "x.jsonl", text)
    agree(path, monkeypatch, JsonLinesReader, "_quick", block_bytes)


@given(st.text(alphabet="a\r\n", max_size=30))
def test_lines_are_counted_as_they_are_listed(text: str) -> None:
    lines = Lines(text.encode() + b"\n", 1)
    if lines.is_text():
        assert lines.count() == len(list(lines))


def test_good_lines_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"timestamp": ["2023-11-14T22:13:20Z"] * 9, "key": ["a", "b", "c"] * 3, "v": [1.0, None, 2.0] * 3}

    def refuse(*_: object) -> Iterator[Any]:
        raise AssertionError("a good block was read line by line")

    monkeypatch.setattr(CsvReader, "_careful", refuse)
    monkeypatch.setattr(JsonLinesReader, "_careful", refuse)
    for suffix in ("csv", "jsonl"):
        assert len(read(write_table(tmp_path / f"x.{suffix}", table)).x) == 9
    numbered = {"key": [1, 2, 3], "v": [1.0, 2.0, 3.0]}
    assert len(read(write_table(tmp_path / "y.jsonl", numbered)).x) == 3


# Memory.


def test_memory_source() -> None:
    columns = Columns(None, "key", ("v",))
    rows = np.arange(3, dtype=np.int64)
    keys = pa.array(["a", "b", "a"]).dictionary_encode()
    batch = EventBatch(keys, np.full(3, NO_TIME, np.int64), np.zeros((3, 1)), rows, "memory")
    source: Source = MemorySource([batch, batch], columns)
    assert source.columns == columns
    assert source.progress() == (0, 48)
    assert [len(each) for each in source] == [3, 3]
    assert source.progress() == (48, 48)
    with pytest.raises(UsageError, match=r"batch 0: x has shape \(3, 1\), must be \(3, 2\)"):
        MemorySource([batch], Columns(None, "key", ("v", "w")))
