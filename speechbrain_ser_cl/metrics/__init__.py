"""Metrics with intervals, significance tests, and measures of embeddings."""

from speechbrain_ser_cl.metrics.calibration import (
    calibration_summary,
    fit_temperature,
    reliability,
    rescale,
)
from speechbrain_ser_cl.metrics.classification import (
    bootstrap_intervals,
    chance_uar,
    classification_metrics,
    macro_f1_of_all,
    summary,
)
from speechbrain_ser_cl.metrics.dimensions import (
    dimension_metrics,
    dimension_summary,
)
from speechbrain_ser_cl.metrics.kinds import KINDS, Kind, group_summary
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
from speechbrain_ser_cl.metrics.votes import (
    multilabel_summary,
    vote_metrics,
    vote_summary,
)

__all__ = [
    "calibration_summary",
    "dimension_metrics",
    "dimension_summary",
    "fit_temperature",
    "KINDS",
    "Kind",
    "group_summary",
    "macro_f1_of_all",
    "multilabel_summary",
    "reliability",
    "rescale",
    "vote_metrics",
    "vote_summary",
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
