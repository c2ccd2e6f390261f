"""Criteria that select a model or an epoch for speech without labels.

Larger is better. None is reliable: tables that use them also show their rank
correlation with the true UAR.
"""

import numpy as np
import scipy  # imports submodules when they are used
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
CRITERIA = {
    "mutual_information": "entropy + diversity",
    "neighborhood_density": "soft neighbourhood density",
    "weighted_risk": "weighted source risk",
}
"""Names in settings and records, and in tables."""
LEAST = 4  # utterances of source and target
_MOST = 4096  # rows that are compared with each other


def criteria(
    probabilities: ArrayLike,
    embeddings: ArrayLike,
    source_probabilities: ArrayLike,
    source_labels: ArrayLike,
    source_embeddings: ArrayLike,
) -> dict[str, float]:
    """Computes each criterion for one model.

    Arguments
    ---------
    probabilities : array_like of float
        (M, C) of target utterances.
    embeddings : array_like of float
        (M, D) of the same utterances.
    source_probabilities : array_like of float
        (N, C) of labelled source utterances that no model was trained on.
    source_labels : array_like of int
        Their classes (N,).
    source_embeddings : array_like of float
        (N, D).

    Returns
    -------
    dict of str to float
        For each of ``CRITERIA`` its value.

    Raises
    ------
    ValueError
        If rows are not probabilities, shapes do not fit together, or a domain has fewer
        than 4 rows.

    Example
    -------
    >>> p, x = np.full((8, 2), 0.5), np.eye(8)
    >>> criteria(p, x, p, [0, 1] * 4, x)["mutual_information"]
    0.0
    """
    labels = np.asarray(source_labels)
    own = _probabilities(source_probabilities)[np.arange(len(labels)), labels]
    losses = -np.log(own.clip(1e-12))
    return {
        "mutual_information": mutual_information(probabilities),
        "neighborhood_density": neighborhood_density(probabilities),
        "weighted_risk": weighted_risk(losses, source_embeddings, embeddings),
    }


def rank_correlation(values: ArrayLike, truth: ArrayLike) -> float | None:
    """Measures whether a criterion orders models as their true score does.

    Arguments
    ---------
    values : array_like of float
        The criterion of N models.
    truth : array_like of float
        Their true score.

    Returns
    -------
    float or None
        Spearman's rho in [-1, 1]; None for fewer than 3 models or equal values.

    Example
    -------
    >>> rank_correlation([0.1, 0.5, 0.7], [50.0, 60.0, 90.0])
    1.0
    """
    a, b = np.asarray(values), np.asarray(truth)
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return round(float(scipy.stats.spearmanr(a, b).statistic), 12)


def mutual_information(probabilities: ArrayLike) -> float:
    r"""Measures how varied and how confident predictions are.

    .. math::
        H\Big(\frac{1}{N} \sum_i p_i\Big) - \frac{1}{N} \sum_i H(p_i)

    Shi and Sha 2012, eq. 6: "Information-theoretical learning of discriminative
    clusters for unsupervised domain adaptation".

    Arguments
    ---------
    probabilities : array_like of float
        (N, C), rows sum to 1.

    Returns
    -------
    float
        In nats, in [0, log C].

    Raises
    ------
    ValueError
        If the rows are not probabilities.

    Example
    -------
    >>> round(mutual_information([[1, 0], [0, 1]]), 4)  # log 2
    0.6931
    >>> mutual_information([[1, 0], [1, 0]])
    0.0
    """
    p = _probabilities(probabilities)
    return max(0.0, float(_entropies(p.mean(axis=0)) - np.mean(_entropies(p))))


