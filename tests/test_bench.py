"""The benchmarks' command line: what it lists, what it writes, and that it times nothing that disagrees."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.agreement import Disagreement, check_equal
from bench.catalog import CATALOG
from bench.run import ratios

ROOT = Path(__file__).resolve().parent.parent


def bench(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )


def test_without_a_name_it_lists_the_benchmarks():
    done = bench()
    assert done.returncode == 0
    listed = [line.split()[0] for line in done.stdout.splitlines()]
    assert listed == list(CATALOG) == ["single", "process", "step", "replay"]


def test_an_unknown_name_is_a_usage_error():
    done = bench("sprint")
    assert done.returncode == 2
    assert "no benchmark 'sprint'" in done.stderr


def test_ratios_are_our_time_over_the_peers():
    row = {"bench": "step", "case": "I=1,H=32,batch=8192", "unit": "ns/event"}
    times = {"ours": 10.0, "onnxruntime": 40.0, "compiled_call": 5.0}
    rows = [row | {"contender": name, "value": value} for name, value in times.items()]
    assert ratios(rows) == {"step/I=1,H=32,batch=8192/ours_vs_onnxruntime": 0.25}


@pytest.mark.parametrize("wrong", [1e-5, np.nan])
def test_what_disagrees_is_not_timed(wrong):
    expected = np.zeros(4, np.float32)
    check_equal(expected, expected + np.float32(1e-6), "h")
    with pytest.raises(Disagreement, match="not timed"):
        check_equal(expected, np.array([0, 0, wrong, 0], np.float32), "h")


def test_step_batch_is_the_textbook_lstm():
    from bench.ours import OurLstm
    from bench.problem import Problem

    problem = Problem.of_case("I=3,H=20,batch=50")
    h, c = problem.h.astype(np.float64), problem.c.astype(np.float64)
    gates = problem.x @ problem.W_ih.T.astype(np.float64) + h @ problem.W_hh.T + problem.bias
    i, f, g, o = np.split(gates, 4, axis=1)
    i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
    c = f * c + i * np.tanh(g)
    expected = o * np.tanh(c), c
    actual = OurLstm(problem).step(problem.x)
    np.testing.assert_allclose(actual[0], expected[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(actual[1], expected[1], rtol=0, atol=1e-6)


def test_a_short_run_writes_header_rows_and_ratios(tmp_path):
    pytest.importorskip("onnxruntime", reason="the peer of `single` is not installed: pip install 'streamlstm[bench]'")
    pytest.importorskip("onnx", reason="the peer of `single` is built by onnx: pip install 'streamlstm[bench]'")
    path = tmp_path / "single.json"
    done = bench("single", "--rounds", "1", "--json", str(path))
    assert done.returncode == 0, done.stderr
    written = json.loads(path.read_text())
    assert set(written) == {"header", "rows", "ratios"}
    assert {"processor", "cores", "versions", "date"} <= set(written["header"])
    cases, contenders = CATALOG["single"].cases, CATALOG["single"].contenders
    assert [(row["bench"], row["case"], row["contender"]) for row in written["rows"]] == [
        ("single", case, contender) for case in cases for contender in contenders
    ]
    assert all(set(row) == {"bench", "case", "contender", "value", "unit"} for row in written["rows"])
    assert all(row["unit"] == "ns/event" and 0 < row["value"] < 1e9 for row in written["rows"])
    assert set(written["ratios"]) == {f"single/{case}/ours_vs_{peer}" for case in cases for peer in contenders[1:]}
    assert "ours/peer" in done.stdout
