"""Streaming anomaly detection for sensors: a linear skip and a stateful LSTM, event by event, without labels."""

from importlib import import_module as _import_module

from streamlstm.config import Config
from streamlstm.errors import ConfigError as _ConfigError
from streamlstm.errors import StreamlstmError
from streamlstm.types import Episode, Forecast, Scored, ScoredBatch, Stage
from streamlstm.version import VERSION as __version__

try:
    from streamlstm.detect.detector import Detector
    from streamlstm.model.recurrent import RecurrentLayer
except _ConfigError:
    # What STREAMLSTM_CPU asks for cannot be; the command line, which imports this first, says it readably.

    def __getattr__(name: str) -> object:
        if name in __all__:  # raises it again
            _import_module("streamlstm.detect.detector")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Config",
    "Detector",
    "Episode",
    "Forecast",
    "RecurrentLayer",
    "Scored",
    "ScoredBatch",
    "Stage",
    "StreamlstmError",
    "__version__",
]
