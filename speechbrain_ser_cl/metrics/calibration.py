"""Calibration: a temperature from validation data, and how far confidence is off."""

from typing import Any

import numpy as np
import scipy  # imports its parts when they are used
from numpy.typing import ArrayLike
from scipy.special import log_softmax, softmax

from speechbrain_ser_cl.metrics.classification import _checked
from speechbrain_ser_cl.metrics.resampling import Floats


def _logits(logits: ArrayLike) -> Floats:
    array = np.asarray(logits, dtype=np.float64)
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise ValueError(
            f"logits: expected finite numbers (N, C), N at least 1, found {array.shape}"
        )
    return array


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Fit the temperature that makes validation labels the most likely.

    Minimises the mean cross-entropy of softmax(logits / T), which is convex in 1 / T,
    over T from 0.01 to 100. Predicted classes stay what they are.

    Arguments
    ---------
    logits : array_like
        Of validation utterances (N, C), finite.
    labels : array_like of int
        Their classes (N,).

    Returns
    -------
    float
        T; above 1 for a model that is too sure of itself. Small if all labels are
        predicted right.

    Raises
    ------
    ValueError
        If shapes or values are wrong.

    References
    ----------
    Guo et al. 2017, section 4.2: "On calibration of modern neural networks",
    arXiv:1706.04599.

    Example
    -------
    >>> logits = np.log([[0.9, 0.1]] * 4)
    >>> t = fit_temperature(logits, [0, 0, 0, 1])  # right in 3 of 4: log 3 = log 9 / T
    >>> round(t, 3)
    2.0
    """
    x = _logits(logits)
    y, _ = _checked(labels, labels, x.shape[1])
    if len(y) != len(x):
        raise ValueError(f"{len(y)} labels but {len(x)} logits")

    def loss(log_inverse: float) -> float:
        log_p = log_softmax(x * np.exp(log_inverse), axis=1)
        return float(-log_p[np.arange(len(y)), y].mean())

    bound = np.log(100)
    fitted = scipy.optimize.minimize_scalar(
        loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-8}
    )
    return float(np.exp(-fitted.x))


def reliability(
    probabilities: ArrayLike, labels: ArrayLike, n_bins: int = 15
) -> dict[str, Any]:
    """Compare confidence with accuracy, in bins of equal width.

    With the utterances of bin b, ECE = sum_b n_b / N abs(accuracy_b - confidence_b),
    and Brier = mean sum_c (p_c - y_c)².

    Arguments
    ---------
    probabilities : array_like
        (N, C), each row with sum 1.
    labels : array_like of int
        (N,).
    n_bins : int
        At least 1.

    Returns
    -------
    dict
        Ready for JSON: ``ece`` in [0, 1], ``brier`` in [0, 2], and ``bins``: a list of
        ``low``, ``high``, ``count``, ``confidence`` and ``accuracy`` (None if the bin
        is empty).

    Raises
    ------
    ValueError
        If shapes or values are wrong.

    References
    ----------
    Guo et al. 2017, section 2, eq. 3: "On calibration of modern neural networks",
    arXiv:1706.04599.

    Example
    -------
    >>> found = reliability([[0.8, 0.2]] * 4, [0, 0, 0, 1])
    >>> round(found["ece"], 4), round(found["brier"], 4)  # 0.8 said, 0.75 right
    (0.05, 0.38)
    """
    p = _logits(probabilities)
    if (p < 0).any() or not np.allclose(p.sum(1), 1, atol=1e-4):
        raise ValueError("probabilities: expected rows of at least 0 with sum 1")
    y, said = _checked(labels, p.argmax(1), p.shape[1])
    if n_bins < 1:
        raise ValueError(f"n_bins is {n_bins}, expected at least 1")
    confidence = p.max(1)
    right = said == y
    # A confidence at an edge belongs to the bin below it.
    index = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    counts = np.bincount(index, minlength=n_bins)
    sure = np.bincount(index, confidence, n_bins)
    hits = np.bincount(index, right, n_bins)
    bins = [
        {
            "low": b / n_bins,
            "high": (b + 1) / n_bins,
            "count": int(n),
            "confidence": float(sure[b] / n) if n else None,
            "accuracy": float(hits[b] / n) if n else None,
        }
        for b, n in enumerate(counts)
    ]
    return {
        "ece": float(np.abs(hits - sure).sum() / len(y)),
        "brier": float(((p - np.eye(p.shape[1])[y]) ** 2).sum(1).mean()),
        "bins": bins,
    }


def calibration_summary(
    logits: ArrayLike,
    labels: ArrayLike,
    valid_logits: ArrayLike,
    valid_labels: ArrayLike,
    n_bins: int = 15,
) -> dict[str, Any]:
    """Fit a temperature on validation data; measure test calibration before and after.

    Arguments
    ---------
    logits, labels : array_like
        Of the test utterances (N, C) and (N,).
    valid_logits, valid_labels : array_like
        Of the validation utterances.
    n_bins : int
        At least 1.

    Returns
    -------
    dict
        Ready for JSON: ``temperature``, ``before`` and ``after``, see
        :func:`reliability`.

    Raises
    ------
    ValueError
        If shapes or values are wrong.

    Example
    -------
    >>> logits, labels = np.log([[0.9, 0.1]] * 4), [0, 0, 0, 1]
    >>> found = calibration_summary(logits, labels, logits, labels)
    >>> round(found["before"]["ece"], 3), round(found["after"]["ece"], 3)
    (0.15, 0.0)
    """
    temperature = fit_temperature(valid_logits, valid_labels)
    x = _logits(logits)
    return {
        "temperature": temperature,
        "before": reliability(softmax(x, axis=1), labels, n_bins),
        "after": reliability(softmax(x / temperature, axis=1), labels, n_bins),
    }
