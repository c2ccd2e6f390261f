"""Similarities of utterances with equal and with different emotions, by layer."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from speechbrain_ser_cl.utils.files import replacing


def pair_similarities(
    embeddings: ArrayLike, labels: Sequence[Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Computes mean cosine similarities of positive and negative pairs, by layer.

    Positive pairs are two utterances with the same label, negative pairs have different
    labels. Figure 4 of two-stage supervised contrastive fine-tuning (IEMOCAP and
    CASIA).

    Arguments
    ---------
    embeddings : array_like of float
        One vector per layer and utterance, (L, N, D).
    labels : sequence
        Label of each utterance (N,).

    Returns
    -------
    positive, negative : numpy.ndarray
        Means over all pairs (L,), in [-1, 1].

    Raises
    ------
    ValueError
        If shapes do not fit together, or there is no positive or no negative pair.

    Example
    -------
    >>> pair_similarities([[[1, 0], [2, 0], [0, 3]]], ["sad", "sad", "happy"])
    (array([1.]), array([0.]))
    """
    embeddings = np.asarray(embeddings, dtype=np.float64)
    _, classes = np.unique(np.asarray(labels), return_inverse=True)
    if embeddings.ndim != 3 or embeddings.shape[1] != len(labels):
        raise ValueError(
            f"embeddings must be (layers, utterances, size) of {len(labels)} labelled "
            f"utterances, found shape {embeddings.shape}"
        )
    counts = np.bincount(classes)
    n_positive = (counts * (counts - 1)).sum()
    n_negative = len(labels) ** 2 - (counts**2).sum()
    if n_positive == 0 or n_negative == 0:
        raise ValueError(
            f"{len(labels)} utterances of {len(counts)} labels make no pairs of one "
            "label, or none of different labels; take more utterances"
        )
    length = np.linalg.norm(embeddings, axis=2, keepdims=True)
    unit = embeddings / np.where(length == 0, 1, length)
    # Sums over pairs are squared lengths of sums of vectors.
    of_label = np.zeros((len(embeddings), len(counts), embeddings.shape[2]))
    rows: Any = (slice(None), classes)
    np.add.at(of_label, rows, unit)
    with_itself = (unit**2).sum((1, 2))
    same = (of_label**2).sum((1, 2))
    every = (of_label.sum(1) ** 2).sum(1)
    return (same - with_itself) / n_positive, (every - same) / n_negative


def write_similarities(
    path: str | Path, similarities: Mapping[str, tuple[ArrayLike, ArrayLike]]
) -> None:
    """Writes similarities as CSV: ``model``, ``layer``, ``positive``, ``negative``.

    Arguments
    ---------
    path : str or pathlib.Path
        Output file, written whole or not at all.
    similarities : mapping
        Model name to the result of ``pair_similarities``.

    Example
    -------
    >>> path = getfixture("tmp_path") / "similarity.csv"
    >>> write_similarities(path, {"pretrained": ([0.9, 0.5], [0.9, 0.25])})
    >>> print(path.read_text())
    model,layer,positive,negative
    pretrained,0,0.900000,0.900000
    pretrained,1,0.500000,0.250000
    <BLANKLINE>
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        replacing(path) as part,
        open(part, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["model", "layer", "positive", "negative"])
        for model, (positive, negative) in similarities.items():
            pairs = zip(np.asarray(positive), np.asarray(negative), strict=True)
            for layer, values in enumerate(pairs):
                writer.writerow([model, layer, *(f"{value:.6f}" for value in values)])
