"""The command line as a stranger and as an operator meet it: what it writes, what it says, how it exits."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq
import pytest
from bytecodes import executed_bytecodes

from streamlstm import Detector
from streamlstm.cli.app import run as run_cli
from streamlstm.config import load
from streamlstm.model.files import load_model
from streamlstm.service import outlets as outlets_module
from streamlstm.service.outlets import Outlets, Wanted
from streamlstm.service.replay import Hooks
from streamlstm.service.replay import run as run_loop
from streamlstm.sinks import MemorySink
from streamlstm.sources import open_files
from streamlstm.version import VERSION

ROOT = Path(__file__).parent.parent
START = datetime(2024, 2, 20, tzinfo=UTC)
ROWS = 1200
ANOMALY = slice(900, 912)
QUICK = "training.updates=10"
MODULE = [sys.executable, "-W", "error", "-m", "streamlstm"]


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    status: int
    out: str
    err: str

    def value(self, name: str) -> str:
        """What the summary says of `name`."""
        return next(line.removeprefix(f"{name}: ") for line in self.out.splitlines() if line.startswith(f"{name}: "))

    def complaint(self) -> str:
        """The one line that says what went wrong, without the notes before it."""
        lines = self.err.splitlines()
        assert [line for line in lines if line.startswith("streamlstm: ")] == lines[-1:], self.err
        assert "Traceback" not in self.err
        assert "unexpected" not in self.err
        return lines[-1]


Cli = Callable[..., Ran]


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    """Runs a command in this process; by file descriptors, since data leaves Python's text layer out."""

    def run(*arguments: str | Path) -> Ran:
        capfdbinary.readouterr()
        status = run_cli([str(argument) for argument in arguments])
        out, err = capfdbinary.readouterr()
        return Ran(status, out.decode(), err.decode())

    return run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def wave(rows: int = ROWS, seed: int = 1, *, anomaly: slice | None = ANOMALY) -> np.ndarray:
    """Noise around a wave, with a jump."""
    x = np.sin(np.arange(rows) * 2 * np.pi / 48) + 0.05 * np.random.default_rng(seed).standard_normal(rows)
    if anomaly is not None:
        x[anomaly] += 5
    return x


def times(rows: int = ROWS) -> list[str]:
    return [f"{START + timedelta(minutes=15 * n):%Y-%m-%dT%H:%M:%S}" for n in range(rows)]


def write_csv(path: str | Path, **columns: Any) -> Path:
    """A CSV file of columns, floats rounded to what a sensor would send."""
    cells = [[f"{v:.4f}" if isinstance(v, float) else str(v) for v in column] for column in columns.values()]
    lines = [",".join(columns), *map(",".join, zip(*cells, strict=True))]
    Path(path).write_text("\n".join(lines) + "\n")
    return Path(path)


def changed(path: str | Path, value: Callable[[int, str], str] | None = None, at: Any = None) -> Path:
    """The usual recording with cells and times replaced by functions of row and text."""
    texts = [f"{x:.4f}" for x in wave()]
    stamps = times()
    return write_csv(
        path,
        timestamp=[at(n, t) if at else t for n, t in enumerate(stamps)],
        value=[value(n, t) if value else t for n, t in enumerate(texts)],
    )


