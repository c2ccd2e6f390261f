"""Metrics with intervals, predictions, figures and tables of results."""

from speechbrain_ser_cl.evaluation.figures import (
    plot_confusion_matrix,
    plot_learning_curves,
)
from speechbrain_ser_cl.evaluation.metrics import (
    bootstrap_intervals,
    chance_uar,
    classification_metrics,
    summary,
)
from speechbrain_ser_cl.evaluation.predictions import (
    Predictions,
    read_predictions,
    write_predictions,
)

__all__ = [
    "Predictions",
    "bootstrap_intervals",
    "chance_uar",
    "classification_metrics",
    "plot_confusion_matrix",
    "plot_learning_curves",
    "read_predictions",
    "summary",
    "write_predictions",
]
