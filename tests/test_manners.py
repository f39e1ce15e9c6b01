"""The daemon's manners: logs, status, systemd, signals, reloads, and the parent of several workers."""

import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamlstm.cli.app import run as run_cli
from streamlstm.errors import ConfigError, UsageError
from streamlstm.service.logs import logs
from streamlstm.service.notify import Notifier
from streamlstm.service.running import open_setup
from streamlstm.service.signals import Signals
from streamlstm.service.status import Meter, Status, StatusLog

pytestmark = pytest.mark.timeout(120)

# kafka-python itself reads its files in a way that Python 3.11 deprecates.
_READER = ("kafka.protocol.schemas.load_json", "importlib.resources._legacy")
QUIET = ["-W", "error", *(f"-Wignore::DeprecationWarning:{module}" for module in _READER)]
LINE = "events 1,234,567 (20,576/s) lag 12 flags 3 dead letters 0 streams 10,000 snapshot 4 s ago"
STATUS = Status(1_234_567, 20_576.4, 12, 3, 0, 10_000, 4, 9, 4.2, 0.7, 1.5)


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# ---- logs


def test_text_lines_name_time_level_logger_and_worker() -> None:
    stream = io.StringIO()
    with logs("text", 1, stream=stream):
        logging.getLogger("streamlstm.service.daemon").info("read from %s", "https://me:sesame@host/hook")
        logging.getLogger("kafka.conn").info("too small to tell")
        logging.getLogger("kafka.conn").warning("lost")
    first, second = stream.getvalue().splitlines()
    assert first[:10].count("-") == 2
    assert first[10:].partition("Z ")[2] == "INFO daemon[1]: read from https://***@host/hook"
    assert second.endswith("Z WARNING conn[1]: lost")
    with logs("text", stream=stream):
        logging.getLogger("streamlstm.service.daemon").info("alone")
    assert stream.getvalue().endswith(" INFO daemon: alone\n")


def test_json_lines_hold_extra_fields_and_tracebacks() -> None:
    stream = io.StringIO()
    with logs("json", 2, stream=stream):
        log = logging.getLogger("streamlstm.service.daemon")
        log.info("é %d", 1, extra={"fields": {"lag": 12}})
        try:
            raise ValueError("two\nlines")
        except ValueError:
            log.exception("failed")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert list(first) == ["time", "level", "logger", "message", "worker", "lag"]
    assert (first["level"], first["message"], first["worker"], first["lag"]) == ("INFO", "é 1", 2, 12)
    assert first["logger"] == "streamlstm.service.daemon"
    assert first["time"].endswith("Z")
    assert second["exception"].endswith("ValueError: two\nlines")


def test_logs_within_logs_write_once_and_all_is_restored() -> None:
    root = logging.getLogger()
    before = list(root.handlers), root.level, logging.getLogger("streamlstm").level
    outer, inner = io.StringIO(), io.StringIO()
    log = logging.getLogger("streamlstm.test")
    with logs("text", stream=outer):
        with logs("json", stream=inner):
            log.info("inside")
        log.info("outside")
    assert (list(root.handlers), root.level, logging.getLogger("streamlstm").level) == before
    assert [text.getvalue().count("side") for text in (outer, inner)] == [1, 1]


def test_what_repeats_is_counted_after_ten_a_minute() -> None:
    stream, clock = io.StringIO(), Clock()
    log = logging.getLogger("streamlstm.test")
    with logs("text", stream=stream, clock=clock) as limit:

        def lines() -> list[str]:
            found = [line.partition(": ")[2] for line in stream.getvalue().splitlines()]
            stream.truncate(0)
            stream.seek(0)
            return found

        for n in range(25):
            log.warning("try %d", n)
        log.warning("another template")
        log.info("status", extra={"limited": False})
        assert lines() == [*(f"try {n}" for n in range(10)), "another template", "status"]
        clock.now += 61
        log.warning("try %d", 25)
        assert lines() == ["and 15 more like this: try 24", "try 25"]
        for n in range(26, 40):
            log.warning("try %d", n)
        lines()
        limit.tell()
        assert lines() == []
        clock.now += 61
        limit.tell()
        assert lines() == ["and 5 more like this: try 39"]
        for n in range(12):
            log.warning("last %d", n)
    assert lines()[-1] == "and 2 more like this: last 11"


# ---- status


