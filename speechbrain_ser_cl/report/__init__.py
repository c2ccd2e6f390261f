"""A run, or several, as one page that needs nothing but itself."""

from speechbrain_ser_cl.report.page import write_report

__all__ = ["write_report"]
