"""Honest metrics: labels, what was flagged, and how they meet."""

from streamlstm.evaluate.evaluation import Evaluation, promised_rate
from streamlstm.evaluate.labels import Windows, is_column, load_windows
from streamlstm.evaluate.result import Quality, Result
from streamlstm.evaluate.times import parse_start

__all__ = ["Evaluation", "Quality", "Result", "Windows", "is_column", "load_windows", "parse_start", "promised_rate"]
