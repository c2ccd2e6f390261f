"""Metrics with intervals, predictions, figures and tables of results."""

from speechbrain_ser_cl.evaluation.metrics import (
    bootstrap_intervals,
    chance_uar,
    classification_metrics,
    summary,
)

__all__ = [
    "bootstrap_intervals",
    "chance_uar",
    "classification_metrics",
    "summary",
]
