"""The benchmarks' command line: what it lists, what it writes, and that it times nothing that disagrees."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import readme
from bench.__main__ import main
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
    assert listed == list(CATALOG) == [
        "single", "process", "step", "cells", "sequence", "scale", "fit", "online", "replay", "cuda", "kafka",
    ]  # fmt: skip


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


def test_one_event_is_timed_on_a_live_stream(tmp_path):
    from bench.process import prepare

    prepare("I=1,H=32,batch=1", tmp_path)  # Disagreement where a severity is missing


def test_a_short_run_writes_header_rows_and_ratios(tmp_path):
    pytest.importorskip("onnxruntime", reason="the peer of `single` is not installed: pip install 'streamlstm[bench]'")
    pytest.importorskip("onnx", reason="the peer of `single` is built by onnx: pip install 'streamlstm[bench]'")
    pytest.importorskip("matplotlib", reason="what draws is not installed: pip install 'streamlstm[bench]'")
    path, folder = tmp_path / "single.json", tmp_path / "new" / "folder"
    done = bench("single", "--rounds", "1", "--json", str(path), "--output", str(folder))
    assert done.returncode == 0, done.stderr
    assert {file.name for file in folder.iterdir()} == {"bench.json", "single.svg"}
    assert (folder / "bench.json").read_bytes() == path.read_bytes()
    written = json.loads(path.read_text())
    assert set(written) == {"header", "rows", "ratios"}
    assert {"processor", "compiled_for", "cores", "versions", "date"} <= set(written["header"])
    cases, contenders = CATALOG["single"].cases, CATALOG["single"].contenders
    assert [(row["bench"], row["case"], row["contender"]) for row in written["rows"]] == [
        ("single", case, contender) for case in cases for contender in contenders
    ]
    assert all(set(row) == {"bench", "case", "contender", "value", "unit"} for row in written["rows"])
    assert all(row["unit"] == "ns/event" and 0 < row["value"] < 1e9 for row in written["rows"])
    assert set(written["ratios"]) == {f"single/{case}/ours_vs_{peer}" for case in cases for peer in contenders[1:]}
    assert "ours/peer" in done.stdout


def made_up(name, contenders):
    """A header, and rows of a benchmark's every case: nanoseconds by contender, growing from case to case."""
    header = {"processor": "Abacus 9", "compiled_for": "avx512", "date": "2026-11-26T19:05:04+00:00",
              "versions": {"python": "3.11.7", "onnxruntime": "1.32.0", "torch": None}}  # fmt: skip
    rows = [
        {"bench": name, "case": case, "contender": contender, "value": value * n, "unit": "ns/event"}
        for n, case in enumerate(CATALOG[name].cases, start=1)
        for contender, value in contenders.items()
    ]
    return header, rows


@pytest.mark.parametrize(
    ("compiled_for", "shares", "label"),
    [
        ("avx512", [0.65, 0.65, 0.65, 0.75], "limit: 0.65 to 0.75 × ONNX Runtime"),
        ("avx2", [1, 1, 1, 1], "limit: 1.00 × ONNX Runtime"),
        ("generic", None, None),
    ],
)
def test_a_picture_has_a_line_per_contender_and_the_limit(compiled_for, shares, label):
    pytest.importorskip("matplotlib", reason="what draws is not installed: pip install 'streamlstm[bench]'")
    from bench.picture import draw

    header, rows = made_up("step", {"ours": 100.0, "onnxruntime": 200.0, "compiled_call": 300.0})
    figure = draw(CATALOG["step"], header | {"compiled_for": compiled_for}, rows)
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    expected = ["streamlstm, whole call", "ONNX Runtime", "streamlstm", *([label] if label else [])]
    assert list(lines) == [text.get_text() for text in figure.legends[0].get_texts()] == expected
    assert lines["streamlstm"].get_xdata().tolist() == [32, 64, 80, 128]
    assert lines["streamlstm"].get_ydata().tolist() == [100, 200, 300, 400]
    if label:
        assert lines[label].get_linestyle() == "--"
        assert lines[label].get_ydata() == pytest.approx(np.array([200, 400, 600, 800]) * shares)
    ticks = [text.get_text() for text in axes.get_xticklabels()]
    assert ticks == ["I=1, H=32", "I=8, H=64", "I=25, H=80", "I=38, H=128"]
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "ns per event"
    assert "Abacus 9" in axes.get_title()


def test_benchmarks_of_one_size_have_no_picture_and_equal_ones_are_equal_files(tmp_path):
    pytest.importorskip("matplotlib", reason="what draws is not installed: pip install 'streamlstm[bench]'")
    from bench.picture import write_pictures

    header, rows = made_up("single", {"ours": 100.0, "onnxruntime": 900.0, "onnxruntime_bound": 650.0})
    rows += made_up("sequence", {"ours": 100.0})[1]
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        write_pictures(header, rows, folder)
        assert [path.name for path in folder.iterdir()] == ["single.svg"]
    text = (tmp_path / "a" / "single.svg").read_text()
    assert text == (tmp_path / "b" / "single.svg").read_text()
    assert ">limit: 0.15 to 0.20 × ONNX Runtime (bound arrays)</text>" in text


