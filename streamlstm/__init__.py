"""Streaming anomaly detection for sensors: a linear skip and a stateful LSTM, event by event, without labels."""

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.errors import StreamlstmError
from streamlstm.types import Episode, Scored, ScoredBatch, Stage
from streamlstm.version import VERSION as __version__

__all__ = ["Config", "Detector", "Episode", "Scored", "ScoredBatch", "Stage", "StreamlstmError", "__version__"]
