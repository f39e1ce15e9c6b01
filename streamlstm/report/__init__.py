"""The HTML report: what it keeps while a run goes on, and how it is written."""

from streamlstm.report.html import write_report
from streamlstm.report.series import SeriesCollector

__all__ = ["SeriesCollector", "write_report"]
