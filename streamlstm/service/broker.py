"""A real Apache Kafka of one node, from Python packages alone: for tests, benchmarks and trying things out.

A broker that was killed is back some nine seconds after its start: so long the controller holds its place for the dead one
(`broker.session.timeout.ms`). One that was stopped is back in two.
"""

import base64
import random
import signal
import socket
import struct
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from streamlstm.config import schema
from streamlstm.errors import StreamlstmError, UsageError
from streamlstm.kafka_client import KafkaError, explain, make_admin
from streamlstm.service.java import KAFKA_VERSION, Java

_HOST = "127.0.0.1"
_START_S = 60.0
_STOP_S = 10.0
_TAIL_LINES = 15

_LOG4J = """\
log4j.rootLogger=WARN, err
log4j.appender.err=org.apache.log4j.ConsoleAppender
log4j.appender.err.target=System.err
log4j.appender.err.layout=org.apache.log4j.PatternLayout
log4j.appender.err.layout.ConversionPattern=%d{ISO8601} %p %c{1}: %m%n
"""


class LocalBroker:
    """One Kafka broker and controller on 127.0.0.1, running between `start` and `stop`, or as a context.

    folder    where its data and its log lie; a temporary one if None, removed by `close`. One that holds a broker's
              data already is used again, whatever its port was.
    port      0 takes a free one, which it keeps for its life, so that clients find it again after `restart`
    settings  any properties of Kafka's `server.properties`; they go before ours
    tools     also take Kafka's command line tools, for `run_tool`

    On Linux it never outlives the thread that started it.
    """

    version = KAFKA_VERSION
    """Of Apache Kafka."""

    def __init__(
        self,
        folder: Path | str | None = None,
        *,
        port: int = 0,
        settings: Mapping[str, str] | None = None,
        tools: bool = False,
        heap: str = "512m",
    ) -> None:
        self._java = Java(tools=tools, heap=heap)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="streamlstm-broker-")
            folder = self._temporary.name
        self.folder = Path(folder)
        self.port = port or free_port()
        self._controller_port = free_port()
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """Its address, as clients want it."""
        return f"{_HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Id of the process, None while there is none."""
        return None if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is there, be it frozen."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self) -> Self:
        """Begins, and returns once it answers; UsageError if the port is taken, StreamlstmError with its last words."""
        if self.alive:
            return self
        _require_free(self.port)
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        properties = self.folder / "server.properties"
        properties.write_text("".join(f"{k}={v}\n" for k, v in (self._properties(data) | self._settings).items()))
        (self.folder / "log4j.properties").write_text(_LOG4J)
        with self._log_path.open("ab") as log:
            if not (data / "meta.properties").exists():
                self._format(properties, log)
            self._process = subprocess.Popen(
                self.command("kafka.Kafka", str(properties)), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,  # Ctrl-C is for us, who then stop it
            )  # fmt: skip
        try:
            self._await_answer()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Ends it as an operator would, within ten seconds, else by force. The data stay."""
        if self._process is not None and self.alive:
            self._process.terminate()
            self.thaw()  # a frozen process would not hear it
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    def kill(self) -> None:
        """Ends it at once, as a power cut would. The data stay."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """Halts the process, which keeps its connections and answers nothing until `thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets a frozen process go on."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stops it and starts it again on the same port and data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stops it and removes its temporary folder."""
        self.stop()
        if self._temporary is not None:
            self._temporary.cleanup()

    def create_topics(self, topics: Mapping[str, int]) -> None:
        """Makes topics by name and number of partitions; one that is there already stays as it is."""
        if not topics:
            return
        kafka = schema.Kafka(bootstrap_servers=(self.bootstrap,))
        admin = make_admin(kafka, client_id="streamlstm-broker")
        try:
            known = admin.list_topics()
            fresh = {name: {"num_partitions": count} for name, count in topics.items() if name not in known}
            if fresh:
                admin.create_topics(fresh)
                admin.wait_for_topics(list(fresh))
        except KafkaError as error:
            raise explain(error, kafka) from error
        finally:
            admin.close()

    def require_alive(self) -> None:
        """Raises StreamlstmError with the end of its log if the process has ended by itself."""
        if self._process is not None and not self.alive:
            raise StreamlstmError(
                f"broker: ended with status {self._process.returncode}; its log ends with\n{self.tail()}"
            )

    def tail(self) -> str:
        """The last lines of its log."""
        lines = self._log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])

    def command(self, main: str, *arguments: str) -> list[str]:
        """The command line that runs a class of Kafka's jars, bound to this process's life where the system can."""
        return self._java.command(self.folder / "log4j.properties", main, *arguments)

    def run_tool(self, main: str, *arguments: str, timeout_s: float = 300.0) -> str:
        """What a class such as `org.apache.kafka.tools.ConsumerPerformance` prints; StreamlstmError if it fails or hangs."""
        try:
            done = subprocess.run(
                self.command(main, *arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=timeout_s,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise StreamlstmError(f"broker: {main} did not end within {timeout_s:g} s") from None
        if done.returncode:
            raise StreamlstmError(f"broker: {main} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    @property
    def _log_path(self) -> Path:
        return self.folder / "broker.log"

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise StreamlstmError("broker: is not running; start it first")
        self._process.send_signal(number)

    def _properties(self, data: Path) -> dict[str, str]:
        ours = f"PLAINTEXT://{_HOST}:{self.port}"
        protocols = ("CONTROLLER:PLAINTEXT", *(f"{p}:{p}" for p in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")))
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{_HOST}:{self._controller_port}",
            "listeners": f"{ours},CONTROLLER://{_HOST}:{self._controller_port}",
            "advertised.listeners": ours,
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": ",".join(protocols),
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(data),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
        }

    def _format(self, properties: Path, log: IO[bytes]) -> None:
        name = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # Joined by "=", since one name in 64 begins with a "-" and would be taken for an option.
        command = self.command("kafka.tools.StorageTool", "format", f"--cluster-id={name}", "-c", str(properties))
        try:
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=_START_S
            ).returncode
        except subprocess.TimeoutExpired:
            raise StreamlstmError(f"broker: formatting {self.folder} took more than {_START_S:g} s") from None
        if status:
            raise StreamlstmError(f"broker: {self.folder} cannot be formatted; its log ends with\n{self.tail()}")

    def _await_answer(self) -> None:
        deadline = time.monotonic() + _START_S
        while not _answers(self.port):
            self.require_alive()
            if time.monotonic() > deadline:
                raise StreamlstmError(
                    f"broker: {self.bootstrap} gave no answer within {_START_S:g} s; its log ends with\n{self.tail()}"
                )
            time.sleep(0.05)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on.

    It lies below the ports that systems give to outgoing connections: a client that calls a stopped broker again and
    again would sooner or later be given that very port, connect to itself, and keep the broker from coming back.
    """
    for _ in range(100):
        port = random.randrange(20_000, 30_000)
        if _is_free(port):
            return port
    raise StreamlstmError("broker: found no free port between 20000 and 30000; name one")


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port whose connections just ended is free
        try:
            listener.bind((_HOST, port))
        except OSError:
            return False
    return True


def _require_free(port: int) -> None:
    if not _is_free(port):
        raise UsageError(f"broker: port {port} of {_HOST} is in use; stop what listens there, or choose another port")


def _answers(port: int) -> bool:
    """Whether a Metadata request (version 1, no topics) names a live broker; a fenced one is not in the answer."""
    body = struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", 0)
    try:
        with socket.create_connection((_HOST, port), timeout=1.0) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            head = connection.recv(12, socket.MSG_WAITALL)  # size, correlation id, number of brokers
    except OSError:
        return False
    return len(head) == 12 and bool(struct.unpack(">iii", head)[2] > 0)
