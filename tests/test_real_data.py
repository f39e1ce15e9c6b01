"""Real recordings, and small ones of the same make, through fit, replay and evaluate. A warning of Python is a failure.

`pytest -m slow tests/test_real_data.py` takes all files and prints the tables.
"""

import csv
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from streamlstm.cli.app import run as run_cli

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
NAB, MSL = DATA / "nab", DATA / "msl"
QUICK = ("--set", "training.updates=20")
CONSTANT_IN_TRAINING = ("C-2", "D-14", "M-6", "S-2", "T-5")
COMMANDS = 54
Judge = Callable[..., dict[str, Any]]

needs_nab = pytest.mark.skipif(not NAB.is_dir(), reason=f"the NAB files are not in {NAB}")
needs_msl = pytest.mark.skipif(not MSL.is_dir(), reason=f"the MSL channels are not in {MSL}")


def succeed(*arguments: object) -> None:
    assert run_cli([str(argument) for argument in arguments]) == 0, arguments


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """Fits on one file, replays another, and returns evaluate's result; checks what the replay wrote."""
    monkeypatch.chdir(tmp_path)

    def run(train: Path, test: Path, labels: object, *settings: object, until: str = "1", start: str = "0") -> Any:
        succeed("fit", train, "--model", "m.safetensors", "--until", until, *settings)
        succeed("replay", test, "--model", "m.safetensors", "--scores", "s.parquet", "--flags", "f.csv",
                "--episodes", "e.csv", "--report", "r.html")  # fmt: skip
        scores = pq.read_table("s.parquet")
        score, live = scores["score"].to_numpy(), np.array(scores["stage"].to_pylist()) == "live"
        assert np.isfinite(score).all()
        assert (score >= 0).all()
        assert not scores["flag"].to_numpy()[~live].any()
        assert (scores["threshold"].to_numpy()[live] > 0).all()
        succeed("evaluate", test, "--model", "m.safetensors", "--labels", labels, "--from", start, "--json", "q.json")
        assert not Path("dead-letters.jsonl").exists()
        return json.loads(Path("q.json").read_text())

    return run


def msl_files(channel: Path, folder: Path) -> tuple[Path, Path, Path]:
    """Configuration, training and test data of a channel: its telemetry, with the rover's commands as known inputs."""
    arrays = np.load(channel)
    commands = [f"command_{n}" for n in range(arrays["train_commands"].shape[1])]
    config = folder / "msl.yaml"
    config.write_text(
        json.dumps({"extends": "univariate", "input": {"features": ["telemetry"], "exogenous": commands}})
    )
    files = []
    for part in ("train", "test"):
        path = folder / part / f"{channel.stem}.csv"
        path.parent.mkdir(exist_ok=True)
        columns = [arrays[f"{part}_telemetry"], *arrays[f"{part}_commands"].T]
        names = ["telemetry", *commands]
        if part == "test":
            columns.append(arrays["test_label"])
            names.append("test_label")
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows(zip(*(column.tolist() for column in columns), strict=True))
        files.append(path)
    return config, files[0], files[1]


def judge_msl(judge: Judge, channel: Path, *settings: object) -> dict[str, Any]:
    config, train, test = msl_files(channel, Path.cwd())
    return judge(train, test, "test_label", "--config", config, *settings)


def judge_nab(judge: Judge, recording: Path, labels: Path, *settings: object) -> dict[str, Any]:
    return judge(recording, recording, labels, "--config", "univariate", *settings, until="0.15", start="0.15")


@pytest.fixture
def nab_like(tmp_path: Path) -> tuple[Path, Path]:
    """A file and labels in NAB's form."""
    x = 20 + np.sin(np.arange(2000) * 2 * np.pi / 96) + 0.1 * np.random.default_rng(0).standard_normal(2000)
    x[1500:1520] += 6
    begin = datetime(2014, 2, 14, 14, 30)
    times = [str(begin + timedelta(minutes=5 * n)) for n in range(len(x))]
    path = tmp_path / "realMade" / "wave.csv"
    path.parent.mkdir()
    path.write_text("timestamp,value\n" + "".join(f"{t},{v:.6f}\n" for t, v in zip(times, x, strict=True)))
    labels = tmp_path / "combined_windows.json"
    window = [f"{times[1490]}.000000", f"{times[1530]}.000000"]
    labels.write_text(json.dumps({"realMade/wave.csv": [window], "realMade/other.csv": []}))
    return path, labels