def neighborhood_density(probabilities: ArrayLike, temperature: float = 0.05) -> float:
    r"""Measures how many near neighbours utterances have among the predictions.

    Entropy of the similarities of each row with the others (Saito et al. 2021, eq. 1 to
    3: "Tune it the right way: unsupervised validation of domain adaptation via soft
    neighborhood density"),

    .. math::
        -\frac{1}{N} \sum_i \sum_{j \neq i} P_{ij} \log P_{ij}, \quad
        P_{ij} = \frac{\exp(s_{ij} / \tau)}{\sum_{k \neq i} \exp(s_{ik} / \tau)}

    with s the cosine similarity of two rows of probabilities.

    Arguments
    ---------
    probabilities : array_like of float
        (N, C), N at least 2. Of more than 4096 rows, 4096 evenly spaced ones are used.
    temperature : float
        tau, above 0; 0.05 in the paper.

    Returns
    -------
    float
        In [0, log(N - 1)].

    Raises
    ------
    ValueError
        If the rows are not probabilities, or there is only one.

    Example
    -------
    >>> round(neighborhood_density([[1, 0], [1, 0], [0, 1], [0, 1]]), 4)
    0.0
    >>> round(neighborhood_density([[1, 0]] * 4), 4)  # log 3
    1.0986
    """
    p = _probabilities(probabilities)
    if len(p) < 2:
        raise ValueError("expected two rows or more, found 1")
    p = p[:: -(-len(p) // _MOST)]
    unit = p / np.linalg.norm(p, axis=1, keepdims=True)
    s = unit @ unit.T / temperature
    np.fill_diagonal(s, -np.inf)
    s -= s.max(axis=1, keepdims=True)
    weights = np.exp(s)
    weights /= weights.sum(axis=1, keepdims=True)
    return float(np.mean(_entropies(weights)))


def weighted_risk(
    losses: ArrayLike, source: ArrayLike, target: ArrayLike, seed: int = 0
) -> float:
    r"""Estimates the loss on the target from labelled source speech that resembles it.

    Losses of source utterances outside the training data are weighted by the density
    ratio, which a logistic regression between the domains gives, with a control variate
    (You et al. 2019, eq. 8 and 9: "Towards accurate model selection in deep
    unsupervised domain adaptation"),

    .. math::
        \overline{w \ell} + \eta \bar{w} - \eta, \quad
        \eta = -\frac{\mathrm{Cov}(w \ell, w)}{\mathrm{Var}(w)}

    Arguments
    ---------
    losses : array_like of float
        Losses of the N source utterances.
    source, target : array_like of float
        Embeddings (N, D) and (M, D).
    seed : int
        Seed of the two halves: each utterance's weight comes from a regression on the
        other half.

    Returns
    -------
    float
        The estimate, negated, so that larger is better.

    Raises
    ------
    ValueError
        If shapes do not fit together, or a domain has fewer than 4 rows.

    Example
    -------
    >>> x = np.random.default_rng(0).normal(size=(40, 2))
    >>> round(weighted_risk(np.ones(40), x, x), 2)
    -1.0
    """
    from sklearn.linear_model import LogisticRegression

    losses = np.asarray(losses, np.float64)
    source, target = np.asarray(source), np.asarray(target)
    if len(losses) != len(source) or min(len(source), len(target)) < LEAST:
        raise ValueError(
            "expected the losses of 4 source utterances or more, and 4 target ones, "
            f"found shapes {losses.shape}, {source.shape} and {target.shape}"
        )
    x = np.concatenate([source, target]).astype(np.float64)
    x = (x - x.mean(axis=0)) / x.std(axis=0).clip(1e-8)
    domain = np.arange(len(x)) >= len(source)
    half = np.random.default_rng(seed).permutation(len(x)) % 2
    odds = np.empty(len(x))
    for one in (0, 1):
        model = LogisticRegression(C=0.01, max_iter=1000)
        model.fit(x[half != one], domain[half != one])
        odds[half == one] = np.exp(model.decision_function(x[half == one]).clip(-9, 9))
    weights = odds[: len(source)] * len(source) / len(target)
    weighted, spread = weights * losses, weights.var(ddof=1)
    eta = -np.cov(weighted, weights)[0, 1] / spread if spread > 0 else 0.0
    return -float(weighted.mean() + eta * weights.mean() - eta)


def _probabilities(values: ArrayLike) -> Floats:
    p = np.asarray(values, np.float64)
    fits = p.ndim == 2 and len(p) and (p >= 0).all()
    if not fits or not np.allclose(p.sum(axis=1), 1, atol=1e-3):
        raise ValueError(
            f"expected probabilities (N, C) whose rows sum to 1, found shape {p.shape}"
        )
    return p


def _entropies(p: Floats) -> Floats:
    logs = np.log(p, where=p > 0, out=np.zeros_like(p))
    return np.asarray(-(p * logs).sum(axis=-1))
