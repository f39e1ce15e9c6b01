"""Tables of scored batches, and the contract that every sink keeps."""

import gzip
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from bytecodes import executed_bytecodes
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.errors import OutputError, UsageError
from streamlstm.sinks import DeadLetterFile, MemorySink, Sink, open_sink
from streamlstm.sinks.flagged import Flagged, keyed_rows
from streamlstm.sinks.rendering import csv_header, csv_lines, json_lines
from streamlstm.sinks.schemas import episodes_schema, flags_schema, scores_schema
from streamlstm.sinks.tables import episodes_table, flags_table, scores_table
from streamlstm.types import CAUSE_KIND, NO_TIME, Cause, Change, DeadLetter, Episode, ScoredBatch, Stage

START = 1_392_388_200_000_000_000  # 2014-02-14T14:30:00Z
SECOND = 1_000_000_000
ORIGIN = {"source": "a.csv", "model": "m1", "config": "c1"}


def scored(rows: int, flags: tuple[int, ...] = (), features: tuple[str, ...] = ("temperature", "load")) -> ScoredBatch:
    """A batch whose first record is learning and has no time; `flags` are the flagged rows."""
    shape = (rows, len(features))
    random = np.random.default_rng(1)
    severity = random.random(rows).astype(np.float32)
    severity[:1] = np.nan
    time = START + SECOND * np.arange(rows, dtype=np.int64)
    time[:1] = NO_TIME
    stage = np.full(rows, Stage.LIVE, np.uint8)
    stage[:1] = Stage.LEARNING
    flag = np.zeros(rows, bool)
    flag[list(flags)] = True
    share = random.random(shape).astype(np.float32)
    expected = random.random(shape)
    return ScoredBatch(
        features=features,
        keys=pa.DictionaryArray.from_arrays(pa.array(np.arange(rows) % 3, pa.int32()), pa.array(["a", "b,c", 'd"e'])),
        time=time,
        row=np.arange(10, rows + 10, dtype=np.int64),
        value=random.random(shape),
        score=random.random(rows).astype(np.float32),
        threshold=np.full(rows, 1.5, np.float32),
        severity=severity,
        flag=flag,
        stage=stage,
        change=np.full(rows, Change.NONE, np.uint8),
        imputed=np.zeros(rows, np.uint16),
        expected=expected,
        low=expected - 1,
        high=expected + 1,
        attribution=share / share.sum(axis=1, keepdims=True),
        detailed=np.ones(rows, bool),
        parts=np.zeros((rows, 5), np.float32),
        cause=np.zeros(rows, np.uint16),
    )


# Tables


def test_scores_table_holds_the_batch() -> None:
    batch = scored(5)
    table = scores_table(batch, detail=True)
    assert table.schema == scores_schema(batch.features, detail=True)
    assert table.schema.names[:8] == ["key", "time", "row", "score", "threshold", "severity", "flag", "stage"]
    assert table.schema.names[8:12] == [f"{name}.temperature" for name in ("expected", "low", "high", "attribution")]
    columns = table.to_pydict()
    assert columns["key"] == ["a", "b,c", 'd"e', "a", "b,c"]
    assert columns["stage"] == ["learning", "live", "live", "live", "live"]
    assert columns["row"] == [10, 11, 12, 13, 14]
    assert columns["time"][0] is None
    assert table["time"].cast(pa.int64()).to_pylist()[1:] == batch.time[1:].tolist()
    assert columns["severity"][0] is None
    assert columns["score"] == batch.score.tolist()
    assert columns["low.load"] == batch.low[:, 1].tolist()
    assert scores_table(batch, detail=False).schema == scores_schema(batch.features, detail=False)


def test_scores_detail_wants_every_record_detailed() -> None:
    batch = scored(5)
    batch.detailed[2] = False
    with pytest.raises(UsageError, match="1 of 5 records carry no expected values"):
        scores_table(batch, detail=True)


def test_flags_table_holds_flagged_rows_and_their_cause() -> None:
    batch = scored(6, flags=(1, 3, 4, 5))
    batch.attribution[:] = (0.871, 0.129)
    batch.attribution[3] = (0.2, 0.8)
    batch.attribution[5] = np.nan
    batch.cause[1] = Cause.STEP * CAUSE_KIND
    batch.cause[3] = Cause.DRIFT * CAUSE_KIND + 2 + 1
    batch.cause[4] = Cause.MISSING * CAUSE_KIND
    batch.cause[5] = Cause.SILENT * CAUSE_KIND
    batch.value[4, 0] = np.nan
    table = flags_table(batch, **ORIGIN)
    assert table.schema == flags_schema(batch.features)
    columns = table.to_pydict()
    assert columns["id"] == ["a.csv/11", "a.csv/13", "a.csv/14", "a.csv/15"]
    assert columns["key"] == ["b,c", "a", "b,c", 'd"e']
    assert columns["cause"] == [
        "temperature: unexpected step, above expected (87 %)",
        "load: slow drift, below expected (80 %)",
        "temperature: missing (87 %)",
        "was silent",
    ]
    assert columns["value.temperature"][2] is None
    assert columns["value.load"][0] == batch.value[1, 1]
    assert (columns["model"][0], columns["config"][0], columns["schema_version"][0]) == ("m1", "c1", 1)


