"""Quality of frozen embeddings: linear classifier, neighbours, clusters."""

import warnings
from typing import Any

import numpy as np
import scipy  # imports submodules when they are used
from numpy.typing import ArrayLike

# scikit-learn is imported in functions: it takes long, and other metrics do without.
_BLOCK = 1024


def linear_svm(
    train_embeddings: ArrayLike,
    train_labels: ArrayLike,
    embeddings: ArrayLike,
    C: float = 1.0,
) -> np.ndarray:
    """Predicts classes by a support vector machine with a linear kernel.

    scikit-learn's ``SVC``, one classifier per pair of classes. Embeddings are not
    standardised: that would enlarge the small remaining differences of an encoder that
    has collapsed to a point, and hide the collapse.

    Arguments
    ---------
    train_embeddings : array_like of float
        Shape (M, D).
    train_labels : array_like
        M classes, ints or names.
    embeddings : array_like of float
        Embeddings to classify, shape (N, D).
    C : float
        Penalty of errors, above 0; choose it on validation data.

    Returns
    -------
    predictions : numpy.ndarray
        N classes.

    Raises
    ------
    ValueError
        If shapes do not fit together, a value is not finite, or there is only one
        class.

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
    """Computes the fraction of utterances whose nearest neighbour has the same class.

    The fraction is computed per class and averaged over classes. Distances are
    Euclidean. For several equally near neighbours the fraction with the same class
    counts, so an encoder that maps everything to one point is at chance level.

    Arguments
    ---------
    embeddings : array_like of float
        Shape (N, D), N at least 2.
    labels : array_like
        N classes, ints or names.

    Returns
    -------
    recall : float
        In [0, 1]. The only utterance of a class counts as not found.

    Raises
    ------
    ValueError
        If shapes do not fit together or a value is not finite.

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
    """Compares k-means clusters, as many as classes, with the classes.

    For F1, clusters are matched one-to-one to classes so that most utterances agree
    (Hungarian algorithm); F1 is averaged over the classes. The normalised mutual
    information is divided by the mean of both entropies.

    Arguments
    ---------
    embeddings : array_like of float
        Shape (N, D).
    labels : array_like
        N classes, ints or names; at least two different ones.
    seed : int
        Seed of the ten starts of k-means; the best start is used.

    Returns
    -------
    scores : dict of str to float
        ``f1`` and ``nmi``, in [0, 1].

    Raises
    ------
    ValueError
        If shapes do not fit together or a value is not finite.

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
        # With fewer different points than clusters, some clusters stay empty.
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
    """Renames clusters to classes, one-to-one, so that most utterances agree.

    Arguments
    ---------
    clusters : array_like
        N clusters; at most as many different ones as classes.
    labels : array_like
        N classes.

    Returns
    -------
    matched : numpy.ndarray
        Class of each utterance's cluster.

    Raises
    ------
    ValueError
        If there are more clusters than classes.

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
