"""Classification metrics and their bootstrap intervals, from confusion counts.

Every metric in this file depends on the confusion matrix only. A bootstrap resample
therefore costs a few additions, for any number of utterances.

Classes that do not occur in ``labels``: UAR and macro-F1 are means over the classes
that occur. A prediction of an absent class is an error of the utterance's true class
and has no other effect.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

METRICS = ("uar", "wa", "macro_f1")
# With fewer units, resamples take so few values that an interval has no meaning.
MIN_GROUPS = 5
_MOST_REDRAWN = 100  # attempts to draw a resample that has all classes


def _checked(
    labels: ArrayLike, predictions: ArrayLike, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Checks labels and predictions: integers (N,), N >= 1, in [0, n_classes)."""
    arrays = []
    for name, values in (("labels", labels), ("predictions", predictions)):
        array = np.asarray(values)
        if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
            raise ValueError(
                f"{name}: expected a non-empty list of class indices, found shape "
                f"{array.shape} of {array.dtype}"
            )
        if array.min() < 0 or array.max() >= n_classes:
            raise ValueError(
                f"{name}: expected class indices in [0, {n_classes}), found "
                f"{array.min()} to {array.max()}"
            )
        arrays.append(array.astype(np.int64))
    if arrays[0].size != arrays[1].size:
        raise ValueError(
            f"{arrays[0].size} labels but {arrays[1].size} predictions; "
            "expected one prediction for each label"
        )
    return arrays[0], arrays[1]


def _confusion(labels: ArrayLike, predictions: ArrayLike, n_classes: int) -> np.ndarray:
    """Counts utterances by true class and prediction (C, C)."""
    labels, predictions = _checked(labels, predictions, n_classes)
    counts = np.bincount(labels * n_classes + predictions, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes)