def test_cases_differ_by_hidden_units_in_three_benchmarks():
    assert [name for name, benchmark in CATALOG.items() if benchmark.over_hidden] == ["single", "step", "fit"]


def test_without_matplotlib_nothing_is_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "bench.picture", raising=False)
    with pytest.raises(SystemExit, match="2"):
        main(["single", "--output", str(tmp_path)])
    assert "--output: matplotlib is not installed; pip install 'streamlstm[bench]'" in capsys.readouterr().err


def test_readme_asks_for_what_is_measured():
    measured = {
        (benchmark.name, case, contender)
        for benchmark in CATALOG.values()
        for case in benchmark.cases
        for contender in benchmark.competing(case)
    }
    asked = {key for line in readme.LINES for key in (line.ours, *line.beside.values())}
    absent = ("torch", "deep_river")  # large: they compete where they are installed
    assert {key for key in asked - measured if key[2] not in absent} == set()


def test_the_table_of_readme_is_that_of_the_file(tmp_path, monkeypatch, capsys):
    header, rows = made_up("step", {"ours": 50.0, "onnxruntime": 1000.0, "compiled_call": 200.0})
    rows[1:] = [row for row in rows[1:] if "H=32" in row["case"] or row["contender"] == "compiled_call"]
    path, text = tmp_path / "bench.json", tmp_path / "README.md"
    path.write_text(json.dumps({"header": header | {"cores": 2, "rounds": 3}, "rows": rows}))
    text.write_text("# Before\n<!-- bench: begin -->\n| old |\n<!-- bench: end -->\nafter\n")
    monkeypatch.setattr(readme, "README", text)
    assert main(["readme", str(path)]) == 0
    assert (
        text.read_text()
        == """\
# Before
<!-- bench: begin -->
| work | ours | contender | ours / contender |
|---|---:|---|---:|
| step, 8 192 streams, I=1, H=32 | 50.0 ns | ONNX Runtime 1 000 ns | 0.05 |

Measured on 2026-11-26: Abacus 9, 2 cores, kernels for avx512; python 3.11.7, onnxruntime 1.32.0; median of 3 rounds.
<!-- bench: end -->
after
"""
    )
    said = capsys.readouterr().out.splitlines()
    assert f"left out, not in {path}: step I=1,H=32,batch=8192 torch" in said
    assert f"left out, not in {path}: step I=38,H=128,batch=8192 compiled_call_two_threads" in said
    assert f"left out, not in {path}: scale I=1,H=32,streams=10000 ours" in said
    assert not [line for line in said if "I=1,H=32,batch=8192 onnxruntime" in line]


@pytest.mark.parametrize("content", ["[]", "{", '{"header": {}}', None])
def test_what_is_no_result_leaves_readme_as_it_is(content, tmp_path, monkeypatch, capsys):
    path, text = tmp_path / "bench.json", tmp_path / "README.md"
    text.write_text("as it is")
    monkeypatch.setattr(readme, "README", text)
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit, match="2"):
        main(["readme", str(path)])
    expected = (
        "No such file or directory" if content is None else "is not what `python -m bench NAME... --json FILE` writes"
    )
    assert f"{path}: {expected}" in capsys.readouterr().err
    assert text.read_text() == "as it is"


def test_readme_has_a_place_for_figures():
    text = readme.README.read_text()
    assert text.count(readme.BEGIN) == text.count(readme.END) == 1
    assert readme.filled(text, "figures\n").count("| step, ") == 0


def test_kafka_values_are_json_of_49_bytes_and_add_up():
    from bench.kafka_events import checksum, chunks, json_values, keys

    streams, records = 7, 40
    texts, times = [], []
    for time_ms, stream, value in chunks(streams, records):
        texts += json_values(time_ms, value)
        times += time_ms.tolist()
        assert stream.tolist() == [n % streams for n in range(len(stream))]
    assert {len(text) for text in texts} == {49}
    assert {len(key) for key in keys(streams)} == {13}
    events = [json.loads(text) for text in texts]
    assert len(events) == records
    assert [event["ts"] for event in events] == times
    assert math.fsum(event["value"] for event in events) == pytest.approx(checksum(streams, records), rel=1e-12)


def test_kafka_contenders_must_report_the_count_and_the_sum():
    from bench.kafka_events import check

    check("peer", (3, 6.5), 3, 6.5)
    for count, total in ((2, 6.5), (3, 6.5001), (3, math.nan)):
        with pytest.raises(Disagreement, match="not timed"):
            check("peer", (3, 6.5), count, total)