def msl_like(path: Path, *, constant: bool) -> Path:
    """Arrays in the form of an MSL channel; its telemetry follows a command. Constant: in training, and then 258."""
    random = np.random.default_rng(1)
    arrays: dict[str, Any] = {}
    for part, rows in (("train", 1500), ("test", 1200)):
        commands = np.zeros((rows, COMMANDS), np.uint8)
        commands[:, 3] = np.repeat(random.integers(0, 2, rows // 50), 50)
        noise = 0.02 * random.standard_normal(rows)
        arrays[f"{part}_telemetry"] = np.full(rows, -1.0) if constant else commands[:, 3] + noise
        arrays[f"{part}_commands"] = commands
    label = np.zeros(1200, np.uint8)
    label[900:930] = 1
    arrays["test_telemetry"][900:930] += 259 if constant else 2
    np.savez(path, **arrays, test_label=label)
    return path


class TestOfTheSameMake:
    def test_nab(self, judge: Judge, nab_like: tuple[Path, Path]):
        result = judge_nab(judge, *nab_like, *QUICK)
        assert result["total"]["true"] == 1
        assert result["unused_labels"] == ["realMade/other.csv"]

    @pytest.mark.parametrize("constant", [False, True], ids=["follows a command", "constant in training"])
    def test_msl(self, judge: Judge, tmp_path: Path, constant: bool):
        result = judge_msl(judge, msl_like(tmp_path / "X-1.npz", constant=constant), *QUICK)
        assert result["total"]["true"] == 1
        assert result["total"]["false"] == 0


@needs_nab
@pytest.mark.parametrize("name", ["realAWSCloudwatch/elb_request_count_8c0756", "artificialNoAnomaly/art_flatline"])
def test_nab(judge: Judge, name: str):
    result = judge_nab(judge, NAB / "data" / f"{name}.csv", NAB / "labels" / "combined_windows.json", *QUICK)
    assert result["total"]["live"] > 0
    assert result["streams"][0]["key"] == Path(name).name


@needs_msl
@pytest.mark.parametrize("channel", ["C-1", "M-6"])
def test_msl(judge: Judge, channel: str):
    """C-1 is an ordinary channel; M-6 is constant in training and reaches 258 later."""
    arrays = np.load(MSL / f"{channel}.npz")
    assert (np.ptp(arrays["train_telemetry"]) == 0) == (channel in CONSTANT_IN_TRAINING)
    result = judge_msl(judge, MSL / f"{channel}.npz", *QUICK)
    assert result["total"]["live"] > 0


def table(title: str, results: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Lines of a table: each file, then counts summed, F1 of the sums, and means of the areas."""
    yield f"\n{title}\n{'':48} true false missed not live  prec.   rec.     F1  false/day  AUC-PR  VUS-PR"
    quotients = ("precision", "recall", "f1", "false_per_day", "auc_pr", "vus_pr")

    def line(name: str, quality: dict[str, Any]) -> str:
        counts = "".join(f"{quality[key]:7d}" for key in ("true", "false", "missed", "not_live"))
        numbers = "".join(f"{quality[key]:8.3f}" if quality[key] is not None else "       -" for key in quotients)
        return f"{name:46}{counts} {numbers}"

    for name, result in results.items():
        yield line(name, result["total"])
    totals = [result["total"] for result in results.values()]
    summed = {key: sum(q[key] for q in totals) for key in ("true", "false", "missed", "not_live", "days")}
    labelled, said = summed["true"] + summed["missed"], summed["true"] + summed["false"]
    means = {key: np.mean([q[key] for q in totals if q[key] is not None]) for key in ("auc_pr", "vus_pr")}
    yield line("all", summed | means | {
        "precision": summed["true"] / said, "recall": summed["true"] / labelled,
        "f1": 2 * summed["true"] / (said + labelled), "false_per_day": summed["false"] / summed["days"],
    })  # fmt: skip


@needs_nab
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_of_nab(judge: Judge, capsys: pytest.CaptureFixture[str]):
    labels = NAB / "labels" / "combined_windows.json"
    results = {}
    for path in sorted((NAB / "data").rglob("*.csv")):
        results[f"{path.parent.name}/{path.stem}"] = judge_nab(judge, path, labels)
    with capsys.disabled():
        print("\n".join(table("NAB, fitted on the first 15 %, judged on the rest", results)))
    assert len(results) == 41


@needs_msl
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_of_msl(judge: Judge, capsys: pytest.CaptureFixture[str]):
    results, constant = {}, []
    for path in sorted(MSL.glob("*.npz")):
        if np.ptp(np.load(path)["train_telemetry"]) == 0:
            constant.append(path.stem)
        results[path.stem] = judge_msl(judge, path)
    with capsys.disabled():
        print("\n".join(table("MSL, a model per channel, commands as exogenous columns", results)))
    assert len(results) == 27
    assert tuple(constant) == CONSTANT_IN_TRAINING
