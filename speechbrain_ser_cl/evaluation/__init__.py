"""Metrics with intervals, probes of embeddings, predictions, figures, tables."""

from speechbrain_ser_cl.evaluation.alignment import view_alignment, write_alignment
from speechbrain_ser_cl.evaluation.embeddings import (
    Embeddings,
    read_embeddings,
    write_embeddings,
)
from speechbrain_ser_cl.evaluation.few_labels import (
    few_label_points,
    few_label_table,
    read_few_labels,
    write_few_labels,
    write_points,
)
from speechbrain_ser_cl.evaluation.figures import (
    plot_confusion_matrix,
    plot_few_labels,
    plot_layer_weights,
    plot_learning_curves,
    plot_similarities,
    plot_tsne,
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
from speechbrain_ser_cl.evaluation.probes import (
    clustering_scores,
    linear_svm,
    recall_at_1,
)
from speechbrain_ser_cl.evaluation.pwcca import canonical_correlations, pwcca
from speechbrain_ser_cl.evaluation.similarity import (
    pair_similarities,
    write_similarities,
)

__all__ = [
    "Embeddings",
    "Predictions",
    "bootstrap_intervals",
    "canonical_correlations",
    "chance_uar",
    "classification_metrics",
    "clustering_scores",
    "few_label_points",
    "few_label_table",
    "linear_svm",
    "pair_similarities",
    "plot_confusion_matrix",
    "plot_few_labels",
    "plot_layer_weights",
    "plot_learning_curves",
    "plot_similarities",
    "plot_tsne",
    "pwcca",
    "read_embeddings",
    "read_few_labels",
    "read_predictions",
    "recall_at_1",
    "summary",
    "view_alignment",
    "write_alignment",
    "write_embeddings",
    "write_few_labels",
    "write_points",
    "write_predictions",
    "write_similarities",
]