def test_no_flags_and_no_rows_keep_the_schema() -> None:
    for batch in (scored(4), scored(0)):
        table = flags_table(batch, **ORIGIN)
        assert (table.num_rows, table.schema) == (0, flags_schema(batch.features))
    assert scores_table(scored(0), detail=True).num_rows == 0


def test_episodes_table() -> None:
    one = Episode("f/3", "a", "closed", START, START + SECOND, 3, 5, START, 2.5, 2, "load above expected (80 %)")
    two = Episode("f/9", "b", "open", NO_TIME, NO_TIME, 9, 9, NO_TIME, 1.5, 1, "load missing")
    table = episodes_table([one, two])
    assert table.schema == episodes_schema()
    assert table["opened"].cast(pa.int64()).to_pylist() == [START, None]
    assert [row["id"] for row in table.to_pylist()] == ["f/3", "f/9"]
    assert table["last"].to_pylist() == [5, 9]
    assert episodes_table([]).num_rows == 0


@pytest.mark.parametrize(
    "work",
    [
        lambda batch: scores_table(batch, detail=False),
        lambda batch: scores_table(batch, detail=True),
        lambda batch: flags_table(batch, **ORIGIN),
    ],
    ids=["scores", "scores with detail", "no flags"],
)
def test_python_works_per_batch_not_per_row(work: Callable[[ScoredBatch], object]) -> None:
    small, large = scored(10), scored(20_000)
    work(small)
    assert 0 < executed_bytecodes(lambda: work(small)) == executed_bytecodes(lambda: work(large))


# Text

TIMES = [
    (START, "2014-02-14T14:30:00Z"),
    (START + 500_000_000, "2014-02-14T14:30:00.5Z"),
    (START + 120, "2014-02-14T14:30:00.00000012Z"),
    (START + 10 * SECOND, "2014-02-14T14:30:10Z"),
    (-SECOND, "1969-12-31T23:59:59Z"),
    (0, "1970-01-01T00:00:00Z"),
]


def lines_of(blocks: Any) -> bytes:
    return b"".join(memoryview(block).tobytes() for block in blocks)


def test_times_read_alike_whatever_stands_beside_them() -> None:
    times = pa.array([time for time, _ in TIMES]).view(pa.timestamp("ns", tz="UTC"))
    table = pa.record_batch({"time": times})
    assert lines_of(csv_lines(table)).decode().splitlines() == [text for _, text in TIMES]
    assert [json.loads(line)["time"] for line in lines_of(json_lines(table)).splitlines()] == [x for _, x in TIMES]


def test_missing_and_infinite_numbers() -> None:
    table = pa.record_batch({"a": pa.array([1.5, None, np.nan, np.inf]), "b": pa.array([True, False, None, True])})
    assert csv_header(table.schema) + lines_of(csv_lines(table)) == b"a,b\n1.5,true\n,false\n,\n,true\n"
    assert [json.loads(line)["a"] for line in lines_of(json_lines(table)).splitlines()] == [1.5, None, None, None]


@pytest.mark.parametrize("features", [("100 %",), ("a", "b", "c")])
def test_flags_have_the_same_fields_and_values_without_a_table(features: tuple[str, ...]) -> None:
    batch = scored(40, flags=(0, 3, 4, 5, 39), features=features)
    batch.expected[3], batch.attribution[3], batch.value[4], batch.severity[4] = np.inf, np.nan, np.nan, np.nan
    batch.value[5], batch.expected[5], batch.low[5], batch.score[5] = 1e-7, 1e22, -0.0, 1e-5
    batch.time[[4, 5, 39]] = [text for text, _ in TIMES[1:4]]
    flagged = Flagged(batch, **ORIGIN)
    expected = [fields_of(line) for line in lines_of(json_lines(flagged.table())).splitlines()]
    for rows in (flagged, flagged.table()):
        keys, values = zip(*keyed_rows(rows), strict=True)
        assert keys == ("a", "a", "b,c", 'd"e', "a")
        assert [fields_of(value) for value in values] == expected
    assert keyed_rows(Flagged(scored(3), **ORIGIN)) == []


