"""Significance tests between settings.

Tests over folds ask whether the difference would remain with other training data and
folds; tests over speakers, whether it would remain with other test speakers. Several
comparisons with one baseline are corrected by Holm's method.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy  # imports submodules when they are used
from numpy.typing import ArrayLike

from speechbrain_ser_cl.metrics.kinds import KINDS

_MOST_EXACT = 9999  # up to this number, all permutations are used


def paired_fold_tests(a: ArrayLike, b: ArrayLike) -> dict[str, float | None]:
    """Tests two settings fold by fold, two-sided.

    Folds share training data, so both p values are somewhat too small. With n folds, p
    of the signed-rank test is at least 2^(1 - n).

    Arguments
    ---------
    a, b : array_like of float
        Metric of both settings on the same folds, shape (F,).

    Returns
    -------
    dict
        ``t_test``: p of the paired t-test (Student 1908); ``wilcoxon``: p of the
        signed-rank test (Wilcoxon 1945), exact up to 13 folds. None with fewer than 2
        folds, or if all values are equal.

    Raises
    ------
    ValueError
        If the numbers of folds differ.

    Example
    -------
    >>> tests = paired_fold_tests([0.7, 0.8, 0.6, 0.7, 0.9], [0.6, 0.6, 0.5, 0.6, 0.6])
    >>> round(tests["t_test"], 3), tests["wilcoxon"]
    (0.016, 0.0625)
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(
            f"expected one value per fold of both settings, found shapes {a.shape} and "
            f"{b.shape}"
        )
    # Rounded, so that equal metrics and tied differences are exactly equal.
    difference = (a - b).round(12)
    if len(difference) < 2 or not difference.any():
        return {"t_test": None, "wilcoxon": None}
    same = np.ptp(difference) == 0
    t_test = 0.0 if same else float(scipy.stats.ttest_rel(a, b).pvalue)
    return {"t_test": t_test, "wilcoxon": _signed_rank(difference)}


def _signed_rank(difference: np.ndarray) -> float:
    """Computes p of the signed-rank test without zeros, exact also with ties."""
    difference = difference[difference != 0]
    if len(difference) == 1:  # scipy needs two values; either sign is equally likely
        return 1.0
    if 2 ** len(difference) <= _MOST_EXACT:
        # Ranks of ties are halves: twice the ranks are whole numbers.
        ranks = (2 * scipy.stats.rankdata(abs(difference))).astype(int)
        counts = np.ones(1)  # of the signs that give each sum of positive ranks
        for rank in ranks:
            counts = np.pad(counts, (0, rank)) + np.pad(counts, (rank, 0))
        found = ranks[difference > 0].sum()
        tail = min(counts[: found + 1].sum(), counts[found:].sum())
        return float(min(1.0, 2 * tail / counts.sum()))
    return float(scipy.stats.wilcoxon(difference).pvalue)


def speaker_permutation_test(
    a: Mapping[str, ArrayLike],
    b: Mapping[str, ArrayLike],
    metric: str = "uar",
    n_resamples: int = _MOST_EXACT,
    seed: int = 0,
    kind: str = "classes",
) -> float:
    """Compares two settings by exchanging their predictions, speaker by speaker.

    If the settings are equivalent, the assignment of predictions to settings is
    arbitrary. All utterances of a speaker are exchanged together, because they are not
    independent, and the metric's difference over all utterances is computed again. p is
    the fraction of exchanges with a difference at least as large (two-sided; Good
    2005). All 2^S exchanges are used if they are at most ``n_resamples``; else that
    many are drawn, and the observed one is added.

    Arguments
    ---------
    a, b : mapping
        Speaker to confusion counts (C, C), true class first, of each setting on the
        same utterances.
    metric : str
        ``uar``, ``wa`` or ``macro_f1``.
    n_resamples : int
        Number of exchanges, at least 1.
    seed : int
        Seed of the exchanges.
    kind : str
        Kind of the results. For other kinds than classes, ``a`` and ``b`` contain sums
        and ``metric`` is one of the kind's, see
        :mod:`~speechbrain_ser_cl.metrics.kinds`.

    Returns
    -------
    float
        p in (0, 1].

    Raises
    ------
    ValueError
        If the speakers or their utterances differ, or the metric is unknown.

    Example
    -------
    >>> good, bad = [[4, 0], [0, 4]], [[2, 2], [2, 2]]
    >>> speaker_permutation_test(dict.fromkeys("abc", good), dict.fromkeys("abc", bad))
    0.25
    """
    known = KINDS[kind]
    if metric not in known.titles:
        raise ValueError(
            f"metric is {metric!r}, expected one of {', '.join(known.titles)}"
        )
    if n_resamples < 1:
        raise ValueError(f"n_resamples is {n_resamples}, expected at least 1")
    speakers = sorted(a)
    if speakers != sorted(b) or not speakers:
        raise ValueError("the two settings were not tested on the same speakers")
    of_a = np.stack([np.asarray(a[name]) for name in speakers])
    of_b = np.stack([np.asarray(b[name]) for name in speakers])
    same = of_a.shape == of_b.shape
    if not (same and np.allclose(known.common(of_a), known.common(of_b), rtol=1e-9)):
        raise ValueError("the two settings were not tested on the same utterances")
    n_speakers = len(speakers)
    exact = 2**n_speakers <= n_resamples
    if exact:
        exchanged = np.arange(2**n_speakers)[:, None] >> np.arange(n_speakers) & 1
    else:
        rng = np.random.default_rng(seed)
        exchanged = rng.integers(0, 2, (n_resamples, n_speakers))
        exchanged[0] = 0  # the observed assignment is one of the exchanges
    change = np.tensordot(exchanged, of_b - of_a, 1)
    difference = (
        known.measure(of_a.sum(0) + change)[metric]
        - known.measure(of_b.sum(0) - change)[metric]
    )
    # A small tolerance, because sums in another order differ in the last digit.
    as_large = np.abs(difference) >= np.abs(difference[0]) - 1e-9
    return float(as_large.mean())


