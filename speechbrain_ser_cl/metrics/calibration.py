"""Calibration: a temperature from validation data, and reliability of probabilities."""

from typing import Any

import numpy as np
import scipy  # imports submodules when they are used
from numpy.typing import ArrayLike
from scipy.special import log_softmax, softmax

from speechbrain_ser_cl.metrics.classification import _checked
from speechbrain_ser_cl.metrics.resampling import Floats

_BINS = 15


def _logits(logits: ArrayLike) -> Floats:
    array = np.asarray(logits, dtype=np.float64)
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise ValueError(
            f"logits: expected finite numbers (N, C), N at least 1, found {array.shape}"
        )
    return array


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Fits the temperature that maximises the likelihood of validation labels.

    Minimises the mean cross-entropy of softmax(logits / T), which is convex in 1 / T,
    over T from 0.01 to 100. Predicted classes do not change. The target of the true
    class is 1 - e + e / C and of the other classes e / C, with e = 1 / (N + 2), so that
    a few correct predictions do not make the model overconfident.

    Arguments
    ---------
    logits : array_like
        Logits of validation utterances (N, C), finite.
    labels : array_like of int
        Classes of the utterances (N,).

    Returns
    -------
    float
        T; above 1 if the model is overconfident.

    Raises
    ------
    ValueError
        If shapes or values are wrong.

    References
    ----------
    Guo et al. 2017, section 4.2: "On calibration of modern neural networks",
    arXiv:1706.04599.
    Platt 1999, section 2.2: "Probabilistic outputs for support vector machines"
    (smoothed targets).

    Example
    -------
    >>> logits = np.log([[0.9, 0.1]] * 4000)  # right in 3 of 4: log 3 = log 9 / T
    >>> round(fit_temperature(logits, [0, 0, 0, 1] * 1000), 2)
    2.0
    """
    x = _logits(logits)
    y, _ = _checked(labels, labels, x.shape[1])
    if len(y) != len(x):
        raise ValueError(f"{len(y)} labels but {len(x)} logits")

    e = 1 / (len(y) + 2)

    def loss(log_inverse: float) -> float:
        log_p = log_softmax(x * np.exp(log_inverse), axis=1)
        right = log_p[np.arange(len(y)), y].mean()
        return float(-(1 - e) * right - e * log_p.mean())

    bound = np.log(100)
    fitted = scipy.optimize.minimize_scalar(
        loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-8}
    )
    return float(np.exp(-fitted.x))


def reliability(probabilities: ArrayLike, labels: ArrayLike) -> dict[str, Any]:
    """Compares confidence with accuracy, in 15 bins of equal width.

    With the utterances of bin b, ECE = sum_b n_b / N abs(accuracy_b - confidence_b),
    and Brier = mean sum_c (p_c - y_c)².

    Arguments
    ---------
    probabilities : array_like
        (N, C), rows sum to 1.
    labels : array_like of int
        (N,).

    Returns
    -------
    dict
        Plain values for JSON: ``ece`` in [0, 1], ``brier`` in [0, 2], and ``bins``: a
        list of ``low``, ``high``, ``count``, ``confidence`` and ``accuracy`` (None for
        empty bins).

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
    confidence = p.max(1)
    right = said == y
    # A confidence at an edge belongs to the lower bin.
    index = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    counts = np.bincount(index, minlength=_BINS)
    sure = np.bincount(index, confidence, _BINS)
    hits = np.bincount(index, right, _BINS)
    bins = [
        {
            "low": b / _BINS,
            "high": (b + 1) / _BINS,
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


def rescale(probabilities: ArrayLike, temperature: float) -> Floats:
    """Applies a temperature to probabilities: softmax(log p / T).

    Arguments
    ---------
    probabilities : array_like
        (N, C), rows sum to 1.
    temperature : float
        T, above 0.

    Returns
    -------
    numpy.ndarray
        (N, C), equal to softmax(logits / T).

    Raises
    ------
    ValueError
        If a value is out of range.

    Example
    -------
    >>> rescale([[0.9, 0.1]], 2.0).round(3).tolist()
    [[0.75, 0.25]]
    """
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature is {temperature}, expected it above 0")
    smallest = np.finfo(np.float64).tiny
    logits = np.log(np.maximum(_logits(probabilities), smallest))
    scaled: Floats = softmax(logits / temperature, axis=1)
    return scaled


def calibration_summary(
    probabilities: ArrayLike, labels: ArrayLike, temperature: float
) -> dict[str, Any]:
    """Computes test calibration before and after a temperature.

    Arguments
    ---------
    probabilities, labels : array_like
        Probabilities (N, C) and labels (N,) of the test utterances.
    temperature : float
        From :func:`fit_temperature` on validation utterances.

    Returns
    -------
    dict
        Plain values for JSON: ``temperature``, ``before`` and ``after``, see
        :func:`reliability`.

    Raises
    ------
    ValueError
        If shapes or values are wrong.

    Example
    -------
    >>> found = calibration_summary([[0.9, 0.1]] * 4, [0, 0, 0, 1], temperature=2.0)
    >>> round(found["before"]["ece"], 3), round(found["after"]["ece"], 3)
    (0.15, 0.0)
    """
    return {
        "temperature": temperature,
        "before": reliability(probabilities, labels),
        "after": reliability(rescale(probabilities, temperature), labels),
    }
