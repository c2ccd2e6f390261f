"""How good frozen embeddings are: a linear classifier, neighbours, clusters."""

import warnings
from typing import Any

import numpy as np
import scipy  # imports its parts when they are used
from numpy.typing import ArrayLike

# scikit-learn is imported where it is used: whoever evaluates nothing but
# classifications need not wait for it.
_BLOCK = 1024


def linear_svm(
    train_embeddings: ArrayLike,
    train_labels: ArrayLike,
    embeddings: ArrayLike,
    C: float = 1.0,
) -> np.ndarray:
    """Predictions of a support vector machine with a linear kernel.

    scikit-learn's ``SVC``, one classifier for each pair of classes. Embeddings are
    taken as they are: standardising would blow up what little is left of the
    differences when an encoder has collapsed to a point, and hide it.

    Arguments
    ---------
    train_embeddings : array_like of float
        Shape (M, D).
    train_labels : array_like
        M classes, ints or names.
    embeddings : array_like of float
        What to classify, shape (N, D).
    C : float
        Penalty of errors, above 0; choose it on validation data.

    Returns
    -------
    predictions : numpy.ndarray
        N classes.

    Raises
    ------
    ValueError
        When shapes do not fit, a value is not finite, or there is only one class.

    Example
    -------
    >>> linear_svm([[0.0], [1.0], [4.0], [5.0]], [0, 0, 1, 1], [[0.5], [9.0]]).tolist()
    [0, 1]
    """
    from sklearn.svm import SVC

    train_embeddings, train_labels = _checked(train_embeddings, train_labels)
    classifier = SVC(kernel="linear", C=C).fit(train_embeddings, train_labels)
    return np.asarray(classifier.predict(np.asarray(embeddings)))


def recall_at_1(embeddings: ArrayLike, labels: ArrayLike) -> float:
    """Compute the share of utterances whose nearest other one is of their class.

    The share is taken within each class and averaged over the classes. Distances are
    Euclidean. Where several are equally near, the share of them that is of the class
    counts, so that an encoder that maps everything to one point is at chance.

    Arguments
    ---------
    embeddings : array_like of float
        Shape (N, D), N at least 2.
    labels : array_like
        N classes, ints or names.

    Returns
    -------
    recall : float
        In [0, 1]. An utterance that is alone in its class cannot be found.

    Raises
    ------
    ValueError
        When shapes do not fit or a value is not finite.

    Example
    -------
    >>> recall_at_1([[0.0], [1.0], [5.0], [5.5], [1.1]], ["a", "a", "b", "b", "b"])
    0.58...
    """
    embeddings, labels = _checked(embeddings, labels)
    hits = np.empty(len(labels))
    for start in range(0, len(labels), _BLOCK):
        distances = scipy.spatial.distance.cdist(
            embeddings[start : start + _BLOCK], embeddings
        )
        rows = np.arange(len(distances))
        distances[rows, start + rows] = np.inf
        nearest = distances == distances.min(axis=1, keepdims=True)
        same = labels[start + rows, None] == labels
        hits[start + rows] = (nearest & same).sum(axis=1) / nearest.sum(axis=1)
    return float(np.mean([hits[labels == c].mean() for c in np.unique(labels)]))


def clustering_scores(
    embeddings: ArrayLike, labels: ArrayLike, seed: int = 0
) -> dict[str, float]:
    """Clusters by k-means, with as many clusters as classes, against the classes.

    For F1, clusters are given to classes one to one such that as many utterances as
    possible agree (Hungarian algorithm); F1 is then averaged over the classes. The
    normalised mutual information is divided by the mean of both entropies.

    Arguments
    ---------
    embeddings : array_like of float
        Shape (N, D).
    labels : array_like
        N classes, ints or names; at least two different ones.
    seed : int
        Of the ten starts of k-means, the best of which counts.

    Returns
    -------
    scores : dict of str to float
        ``f1`` and ``nmi``, in [0, 1].

    Raises
    ------
    ValueError
        When shapes do not fit or a value is not finite.

    Example
    -------
    >>> clustering_scores([[0.0], [0.1], [5.0], [5.1]], ["a", "a", "b", "b"])
    {'f1': 1.0, 'nmi': 1.0}
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import f1_score, normalized_mutual_info_score

    embeddings, labels = _checked(embeddings, labels)
    n_classes = len(np.unique(labels))
    with warnings.catch_warnings():
        # Fewer different points than clusters: some clusters stay empty.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = KMeans(n_classes, n_init=10, random_state=seed).fit_predict(
            embeddings
        )
    matched = matched_labels(clusters, labels)
    return {
        "f1": float(f1_score(labels, matched, average="macro", zero_division=0)),
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
    }


def matched_labels(clusters: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Clusters, each renamed to a class of its own such that most utterances agree.

    Arguments
    ---------
    clusters : array_like
        N clusters; no more different ones than there are classes.
    labels : array_like
        N classes.

    Returns
    -------
    matched : numpy.ndarray
        For each utterance the class that its cluster was given to.

    Raises
    ------
    ValueError
        When there are more clusters than classes.

    Example
    -------
    >>> matched_labels([7, 7, 7, 2], ["a", "a", "b", "b"]).tolist()
    ['a', 'a', 'a', 'b']
    """
    from sklearn.metrics.cluster import contingency_matrix

    names, cluster_index = np.unique(clusters, return_inverse=True)
    classes = np.unique(labels)
    if len(names) > len(classes):
        raise ValueError(f"{len(names)} clusters for {len(classes)} classes")
    agreement = contingency_matrix(labels, clusters).T
    rows, columns = scipy.optimize.linear_sum_assignment(agreement, maximize=True)
    class_of = np.empty(len(names), dtype=int)
    class_of[rows] = columns
    return classes[class_of[cluster_index]]


def _checked(embeddings: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    embeddings, labels = np.asarray(embeddings, dtype=np.float64), np.asarray(labels)
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1] or len(labels) < 2:
        raise ValueError(
            "expected embeddings (N, D) and N labels, N at least 2; found shapes "
            f"{embeddings.shape} and {labels.shape}"
        )
    if not np.isfinite(embeddings).all():
        raise ValueError("embeddings hold values that are not finite")
    return embeddings, labels
