"""Measures with intervals, significance tests, probes of embeddings."""

from speechbrain_ser_cl.metrics.classification import (
    bootstrap_intervals,
    chance_uar,
    classification_metrics,
    summary,
)
from speechbrain_ser_cl.metrics.probes import (
    clustering_scores,
    linear_svm,
    recall_at_1,
)
from speechbrain_ser_cl.metrics.pwcca import (
    canonical_correlations,
    pwcca,
)
from speechbrain_ser_cl.metrics.similarity import (
    pair_similarities,
    write_similarities,
)

__all__ = [
    "bootstrap_intervals",
    "canonical_correlations",
    "chance_uar",
    "classification_metrics",
    "clustering_scores",
    "linear_svm",
    "pair_similarities",
    "pwcca",
    "recall_at_1",
    "summary",
    "write_similarities",
]
