"""Reports on runs as one self-contained HTML page."""

from speechbrain_ser_cl.report.page import write_report

__all__ = ["write_report"]