def metrics_of_confusion(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Computes the metrics of confusion matrices.

    Arguments
    ---------
    confusion : numpy.ndarray of int
        Shape (..., C, C), true class first.

    Returns
    -------
    dict of str to numpy.ndarray
        ``uar``, ``wa`` and ``macro_f1`` in [0, 1], each of shape (...).

    Example
    -------
    >>> float(metrics_of_confusion(np.array([[2, 1], [0, 1]]))["uar"])
    0.8333333333333333
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    actual = confusion.sum(-1)
    predicted = confusion.sum(-2)
    present = actual > 0
    n_present = present.sum(-1)
    # An absent class has no hits, so any positive divisor gives 0, which adds nothing
    # to the sum.
    recall = hits / np.maximum(actual, 1)
    f1 = 2 * hits / np.maximum(actual + predicted, 1)
    return {
        "uar": recall.sum(-1) / n_present,
        "wa": hits.sum(-1) / actual.sum(-1),
        "macro_f1": f1.sum(-1) / n_present,
    }


def classification_metrics(
    labels: ArrayLike, predictions: ArrayLike, n_classes: int
) -> dict[str, float]:
    """Computes unweighted average recall, accuracy and macro-F1.

    h_c: hits of class c; n_c: utterances of class c; m_c: predictions of class c; K:
    number of classes with n_c > 0::

        UAR      = 1/K sum_c h_c / n_c
        WA       = sum_c h_c / sum_c n_c
        macro-F1 = 1/K sum_c 2 h_c / (n_c + m_c)

    Arguments
    ---------
    labels : array_like of int
        True classes in [0, n_classes), shape (N,), N >= 1.
    predictions : array_like of int
        Predicted classes, shape (N,).
    n_classes : int
        Number of classes of the classifier.

    Returns
    -------
    metrics : dict of str to float
        ``uar``, ``wa`` (weighted accuracy: fraction of correct utterances) and
        ``macro_f1``, in [0, 1].

    Raises
    ------
    ValueError
        If the lists are empty, differ in length or contain other classes.

    Example
    -------
    >>> classification_metrics([0, 0, 0, 1], [0, 0, 1, 1], n_classes=2)["uar"]
    0.8333333333333333
    """
    values = metrics_of_confusion(_confusion(labels, predictions, n_classes))
    return {name: float(value) for name, value in values.items()}


def macro_f1_of_all(labels: ArrayLike, predictions: ArrayLike, n_classes: int) -> float:
    """Computes macro-F1 over the classes that occur in the labels or the predictions.

    As in scikit-learn and in challenges that use it. A class that is predicted but
    never true counts as 0 here; ``macro_f1`` of :func:`classification_metrics` leaves
    it out.

    Arguments
    ---------
    labels, predictions : array_like of int
        Classes in [0, n_classes), (N,), N >= 1.
    n_classes : int
        Number of classes of the classifier.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        If the lists are empty, differ in length or contain other classes.

    Example
    -------
    >>> round(macro_f1_of_all([0, 0, 1], [0, 2, 1], n_classes=4), 4)
    0.5556
    >>> found = classification_metrics([0, 0, 1], [0, 2, 1], n_classes=4)
    >>> round(found["macro_f1"], 4)
    0.8333
    """
    confusion = _confusion(labels, predictions, n_classes)
    sizes = confusion.sum(0) + confusion.sum(1)
    return float((2 * np.diagonal(confusion)[sizes > 0] / sizes[sizes > 0]).mean())


def chance_uar(n_classes: int) -> float:
    """Computes the UAR of guessing: 1 / n_classes, for any class frequencies.

    Arguments
    ---------
    n_classes : int
        At least 1.

    Returns
    -------
    chance : float
        In (0, 1].

    Raises
    ------
    ValueError
        If ``n_classes`` is below 1.

    Example
    -------
    >>> chance_uar(4)
    0.25
    """
    if n_classes < 1:
        raise ValueError(f"n_classes is {n_classes}, expected at least 1")
    return 1 / n_classes


def bootstrap_intervals(
    labels: ArrayLike,
    predictions: ArrayLike,
    n_classes: int,
    groups: Sequence[Any] | None = None,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float] | None]:
    """Computes percentile bootstrap intervals of the metrics.

    Resamples utterances, or whole groups with all their utterances, with replacement.
    An interval over speakers estimates the variation over other speakers. An interval
    over utterances treats the utterances of a speaker as independent and is too narrow
    for that.

    A resample that lacks a class of the labels is drawn again, because its mean over
    classes would be another measure. (The only utterance of a class is then in each
    resample, so its recall does not vary, and the interval underestimates the
    uncertainty of that class.)

    With few groups, percentile intervals are too narrow: of 800 nominal 95 % intervals
    over 5, 10, 20 and 80 simulated speakers, 84, 90, 94 and 96 % contained the true
    UAR; of intervals over their utterances, fewer than 80 %.

    Arguments
    ---------
    labels : array_like of int
        True classes in [0, n_classes), shape (N,).
    predictions : array_like of int
        Predicted classes, shape (N,).
    n_classes : int
        Number of classes of the classifier.
    groups : sequence, optional
        Group (speaker) of each utterance; hashable and sortable values.
    n_resamples : int
        Number of resamples, at least 1.
    confidence : float
        Nominal coverage in (0, 1).
    seed : int
        Seed of the resampling.

    Returns
    -------
    intervals : dict of str to (float, float), or to None
        Lower and upper bound of ``uar``, ``wa`` and ``macro_f1``. None if there are
        fewer than 5 groups (or utterances), or if no resample has all classes.

    Raises
    ------
    ValueError
        If the lists do not fit together, or a value is out of range.

    Example
    -------
    >>> low, high = bootstrap_intervals([0, 1] * 50, [0] * 50 + [0, 1] * 25, 2)["uar"]
    >>> round(low, 2), round(high, 2)
    (0.68, 0.82)
    """
    labels, predictions = _checked(labels, predictions, n_classes)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected it in (0, 1)")
    if n_resamples < 1:
        raise ValueError(f"n_resamples is {n_resamples}, expected at least 1")
    cells = labels * n_classes + predictions
    n_cells = n_classes**2
    rng = np.random.default_rng(seed)
    if groups is None:
        n_groups = len(cells)
        # Drawing N utterances is drawing N of their confusion cells.
        shares = np.bincount(cells, minlength=n_cells) / n_groups

        def draw(times: int) -> np.ndarray:
            return rng.multinomial(n_groups, shares, size=times)

    else:
        if len(groups) != len(cells):
            raise ValueError(
                f"{len(groups)} groups but {len(cells)} labels; "
                "expected one group for each label"
            )
        names, index = np.unique(np.asarray(groups), return_inverse=True)
        n_groups = len(names)
        per_group = np.bincount(index * n_cells + cells, minlength=n_groups * n_cells)
        per_group = per_group.reshape(n_groups, n_cells)

        def draw(times: int) -> np.ndarray:
            draws = rng.multinomial(n_groups, [1 / n_groups] * n_groups, size=times)
            return draws @ per_group

    if n_groups < MIN_GROUPS:
        return dict.fromkeys(METRICS)
    counts = draw(n_resamples).reshape(-1, n_classes, n_classes)
    present = np.unique(labels)
    for _ in range(_MOST_REDRAWN):
        missed = (counts.sum(-1)[:, present] == 0).any(-1)
        if not missed.any():
            break
        counts[missed] = draw(missed.sum()).reshape(-1, n_classes, n_classes)
    else:
        counts = counts[~missed]
    if not len(counts):
        return dict.fromkeys(METRICS)
    values = metrics_of_confusion(counts)
    tail = (1 - confidence) / 2
    bounds = {k: np.quantile(v, [tail, 1 - tail]).tolist() for k, v in values.items()}
    return {name: (low, high) for name, (low, high) in bounds.items()}


