"""The package's version, as installed."""

import platform
from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("streamlstm")
except PackageNotFoundError:  # a checkout that was never installed
    VERSION = "0+unknown"


def versions() -> dict[str, str]:
    """Versions of what a result depends on, by name."""
    names = ("numpy", "numba", "pyarrow")
    return {"streamlstm": VERSION, "python": platform.python_version()} | {name: version(name) for name in names}