def fields_of(row: bytes) -> str:
    """Names and values in their order; 20 and 20.0 are one number, but 0.0 and -0.0, or 1 and true, are two values."""
    return json.dumps(json.loads(row, parse_int=float))


TEXT = st.none() | st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('",\r\n\0'), max_size=6)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(TEXT, st.floats(allow_nan=False, allow_infinity=False)), min_size=1), st.integers(0, 9))
def test_any_text_and_number_reads_back(rows: list[tuple[str | None, float]], cut: int) -> None:
    texts, numbers = zip(*rows, strict=True)
    column = pa.array(texts, pa.string())
    table = pa.record_batch({'n"é': pa.array(numbers), "t": column, "d": column.dictionary_encode()})
    table = table.slice(min(cut, len(rows) - 1))
    as_json = [json.loads(line) for line in lines_of(json_lines(table)).split(b"\n")[:-1]]
    assert as_json == table.to_pylist()
    text = csv_header(table.schema) + lines_of(csv_lines(table))
    read = pa.csv.read_csv(
        pa.BufferReader(text),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(
            column_types={'n"é': pa.float64(), "t": pa.string(), "d": pa.string()},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    assert read.to_pylist() == table.to_pylist()


# The contract

KINDS = ["csv", "csv.gz", "csv.zst", "jsonl", "jsonl.gz", "ndjson.zst", "parquet", "memory"]


def read_back(path: Path, sink: Sink, schema: pa.Schema) -> list[dict[str, Any]]:
    """The rows in a sink's output, with times as nanoseconds."""
    if isinstance(sink, MemorySink):
        table = sink.table()
    elif path.suffix == ".parquet":
        table = pq.read_table(path)
    else:
        data = pa.input_stream(str(path)).read()  # decompresses by suffix
        plain = pa.schema([field.with_type(_plain(field.type)) for field in schema])
        if ".csv" in path.name:
            convert = pa.csv.ConvertOptions(
                column_types=plain, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
            )
            table = pa.csv.read_csv(pa.BufferReader(data), convert_options=convert)
        else:
            rows = [json.loads(line) for line in data.splitlines()]
            for field in plain:
                if pa.types.is_timestamp(field.type):
                    for row in rows:
                        text = row[field.name]
                        row[field.name] = text and np.datetime64(text.removesuffix("Z"), "ns").astype(np.int64).item()
            table = pa.table([pa.array([row[f.name] for row in rows], f.type) for f in plain], schema=plain)
    columns = [c.cast(pa.int64()) if pa.types.is_timestamp(c.type) else c.cast(_plain(c.type)) for c in table.columns]
    return pa.table(columns, names=table.column_names).to_pylist()


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def opened(kind: str, path: Path, schema: pa.Schema) -> Sink:
    return MemorySink(schema) if kind == "memory" else open_sink(str(path), schema)


TABLES = {
    "scores": [scores_table(scored(n), detail=False) for n in (5, 0, 70_000)],
    "detail": [scores_table(scored(n), detail=True) for n in (5, 1)],
    "flags": [flags_table(scored(9, flags=f), **ORIGIN) for f in ((1, 2), (), (8,))],
    "episodes": [
        episodes_table([Episode("f/9", "b", "open", START, NO_TIME, 9, 9, START, 1.5, 1, "a, b missing")]),
        episodes_table([]),
    ],
}


@pytest.mark.parametrize("tables", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_rows_come_back(kind: str, tables: list[pa.RecordBatch], tmp_path: Path) -> None:
    if tables is TABLES["scores"] and kind not in ("csv", "parquet", "memory"):
        tables = [table.slice(0, 300) for table in tables]
    schema, path = tables[0].schema, tmp_path / f"out.{kind}"
    sink = opened(kind, path, schema)
    for table in tables:
        sink.write(table)
    sink.close()
    sink.close()
    memory = MemorySink(schema)
    for table in tables:
        memory.write(table)
    expected = read_back(path, memory, schema)
    assert sink.rows == memory.rows == len(expected)
    assert read_back(path, sink, schema) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_output_is_valid(kind: str, tmp_path: Path) -> None:
    path, schema = tmp_path / f"out.{kind}", episodes_schema()
    sink = opened(kind, path, schema)
    sink.close()
    assert sink.rows == 0
    assert read_back(path, sink, schema) == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "memory"])
def test_the_cuts_between_batches_do_not_show(kind: str, tmp_path: Path) -> None:
    table = scores_table(scored(500), detail=False)
    outputs = []
    for name, step in (("one", 500), ("many", 7)):
        path = tmp_path / f"{name}.{kind}"
        sink = open_sink(str(path), table.schema)
        for start in range(0, 500, step):
            sink.write(table.slice(start, step))
        sink.close()
        outputs.append(path.read_bytes())
    if not kind.endswith((".gz", ".zst")):
        assert outputs[0] == outputs[1]
    else:
        assert pa.input_stream(str(tmp_path / f"one.{kind}")).read() == pa.input_stream(str(path)).read()


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_plain_text_is_there_before_close(kind: str, tmp_path: Path) -> None:
    table = scores_table(scored(3), detail=False)
    path = tmp_path / f"out.{kind}"
    sink = open_sink(str(path), table.schema)
    sink.write(table)
    assert len(path.read_bytes().splitlines()) == 3 + (kind == "csv")
    assert path.read_bytes().endswith(b"\n")
    sink.close()
    with pytest.raises(ValueError, match="is closed"):
        sink.write(table)


def test_standard_output_is_csv_and_stays_open(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    sink = open_sink("-", pa.schema([("a", pa.int64())]))
    sink.write(pa.record_batch({"a": [1, 2]}))
    sink.close()
    print("after")
    assert capsysbinary.readouterr().out == b"a\n1\n2\nafter\n"


def test_equal_rows_give_equal_gzip_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        sink = open_sink(str(tmp_path / f"{name}.csv.gz"), pa.schema([("a", pa.int64())]))
        sink.write(pa.record_batch({"a": [1]}))
        sink.close()
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()) == b"a\n1\n"


# Failures


@pytest.mark.parametrize("path", ["out.txt", "out", "out.parquet.gz", "csv", "out.csv.bz2"])
def test_unknown_suffix(path: str) -> None:
    with pytest.raises(OutputError, match=rf"^{path}: the suffix does not say what to write; must be \.csv"):
        open_sink(path, episodes_schema())


FILES = [kind for kind in KINDS if kind != "memory"]


@pytest.mark.parametrize("kind", FILES)
def test_missing_folder(kind: str, tmp_path: Path) -> None:
    path = str(tmp_path / "gone" / f"out.{kind}")
    with pytest.raises(OutputError) as caught:
        open_sink(path, episodes_schema())
    assert str(caught.value) == (
        f"{path}: cannot be written: No such file or directory; create the folder first, or choose another one"
    )


@pytest.mark.parametrize("kind", FILES)
def test_path_is_a_folder(kind: str, tmp_path: Path) -> None:
    (tmp_path / f"out.{kind}").mkdir()
    with pytest.raises(OutputError, match=f"out.{kind}: cannot be written: "):
        open_sink(str(tmp_path / f"out.{kind}"), episodes_schema())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied; choose a place where you may write"):
        open_sink(str(tmp_path / "out.csv"), episodes_schema())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
@pytest.mark.parametrize("kind", FILES)
def test_disk_full(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"out.{kind}"
    path.symlink_to("/dev/full")
    table = scores_table(scored(70_000), detail=False)

    def work() -> None:
        sink = open_sink(str(path), table.schema)
        try:
            sink.write(table)
        except OutputError:
            sink.close()  # after the failure: says nothing more
            raise
        sink.close()

    with pytest.raises(OutputError, match=f"out.{kind}: cannot be written: No space left on device; free some space"):
        work()


def test_a_reader_that_went_away(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        @property
        def buffer(self) -> "Gone":
            return self

        def write(self, data: bytes) -> None:
            raise BrokenPipeError(32, "Broken pipe")

        def flush(self) -> None:
            raise BrokenPipeError(32, "Broken pipe")

    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", Gone())
        with pytest.raises(
            OutputError, match=r"^standard output: cannot be written: Broken pipe; the reader went away"
        ):
            open_sink("-", episodes_schema())


# Dead letters


def test_dead_letters_append_and_come_lazily(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    letters = DeadLetterFile(str(path))
    letters.close()
    assert not path.exists()
    path.write_text('{"torn')
    letters(DeadLetter("a.csv", 3, "no number in column load: 'x'", "t,\n\udcff"))
    letters(DeadLetter("a.csv", 4, "too few columns", "é"))
    torn, first, second = path.read_text().splitlines()
    assert torn == '{"torn'
    assert json.loads(first) == {
        "source": "a.csv",
        "line": 3,
        "reason": "no number in column load: 'x'",
        "text": "t,\n\udcff",
    }
    assert json.loads(second)["text"] == "é"
    assert letters.count == 2
    letters.close()
    again = DeadLetterFile(str(path))
    again(DeadLetter("b.csv", 1, "empty", ""))
    again.close()
    assert len(path.read_text().splitlines()) == 4


def test_dead_letters_that_cannot_be_kept_are_told(tmp_path: Path) -> None:
    letters = DeadLetterFile(str(tmp_path / "gone" / "dead.jsonl"))
    with pytest.raises(OutputError, match="create the folder first"):
        letters(DeadLetter("a.csv", 3, "why", "text"))
    assert letters.count == 0