def summary(
    labels: ArrayLike,
    predictions: ArrayLike,
    n_classes: int,
    speakers: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """Summarises one set of predictions for ``results.json``.

    Arguments
    ---------
    labels : array_like of int
        True classes in [0, n_classes), shape (N,).
    predictions : array_like of int
        Predicted classes, shape (N,).
    n_classes : int
        Number of classes of the classifier.
    speakers : sequence, optional
        Speaker of each utterance.

    Returns
    -------
    summary : dict
        Plain numbers, lists and dictionaries for JSON: for each of ``uar``, ``wa`` and
        ``macro_f1`` its ``value``, 95 % ``interval`` over utterances and
        ``interval_speakers``; ``chance`` (of the UAR); ``utterances`` and ``speakers``
        (counts); ``class_counts`` (C) of the labels; ``confusion_matrix`` (C, C), one
        row per true class; and ``interval_speakers_missing``: why there is no interval
        over speakers, or None.

    Raises
    ------
    ValueError
        If the lists do not fit together or contain other classes.

    Example
    -------
    >>> report = summary([0, 1, 1, 0, 1], [0, 1, 0, 0, 1], 2, speakers="aabbb")
    >>> report["confusion_matrix"], report["wa"]["value"]
    ([[2, 0], [1, 2]], 0.8)
    >>> report["interval_speakers_missing"]
    '2 speakers, an interval needs 5'
    """
    confusion = _confusion(labels, predictions, n_classes)
    values = metrics_of_confusion(confusion)
    intervals = bootstrap_intervals(labels, predictions, n_classes)
    over_speakers: dict[str, Any] = dict.fromkeys(METRICS)
    if speakers is not None:
        speakers = list(speakers)
        over_speakers = bootstrap_intervals(labels, predictions, n_classes, speakers)
    report = {
        name: {
            "value": float(values[name]),
            "interval": intervals[name],
            "interval_speakers": over_speakers[name],
        }
        for name in METRICS
    }
    return {
        **report,
        "chance": chance_uar(n_classes),
        "utterances": int(confusion.sum()),
        "class_counts": confusion.sum(1).tolist(),
        "confusion_matrix": confusion.tolist(),
        **about_speakers(speakers),
    }


def about_speakers(speakers: Sequence[Any] | None) -> dict[str, Any]:
    """Counts speakers, and says why there is no interval over them (None: there is)."""
    if speakers is None:
        number, missing = None, "the speakers are not known"
    else:
        number, missing = len(set(speakers)), None
        if number < MIN_GROUPS:
            missing = f"{number} speakers, an interval needs {MIN_GROUPS}"
    return {"speakers": number, "interval_speakers_missing": missing}