def read(path: str | Path) -> pa.Table:
    """Any output of ours."""
    name = str(path)
    if name.endswith(".parquet"):
        return pq.read_table(name)
    data = Path(path).read_bytes()
    if name.endswith(".gz"):
        data, name = gzip.decompress(data), name.removesuffix(".gz")
    if name.endswith(".zst"):
        data, name = pa.CompressedInputStream(pa.BufferReader(data), "zstd").read(), name.removesuffix(".zst")
    return pa_csv.read_csv(BytesIO(data)) if name.endswith(".csv") else pa_json.read_json(BytesIO(data))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recording, a labelled one, and a model of it."""
    folder = tmp_path_factory.mktemp("data")
    label = np.zeros(ROWS, int)
    label[ANOMALY] = 1
    write_csv(folder / "pump.csv", timestamp=times(), value=wave())
    write_csv(folder / "labelled.csv", timestamp=times(), value=wave(), is_anomaly=label)
    (folder / "windows.csv").write_text(f"key,start,end\npump,{times()[ANOMALY.start]},{times()[ANOMALY.stop - 1]}\n")
    windows = [[times()[ANOMALY.start], times()[ANOMALY.stop - 1]]]
    (folder / "windows.json").write_text(json.dumps({"realPumps/pump.csv": windows, "realPumps/other.csv": []}))
    fit = ["fit", str(folder / "pump.csv"), "--model", str(folder / "pump.safetensors"), "--until", "0.5"]
    assert run_cli([*fit, "--set", QUICK]) == 0
    return folder


class TestTheWayOfAUser:
    def test_fit_says_what_it_did(self, cli: Cli, data: Path):
        ran = cli("fit", data / "pump.csv", "-m", "m.safetensors", "--until", "2024-02-26", "--set", QUICK)
        assert ran.status == 0, ran.err
        assert ran.out.startswith("m.safetensors: 576 records of 1 stream, 1 feature, ")
        assert ran.err == "timestamp: ISO 8601 without a zone, read as UTC\n"

    @pytest.mark.parametrize("until", ["1", "1.0"], ids=str)
    def test_fit_until_one_is_everything(self, cli: Cli, data: Path, until: str):
        ran = cli("fit", data / "pump.csv", "-m", "m.safetensors", "--until", until, "--set", "training.updates=0")
        assert ran.status == 0, ran.err
        assert f"{ROWS:,} records" in ran.out

    def test_log_has_a_line_for_each_update(self, cli: Cli, data: Path):
        ran = cli("fit", data / "pump.csv", "-m", "m.safetensors", "--log", "log.jsonl", "--set", "training.updates=7",
                  "--set", "training.schedule=constant")  # fmt: skip
        assert ran.status == 0
        lines = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
        assert [line["update"] for line in lines] == [1, 2, 3, 4, 5, 6, 7]
        assert lines[0].keys() == {"update", "updates", "loss", "held_out", "rate", "rows_per_second"}
        assert lines[3]["rate"] == pytest.approx(4 / 20 * 0.003)
        assert lines[0]["held_out"] is None
        ran = cli("fit", data / "pump.csv", "-m", "m.safetensors", "--log", "no/log.jsonl", "--set", QUICK)
        assert "no/log.jsonl: there is no folder" in ran.err

    def test_fit_that_runs_away_keeps_the_best(self, cli: Cli, data: Path):
        wild = (
            "model.cell=rnn_relu", "model.hidden_size=64", "model.num_layers=2", "training.optimiser=sgd", "training.rate=1",
            "training.clip_norm=1e30", "training.loss=squared", "training.schedule=constant", "training.updates=100",
            "training.holdout=0.2", "training.patience=99",
        )  # fmt: skip
        settings = [word for setting in wild for word in ("--set", setting)]
        ran = cli("fit", data / "pump.csv", "-m", "m.safetensors", "--log", "log.jsonl", *settings)
        assert ran.status == 0, ran.err
        assert "stopped early, with the weights of update" in ran.err
        assert "lower training.rate (1.0)" in ran.err
        assert "Infinity" not in Path("log.jsonl").read_text()
        ran = cli("fit", data / "pump.csv", "-m", "n.safetensors", *settings, "--set", "training.holdout=0",
                  "--set", "training.updates=6000")  # fmt: skip
        assert ran.status == 1
        assert "is not finite at update" in ran.complaint()

    def test_fit_is_reproducible_byte_by_byte(self, cli: Cli, data: Path):
        for name in ("a", "b"):
            cli("fit", data / "pump.csv", "-m", f"{name}.safetensors", "--until", "0.5", "--set", QUICK)
        hashes = [json.loads(cli("model", "show", f"{name}.safetensors", "--json").out)["hash"] for name in "ab"]
        assert hashes[0] == hashes[1] == load_model(data / "pump.safetensors").hash

    def test_model_show(self, cli: Cli, data: Path):
        ran = cli("model", "show", data / "pump.safetensors")
        assert ran.status == 0
        facts = json.loads(cli("model", "show", data / "pump.safetensors", "--json").out)
        assert ran.value("hash") == facts["hash"]
        assert ran.value("features") == "value"
        assert facts["features"] == ["value"]
        assert facts["training"]["rows"] == ROWS // 2
        assert facts["config"]["input"]["features"] == ["value"]

    @pytest.mark.parametrize("suffix", ["csv", "jsonl", "ndjson", "csv.gz", "jsonl.zst", "parquet"])
    def test_replay_writes_every_format(self, cli: Cli, data: Path, suffix: str):
        paths = {name: f"{name}.{suffix}" for name in ("flags", "scores", "episodes")}
        options = [text for name, path in paths.items() for text in (f"--{name}", path)]
        ran = cli("replay", data / "pump.csv", "-m", data / "pump.safetensors", *options, "--report", "r.html")
        assert ran.status == 0, ran.err
        scores, flags, episodes = (read(paths[name]) for name in ("scores", "flags", "episodes"))
        assert scores.column_names == ["key", "time", "row", "score", "threshold", "severity", "flag", "stage"]
        assert scores.num_rows == ROWS == int(ran.value("records").replace(",", ""))
        assert flags.num_rows == int(ran.value("flags")) == sum(scores["flag"].to_pylist()) > 0
        assert flags["model"][0].as_py() == load_model(data / "pump.safetensors").hash
        assert flags["id"][0].as_py() == f"{data / 'pump.csv'}/{flags['row'][0].as_py()}"
        assert episodes.num_rows == int(ran.value("episodes")) > 0
        assert any(first <= ANOMALY.start <= last for first, last in zip(
            episodes["first"].to_pylist(), episodes["last"].to_pylist(), strict=True))  # fmt: skip
        assert "</html>" in Path("r.html").read_text()[-200:]
        wrote = [line for line in ran.err.splitlines() if line.startswith("wrote")]
        assert wrote == [f"wrote {path}" for path in (*paths.values(), "r.html")]

    def test_formats_agree(self, cli: Cli, data: Path):
        for suffix in ("csv", "jsonl", "parquet"):
            cli("replay", data / "pump.csv", "-m", data / "pump.safetensors", "--scores", f"s.{suffix}")
        tables = [read(f"s.{suffix}") for suffix in ("csv", "jsonl", "parquet")]
        for name in ("score", "threshold", "severity"):
            csv, jsonl, parquet = (np.array(table[name].to_pylist(), np.float32) for table in tables)
            assert csv.tobytes() == jsonl.tobytes() == parquet.tobytes()

    def test_scores_detail(self, cli: Cli, data: Path):
        plain = cli("replay", data / "pump.csv", "-m", data / "pump.safetensors", "--scores", "s.csv")
        detailed = cli(
            "replay", data / "pump.csv", "-m", data / "pump.safetensors", "--scores", "d.csv", "--scores-detail"
        )
        assert plain.status == detailed.status == 0
        wide, narrow = read("d.csv"), read("s.csv")
        parts = [f"part.{name}" for name in ("raw", "clipped", "none", "variability", "range")]
        assert wide.column_names[8:] == ["expected.value", "low.value", "high.value", "attribution.value", *parts]
        assert sum(wide[name].to_numpy() for name in parts) == pytest.approx(wide["score"].to_numpy(), abs=1e-5)
        assert wide.select(narrow.column_names) == narrow
        low, expected, high = (wide[f"{name}.value"].to_numpy() for name in ("low", "expected", "high"))
        assert (low <= expected).all()
        assert (expected <= high).all()

    def test_standard_input_and_output(self, cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch):
        text = (data / "pump.csv").read_bytes()
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=BytesIO(text)))
        ran = cli("replay", "-", "-m", data / "pump.safetensors", "--flags", "-", "--scores", "s.csv")
        assert ran.status == 0
        assert "records: 1,200" in ran.err  # the summary must not stand among the rows
        flags = pa_csv.read_csv(BytesIO(ran.out.encode()))
        assert flags.num_rows == sum(read("s.csv")["flag"].to_pylist()) > 0
        assert flags["key"][0].as_py() == "stdin"

    def test_the_stream_of_a_file_does_not_depend_on_its_way_in(self, cli: Cli, data: Path):
        """CSV, JSON lines, Parquet and their compressed forms give the same scores."""
        table = read(data / "pump.csv")
        Path("in").mkdir()
        text = (data / "pump.csv").read_bytes()
        Path("in/pump.csv").write_bytes(text)
        Path("in/pump.csv.gz").write_bytes(gzip.compress(text))
        rows = zip(times(), table["value"].to_pylist(), strict=True)
        Path("in/pump.jsonl").write_text("".join(json.dumps({"timestamp": t, "value": v}) + "\n" for t, v in rows))
        pq.write_table(table, "in/pump.parquet", row_group_size=100)
        outputs = []
        for name in ("csv", "csv.gz", "jsonl", "parquet"):
            assert cli("replay", f"in/pump.{name}", "-m", data / "pump.safetensors", "--scores", "s.csv").status == 0
            outputs.append(Path("s.csv").read_bytes())
        assert set(outputs) == {outputs[0]}

    @pytest.mark.parametrize("labels", ["is_anomaly", "windows.csv", "windows.json"])
    def test_evaluate(self, cli: Cli, data: Path, labels: str):
        source = data / ("labelled.csv" if labels == "is_anomaly" else "pump.csv")
        where = labels if labels == "is_anomaly" else data / labels
        arguments = ("evaluate", source, "-m", data / "pump.safetensors", "--labels", where, "--from", "0.5")
        ran = cli(*arguments, "--json", "q.json", "--report", "r.html")
        assert ran.status == 0, ran.err
        assert ran.value("found") == "1"
        assert ran.value("records") == "600"
        result = json.loads(Path("q.json").read_text())
        assert result["total"]["true"] == 1
        assert result["total"]["vus_pr"] > 0.5
        assert "false alarms per stream and day: promised at most 1, kept " in ran.out
        assert json.loads(cli(*arguments, "--json", "-").out) == result  # alone, for a pipe

    def test_evaluate_with_the_score_of_nab(self, cli: Cli, data: Path):
        arguments = ("-m", data / "pump.safetensors", "--nab", "--labels")
        ran = cli("evaluate", data / "pump.csv", *arguments, data / "windows.csv", "--json", "q.json")
        assert ran.status == 0, ran.err
        scores = json.loads(Path("q.json").read_text())["nab_scores"]
        assert f"NAB's score, standard: {scores['standard']:.1f}" in ran.out
        assert scores["reward_low_FP"] <= scores["standard"] <= 100
        partial = cli("evaluate", data / "pump.csv", *arguments, data / "windows.json")
        assert "not in the data, the first: realPumps/other.csv" in partial.complaint()
        by_column = cli("evaluate", data / "labelled.csv", *arguments, "is_anomaly")
        assert "nab: needs windows" in by_column.complaint()

    def test_demo_in_a_folder(self, cli: Cli):
        ran = cli("demo", "--output", "tour")
        assert ran.status == 0, ran.err
        assert ran.value("found") == "2"
        assert sorted(path.name for path in Path("tour").iterdir()) == [
            "episodes.csv", "flags.csv", "model.safetensors", "report.html",
        ]  # fmt: skip

    def test_version_and_help(self, cli: Cli):
        assert cli("--version").out == f"{VERSION}\n"
        alone = cli()
        assert (alone.status, alone.err) == (2, "")
        assert "replay" in alone.out


class TestRecords:
    def test_streams_by_key(self, cli: Cli):
        keys = ["north", "süd", "east,1"]
        rows = [(t, f'"{k}"', wave(ROWS, n)[i]) for i, t in enumerate(times()) for n, k in enumerate(keys)]
        stamp, key, value = zip(*rows, strict=True)
        write_csv("fleet.csv", time=stamp, key=key, value=[float(v) for v in value])
        assert cli("fit", "fleet.csv", "-m", "m.safetensors", "--until", "0.5", "--set", QUICK).status == 0
        ran = cli("replay", "fleet.csv", "-m", "m.safetensors", "--scores", "s.parquet", "--episodes", "e.csv")
        assert ran.value("streams") == "3, 3 live"
        assert set(read("s.parquet")["key"].to_pylist()) == set(keys)
        assert set(read("e.csv")["key"].to_pylist()) == set(keys)

    def test_a_stream_alone_has_the_scores_it_has_among_others(self, cli: Cli):
        for n in range(3):
            write_csv(f"p{n}.csv", timestamp=times(), value=wave(ROWS, n))
        assert cli("fit", "p*.csv", "-m", "m.safetensors", "--until", "0.5", "--set", QUICK).status == 0
        assert cli("replay", ".", "-m", "m.safetensors", "--scores", "all.parquet").status == 0
        assert cli("replay", "p1.csv", "-m", "m.safetensors", "--scores", "one.parquet").status == 0
        together, alone = read("all.parquet"), read("one.parquet")
        assert together.filter(pa.compute.equal(together["key"], "p1")) == alone

    def test_features_and_exogenous_columns(self, cli: Cli):
        command = np.repeat(np.random.default_rng(0).integers(0, 2, ROWS // 24), 24)
        write_csv(
            "plant.csv", t=times(), flow=wave() + 3 * command, heat=wave(seed=2), command=command, note=["x"] * ROWS
        )
        Path("c.yaml").write_text(
            "extends: multivariate\ninput: {time: t, features: [flow, heat], exogenous: [command]}\n"
            "training: {updates: 10}\n"
        )
        assert cli("fit", "plant.csv", "-m", "m.safetensors", "-c", "c.yaml", "--until", "0.6").status == 0
        facts = json.loads(cli("model", "show", "m.safetensors", "--json").out)
        assert (facts["features"], facts["exogenous"]) == (["flow", "heat"], ["command"])
        ran = cli("replay", "plant.csv", "-m", "m.safetensors", "--flags", "f.jsonl")
        assert ran.status == 0, ran.err
        flags = read("f.jsonl")
        assert {"value.flow", "expected.heat", "attribution.heat"} <= set(flags.column_names)
        assert "value.command" not in flags.column_names

    def test_missing_values(self, cli: Cli, data: Path):
        changed("gaps.csv", value=lambda n, v: {3: "", 4: "NaN", 5: "null"}.get(n % 50, v))
        ran = cli("replay", "gaps.csv", "-m", data / "pump.safetensors", "--scores", "s.parquet")
        assert ran.status == 0, ran.err
        assert ran.value("records") == "1,200"
        assert np.isfinite(read("s.parquet")["score"].to_numpy()).all()
        assert not Path("dead-letters.jsonl").exists()

    @pytest.mark.parametrize(
        ("unit", "text"),
        [("s", "epoch seconds"), ("ms", "epoch milliseconds"), ("us", "epoch microseconds"), ("ns", "epoch nanosec")],
    )
    def test_times_in_all_units(self, cli: Cli, data: Path, unit: str, text: str):
        factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
        epoch = [int(datetime.fromisoformat(t).replace(tzinfo=UTC).timestamp()) * factor for t in times()]
        write_csv("pump.csv", timestamp=epoch, value=wave())
        ran = cli("replay", "pump.csv", "-m", data / "pump.safetensors", "--scores", "s.csv")
        assert ran.err.startswith(f"timestamp: {text}")
        cli("replay", data / "pump.csv", "-m", data / "pump.safetensors", "--scores", "iso.csv")
        assert Path("s.csv").read_bytes() == Path("iso.csv").read_bytes()

    def test_without_a_model_stages_are_said(self, cli: Cli):
        write_csv("short.csv", timestamp=times(50), value=wave(50, anomaly=None))
        write_csv("middle.csv", timestamp=times(150), value=wave(150, anomaly=None))
        write_csv("long.csv", timestamp=times(), value=wave(seed=3))
        ran = cli("replay", "*.csv", "--scores", "s.parquet", "--flags", "f.parquet")
        assert ran.value("streams") == "3, 1 learning, 1 calibrating, 1 live"
        scores = read("s.parquet").to_pydict()
        stages = [stage for key, stage in zip(scores["key"], scores["stage"], strict=True) if key == "long"]
        assert stages == ["learning"] * 100 + ["calibrating"] * 300 + ["live"] * (ROWS - 400)
        flags = read("f.parquet")
        assert set(flags["stage"].to_pylist()) == {"live"}
        assert set(flags["model"].to_pylist()) == {"online"}

    def test_set_overrides_the_models_configuration(self, cli: Cli, data: Path):
        arguments = ("replay", data / "pump.csv", "-m", data / "pump.safetensors", "--scores", "s.csv")
        assert cli(*arguments, "--set", "threshold.kind=fixed", "--set", "threshold.level=3").status == 0
        assert set(read("s.csv")["threshold"].to_pylist()) == {None, 3}  # another threshold is calibrated first

    def test_batches_change_nothing(self, cli: Cli, data: Path):
        outputs = set()
        for rows in (7, 500, 65536):
            cli("replay", data / "pump.csv", "--scores", "s.csv", "--set", f"runtime.batch_rows={rows}")
            outputs.add(Path("s.csv").read_bytes())
        assert len(outputs) == 1

    def test_pace(self, cli: Cli, data: Path):
        minutes = 15 * (ROWS - 1)
        began = time.monotonic()
        ran = cli(
            "replay", data / "pump.csv", "-m", data / "pump.safetensors", "--pace", 60 * minutes, "--scores", "p.csv"
        )
        assert ran.status == 0, ran.err
        assert time.monotonic() - began > 1
        cli("replay", data / "pump.csv", "-m", data / "pump.safetensors", "--scores", "s.csv")
        assert Path("p.csv").read_bytes() == Path("s.csv").read_bytes()


class TestConfig:
    def test_show_is_a_configuration(self, cli: Cli):
        ran = cli("config", "show", "univariate", "--set", "threshold.kind=sigma")
        Path("c.yaml").write_text(ran.out)
        assert load("c.yaml") == load("univariate", overrides={"threshold.kind": "sigma"})
        assert cli("config", "show", "c.yaml").out == ran.out

    @pytest.mark.parametrize("preset", ["default", "univariate", "multivariate"])
    def test_presets(self, cli: Cli, preset: str):
        ran = cli("config", "check", preset)
        assert ran.status == 0
        assert re.fullmatch(
            rf"{preset}: valid\. 1 feature, 0 exogenous, .*: [\d,]+ bytes of state per stream, .*\n", ran.out
        )

    def test_schema_is_json(self, cli: Cli):
        schema = json.loads(cli("config", "schema").out)
        assert "threshold" in schema["properties"]


class TestBadInput:
    """Each is one line that names the thing, on standard error, and a status."""

    @pytest.fixture
    def replay(self, cli: Cli, data: Path) -> Callable[..., Ran]:
        return lambda *arguments: cli("replay", *arguments, "-m", data / "pump.safetensors", "--scores", "s.csv")

    def test_files_without_records(self, cli: Cli):
        Path("empty.csv").touch()
        Path("header.csv").write_text("timestamp,value\n")
        Path("folder").mkdir()
        for name, words in [
            ("missing.csv", "no such file or folder"), ("empty.csv", "is empty"), ("header.csv", "no rows"),
            ("folder", "no file that can be read"), ("*.jsonl", "matches no file"),
        ]:  # fmt: skip
            ran = cli("replay", name, "--scores", "s.csv")
            assert ran.status == 1
            assert name in ran.complaint()
            assert words in ran.complaint()
        assert not Path("s.csv").exists()

    def test_unknown_column(self, cli: Cli, data: Path):
        Path("c.yaml").write_text("input: {features: [valeu]}\n")
        ran = cli("replay", data / "pump.csv", "-c", "c.yaml")
        assert ran.status == 1
        assert "no column 'valeu'; the columns are timestamp, value; nearest: 'value'" in ran.complaint()

    def test_a_model_of_other_features(self, replay: Callable[..., Ran]):
        write_csv("two.csv", timestamp=times(), temperature=wave(), load=wave())
        ran = replay("two.csv")
        assert ran.status == 1
        assert "two.csv: no column 'value'" in ran.complaint()
        assert "the model was fitted on value" in ran.complaint()

    def test_text_among_numbers(self, replay: Callable[..., Ran]):
        changed("pump.csv", value=lambda n, v: "ERR" if n % 100 == 7 else v)
        ran = replay("pump.csv")
        assert ran.status == 0
        assert (ran.value("dead letters"), ran.value("records")) == ("12", "1,188")
        letters = [json.loads(line) for line in Path("dead-letters.jsonl").read_text().splitlines()]
        assert letters[0] == {
            "source": "pump.csv", "line": 9, "reason": "column 'value': 'ERR' is not a number",
            "text": f"{times()[7]},ERR",
        }  # fmt: skip
        assert len(letters) == 12

    def test_dead_letters_are_said_by_evaluate_and_fit(self, cli: Cli):
        changed("pump.csv", value=lambda n, v: "ERR" if n % 100 == 7 else v)
        Path("w.csv").write_text(f"start,end\n{times()[900]},{times()[911]}\n")
        assert "dead letters: 12" in cli("evaluate", "pump.csv", "--labels", "w.csv").err
        assert "12 records could not be read" in cli("fit", "pump.csv", "-m", "m.safetensors", "--set", QUICK).err

    @pytest.mark.parametrize(
        ("cell", "counted"), [("inf", 12), ("-Infinity", 12), ("1e30", 0), ("-1e300", 0), ("NaN", 0)]
    )
    @pytest.mark.parametrize("online", [False, True], ids=["frozen", "online"])
    def test_absurd_numbers(self, cli: Cli, data: Path, cell: str, counted: int, online: bool):
        changed("pump.csv", value=lambda n, v: cell if n % 100 == 7 else v)
        model = () if online else ("-m", data / "pump.safetensors")
        outputs = ("--scores", "s.parquet", "--flags", "f.csv", "--report", "r.html")
        ran = cli("replay", "pump.csv", *model, *outputs)
        assert ran.status == 0, ran.err
        assert ("infinite values, read as missing: 12" in ran.out) == (counted > 0)
        scores = read("s.parquet")
        assert scores.num_rows == ROWS
        assert np.isfinite(scores["score"].to_numpy()[1:]).all()

    @pytest.mark.parametrize("online", [False, True], ids=["frozen", "online"])
    @pytest.mark.parametrize("value", ["0", "5.25", "-1e12"])
    def test_constant_series(self, cli: Cli, value: str, online: bool):
        changed("flat.csv", value=lambda n, v: value)
        model: tuple[str, ...] = ()
        if not online:
            assert cli("fit", "flat.csv", "-m", "m.safetensors", "--until", "0.5", "--set", QUICK).status == 0
            model = ("-m", "m.safetensors")
        ran = cli("replay", "flat.csv", *model)
        assert ran.value("flags") == "0"
        assert ran.err == "timestamp: ISO 8601 without a zone, read as UTC\n"

    def test_one_row(self, cli: Cli, data: Path, replay: Callable[..., Ran]):
        write_csv("one.csv", timestamp=times(1), value=[1.0])
        assert replay("one.csv").value("records") == "1"
        assert cli("replay", "one.csv").value("streams") == "1, 1 learning"
        ran = cli("fit", "one.csv", "-m", "m.safetensors")
        assert ran.status == 1
        assert "at least 50 are needed" in ran.complaint()
        assert not Path("m.safetensors").exists()

    def test_times_that_repeat_or_go_back(self, replay: Callable[..., Ran]):
        stamps = times()
        changed("pump.csv", at=lambda n, t: {7: stamps[n - 1], 90: stamps[n - 20]}.get(n % 100, t))
        ran = replay("pump.csv")
        assert ran.value("records older than one before") == "12"
        assert ran.value("records with the time of the one before") == "12"

    def test_mixed_time_formats(self, replay: Callable[..., Ran]):
        changed("pump.csv", at=lambda n, t: "1700000000" if n % 100 == 7 else t)
        ran = replay("pump.csv")
        assert ran.value("dead letters") == "12"
        assert "mixed time formats: '1700000000'" in Path("dead-letters.jsonl").read_text().splitlines()[0]

    def test_truncated_gzip_is_used_as_far_as_it_goes(self, replay: Callable[..., Ran], data: Path):
        whole = gzip.compress((data / "pump.csv").read_bytes())
        Path("pump.csv.gz").write_bytes(whole[: len(whole) // 2])
        ran = replay("pump.csv.gz")
        assert ran.status == 1
        found = re.search(r"pump\.csv\.gz: damaged or truncated gzip after (\d+) rows", ran.complaint())
        assert found
        assert read("s.csv").num_rows == int(found[1]) > 300

    def test_damaged_parquet_is_used_as_far_as_it_goes(self, replay: Callable[..., Ran], data: Path):
        pq.write_table(read(data / "pump.csv"), "pump.parquet", row_group_size=100)
        whole = bytearray(Path("pump.parquet").read_bytes())
        Path("cut.parquet").write_bytes(whole[: len(whole) // 2])
        ran = replay("cut.parquet")
        assert ran.status == 1
        assert "cut.parquet: damaged or truncated .parquet after 0 rows" in ran.complaint()
        begin = pq.ParquetFile("pump.parquet").metadata.row_group(11).column(0).data_page_offset
        whole[begin - 40 : begin + 40] = b"\xff" * 80
        Path("broken.parquet").write_bytes(whole)
        ran = replay("broken.parquet", "--set", "runtime.batch_rows=100")
        assert ran.status == 1
        assert "broken.parquet: damaged or truncated .parquet after 1100 rows" in ran.complaint()
        assert read("s.csv").num_rows == 1100

    def test_a_later_file_without_the_column(self, replay: Callable[..., Ran], data: Path):
        write_csv("b.csv", timestamp=times(), value=wave())
        write_csv("c.csv", timestamp=times(), other=wave())
        ran = replay("b.csv", "c.csv")
        assert ran.status == 1
        assert "c.csv: no column 'value'; the columns are timestamp, other" in ran.complaint()
        assert read("s.csv").num_rows == ROWS

    @pytest.mark.parametrize("damage", ["cut", "bit", "text", "missing"])
    def test_damaged_models(self, cli: Cli, data: Path, damage: str):
        whole = bytearray((data / "pump.safetensors").read_bytes())
        if damage == "bit":
            whole[-50] ^= 0x10
        if damage != "missing":
            Path("m.safetensors").write_bytes({"cut": whole[:3000], "bit": whole, "text": b"hello"}[damage])
        for command in (("replay", data / "pump.csv", "-m", "m.safetensors"), ("model", "show", "m.safetensors")):
            ran = cli(*command)
            assert ran.status == 1
            assert "m.safetensors: " in ran.complaint()
            assert ("no such file" if damage == "missing" else "damaged") in ran.complaint()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["-c", "typo.yaml"], "typo.yaml:2: threshold.false_alarm_per_day: unknown key; did you mean 'false_alarms_per_"),
            (["-c", "univariat"], "univariat: no such file or preset; did you mean 'univariate'?"),
            (["--set", "threshold.knd=sigma"], "--set threshold.knd: unknown key; did you mean 'threshold.kind'?"),
            (["--set", "threshold.kind=sigmas"], "likelihood, conformal; got 'sigmas'"),
            (["--set", "threshold"], "--set threshold: must read SECTION.KEY=VALUE"),
            (["--set", "model.hidden_size=600"], "512"),
            (["--flag", "x.csv"], "No such option: --flag"),
            (["--pace", "0"], "--pace"),
            (["--pace", "nan"], "--pace"),
            (["--pace", "soon"], "--pace"),
            (["--report", "-"], "--report"),
            (["--scores", "s.csv", "--flags", "./s.csv"], "s.csv: two outputs go there"),
            (["--scores", "-", "--flags", "-"], "-: two outputs go there"),
            (["--scores", "pump.csv"], "pump.csv: is read by this run and would be overwritten"),
            (["--scores", "s.csv", "--dead-letters", "s.csv"], "two outputs go there"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )  # fmt: skip
    def test_usage(self, cli: Cli, data: Path, arguments: list[str], words: str):
        Path("pump.csv").write_bytes((data / "pump.csv").read_bytes())
        Path("typo.yaml").write_text("threshold:\n  false_alarm_per_day: 2\n")
        ran = cli("replay", "pump.csv", *arguments)
        assert ran.status == 2
        assert words in ran.complaint()
        assert Path("pump.csv").read_bytes() == (data / "pump.csv").read_bytes()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["nonsense"], "No such command 'nonsense'; see"),
            (["replay"], "Missing argument"),
            (["fit", "x.csv"], "--model"),
            (["fit", "pump.csv", "-m", "pump.csv"], "pump.csv: is read by this run and would be overwritten"),
            (["fit", "pump.csv", "-m", "m.safetensors", "--until", "0"], "--until: a fraction"),
            (["fit", "pump.csv", "-m", "m.safetensors", "--until", "noon"], "--until: 'noon' is not"),
            (["evaluate", "pump.csv", "--labels", "x", "--from", "2"], "--from: '2' is not"),
            (["evaluate", "pump.csv", "--labels", "w.csv", "--json", "w.csv"], "w.csv: is read by this run"),
            (["config", "check", "nothing.yaml"], "nothing.yaml: no such file or preset"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )  # fmt: skip
    def test_usage_of_other_commands(self, cli: Cli, data: Path, arguments: list[str], words: str):
        Path("pump.csv").write_bytes((data / "pump.csv").read_bytes())
        Path("w.csv").write_bytes((data / "windows.csv").read_bytes())
        ran = cli(*arguments)
        assert ran.status == 2
        assert words in ran.complaint()
        assert Path("pump.csv").read_bytes() == (data / "pump.csv").read_bytes()

    @pytest.mark.parametrize(
        ("labels", "words"),
        [
            ("key,start,end\nvalve,2024-02-21,2024-02-22\n", "no key is a stream of this data; keys: valve; streams: pump"),
            ("key,start,end\npump,yesterday,2024-02-22\n", "l.csv: line 2: start: 'yesterday' is not an ISO 8601 time"),
            ("key,begin,end\npump,2024-02-21,2024-02-22\n", "l.csv: line 1: no column 'start'"),
            (None, "l.csv: cannot read the labels"),
        ],
        ids=["unknown key", "no time", "no column", "no file"],
    )  # fmt: skip
    def test_labels(self, cli: Cli, data: Path, labels: str | None, words: str):
        if labels is not None:
            Path("l.csv").write_text(labels)
        ran = cli("evaluate", data / "pump.csv", "--labels", "l.csv")
        assert ran.status == 1
        assert words in ran.complaint()

    def test_labels_of_some_unknown_keys_are_a_note(self, cli: Cli, data: Path):
        Path("l.csv").write_text((data / "windows.csv").read_text() + "valve,2024-02-21,2024-02-22\n")
        ran = cli("evaluate", data / "pump.csv", "--labels", "l.csv")
        assert ran.status == 0
        assert "l.csv: no stream in this data has these keys: valve" in ran.err

    def test_labels_that_are_no_labels(self, cli: Cli, data: Path):
        assert "no column 'truth'" in cli("evaluate", data / "pump.csv", "--labels", "truth").complaint()
        ran = cli("evaluate", data / "labelled.csv", "--labels", "value")
        assert ran.status == 1
        assert "no record could be read; the reasons are in dead-letters.jsonl" in ran.complaint()


class TestBadOutput:
    @pytest.mark.parametrize("option", ["--flags", "--scores", "--episodes", "--report", "--dead-letters"])
    def test_no_folder(self, cli: Cli, data: Path, option: str):
        """Said before the work, not after it."""
        ran = cli("replay", data / "pump.csv", "--scores", "s.csv", option, "nowhere/out.csv")
        assert ran.status == 1
        assert "nowhere/out.csv: there is no folder" in ran.complaint()
        assert not Path("s.csv").exists()

    @pytest.mark.parametrize(
        "command", [["fit", "-m"], ["evaluate", "--labels", "value", "--json"]], ids=lambda c: c[0]
    )
    def test_no_folder_of_other_commands(self, cli: Cli, data: Path, command: list[str]):
        ran = cli(command[0], data / "pump.csv", *command[1:], "nowhere/out.safetensors")
        assert ran.status == 1
        assert "there is no folder" in ran.complaint()

    def test_unknown_suffix(self, cli: Cli, data: Path):
        ran = cli("replay", data / "pump.csv", "--scores", "s.txt")
        assert ran.status == 1
        assert "s.txt: the suffix does not say what to write; must be .csv, .jsonl" in ran.complaint()

    def test_a_folder_as_output(self, cli: Cli, data: Path):
        Path("s.csv").mkdir()
        ran = cli("replay", data / "pump.csv", "--scores", "s.csv")
        assert ran.status == 1
        assert "s.csv is a directory" in ran.complaint()

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    @pytest.mark.parametrize(
        "option", ["--scores=full.csv", "--scores=full.csv.gz", "--flags=full.jsonl", "--episodes=full.parquet",
                   "--episodes=full.jsonl", "--report=full.html", "--dead-letters=full.jsonl"],
    )  # fmt: skip
    def test_full_disk(self, cli: Cli, data: Path, option: str):
        name = option.partition("=")[2]
        Path(name).symlink_to("/dev/full")
        changed("bad.csv", value=lambda n, v: "ERR" if n == 500 else v)
        ran = cli("replay", "bad.csv", "-m", data / "pump.safetensors", *option.split("="))
        assert ran.status == 1
        assert name in ran.complaint()
        assert "No space left on device" in ran.complaint()

    def test_the_first_error_is_the_one_that_is_said(self, cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch):
        """A sink that failed is asked for no more, though an episode is open at the end of the run."""
        if not Path("/dev/full").exists():
            pytest.skip("needs /dev/full")
        Path("full.jsonl").symlink_to("/dev/full")
        rows = [(t, k, v) for t, v in zip(times(), wave(), strict=True) for k in "ab"]
        stamps, keys, values = zip(*rows, strict=True)
        later = [v + 9 if k == "b" and n > 1800 else v for n, (k, v) in enumerate(zip(keys, values, strict=True))]
        write_csv("two.csv", timestamp=stamps, key=keys, value=[float(v) for v in later])
        ran = cli("replay", "two.csv", "-m", data / "pump.safetensors", "--episodes", "full.jsonl")
        assert ran.status == 1
        assert "full.jsonl: cannot be written: No space left on device" in ran.complaint()


class TestSignals:
    def test_interrupt_in_the_middle(self, cli: Cli, data: Path):
        """Ctrl-C in a paced replay: what was written is whole, Parquet too."""
        changed("bad.csv", value=lambda n, v: "ERR" if n == 3 else v)

        def interrupt() -> None:
            while not Path("f.csv").exists() or Path("f.csv").stat().st_size < 2000:
                time.sleep(0.02)
            os.kill(os.getpid(), signal.SIGINT)

        before = signal.getsignal(signal.SIGINT)
        thread = threading.Thread(target=interrupt, daemon=True)
        thread.start()
        settings = (
            "threshold.kind=fixed",
            "threshold.level=1e-6",
            "threshold.floor=1e-6",
            "learning.calibrating_rows=2",
        )
        always = [text for setting in settings for text in ("--set", setting)]
        ran = cli(
            "replay", "bad.csv", "-m", data / "pump.safetensors", "--pace", 60 * 60, "--scores", "s.parquet", *always,
            "--flags", "f.csv", "--episodes", "e.jsonl.gz",
        )  # fmt: skip
        thread.join()
        assert ran.status == 130
        assert ran.complaint() == "streamlstm: interrupted; what was written until now is whole"
        assert 5 < read("f.csv").num_rows <= read("s.parquet").num_rows - 1 < ROWS - 2
        assert read("e.jsonl.gz")["state"].to_pylist() == ["open"]
        assert signal.getsignal(signal.SIGINT) is before

    def test_an_interrupt_that_a_library_swallowed(self, cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch):
        """As LLVM's callbacks do: the compilation then fails with an error of its own."""

        def compile_badly(*arguments: Any, **options: Any) -> None:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                raise RuntimeError("no compiled object yet") from None

        monkeypatch.setattr("streamlstm.cli.replay.run_replay", compile_badly)
        ran = cli("replay", data / "pump.csv")
        assert ran.status == 130
        assert "interrupted" in ran.complaint()

    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_slow_pipe(self, data: Path, number: signal.Signals, status: int):
        """Records of a pipe are scored when they come, and what was scored before a signal stays."""
        process = subprocess.Popen(
            [*MODULE, "replay", "-", "-m", str(data / "pump.safetensors"), "--scores", "s.parquet", "--flags", "f.csv"],
            stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdin is not None
        lines = (data / "pump.csv").read_text().splitlines(keepends=True)
        for part in (lines[:1100], lines[1100:1150]):
            process.stdin.write("".join(part))
            process.stdin.flush()
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if Path("f.csv").exists() and Path("f.csv").read_bytes().count(b"\n") > 5:
                break
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == status, err
        assert err.splitlines()[-1] == "streamlstm: interrupted; what was written until now is whole"
        assert "Traceback" not in err
        scores = read("s.parquet")
        assert 1000 <= scores.num_rows < 1150
        assert read("f.csv").num_rows == sum(scores["flag"].to_pylist())


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of bash in which `streamlstm` is this one, with warnings as errors; fails where any part fails."""
    function = f'set -o pipefail; streamlstm() {{ {" ".join(MODULE)} "$@"; }}; '
    return subprocess.run(["bash", "-c", function + line], capture_output=True, text=True, timeout=200)


class TestStandardOutput:
    @pytest.mark.parametrize("command", ["replay {}/pump.csv --scores -", "config schema"])
    def test_a_reader_that_leaves(self, data: Path, command: str):
        ran = shell(f"(sleep 0.1; streamlstm {command.format(data)}) | head -1")
        assert ran.stdout.count("\n") == 1
        assert "Traceback" not in ran.stderr
        assert "Exception" not in ran.stderr

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    @pytest.mark.parametrize("command", ["replay {}/pump.csv --scores -", "config show"])
    def test_full(self, data: Path, command: str):
        ran = shell(f"streamlstm {command.format(data)} > /dev/full")
        assert ran.returncode == 1
        assert "streamlstm: standard output: " in ran.stderr.splitlines()[-1]
        assert "No space left on device" in ran.stderr
        assert "Traceback" not in ran.stderr

    def test_debug_shows_the_traceback(self, cli: Cli):
        ran = cli("replay", "missing.csv", "--debug")
        assert ran.status == 1
        assert "Traceback" in ran.err
        assert ran.err.splitlines()[-1] == "streamlstm: missing.csv: no such file or folder; check the path"


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    """A model that forecasts three records ahead."""
    path = data / "ahead.safetensors"
    fit = ["fit", str(data / "pump.csv"), "--model", str(path), "--until", "0.5", "--set", QUICK]
    assert run_cli([*fit, "--set", "forecast.horizons=3"]) == 0
    return path


class TestForecast:
    def test_every_stream_at_its_end(self, cli: Cli, data: Path, model: Path):
        write_csv("two.csv", timestamp=times(900) * 2, key=["a"] * 900 + ["b"] * 900, value=[*wave(900), *wave(900)])
        write_csv("b.csv", timestamp=times(900), key=["b"] * 900, value=wave(900))
        printed = cli("forecast", "two.csv", "-m", model)
        assert printed.status == 0
        assert printed.out.splitlines()[0] == "key,horizon,feature,mean,scale"
        for name in ("f.csv", "f.jsonl", "f.parquet"):
            assert cli("forecast", "two.csv", "-m", model, "-o", name).err.endswith(f"wrote {name}: 2 streams\n")
            rows = read(name).to_pylist()
            assert [(row["key"], row["horizon"], row["feature"]) for row in rows] == [
                (key, horizon, "value") for key in "ab" for horizon in (1, 2, 3)
            ]
            detector = Detector.load(model)
            stamps = np.arange(900) * 900 * 10**9 + int(START.timestamp()) * 10**9
            detector.process_batch(["a"] * 900, stamps, np.round(wave(900), 4))
            forecast = detector.forecast("a")
            assert forecast.mean is not None
            assert forecast.scale is not None
            assert [row["mean"] for row in rows] == forecast.mean[:, 0].tolist() * 2
            assert [row["scale"] for row in rows] == forecast.scale[:, 0].tolist() * 2
        assert printed.out.splitlines()[4:] == cli("forecast", "b.csv", "-m", model).out.splitlines()[1:]

    def test_quantiles_and_exogenous_columns(self, cli: Cli):
        on = np.repeat(np.arange(20) % 2, 50).astype(float)
        write_csv("valve.csv", value=wave(1000) + 3 * on, valve=on)
        keep = ("--set", "input.exogenous=[valve]", "--set", "input.features=[value]")
        ahead = (
            "--set",
            "forecast.horizons=2",
            "--set",
            "forecast.loss=pinball",
            "--set",
            "forecast.quantiles=[.1, .75]",
        )
        assert cli("fit", "valve.csv", "-m", "m.safetensors", "--set", QUICK, *keep, *ahead).status == 0
        assert cli("forecast", "valve.csv", "-m", "m.safetensors", "-o", "f.csv").status == 0
        assert read("f.csv").column_names == ["key", "horizon", "feature", "q0.1", "q0.75"]
        detector = Detector.load("m.safetensors")
        detector.process_batch(["valve"] * 1000, None, np.stack([np.round(wave(1000) + 3 * on, 4), on], axis=1))
        quantiles = detector.forecast("valve", on[-1:].tolist()).quantiles  # the valve stays as it is
        assert quantiles is not None
        assert read("f.csv")["q0.75"].to_pylist() == quantiles[1, :, 0].tolist()
        assert "forecast: quantiles 0.1, 0.75 of the next 2 records" in cli("model", "show", "m.safetensors").out

    def test_streams_that_are_learning_are_noted(self, cli: Cli, data: Path, model: Path):
        write_csv("pump.csv", timestamp=times(200), value=wave(200))  # the one stream that the model knows, or none
        assert cli("forecast", "pump.csv", "-m", model).out.count("\n") == 4
        write_csv("two.csv", timestamp=times(300) * 2, key=["a"] * 300 + ["b"] * 300, value=[*wave(300)] * 2)
        fit = ("fit", "two.csv", "-m", "m.safetensors", "--set", QUICK, "--set", "forecast.horizons=1")
        assert cli(*fit).status == 0
        write_csv("new.csv", timestamp=times(60), key=["a"] * 30 + ["c"] * 30, value=wave(60, anomaly=None))
        ran = cli("forecast", "new.csv", "-m", "m.safetensors")
        assert [line.split(",")[0] for line in ran.out.splitlines()] == ["key", "a"]
        assert "streams that are still learning and have no forecast: 1" in ran.err

    def test_what_it_needs(self, cli: Cli, data: Path, model: Path):
        for arguments, words in (
            ((data / "pump.csv",), "needs a model that makes forecasts"),
            ((data / "pump.csv", "-m", data / "pump.safetensors"), "--set forecast.horizons=12`"),
            ((data / "pump.csv", "-m", model, "--set", "forecast.horizons=4"), "leave the section out"),
            ((data / "pump.csv", "-m", model, "--set", "learning.mode=online"), "the weights learn online"),
            (("kafka://localhost:1/readings", "-m", model), "a key in two partitions is two streams"),
            ((data / "pump.csv", "-m", model, "-o", data / "pump.csv"), "is read by this run"),
        ):
            ran = cli("forecast", *arguments)
            assert ran.status in (1, 2)
            assert words in ran.complaint()


class TestReadme:
    text = (ROOT / "README.md").read_text()

    def blocks(self, language: str) -> list[str]:
        return re.findall(rf"```{language}\n(.*?)```", self.text, re.DOTALL)

    def test_python(self, capsys: pytest.CaptureFixture[str]):
        (block,) = self.blocks("python")
        exec(compile(block, "README.md", "exec"), {})
        assert capsys.readouterr().out.startswith("LEARNING")
        assert Path("state.safetensors").is_file()

    def test_from_files_to_flags(self, data: Path, monkeypatch: pytest.MonkeyPatch):
        Path("history").mkdir()
        Path("history/pump.csv").write_bytes((data / "pump.csv").read_bytes())
        Path("today.csv.gz").write_bytes(gzip.compress((data / "pump.csv").read_bytes()))
        Path("live.csv").write_bytes((data / "pump.csv").read_bytes())
        pq.write_table(read(data / "labelled.csv"), "labelled.parquet")
        monkeypatch.setenv("STREAMLSTM__TRAINING__UPDATES", "10")
        lines = next(block for block in self.blocks("sh") if "streamlstm fit" in block).splitlines()
        assert len(lines) >= 4
        outputs = []
        for line in lines:
            ran = shell(line)
            assert ran.returncode == 0, (line, ran.stderr)
            assert "Warning" not in ran.stderr
            outputs.append(ran.stdout)
        assert {path.name for path in Path().iterdir()} == {
            "history", "today.csv.gz", "live.csv", "labelled.parquet", "pump.safetensors",
            "flags.csv", "episodes.csv", "report.html",
        }  # fmt: skip
        assert outputs[-1].startswith("key,time,row,score")

    def commands(self) -> Iterator[tuple[str, ...]]:
        """What README calls: `streamlstm NAME [NAME] --option ...` in blocks and in the table."""
        listed = re.findall(r"^\| (`streamlstm .*?) \|", self.text, re.MULTILINE)
        assert len(listed) >= 7
        for cell in listed:
            first, *others = re.findall(r"`(.*?)`", cell)
            words = first.removeprefix("streamlstm ").split()
            yield tuple(word for word in words if word.islower() and "." not in word)
            if words[0] in ("config", "state"):
                yield from ((words[0], other) for other in others)

    def test_every_command_has_help(self, cli: Cli):
        names = set()
        for command in self.commands():
            names.add(command[0])
            path = [word for word in command if not word.startswith("-")]
            ran = cli(*path, "--help")
            assert ran.status == 0, command
            for option in (word for word in command if word.startswith("--")):
                assert option in ran.out
        assert names == {
            "demo", "fit", "replay", "forecast", "run", "evaluate", "compare", "state", "broker", "config", "model", "warm-up",
        }  # fmt: skip

    @pytest.mark.parametrize("option", ["flags", "scores", "episodes", "report", "pace", "model", "config", "set"])
    def test_options_of_replay(self, cli: Cli, option: str):
        assert f"--{option}" in self.text
        assert f"--{option}" in cli("replay", "--help").out


class TestCost:
    BLOCKS = 4

    def replayed(self, path: str, rows: int, model: Path, always: bool) -> tuple[int, list[MemorySink]]:
        """Bytecodes of a replay of `path` in blocks of `rows`, and what it wrote."""
        level = {"threshold.kind": "fixed", "threshold.level": 1e-6 if always else 1e6, "threshold.floor": 1e-6}
        level["learning.calibrating_rows"] = 2
        config = load(load_model(model).config, overrides=level | {"runtime.batch_rows": rows})
        sinks: list[MemorySink] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                outlets_module, "open_sink", lambda path, schema: sinks.append(MemorySink(schema)) or sinks[-1]
            )
            source = open_files([path], config.input, batch_rows=rows, on_dead_letter=print, on_note=lambda note: None)
            detector = Detector(config, model=load_model(model))
            outlets = Outlets(Wanted(flags="flags.csv", scores="scores.csv"), detector, None)
            count = executed_bytecodes(lambda: run_loop(source, detector, outlets, Hooks(), None))
        return count, sinks

    @pytest.mark.parametrize("always", [False, True], ids=["no record flagged", "every record flagged"])
    def test_no_python_per_event(self, cli: Cli, data: Path, always: bool):
        counts = {}
        small = "--set=model.hidden_size=4"
        fit = ("fit", data / "pump.csv", "-m", "m.safetensors", "--until", "0.5", "--set", QUICK)
        assert cli(*fit, small.partition("=")[0], small.partition("=")[2]).status == 0
        for rows in (1000, 100_000):
            total = rows * self.BLOCKS
            x = np.resize(wave(anomaly=None), total)
            stamps = np.arange(total) * 900 * 10**9 + int(START.timestamp()) * 10**9
            table = pa.table({"timestamp": pa.array(stamps).cast(pa.timestamp("ns", "UTC")), "value": x})
            Path(str(rows)).mkdir()
            path = f"{rows}/pump.parquet"
            pq.write_table(table, path, row_group_size=rows)
            self.replayed(path, rows, Path("m.safetensors"), always)
            counts[rows], (flags, scores) = self.replayed(path, rows, Path("m.safetensors"), always)
            assert scores.rows == total
            assert len(scores.batches) == self.BLOCKS
            assert flags.rows == (total - 2 if always else 0)
        assert counts[1000] == counts[100_000] > 100
