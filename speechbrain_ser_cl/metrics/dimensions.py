"""Metrics of predicted dimensions: concordance, correlation, error."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speechbrain_ser_cl.metrics.resampling import Floats, entries


def _pair(labels: ArrayLike, predictions: ArrayLike) -> tuple[Floats, Floats]:
    y, x = (np.asarray(v, dtype=np.float64) for v in (labels, predictions))
    if y.ndim == 1 and x.ndim == 1:
        y, x = y[:, None], x[:, None]
    if y.shape != x.shape or y.ndim != 2 or not y.size:
        raise ValueError(
            "labels and predictions must have the same shape (N, K), N at least 1, "
            f"found {np.shape(labels)} and {np.shape(predictions)}"
        )
    if not np.isfinite(x).all() or np.isinf(y).any():
        raise ValueError("predictions must be finite, labels finite or NaN (unknown)")
    return y, x


def dimension_metrics(labels: ArrayLike, predictions: ArrayLike) -> dict[str, Floats]:
    """Computes concordance correlation, Pearson's correlation and RMSE by dimension.

    With means, variances and covariance over the N utterances::

        CCC     = 2 cov(x, y) / (var x + var y + (mean x - mean y)²)
        Pearson = cov(x, y) / sqrt(var x var y)
        RMSE    = sqrt(mean (x - y)²)

    If all predictions or all labels are equal (also for one utterance), both
    correlations are 0. NaN labels are unknown and left out of their dimension.

    Arguments
    ---------
    labels : array_like of float
        (N, K), or (N,) for one dimension, on the corpus' own scale.
    predictions : array_like of float
        Of the same shape.

    Returns
    -------
    dict of str to numpy.ndarray
        ``ccc`` and ``pearson`` in [-1, 1] and ``rmse``, each (K,); NaN for a dimension
        without known labels.

    Raises
    ------
    ValueError
        If shapes or values are wrong.

    References
    ----------
    Lin 1989: "A concordance correlation coefficient to evaluate reproducibility",
    Biometrics 45(1).

    Example
    -------
    >>> found = dimension_metrics([1, 2, 3], [2, 3, 4])
    >>> {name: round(float(value[0]), 4) for name, value in found.items()}
    {'ccc': 0.5714, 'pearson': 1.0, 'rmse': 1.0}
    """
    return _metrics(*_pair(labels, predictions))


def _metrics(y: Floats, x: Floats) -> dict[str, Floats]:
    known = ~np.isnan(y)
    number = known.sum(0)
    y, x = np.where(known, y, 0), np.where(known, x, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_y, mean_x = y.sum(0) / number, x.sum(0) / number
        b, a = np.where(known, y - mean_y, 0), np.where(known, x - mean_x, 0)
        # The mean of equal values may differ from them in the last digit.
        flat = np.zeros(len(number), dtype=bool)
        for v in (x, y):
            highest = np.where(known, v, -np.inf).max(0)
            flat |= highest == np.where(known, v, np.inf).min(0)
        covariance = (a * b).sum(0) / number
        of_x, of_y = (a**2).sum(0) / number, (b**2).sum(0) / number
        ccc = 2 * covariance / (of_x + of_y + (mean_x - mean_y) ** 2)
        pearson = covariance / np.sqrt(of_x * of_y)
        rmse = np.sqrt(((x - y) ** 2).sum(0) / number)
    ccc, pearson = (np.where(flat, 0.0, v) for v in (ccc, pearson))
    unknown = number == 0
    return {
        "ccc": np.where(unknown, np.nan, ccc),
        "pearson": np.where(unknown, np.nan, np.clip(pearson, -1, 1)),
        "rmse": rmse,
    }


def dimension_summary(
    labels: ArrayLike,
    predictions: ArrayLike,
    names: Sequence[str],
    speakers: Sequence[Hashable] | None = None,
    n_resamples: int = 1000,
) -> dict[str, Any]:
    """Summarises predicted dimensions for a run's results.

    Arguments
    ---------
    labels, predictions : array_like of float
        (N, K); NaN labels are unknown.
    names : sequence of str
        Names of the K dimensions.
    speakers : sequence, optional
        Speaker of each utterance.
    n_resamples : int
        Number of bootstrap resamples.

    Returns
    -------
    dict
        Plain values for JSON: ``ccc``, ``pearson`` and ``rmse`` (means over the
        dimensions) and ``ccc_<name>`` etc. per dimension, each with ``value``,
        ``interval`` and ``interval_speakers``; ``dimensions`` (the names),
        ``utterances``, ``speakers`` and ``interval_speakers_missing``.

    Raises
    ------
    ValueError
        If shapes, values or names do not fit together.

    Example
    -------
    >>> labels = np.arange(12.0)[:, None]
    >>> found = dimension_summary(labels, labels + 1, ["arousal"])
    >>> found["ccc"]["value"] == found["ccc_arousal"]["value"]
    True
    """
    y, x = _pair(labels, predictions)
    if len(names) != y.shape[1]:
        raise ValueError(f"{len(names)} names but {y.shape[1]} dimensions")

    def measure(rows: NDArray[np.int64]) -> dict[str, float]:
        found: dict[str, float] = {}
        for metric, values in _metrics(y[rows], x[rows]).items():
            known = values[~np.isnan(values)]
            found[metric] = float(known.mean()) if len(known) else float("nan")
            for name, value in zip(names, values, strict=True):
                found[f"{metric}_{name}"] = float(value)
        return found

    return entries(measure, len(y), speakers, n_resamples) | {"dimensions": [*names]}
