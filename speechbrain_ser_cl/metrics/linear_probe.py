"""Linear classifiers on fixed vectors, with selection of layer and regularisation.

Selection uses cross-validation over groups (speakers) of the training data only. Layers
are compared by ridge regression on the classes, for which one sum of products per layer
and fold gives the predictions for all strengths and folds. The strength is then
selected with the final classifier.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve

from speechbrain_ser_cl.metrics.logistic import (
    Floats,
    fit_logistic,
    rotated,
    with_intercept,
)

CLASSIFIERS: dict[str, tuple[float, ...]] = {
    "logistic": (0.001, 0.003, 0.01, 0.03, 0.1),
    "svm": (0.0001, 0.0003, 0.001, 0.003, 0.01),
    "ridge": (0.0001, 0.001, 0.01),
}
"""Classifiers, and the values of C that are tried for each."""

# Largest component of the gradient of logistic regressions that are only compared.
_ENOUGH = 3e-4

NORMALISATIONS = ("none", "corpus", "own_corpus", "speaker")
"""Ways to standardise vectors; the last two also use the tested vectors."""

Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Choice:
    """What was selected, and its result in the inner folds.

    Arguments
    ---------
    layers : tuple of int
        Numbers of the layers whose scores are averaged, the best one first.
    normalisation, pooling : str
        How vectors are standardised and pooled.
    C : float
        Inverse strength of the regularisation.
    uar : float
        UAR over the inner folds, in [0, 1].

    Example
    -------
    >>> print(Choice((2,), "corpus", "mean", 0.01, 0.8))
    layer 2, mean, standardised by corpus, C = 0.01; 80.0 % UAR in the inner folds
    """

    layers: tuple[int, ...]
    normalisation: str
    pooling: str
    C: float
    uar: float

    def __str__(self) -> str:
        norm = self.normalisation
        standardised = "as it is" if norm == "none" else f"standardised by {norm}"
        several = "layers" if len(self.layers) > 1 else "layer"
        layers = f"{several} {' and '.join(map(str, self.layers))}"
        return (
            f"{layers}, {self.pooling}, {standardised}, C = {self.C:g}; "
            f"{100 * self.uar:.1f} % UAR in the inner folds"
        )


def inner_folds(
    labels: ArrayLike, groups: Sequence[str] | None, n_folds: int = 5
) -> Integers:
    """Assigns utterances to folds; keeps groups together and classes balanced.

    Arguments
    ---------
    labels : array_like of int
        N classes.
    groups : sequence of str or None
        N groups, such as speakers. None: each utterance is its own group.
    n_folds : int
        Number of folds; at most the number of groups is used.

    Returns
    -------
    numpy.ndarray
        Fold of each utterance (N,).

    Raises
    ------
    ValueError
        If there is only one group.

    Example
    -------
    >>> inner_folds([0, 1, 0, 1], ["a", "a", "b", "b"]).tolist()
    [0, 0, 1, 1]
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    labels = np.asarray(labels)
    if groups is None:
        n_folds = min(n_folds, int(np.bincount(labels).max()))
        split = StratifiedKFold(n_folds).split(labels, labels)
    else:
        n_folds = min(n_folds, len(set(groups)))
        if n_folds < 2:
            raise ValueError(
                f"the training data have one speaker only ({groups[0]}): expected two "
                "or more, to choose by speakers that are not trained on"
            )
        split = StratifiedGroupKFold(n_folds).split(labels, labels, groups)
    folds = np.empty(len(labels), np.intp)
    for number, (_, held_out) in enumerate(split):
        folds[held_out] = number
    return folds


def ridge_scores(
    vectors: Floats, labels: ArrayLike, folds: ArrayLike, strengths: Sequence[float]
) -> Floats:
    r"""Scores each fold by ridge regression on the others, for several strengths.

    Targets are 1 for the utterance's class and -1 for the others. W weighs classes
    equally. The intercept is not regularised. For each fold, with the sums over all
    other folds,

    .. math::
        (X^T W X + I / C) \, B = X^T W Y

    Arguments
    ---------
    vectors, labels, folds, strengths
        As for :func:`held_out_scores`.

    Returns
    -------
    numpy.ndarray
        Scores of the classes (S, N, K).

    Example
    -------
    >>> x = np.array([[0.0], [1.0], [0.1], [0.9]])
    >>> ridge_scores(x, [0, 1, 0, 1], [0, 0, 1, 1], [1.0]).argmax(2).tolist()
    [[0, 1, 0, 1]]
    """
    labels, folds = np.asarray(labels), np.asarray(folds)
    order = np.argsort(folds, kind="stable")
    ends = np.flatnonzero(np.diff(folds[order])) + 1
    x = with_intercept(rotated(vectors)[0])[order]
    roots = np.sqrt(_balanced(labels))[order, None].astype(x.dtype)
    targets = np.where(labels[:, None] == np.arange(labels.max() + 1), 1.0, -1.0)
    parts = np.split(x, ends)
    weighted, aims = np.split(x * roots, ends), np.split(targets[order] * roots, ends)
    squares = [part.T @ part for part in weighted]
    products = [
        part.T @ aim.astype(x.dtype) for part, aim in zip(weighted, aims, strict=True)
    ]
    all_squares, all_products = sum(squares), sum(products)
    found = np.empty((len(strengths), *targets.shape), x.dtype)
    places, ridge = np.split(order, ends), np.empty_like(all_squares)
    for part, place, own_squares, own_products in zip(
        parts, places, squares, products, strict=True
    ):
        left = np.subtract(all_squares, own_squares, out=own_squares)
        right = all_products - own_products
        for row, C in zip(found, strengths, strict=True):
            np.copyto(ridge, left)
            ridge.flat[: -1 : len(ridge) + 1] += 1 / C  # all but the intercept
            # The transpose is the same matrix in LAPACK's order: no copy.
            factor = cho_factor(ridge.T, True, overwrite_a=True, check_finite=False)
            solution = cho_solve(factor, right, check_finite=False)
            row[place] = part @ solution
    return found


