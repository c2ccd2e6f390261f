"""Is one setting better than another, or was it luck?

Two questions, two tests. Over folds: would other training data and folds turn the
difference round? Over speakers: would other test speakers? Several comparisons with
one baseline are corrected by Holm's method.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy  # imports its parts when they are used
from numpy.typing import ArrayLike

from speechbrain_ser_cl.metrics.kinds import KINDS

_MOST_EXACT = 9999  # so many permutations are gone through, rather than drawn


def paired_fold_tests(a: ArrayLike, b: ArrayLike) -> dict[str, float | None]:
    """Compare two settings fold by fold, two-sided.

    Folds share training data, so both p values are somewhat too small; and with n
    folds that of the signed-rank test is never below 2^(1 - n).

    Arguments
    ---------
    a, b : array_like of float
        A metric of both settings on the same folds, shape (F,).

    Returns
    -------
    dict
        ``t_test``: p of the paired t-test (Student 1908); ``wilcoxon``: p of the
        signed-rank test (Wilcoxon 1945), exact up to 13 folds. None where there are
        fewer than 2 folds, or no two values differ.

    Raises
    ------
    ValueError
        If the folds are not the same number.

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
    # Rounded, so that equal metrics are equal and tied differences tied.
    difference = (a - b).round(12)
    if len(difference) < 2 or not difference.any():
        return {"t_test": None, "wilcoxon": None}
    same = np.ptp(difference) == 0
    t_test = 0.0 if same else float(scipy.stats.ttest_rel(a, b).pvalue)
    return {"t_test": t_test, "wilcoxon": _signed_rank(difference)}


def _signed_rank(difference: np.ndarray) -> float:
    """Compute p of the signed-rank test, zeros left out, exact whatever the ties."""
    difference = difference[difference != 0]
    if len(difference) == 1:  # scipy wants two; either sign is as likely
        return 1.0
    if 2 ** len(difference) <= _MOST_EXACT:
        every = scipy.stats.PermutationMethod(n_resamples=_MOST_EXACT)
        return float(scipy.stats.wilcoxon(difference, method=every).pvalue)
    return float(scipy.stats.wilcoxon(difference).pvalue)


def speaker_permutation_test(
    a: Mapping[str, ArrayLike],
    b: Mapping[str, ArrayLike],
    metric: str = "uar",
    n_resamples: int = _MOST_EXACT,
    seed: int = 0,
    kind: str = "classes",
) -> float:
    """Compare two settings by exchanging their predictions, speaker by speaker.

    If the settings were alike, which of the two a speaker's predictions are from
    would not matter. So they are exchanged, for all utterances of a speaker at once
    since these are not independent, and the metric's difference over all utterances is
    computed anew: p is the share of exchanges that give a difference as large
    (two-sided; Good 2005). All 2^S exchanges are gone through if they are no more
    than ``n_resamples``; else so many are drawn, the observed one beside them.

    Arguments
    ---------
    a, b : mapping
        Speaker to confusion counts (C, C), true class first, of either setting on the
        same utterances.
    metric : str
        ``uar``, ``wa`` or ``macro_f1``.
    n_resamples : int
        At least 1.
    seed : int
        Of the draw.
    kind : str
        Of the results. Of others than classes ``a`` and ``b`` have sums, and the
        metrics are theirs: see :mod:`~speechbrain_ser_cl.metrics.kinds`.

    Returns
    -------
    float
        p in (0, 1].

    Raises
    ------
    ValueError
        If the speakers or their utterances are not the same, or the metric is unknown.

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
        exchanged[0] = 0  # what was observed is one of the possible exchanges
    change = np.tensordot(exchanged, of_b - of_a, 1)
    difference = (
        known.measure(of_a.sum(0) + change)[metric]
        - known.measure(of_b.sum(0) - change)[metric]
    )
    # A small tolerance: sums in another order differ in the last digit.
    as_large = np.abs(difference) >= np.abs(difference[0]) - 1e-9
    return float(as_large.mean())


def mean_interval(values: ArrayLike) -> tuple[float, float] | None:
    """Compute the 95 % t-interval of a mean (Student 1908).

    Arguments
    ---------
    values : array_like of float
        One per seed or fold, shape (N,). Folds share training data, so that their
        interval is somewhat too narrow.

    Returns
    -------
    (float, float) or None
        Lower and upper bound; None for fewer than 3 values, of which it would say
        next to nothing.

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
    """Correct p values for their number (Holm 1979).

    The chance of any false alarm among them stays below the level that each is
    compared with, whatever their dependence.

    Arguments
    ---------
    p_values : sequence of float or None
        In [0, 1]; None is no test and not counted.

    Returns
    -------
    list of float or None
        Adjusted p values, in the same order: with p sorted upwards, the largest of
        min(1, (n - i) p_i) up to its own place, i from 0.

    Raises
    ------
    ValueError
        For a value out of range.

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
    r"""Rank methods over several data sets, and say which differ (Demsar 2006).

    With k methods and n data sets, the mean ranks of two methods differ significantly
    if they are further apart than the critical difference of Nemenyi,

    .. math::
        CD = q_{\alpha} \sqrt{\frac{k (k + 1)}{6 n}}

    with q the quantile of the studentised range, divided by the root of 2.

    Arguments
    ---------
    values : array_like of float
        (k, n), larger is better; at least 2 methods. Equal values share their ranks.
    level : float
        alpha.

    Returns
    -------
    dict
        ``mean_ranks``: of each method, 1 is best; ``friedman``: p of all being alike,
        None for fewer than 3 methods or 2 data sets; ``critical_difference``: CD;
        ``best``: place of the best method; ``against_best``: for each other method p
        of the z test of both mean ranks, Holm-corrected, None for the best.

    Raises
    ------
    ValueError
        If the values are not a matrix of finite numbers with two rows or more.

    Example
    -------
    >>> found = rank_methods([[0.9, 0.8, 0.7], [0.8, 0.7, 0.6], [0.7, 0.6, 0.5]])
    >>> found["mean_ranks"], round(found["critical_difference"], 2)
    ([1.0, 2.0, 3.0], 1.91)
    """
    from scipy import stats

    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(
            "expected finite numbers of two methods or more on the same data sets, "
            f"found shape {values.shape}"
        )
    k, n = values.shape
    ranks = stats.rankdata(-values, axis=0).mean(axis=1)
    unit = np.sqrt(k * (k + 1) / (6 * n))
    best = int(ranks.argmin())
    z = (ranks - ranks[best]) / unit
    friedman = None
    if k > 2 and n > 1 and (values != values[0]).any():
        friedman = float(stats.friedmanchisquare(*values).pvalue)
    quantile = stats.studentized_range.ppf(1 - level, k, np.inf) / np.sqrt(2)
    return {
        "mean_ranks": ranks.tolist(),
        "friedman": friedman,
        "critical_difference": float(quantile * unit),
        "best": best,
        "against_best": holm(
            [None if i == best else float(2 * stats.norm.sf(z[i])) for i in range(k)]
        ),
    }
