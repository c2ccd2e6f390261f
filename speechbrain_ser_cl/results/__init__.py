"""The files that a run writes, and tables made from them."""

from speechbrain_ser_cl.results.alignment import (
    view_alignment,
    write_alignment,
)
from speechbrain_ser_cl.results.embeddings import (
    Embeddings,
    read_embeddings,
    write_embeddings,
)
from speechbrain_ser_cl.results.few_labels import (
    few_label_points,
    few_label_table,
    read_few_labels,
    write_few_label_points,
    write_few_labels,
)
from speechbrain_ser_cl.results.predictions import (
    Predictions,
    read_predictions,
    write_predictions,
)

__all__ = [
    "Embeddings",
    "Predictions",
    "few_label_points",
    "few_label_table",
    "read_embeddings",
    "read_few_labels",
    "read_predictions",
    "view_alignment",
    "write_alignment",
    "write_embeddings",
    "write_few_labels",
    "write_few_label_points",
    "write_predictions",
]
