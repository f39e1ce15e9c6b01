"""`bench quality`: one table from small recordings of the same make, its floors, its intervals, its normal streams."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from bench.quality import main
from bench.quality_data import read_stream
from bench.quality_floors import ewma, floors
from bench.quality_normal import KINDS, normal_stream
from bench.quality_product import BOTH, LINEAR, Judged, Normal, configuration
from bench.quality_summary import by_method, differences, interval, nab_rows, normal_rows
from bench.quality_table import tables
from streamlstm.config import Config

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def recordings(tmp_path):
    """One stream each in the form of MSL and ASD, with a clear anomaly, and two files of NAB, one without a window."""
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(1600) / 8)[:, None] + 0.1 * rng.normal(size=(1600, 3))
    wave[1300:1330] += 5
    label = np.zeros(800, np.uint8)
    label[500:530] = 1
    for group in ("msl", "asd"):
        (tmp_path / group).mkdir()
    np.savez(tmp_path / "asd" / "s1.npz", train=wave[:800], test=wave[800:], test_label=label)
    commands = rng.integers(0, 2, (1600, 2)).astype(np.uint8)
    np.savez(
        tmp_path / "msl" / "C-9.npz", train_telemetry=wave[:800, 0], test_telemetry=wave[800:, 0],
        train_commands=commands[:800], test_commands=commands[800:], test_label=label,
    )  # fmt: skip
    times = [datetime(2014, 2, 14) + timedelta(minutes=5 * n) for n in range(1600)]
    windows = {"made/quiet.csv": [], "made/wave.csv": [[f"{times[1290]}.000000", f"{times[1340]}.000000"]]}
    (tmp_path / "nab" / "data" / "made").mkdir(parents=True)
    (tmp_path / "nab" / "labels").mkdir()
    (tmp_path / "nab" / "labels" / "combined_windows.json").write_text(json.dumps(windows))
    for name in windows:
        lines = [f"{time},{value:.5f}\n" for time, value in zip(times, wave[:, 0], strict=True)]
        (tmp_path / "nab" / "data" / name).write_text("timestamp,value\n" + "".join(lines))
    return tmp_path


def test_a_small_run_writes_every_part(recordings, tmp_path):
    out = tmp_path / "quality.json"
    arguments = (
        "--data", recordings, "--sets", "msl,asd,nab,normal", "--streams", 2, "--seeds", 0, "--processes", 1,
        "--ablation", "--set", "training.updates=20", "--json", out,
    )  # fmt: skip
    command = [sys.executable, "-m", "bench", "quality", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["header"]["overrides"] == {"training.updates": 20}
    assert {"processor", "versions", "date", "seeds"} <= set(result["header"])
    rows = {(row["set"], row["method"]): row for row in result["methods"]}
    for group in ("msl", "asd"):
        for method in ("random", "last value", "ridge, by z, EWMA 30", "ridge, by train rms, EWMA 105", LINEAR, BOTH):
            assert 0 < rows[group, method]["vus_pr"] <= 1
        assert rows[group, BOTH]["vus_pr"] > rows[group, "random"]["vus_pr"]
        assert rows[group, BOTH]["true"] + rows[group, BOTH]["missed"] == 1
        assert rows[group, BOTH]["promised"] == pytest.approx(770 / 1440)
    assert [row["set"] for row in result["differences"]] == ["msl", "asd"]
    assert {row["profile"] for row in result["nab"]} == {"standard", "reward_low_FP", "reward_low_FN"}
    assert {row["method"] for row in result["ablation"]} >= {BOTH, "without smoothing", "without adaptive error scale"}
    assert {(one["stream"], one["mode"]) for one in result["normal_streams"]} == {
        (n, mode) for n in range(2) for mode in ("fitted on 5 days", "online")
    }
    assert "[" in done.stdout.splitlines()[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data", "nowhere"), "nowhere: no such folder; name the one that holds msl/, asd/, smd/, nab/: --data or"),
        (("--data", "bench", "--sets", "msl"), "msl: holds no .npz"),
        (("--data", "bench", "--sets", "nab"), "combined_windows.json: no such file"),
        (("--sets", "msl,mars"), "no set 'mars'; there are msl, asd, smd, nab, normal"),
        (("--seeds", "a"), "--seeds: must be whole numbers"),
        (("--set", "score.spam=1", "--sets", "normal"), "score.spam"),
    ],
)
def test_what_cannot_be_run_is_a_usage_error(arguments, words, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match="2"):
        main(list(arguments))
    assert words in capsys.readouterr().err


def test_a_labelled_file_that_is_missing_is_an_error(recordings, capsys):
    (recordings / "nab" / "data" / "made" / "quiet.csv").unlink()
    with pytest.raises(SystemExit, match="2"):
        main(["--data", str(recordings), "--sets", "nab"])
    assert "1 files have labels and are not there, the first: made/quiet.csv" in capsys.readouterr().err


def test_floors_are_what_their_names_say(recordings):
    stream = read_stream(recordings / "asd" / "s1.npz")
    scores = dict(floors(stream, 0))
    z = (np.concatenate([stream.train, stream.test]) - stream.train.mean(axis=0)) / stream.train.std(axis=0)
    assert scores["last value"] == pytest.approx(np.append(0, np.abs(z[801:] - z[800:-1]).mean(axis=1)))
    A = np.hstack([np.concatenate([z[[0] * n], z[: 800 - n], z[[800] * n], z[800:-n]]) for n in (1, 2, 3)])
    stacked = np.concatenate([A[:800] - A[:800].mean(axis=0), np.eye(9)])
    target = np.concatenate([z[:800] - z[:800].mean(axis=0), np.zeros((9, 3))])
    weights = np.linalg.lstsq(stacked, target, rcond=None)[0]
    error = np.abs(z - z[:800].mean(axis=0) - (A - A[:800].mean(axis=0)) @ weights)
    assert scores["ridge, by z, EWMA 30"] == pytest.approx(ewma(error[800:].mean(axis=1), 30))
    rms = np.sqrt((error[:800] ** 2).mean(axis=0))
    assert scores["ridge, by train rms, EWMA 105"] == pytest.approx(ewma((error / rms)[800:].mean(axis=1), 105))
    assert ewma(np.array([1.0, 3.0, 0.0]), 3).tolist() == [1.0, 2.0, 1.0]


def test_msl_commands_are_known_inputs(recordings):
    stream = read_stream(recordings / "msl" / "C-9.npz")
    assert (stream.group, stream.name, stream.features, stream.train.shape) == ("msl", "C-9", 1, (800, 3))


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = [low <= 0 <= high for _, low, high in (interval(rng.normal(size=40).tolist()) for _ in range(60))]
    assert 0.78 < np.mean(covered) < 0.98
    assert interval([0.5, 0.5]) == (0.5, 0.5, 0.5)


def judged(stream, method, seed, vus_pr, **counts):
    return Judged("msl", stream, method, seed, rows=1000, days=2.0, vus_pr=vus_pr, auc_pr=0.5, **counts)


def test_seeds_are_averaged_before_streams_and_differences_are_paired():
    counts = {"true": 2, "false": 3, "missed": 1, "flagged": 20}
    ones = [judged("a", LINEAR, 0, 0.4, **counts), judged("b", LINEAR, 0, 0.6, **counts)]
    for seed, gain in ((0, 0.1), (1, 0.3)):
        ones += [judged("a", BOTH, seed, 0.4 + gain, **counts), judged("b", BOTH, seed, 0.6 + gain, **counts)]
    linear, both = by_method(ones, 0.5)
    assert (linear["vus_pr"], both["vus_pr"]) == (pytest.approx(0.5), pytest.approx(0.7))
    assert both["vus_pr_by_seed"] == pytest.approx([0.6, 0.8])
    assert (both["true"], both["false"], both["missed"], both["promised"]) == (4, 6, 2, 2.0)
    assert (both["f1"], both["flagged"]) == (pytest.approx(8 / 16), pytest.approx(0.02))
    (row,) = differences(ones)
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((0.2, 0.2, 0.2))
    assert "all" in tables({"methods": [linear, both]})


def test_nab_rows_are_means_over_seeds_beside_a_blind_detector():
    class File:
        name, x, windows = "a", np.zeros(100), np.array([[40, 49]])

    found, silent = np.zeros(100), np.zeros(100)
    found[40] = 0.9
    rows = nab_rows([File()], {0: [{"alarms": found}], 1: [{"alarms": silent}]})
    by_name = {(row["method"], row["profile"]): row for row in rows}
    assert by_name["alarms", "standard"]["fixed"] == pytest.approx(50)
    blind = by_name["an alarm every 6 % of a file", "standard"]
    assert blind["fixed"] < by_name["alarms", "standard"]["fixed"]


def test_normal_streams_are_the_same_each_time_and_of_every_kind():
    kinds = [normal_stream(n, days=1) for n in range(len(KINDS))]
    assert [kind for kind, _ in kinds] == list(KINDS)
    for n, (_, x) in enumerate(kinds):
        assert np.isfinite(x).all()
        assert x.std() > 0
        assert np.array_equal(x, normal_stream(n, days=1)[1])
    assert not np.array_equal(normal_stream(0, days=1)[1], normal_stream(len(KINDS), days=1)[1])


def test_alarms_on_normal_streams_are_summed_by_mode_and_kind():
    rows = normal_rows([Normal("sine", 0, "online", 10.0, 3), Normal("levels", 1, "online", 10.0, 30)], 2.0)
    assert [(row["kind"], row["promised"], row["kept"], row["most_per_day"]) for row in rows] == [
        ("all", 40.0, 33, 3.0), ("sine", 20.0, 3, 0.3), ("levels", 20.0, 30, 3.0),
    ]  # fmt: skip


def test_the_environment_does_not_change_what_is_judged(monkeypatch):
    monkeypatch.setitem(os.environ, "STREAMLSTM__MODEL__HIDDEN_SIZE", "8")
    assert configuration({}, 0) == Config()