def test_the_fetch_phase_is_read_from_what_consumer_performance_prints():
    from bench.kafka_peers import parse_performance

    names = "start.time, end.time, data.consumed.in.nMsg, nMsg.sec, fetch.time.ms, fetch.nMsg.sec"
    values = "2026-11-21 11:00:00:000, 2026-11-21 11:00:02:000, 3000000, 1500000.0, 1500, 2000000.0"
    assert parse_performance(f"{names}\n{values}\n") == (3_000_000, 2_000_000.0)
    with pytest.raises(Disagreement, match="no line with fetch"):
        parse_performance("Missing required option\n")


def test_a_daemon_is_timed_between_its_first_and_last_progress():
    from bench.kafka_daemon import seconds_per_event

    def status(at, events, lag):
        return at, {"events": events, "lag": lag}

    long = [status(0, 0, None), status(1, 100, 900), status(2, 500, 500), status(3, 900, 100), status(4, 1000, 0)]
    assert seconds_per_event(long) == 2 / 800
    short = [status(0, 0, None), status(1, 0, 1000), status(3, 1000, 0), status(4, 1000, 0)]
    assert seconds_per_event(short) == 2 / 1000


STAND_IN = """
import json, signal, sys, time
def stop(number, frame):
    sys.exit({code})
signal.signal(signal.SIGTERM, stop)
for events in range(0, 101, 50):
    print(json.dumps({{"events": events, "lag": 100 - events, "flags": 0, "dead_letters": {letters}}}), file=sys.stderr)
print("ended" if {ends} else "waiting", file=sys.stderr, flush=True)
while not {ends}:
    time.sleep(60)
"""


@pytest.fixture
def stand_in(tmp_path):
    from bench.kafka_daemon import Daemon
    from bench.kafka_setting import Setting

    def make(*, code=0, letters=0, ends=False):
        script = tmp_path / "daemon.py"
        script.write_text(STAND_IN.format(code=code, letters=letters, ends=ends))
        setting = Setting("nowhere:1", "bench-test", 100, tmp_path)
        return Daemon(setting, {"kafka": {"group_id": "test"}}, program=(str(script),))

    return make


def test_a_daemon_is_awaited_and_stopped(stand_in):
    with stand_in() as daemon:
        assert daemon.wait_until_read(100, 60)["events"] == 100
        daemon.stop()
    assert [status["events"] for _, status in daemon.statuses] == [0, 50, 100]


@pytest.mark.parametrize(
    ("how", "words"),
    [({"letters": 1}, "no dead letter"), ({"ends": True}, "ended"), ({"code": 3}, "exited with status 3")],
)
def test_a_daemon_that_fails_is_not_timed(stand_in, how, words):
    with stand_in(**how) as daemon, pytest.raises(Disagreement, match=words):  # noqa: PT012
        daemon.wait_until_read(101 if "ends" in how else 100, 60)
        daemon.stop()


@pytest.fixture(scope="module")
def small_topic(kafka_broker, tmp_path_factory):
    pytest.importorskip("confluent_kafka", reason="peers are not installed: pip install 'streamlstm[bench]'")
    from bench.kafka_setting import Setting, delete_topics
    from bench.kafka_topics import filled

    folder, prefix = tmp_path_factory.mktemp("bench"), f"bench-{os.urandom(4).hex()}"
    (folder / "kafka.json").write_text(json.dumps({"bootstrap": kafka_broker, "prefix": prefix, "records": 100}))
    setting = Setting.read(folder)
    filled(setting, setting.events)
    yield folder
    delete_topics(kafka_broker, prefix)


@pytest.mark.parametrize("case", ["decode", "scored", "latency"])
def test_kafka_peers_agree_on_a_small_topic(case, small_topic, broker_packages):
    if importlib.util.find_spec("quixstreams") is None and case == "scored":
        pytest.skip("a peer is not installed: pip install 'streamlstm[bench]'")
    for peer in CATALOG["kafka"].competing(case)[1:]:
        command = [sys.executable, "-m", "bench.contender", "measure", "kafka", case, peer, str(small_topic)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        values = json.loads(done.stdout.splitlines()[-1])
        assert set(values) == ({"ms at p50", "ms at p99"} if case == "latency" else {"ns/event"})
        assert all(0 < value < 1e9 for value in values.values())


def test_ratios_of_latencies_are_those_of_p99():
    row = {"bench": "kafka", "case": "latency"}
    values = {
        ("ours", "ms at p50"): 5.0,
        ("ours", "ms at p99"): 12.0,
        ("echo", "ms at p50"): 2.0,
        ("echo", "ms at p99"): 8.0,
    }
    rows = [row | {"contender": name, "unit": unit, "value": value} for (name, unit), value in values.items()]
    assert ratios(rows) == {"kafka/latency/ours_vs_echo": 1.5}


def test_too_few_records_for_kafka_are_a_usage_error():
    done = bench("kafka", "--records", "19999")
    assert done.returncode == 2
    assert "--records: must be at least 20000, got 19999" in done.stderr
