"""The package's version, as installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("streamlstm")
except PackageNotFoundError:  # a checkout that was never installed
    VERSION = "0+unknown"