def test_status_line() -> None:
    assert STATUS.line() == LINE
    empty = Status(0, 0.0, None, 0, 0, 0, 0, 0, None, 0.0, 0.0)
    assert empty.line() == "events 0 (0/s) lag unknown flags 0 dead letters 0 streams 0 snapshot none yet"


def test_a_status_is_logged_once_an_interval_with_its_fields() -> None:
    stream, clock = io.StringIO(), Clock()
    with logs("json", stream=stream, clock=clock):
        log = StatusLog(2.0, clock)
        told = []
        for _ in range(60):
            clock.now += 0.5
            told.append(log.tick(lambda: STATUS))
    assert [n for n, status in enumerate(told) if status is not None] == list(range(3, 60, 4))
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(records) == 15  # no limit for it
    assert records[0]["message"] == LINE
    assert (records[0]["events"], records[0]["lag"], records[0]["loop_stall_ms_max"]) == (1_234_567, 12, 1.5)


def test_meter_counts_between_one_status_and_the_next() -> None:
    clock = Clock()
    meter = Meter(clock)
    facts: dict[str, Any] = {
        "lag": 1, "flags": 2, "dead_letters": 3, "streams": 4, "partitions": 5, "snapshots": 6, "restore_s": 0.7,
    }  # fmt: skip
    meter.events += 100
    meter.stalled(0.25)
    meter.stalled(0.125)
    clock.now += 4
    assert meter.status(**facts, written_at=[990.0, None, 995.0]) == Status(
        100, 25.0, 1, 2, 3, 4, 5, 6, 14.0, 0.7, 250.0
    )
    meter.events += 6
    clock.now += 2
    assert meter.status(**facts, written_at=[None]) == Status(106, 3.0, 1, 2, 3, 4, 5, 6, None, 0.7, 0.0)


# ---- systemd