def held_out_scores(
    classifier: str,
    vectors: Floats,
    labels: ArrayLike,
    folds: ArrayLike,
    strengths: Sequence[float],
    balance: bool = True,
) -> Floats:
    """Scores each fold by a classifier fitted on the others, for several strengths.

    Arguments
    ---------
    classifier : str
        One of ``CLASSIFIERS``.
    vectors : numpy.ndarray
        (N, D).
    labels : array_like of int
        N classes.
    folds : array_like of int
        Fold of each utterance.
    strengths : sequence of float
        S values of C.
    balance : bool
        Whether to weigh classes equally; ``ridge`` always does.

    Returns
    -------
    numpy.ndarray
        Scores of the classes (S, N, K), low where a class is not in the other folds.

    Example
    -------
    >>> x = np.array([[0.0], [1.0], [0.1], [0.9]])
    >>> found = held_out_scores("svm", x, [0, 1, 0, 1], [0, 0, 1, 1], [1.0])
    >>> found.argmax(2).tolist()
    [[0, 1, 0, 1]]
    """
    labels, folds = np.asarray(labels), np.asarray(folds)
    if classifier == "ridge":
        return ridge_scores(vectors, labels, folds, strengths)
    shape = (len(strengths), len(labels), labels.max() + 1)
    found = np.full(shape, -np.inf, vectors.dtype)
    trained = [folds != fold for fold in np.unique(folds)]
    if classifier == "logistic":
        weights = np.zeros((len(trained), len(labels)))
        for row, train in zip(weights, trained, strict=True):
            row[train] = _balanced(labels[train]) if balance else 1.0
        fits = fit_logistic(vectors, labels, strengths, weights, _ENOUGH)
        for told, (solutions, biases) in zip(found, fits, strict=True):
            for train, W, b in zip(trained, solutions, biases, strict=True):
                told[~train] = vectors[~train] @ W.T + b
        return found
    for train in trained:
        names, known = np.unique(labels[train], return_inverse=True)
        one_by_one = fit_classifier(
            classifier, vectors[train], known, strengths, balance
        )
        for told, (W, b) in zip(found, one_by_one, strict=True):
            told[np.ix_(~train, names)] = vectors[~train] @ W.T + b
    return found


def fit_classifier(
    classifier: str,
    vectors: Floats,
    labels: ArrayLike,
    strengths: Sequence[float],
    balance: bool = True,
    tolerance: float = 1e-6,
) -> Iterator[tuple[Floats, Floats]]:
    """Fits a classifier of scikit-learn for several strengths.

    The logistic regression is :func:`~.logistic.fit_logistic`, which has the same
    solution.

    Arguments
    ---------
    classifier : str
        One of ``CLASSIFIERS``: ``logistic`` (multinomial), ``svm`` (linear, squared
        hinge, one-vs-rest) or ``ridge``.
    vectors : numpy.ndarray
        (N, D).
    labels : array_like of int
        N classes 0 to K - 1, each at least once.
    strengths : sequence of float
        Values of C; ``ridge`` has alpha = 1 / C.
    balance : bool
        Whether to weigh classes equally.
    tolerance : float
        Stopping criterion of the logistic regression: largest component of the
        gradient.

    Yields
    ------
    weights : numpy.ndarray
        (K, D). The softmax of ``x @ weights.T + bias`` is ``predict_proba`` of the
        logistic regression; the argmax is the prediction of all three.
    bias : numpy.ndarray
        (K,).

    Example
    -------
    >>> x = np.array([[0.0], [1.0], [4.0], [5.0]])
    >>> ((weights, bias),) = fit_classifier("logistic", x, [0, 0, 1, 1], [1.0])
    >>> (x @ weights.T + bias).argmax(axis=1).tolist()
    [0, 0, 1, 1]
    """
    labels = np.asarray(labels)
    if classifier == "logistic":
        weights = _balanced(labels) if balance else np.ones(len(labels))
        x = np.asarray(vectors, np.float64)
        for several, biases in fit_logistic(x, labels, strengths, [weights], tolerance):
            yield several[0], biases[0]
        return
    from sklearn.linear_model import RidgeClassifier
    from sklearn.svm import LinearSVC

    weight = "balanced" if balance else None
    model = {
        "svm": LinearSVC(class_weight=weight, random_state=0, max_iter=5000),
        "ridge": RidgeClassifier(class_weight=weight),
    }[classifier]
    for C in strengths:
        model.set_params(**({"alpha": 1 / C} if classifier == "ridge" else {"C": C}))
        model.fit(vectors, labels)
        weights, bias = np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
        if len(weights) == 1:  # two classes: one score whose sign decides
            weights = np.concatenate([-weights / 2, weights / 2])
            bias = np.concatenate([-bias / 2, bias / 2])
        yield weights.copy(), bias.copy()


def standardiser(vectors: Floats) -> tuple[Floats, Floats]:
    """Computes mean and standard deviation (D,) of vectors (N, D); 1 for constants."""
    mean, std = vectors.mean(axis=0), vectors.std(axis=0)
    std[std <= 1e-6 * (abs(mean) + 1e-6)] = 1.0
    return mean, std


def _balanced(labels: Integers) -> Floats:
    """Computes the weight of each utterance: N / (K n_c)."""
    counts = np.bincount(labels)
    shares = counts[labels] * np.count_nonzero(counts) / len(labels)
    return np.asarray(1 / shares)
