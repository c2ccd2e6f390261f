"""Metrics against the votes of listeners, and multi-label metrics."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import rel_entr

from speechbrain_ser_cl.metrics.resampling import Floats, entries

_SMALLEST = 1e-12  # lower bound of probabilities in KL


def _shares(name: str, values: ArrayLike) -> Floats:
    """Checks rows and scales them to sum 1."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers (N, C), N at least 1")
    sums = array.sum(1, keepdims=True)
    if (array < 0).any() or (sums <= 0).any():
        raise ValueError(f"{name}: expected numbers of at least 0, a vote in each row")
    shares: Floats = array / sums
    return shares


def vote_metrics(votes: ArrayLike, probabilities: ArrayLike) -> dict[str, Floats]:
    """Compares predicted probabilities with the votes, by utterance.

    v: shares of the votes; p: predicted probabilities::

        kl        = sum_c v log(v / p), p at least 1e-12
        js        = (KL(v, m) + KL(p, m)) / 2 / log 2, m = (v + p) / 2
        cosine    = v . p / (|v| |p|)
        brier     = sum_c (v - p)²
        majority  = 1 if the largest p is where most votes are

    Arguments
    ---------
    votes : array_like
        Counts or shares (N, C).
    probabilities : array_like
        (N, C).

    Returns
    -------
    dict of str to numpy.ndarray
        Each (N,): ``kl`` at least 0, ``js`` and ``cosine`` in [0, 1], ``brier`` in [0,
        2], ``majority`` 0 or 1, NaN if two classes have most votes.

    Raises
    ------
    ValueError
        If shapes or values are wrong.

    References
    ----------
    Brier 1950: "Verification of forecasts expressed in terms of probability".
    Lin 1991: "Divergence measures based on the Shannon entropy".

    Example
    -------
    >>> found = vote_metrics([[3, 1]], [[0.75, 0.25]])
    >>> [round(float(found[name][0]), 4) for name in ("kl", "js", "cosine", "majority")]
    [0.0, 0.0, 1.0, 1.0]
    """
    v, p = _shares("votes", votes), _shares("probabilities", probabilities)
    if v.shape != p.shape:
        raise ValueError(
            f"votes and probabilities must have the same shape (N, C), found {v.shape} "
            f"and {p.shape}"
        )
    m = (v + p) / 2
    js = (rel_entr(v, m) + rel_entr(p, m)).sum(1) / 2 / np.log(2)
    lengths = np.linalg.norm(v, axis=1) * np.linalg.norm(p, axis=1)
    top = v == v.max(1, keepdims=True)
    agrees = np.take_along_axis(top, p.argmax(1)[:, None], 1)[:, 0].astype(float)
    return {
        "kl": np.maximum(rel_entr(v, np.maximum(p, _SMALLEST)).sum(1), 0),
        "js": js,
        "cosine": (v * p).sum(1) / lengths,
        "brier": ((v - p) ** 2).sum(1),
        "majority": np.where(top.sum(1) == 1, agrees, np.nan),
    }


def vote_summary(
    votes: ArrayLike,
    probabilities: ArrayLike,
    speakers: Sequence[Hashable] | None = None,
    n_resamples: int = 1000,
) -> dict[str, Any]:
    """Summarises probabilities against votes for a run's results.

    Arguments
    ---------
    votes, probabilities : array_like
        (N, C), see :func:`vote_metrics`.
    speakers : sequence, optional
        Speaker of each utterance.
    n_resamples : int
        Number of bootstrap resamples.

    Returns
    -------
    dict
        Plain values for JSON: means of ``kl``, ``js``, ``cosine``, ``brier`` and
        ``majority`` (agreement, over utterances with a majority), each with ``value``,
        ``interval`` and ``interval_speakers``, and the counts of
        :func:`~.resampling.entries`.

    Raises
    ------
    ValueError
        If shapes or values are wrong.

    Example
    -------
    >>> vote_summary([[3, 1], [1, 1]], [[0.9, 0.1], [0.2, 0.8]])["majority"]["value"]
    1.0
    """
    values = vote_metrics(votes, probabilities)

    def measure(rows: NDArray[np.int64]) -> dict[str, float]:
        found = {}
        for name, value in values.items():
            known = value[rows][~np.isnan(value[rows])]
            found[name] = float(known.mean()) if len(known) else float("nan")
        return found

    return entries(measure, len(values["kl"]), speakers, n_resamples)


def multilabel_summary(
    labels: ArrayLike,
    predictions: ArrayLike,
    speakers: Sequence[Hashable] | None = None,
    n_resamples: int = 1000,
) -> dict[str, Any]:
    """Computes multi-label F1 scores with intervals.

    ``macro_f1`` is the mean over the emotions that occur in the labels, ``micro_f1``
    that of all decisions together, ``sample_f1`` the mean over utterances (1 if neither
    labels nor predictions have an emotion).

    Arguments
    ---------
    labels, predictions : array_like of bool
        (N, C): emotions of each utterance.
    speakers : sequence, optional
        Speaker of each utterance.
    n_resamples : int
        Number of bootstrap resamples.

    Returns
    -------
    dict
        Plain values for JSON, as in :func:`vote_summary`.

    Raises
    ------
    ValueError
        If shapes or values are wrong.

    Example
    -------
    >>> found = multilabel_summary([[1, 1, 0], [0, 1, 0]], [[1, 0, 0], [0, 1, 0]])
    >>> round(found["micro_f1"]["value"], 4), round(found["macro_f1"]["value"], 4)
    (0.8, 0.8333)
    """
    y, x = np.asarray(labels), np.asarray(predictions)
    if y.shape != x.shape or y.ndim != 2 or not y.size:
        raise ValueError(
            "labels and predictions must have the same shape (N, C), N at least 1, "
            f"found {y.shape} and {x.shape}"
        )
    if not (np.isin(y, (0, 1)).all() and np.isin(x, (0, 1)).all()):
        raise ValueError("labels and predictions must be 0 or 1")
    y, x = y.astype(bool), x.astype(bool)

    def measure(rows: NDArray[np.int64]) -> dict[str, float]:
        true, said = y[rows], x[rows]
        both = true & said
        sizes = true.sum(0) + said.sum(0)
        present = true.any(0)
        f1 = 2 * both.sum(0) / np.maximum(sizes, 1)
        per_row = true.sum(1) + said.sum(1)
        of_row = np.where(per_row, 2 * both.sum(1) / np.maximum(per_row, 1), 1.0)
        return {
            "macro_f1": float(f1[present].mean()) if present.any() else float("nan"),
            "micro_f1": float(2 * both.sum() / max(1, sizes.sum())),
            "sample_f1": float(of_row.mean()),
        }

    return entries(measure, len(y), speakers, n_resamples)