def mean_interval(values: ArrayLike) -> tuple[float, float] | None:
    """Computes the 95 % t-interval of a mean (Student 1908).

    Arguments
    ---------
    values : array_like of float
        Value of each seed or fold, shape (N,). Folds share training data, so their
        interval is somewhat too narrow.

    Returns
    -------
    (float, float) or None
        Lower and upper bound. None for fewer than 3 values, because the interval would
        be too wide to be useful.

    Example
    -------
    >>> low, high = mean_interval([0.6, 0.7, 0.8])
    >>> round(low, 3), round(high, 3)
    (0.452, 0.948)
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 3:
        return None
    error = values.std(ddof=1) / np.sqrt(len(values))
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * error
    return float(values.mean() - half), float(values.mean() + half)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Corrects p values for multiple tests (Holm 1979).

    The probability of any false positive stays below the level to which each p value is
    compared, for any dependence between the tests.

    Arguments
    ---------
    p_values : sequence of float or None
        In [0, 1]. None: no test, not counted.

    Returns
    -------
    list of float or None
        Adjusted p values in the given order: with p sorted increasingly, the maximum of
        min(1, (n - i) p_i) up to the value's own rank, i from 0.

    Raises
    ------
    ValueError
        If a value is out of range.

    Example
    -------
    >>> holm([0.01, 0.04, None, 0.03])
    [0.03, 0.06, None, 0.06]
    """
    tested = {i: p for i, p in enumerate(p_values) if p is not None}
    wrong = [p for p in tested.values() if not 0 <= p <= 1]
    if wrong:
        raise ValueError(f"expected p values in [0, 1], found {wrong}")
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for place, i in enumerate(sorted(tested, key=tested.__getitem__)):
        largest = max(largest, min(1.0, (len(tested) - place) * tested[i]))
        adjusted[i] = largest
    return adjusted


def rank_methods(values: ArrayLike, level: float = 0.05) -> dict[str, Any]:
    r"""Ranks methods over several data sets and tests their differences (Demsar 2006).

    With k methods and n data sets, the mean ranks of two methods differ significantly
    if their difference is larger than Nemenyi's critical difference,

    .. math::
        CD = q_{\alpha} \sqrt{\frac{k (k + 1)}{6 n}}

    with q the quantile of the studentised range, divided by the square root of 2.

    Arguments
    ---------
    values : array_like of float
        (k, n), larger is better; at least 2 methods. Equal values share their ranks.
    level : float
        alpha.

    Returns
    -------
    dict
        ``mean_ranks`` of the methods, 1 is best; ``friedman``: p of the hypothesis that
        all methods are equal, None for fewer than 3 methods or 2 data sets;
        ``critical_difference``: CD; ``best``: index of the best method;
        ``against_best``: for each other method p of the z test of both mean ranks,
        Holm-corrected; None for the best.

    Raises
    ------
    ValueError
        If the values are not a matrix of finite numbers with at least two rows.

    Example
    -------
    >>> found = rank_methods([[0.9, 0.8, 0.7], [0.8, 0.7, 0.6], [0.7, 0.6, 0.5]])
    >>> found["mean_ranks"], round(found["critical_difference"], 2)
    ([1.0, 2.0, 3.0], 1.91)
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(
            "expected finite numbers of two methods or more on the same data sets, "
            f"found shape {values.shape}"
        )
    k, n = values.shape
    ranks = scipy.stats.rankdata(-values, axis=0).mean(axis=1)
    unit = np.sqrt(k * (k + 1) / (6 * n))
    best = int(ranks.argmin())
    z = (ranks - ranks[best]) / unit
    friedman = None
    if k > 2 and n > 1 and (values != values[0]).any():
        friedman = float(scipy.stats.friedmanchisquare(*values).pvalue)
    quantile = scipy.stats.studentized_range.ppf(1 - level, k, np.inf) / np.sqrt(2)
    return {
        "mean_ranks": ranks.tolist(),
        "friedman": friedman,
        "critical_difference": float(quantile * unit),
        "best": best,
        "against_best": holm(
            [
                None if i == best else float(2 * scipy.stats.norm.sf(z[i]))
                for i in range(k)
            ]
        ),
    }