@pytest.fixture(params=["file", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket as systemd has it, and its address as `NOTIFY_SOCKET` says it."""
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's")
    address = str(tmp_path / "notify") if request.param == "file" else f"@streamlstm-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind(address.replace("@", "\0", 1))
        there.settimeout(5)
        yield there, address


def test_systemd_is_told(systemd: tuple[socket.socket, str]) -> None:
    there, address = systemd
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.starting()
    notifier.ready()
    notifier.status(LINE)
    notifier.alive()  # no watchdog is asked for
    notifier.reloading()
    notifier.stopping()
    notifier.close()
    heard = [there.recv(4096).decode() for _ in range(5)]
    assert heard[0].startswith("EXTEND_TIMEOUT_USEC=300000000\n")
    assert heard[1:3] == ["READY=1", f"STATUS={LINE}"]
    assert heard[3].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert heard[4] == "STOPPING=1"


def test_watchdog_is_fed_at_half_its_time(systemd: tuple[socket.socket, str]) -> None:
    there, address = systemd
    clock = Clock()
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2000000"}
    notifier = Notifier({**environ, "WATCHDOG_PID": str(os.getpid())}, clock)
    for _ in range(21):  # two seconds
        notifier.alive()
        clock.now += 0.1
    foreign = Notifier({**environ, "WATCHDOG_PID": "1"}, clock)
    foreign.alive()
    assert [there.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    there.setblocking(False)
    with pytest.raises(BlockingIOError):
        there.recv(4096)
    notifier.close()
    foreign.close()


def test_without_systemd_nothing_happens(tmp_path: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}):
        notifier = Notifier(environ)
        notifier.ready()
        notifier.alive()
        notifier.close()


# ---- signals, in processes of their own


PATIENCE_S = 120
"""A parent and its two workers import what a daemon does: 5 s alone, 40 s on two cores with six busy processes."""


class Child:
    """A Python process whose output is read while it runs."""

    def __init__(self, code: str, *arguments: str, cwd: Path) -> None:
        self._files = cwd / "stdout", cwd / "stderr"
        with self._files[0].open("w") as out, self._files[1].open("w") as err:
            command = [sys.executable, *QUIET, "-c", code, *arguments]
            self.process = subprocess.Popen(command, stdout=out, stderr=err, cwd=cwd)
        self.seen: list[str] = []

    def until(self, text: str) -> str:
        """The next line that holds `text`, as soon as it is there."""
        found: list[str] = []

        def there() -> bool:
            lines = self._files[0].read_text().splitlines(keepends=True)
            for line in lines[len(self.seen) :]:
                if line.endswith("\n") and not found:
                    self.seen.append(line)
                    found.extend([line] if text in line else [])
            return bool(found)

        self._await(there, text)
        return found[0]

    def logged(self, text: str) -> None:
        """Waits until standard error holds `text`."""
        self._await(lambda: text in self._files[1].read_text(), text)

    def _await(self, condition: Callable[[], bool], text: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            told = [file.read_text() for file in self._files]
            assert time.monotonic() < deadline, f"never said {text!r}: {told}"
            assert self.process.poll() is None or condition(), f"ended without {text!r}: {told}"
            time.sleep(0.01)

    def kill(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Exit status and standard error."""
        status = self.process.wait(PATIENCE_S)
        self.seen = self._files[0].read_text().splitlines(keepends=True)
        return status, self._files[1].read_text()


Start = Callable[..., Child]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts children in an empty folder, and ends them however the test ends."""
    children: list[Child] = []

    def start_one(code: str, *arguments: str) -> Child:
        children.append(Child(code, *arguments, cwd=tmp_path))
        return children[-1]

    yield start_one
    for child in children:
        child.process.kill()
        child.process.wait(PATIENCE_S)


LOOP = """
import sys, time
from streamlstm.service.signals import Signals

with Signals() as signals:
    signals.busy = sys.argv[1] != "idle"
    print("ready", flush=True)
    while signals.stop is None:
        signals.wait(20)
        if signals.reload():
            print("reload", flush=True)
    print("stopping", signals.stop.name, flush=True)
    if sys.argv[1] == "slow":
        time.sleep(50)
print("closed", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_asks_second_ends(start: Start, number: signal.Signals) -> None:
    child = start(LOOP, "quick")
    child.until("ready")
    child.kill(signal.SIGHUP)
    child.until("reload")
    child.kill(number)
    assert child.until("stopping") == f"stopping {number.name}\n"
    assert child.end() == (0, "")
    assert child.seen[-1] == "closed\n"

    child = start(LOOP, "slow")
    child.until("ready")
    child.kill(signal.SIGTERM)
    child.until("stopping")
    child.kill(number)
    assert child.end() == (128 + number, "")


def test_a_signal_before_there_is_anything_to_save_ends_at_once(start: Start) -> None:
    child = start(LOOP, "idle")
    child.until("ready")
    child.kill(signal.SIGTERM)
    assert child.end() == (0, "")
    assert child.seen == ["ready\n"]


def test_signals_restores_handlers_and_wants_the_main_thread() -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
    before = [signal.getsignal(number) for number in numbers]
    with Signals():
        assert all(signal.getsignal(number) != old for number, old in zip(numbers, before, strict=True))
    assert [signal.getsignal(number) for number in numbers] == before
    caught: list[str] = []

    def elsewhere() -> None:
        try:
            with Signals():
                pass
        except UsageError as error:
            caught.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert caught == ["signals: can be taken by the main thread alone; run the daemon there"]


# ---- the run of one worker

RUN = """
import sys, time
from streamlstm.errors import StateError
from streamlstm.service import running
from streamlstm.service.status import Status

running.warm_up_daemon = lambda config, model: None

class Fake:
    def __init__(self, setup, on_round, worker):
        self.config, self.on_round = setup.config, on_round
        print("made", setup.config.kafka.group_id, worker, flush=True)

    def run(self, stop):
        rounds = 0
        while not stop():
            self.on_round()
            rounds += 1
            if rounds == 3:
                print("third round", flush=True)
                if self.config.kafka.group_id == "bad":
                    raise StateError("cannot be restored")
            time.sleep(0.02)
        if self.config.kafka.group_id == "stuck":
            time.sleep(50)
        print("saved", flush=True)

    def status(self):
        return Status(1, 2.0, 3, 4, 5, 6, 7, 8, 9.0, 0.5, 9.0)

sys.exit(running.run_daemon("c.yaml", {}, make=Fake))
"""


def configure(folder: Path, group: str, **service: Any) -> None:
    content = {
        "kafka": {"topics": ["t"], "group_id": group},
        "input": {"features": ["value"]},
        "service": {"stop_budget_s": 20, **service},
    }
    part = folder / "c.yaml.part"
    part.write_text(yaml.safe_dump(content))
    part.replace(folder / "c.yaml")


def test_reload_swaps_keeps_or_goes_back(start: Start, tmp_path: Path) -> None:
    configure(tmp_path, "one", log_format="json")
    child = start(RUN)
    child.until("made one 0")
    child.until("third round")
    configure(tmp_path, "two", log_format="json")
    child.kill(signal.SIGHUP)
    child.until("saved")
    child.until("made two")
    child.until("third round")
    child.kill(signal.SIGHUP)
    child.logged("SIGHUP: nothing has changed")
    configure(tmp_path, "bad", log_format="json")
    child.kill(signal.SIGHUP)
    child.until("made bad")
    child.until("made two")
    child.until("third round")
    configure(tmp_path, "two", stop_budget_s=-1)
    child.kill(signal.SIGHUP)
    child.logged("SIGHUP: the new configuration is not valid")
    child.kill(signal.SIGTERM)
    child.until("saved")
    status, err = child.end()
    assert status == 0, err
    told = [json.loads(line)["message"] for line in err.splitlines()]
    assert told.count("SIGHUP: changing to the new configuration") == 2
    assert "the new configuration failed, going back to the one before: cannot be restored" in told
    (refused,) = [text for text in told if text.startswith("SIGHUP: the new configuration is not valid")]
    assert "service.stop_budget_s: must be above 0" in refused
    assert told[-1] == "stopped"


def test_a_worker_that_fails_from_the_start_ends_the_run(start: Start, tmp_path: Path) -> None:
    configure(tmp_path, "bad")
    status, err = start(RUN).end()
    assert status == 1
    assert "StateError: cannot be restored" in err.splitlines()[-1]


def test_a_stop_beyond_its_budget_ends_with_an_error(start: Start, tmp_path: Path) -> None:
    configure(tmp_path, "stuck", stop_budget_s=0.3)
    child = start(RUN)
    child.until("third round")
    child.kill(signal.SIGTERM)
    status, err = child.end()
    assert status == 1
    assert "the stop took longer than service.stop_budget_s: 0.3 s" in err.splitlines()[-1]


def test_systemd_hears_of_start_reload_and_end(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(tmp_path, "one", status_interval_s=0.1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind(str(tmp_path / "notify"))
        there.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        child = start(RUN)
        heard = []

        def until(start: str) -> None:
            while not heard or not heard[-1].startswith(start):
                heard.append(there.recv(4096).decode())

        for text in ("EXTEND", "READY=1", "WATCHDOG=1", "WATCHDOG=1", "STATUS=events 1 (2/s)"):
            until(text)
        child.kill(signal.SIGHUP)
        until("RELOADING=1")
        until("READY=1")
        configure(tmp_path, "two", status_interval_s=0.1)
        child.kill(signal.SIGHUP)
        until("RELOADING=1")
        child.until("made two")
        until("READY=1")
        child.kill(signal.SIGTERM)
        until("STOPPING=1")
        assert child.end()[0] == 0


def test_what_a_run_must_know_is_asked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^kafka: kafka\.topics: is empty; name at least one topic"):
        open_setup("kafka", {})
    with pytest.raises(ConfigError, match=r"^kafka: input\.features: is empty and there is no model\.file"):
        open_setup("kafka", {"kafka.topics": ["t"]})
    chosen = {"kafka.topics": ["t"], "input.features": ["value"], "outputs.flags": "out/flags.csv.gz"}
    alone = open_setup("kafka", chosen)
    assert alone.config.outputs.flags == "out/flags.csv.gz"
    second = open_setup("kafka", chosen, worker=1)
    assert second.config.outputs.flags == "out/flags-1.csv.gz"
    assert second.config.outputs.dead_letters == "kafka:streamlstm-dead-letters"
    assert not second.same_as(alone)
    assert alone.same_as(open_setup("kafka", chosen))


def test_print_config_hides_secrets(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLSTM__KAFKA__CLIENT", "{sasl_plain_password: open sesame}")
    assert run_cli(["run", "--config", "kafka", "--set", "kafka.topics=[t]", "--print-config"]) == 0
    shown = yaml.safe_load(capfd.readouterr().out)
    assert shown["kafka"]["client"] == {"sasl_plain_password": "***"}
    assert shown["kafka"]["topics"] == ["t"]
    assert run_cli(["run", "--config", "kafka"]) == 2
    assert "kafka.topics: is empty" in capfd.readouterr().err


# ---- several workers

PARENT = """
import logging, sys
from streamlstm.service.logs import logs
from streamlstm.service.signals import Signals
from streamlstm.service.supervisor import Supervisor

def command(number):
    return [sys.executable, "-c", open("worker.py").read(), str(number)]

with Signals() as signals, logs("text"):
    sys.exit(Supervisor(command, 2, float(sys.argv[1])).run(signals))
"""

WORKER = """
import os, sys, time
from pathlib import Path
from streamlstm.service.notify import Notifier
from streamlstm.service.signals import Signals
from streamlstm.service.supervisor import end_with_parent

number = sys.argv[1]
notifier = Notifier()

def say(line):  # in one write, since two workers share the pipe
    os.write(1, (line + "\\n").encode())

with Signals() as signals:
    end_with_parent()
    signals.busy = True
    runs = Path(f"runs-{number}")
    runs.write_text((runs.read_text() if runs.exists() else "") + "x")
    say(f"worker {number} run {len(runs.read_text())} pid {os.getpid()}")
    while signals.stop is None:
        notifier.alive()
        if Path("hanging").exists() and number == "1" and len(runs.read_text()) == 1:
            time.sleep(50)
        signals.wait(0.1 if os.environ.get("WATCHDOG_USEC") else 20)
        if signals.reload():
            say(f"reload {number}")
    if Path("stubborn").exists() and number == "1":
        time.sleep(50)
    say(f"stopped {number} {signals.stop.name}")
"""


@pytest.fixture
def parent(start: Start, tmp_path: Path) -> Callable[[float], tuple[Child, list[int]]]:
    """Starts a parent of two workers; returns it and the workers' process ids."""

    def start_parent(budget_s: float) -> tuple[Child, list[int]]:
        (tmp_path / "worker.py").write_text(WORKER)
        child = start(PARENT, str(budget_s))
        pids = sorted(
            (line.split()[1], int(line.split()[5])) for line in (child.until("worker"), child.until("worker"))
        )
        return child, [pid for _, pid in pids]

    return start_parent


def gone(pid: int) -> bool:
    """Whether a process of ours, or one that was, has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_parent_passes_signals_on(parent: Callable[[float], tuple[Child, list[int]]]) -> None:
    child, _ = parent(20)
    child.kill(signal.SIGHUP)
    assert {child.until("reload"), child.until("reload")} == {"reload 0\n", "reload 1\n"}
    child.kill(signal.SIGINT)
    status, err = child.end()
    assert status == 0, err
    assert {"stopped 0 SIGINT\n", "stopped 1 SIGINT\n"} <= set(child.seen)


def test_parent_starts_a_dead_worker_again(parent: Callable[[float], tuple[Child, list[int]]]) -> None:
    child, pids = parent(20)
    os.kill(pids[1], signal.SIGKILL)
    began = time.monotonic()
    line = child.until("worker 1 run 2")
    assert time.monotonic() - began > 0.9
    os.kill(int(line.split()[5]), signal.SIGKILL)
    began = time.monotonic()
    child.until("worker 1 run 3")
    assert time.monotonic() - began > 1.9
    child.kill(signal.SIGTERM)
    status, err = child.end()
    assert status == 0, err
    assert "worker 1 ended with signal SIGKILL, starts again in 1 s" in err
    assert "worker 1 ended with signal SIGKILL, starts again in 2 s" in err


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")
def test_parent_kills_who_stands_still(
    parent: Callable[[float], tuple[Child, list[int]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    (tmp_path / "hanging").touch()
    child, pids = parent(20)
    child.until("worker 1 run 2")
    assert gone(pids[1])
    assert not gone(pids[0])
    child.kill(signal.SIGTERM)
    status, err = child.end()
    assert status == 0, err
    assert err.count("has stood still for 2 s, killed") == 1
    assert "worker 1 has stood still for 2 s, killed" in err


def test_parent_kills_who_does_not_stop(parent: Callable[[float], tuple[Child, list[int]]], tmp_path: Path) -> None:
    (tmp_path / "stubborn").touch()
    child, pids = parent(0.2)
    child.kill(signal.SIGTERM)
    status, err = child.end()
    assert status == 1
    assert "worker 1 did not stop in 2.2 s, killed" in err
    assert all(gone(pid) for pid in pids)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_workers_stop_when_their_parent_is_killed(parent: Callable[[float], tuple[Child, list[int]]]) -> None:
    child, pids = parent(20)
    child.kill(signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_S
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert {child.until("stopped"), child.until("stopped")} == {"stopped 0 SIGTERM\n", "stopped 1 SIGTERM\n"}
