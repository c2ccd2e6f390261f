"""Measures of embeddings against scikit-learn and naive loops."""

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import f1_score, mutual_info_score
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import LinearSVC

from speechbrain_ser_cl.metrics import clustering_scores, linear_svm, recall_at_1
from speechbrain_ser_cl.metrics.probes import matched_labels


def blobs(n_per_class, spread, seed=0, dim=5, n_classes=3):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_classes, dim))
    labels = np.repeat(np.arange(n_classes), n_per_class)
    order = rng.permutation(len(labels))
    points = centres[labels] + spread * rng.normal(size=(len(labels), dim))
    return points[order], labels[order]


# Linear SVM


def test_svm_on_separable_classes_and_on_names():
    x, labels = blobs(40, spread=0.1)
    names = np.array(["angry", "happy", "sad"])[labels]
    predictions = linear_svm(x[:60], names[:60], x[60:])
    assert predictions.tolist() == names[60:].tolist()


def test_svm_of_two_classes_is_the_maximum_margin_line():
    """Support vectors at 1 and 3: the border is half way between them."""
    predictions = linear_svm(
        [[0.0], [1.0], [3.0], [9.0]], [0, 0, 1, 1], [[1.99], [2.01]], C=100
    )
    assert predictions.tolist() == [0, 1]


def test_svm_agrees_with_another_solver():
    x, labels = blobs(150, spread=0.6, n_classes=2)
    other = LinearSVC(C=1.0, loss="hinge", dual=True, max_iter=100_000, tol=1e-6)
    expected = other.fit(x[:200], labels[:200]).predict(x[200:])
    found = linear_svm(x[:200], labels[:200], x[200:])
    assert (found == expected).mean() > 0.97


def test_svm_does_not_hide_a_collapse():
    """All embeddings at one point except for rounding errors: one class wins."""
    x, labels = blobs(50, spread=0.1)
    predictions = linear_svm(1 + 1e-7 * x, labels, 1 + 1e-7 * x)
    assert len(set(predictions.tolist())) == 1


# Recall@1


def naive_recall_at_1(x, labels):
    hits = {label: [] for label in labels}
    for i, query in enumerate(x):
        distances = [np.linalg.norm(query - other) for other in x]
        distances[i] = np.inf
        hits[labels[i]].append(labels[int(np.argmin(distances))] == labels[i])
    return np.mean([np.mean(values) for values in hits.values()])


def test_recall_at_1_is_that_of_loops():
    x, labels = blobs(30, spread=0.8)
    keep = np.r_[np.flatnonzero(labels == 0)[:7], np.flatnonzero(labels > 0)]
    x, labels = x[keep], labels[keep]  # unequal classes: the average is over classes
    found = recall_at_1(x, labels)
    assert found == pytest.approx(naive_recall_at_1(x, labels.tolist()))
    assert 0.4 < found < 0.95


def test_recall_at_1_over_several_blocks():
    x, labels = blobs(500, spread=1.0)
    nearest = NearestNeighbors(n_neighbors=1).fit(x).kneighbors(return_distance=False)
    same = labels[nearest[:, 0]] == labels
    by_class = [same[labels == c].mean() for c in range(3)]
    assert recall_at_1(x, labels) == pytest.approx(np.mean(by_class))


@pytest.mark.parametrize("in_order", [True, False])
def test_one_point_for_all_is_chance(in_order):
    _, labels = blobs(50, spread=1.0)
    if in_order:
        labels = np.sort(labels)
    assert recall_at_1(np.ones((150, 4)), labels) == pytest.approx(49 / 149)


def test_equally_near_neighbours_count_by_their_share():
    # the first has one row of its class and one of another at distance 1
    assert recall_at_1(
        [[0.0], [1.0], [-1.0], [-1.0]], ["a", "a", "b", "b"]
    ) == pytest.approx(((1 / 3 + 1) / 2 + 1) / 2)


def test_alone_in_its_class():
    assert recall_at_1([[0.0], [1.0], [2.0]], ["a", "b", "b"]) == pytest.approx(
        (0 + (0.5 + 1) / 2) / 2
    )


# Clustering


def test_the_best_of_all_assignments():
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels, clusters = rng.integers(4, size=(2, 60))
        matched = matched_labels(clusters, labels)
        best = max(
            (np.array(order)[clusters] == labels).sum()
            for order in permutations(range(4))
        )
        assert (matched == labels).sum() == best
        assert len(set(zip(clusters.tolist(), matched.tolist(), strict=True))) == 4


def test_scores_of_separate_groups_do_not_depend_on_names():
    x, labels = blobs(30, spread=0.05)
    names = np.array(["sad", "angry", "happy"])[labels]
    perfect = {"f1": pytest.approx(1), "nmi": pytest.approx(1)}
    assert clustering_scores(x, labels) == perfect
    assert clustering_scores(x, names) == perfect


def test_scores_against_a_naive_computation():
    """One dimension and two distant groups, so that the clusters are known."""
    x = np.r_[np.zeros(30), np.ones(20)][:, None] + np.linspace(0, 0.1, 50)[:, None]
    clusters = np.repeat([0, 1], [30, 20])
    labels = np.array([0] * 25 + [1] * 5 + [0] * 3 + [1] * 17)
    scores = clustering_scores(x, labels)
    assert scores["f1"] == pytest.approx(f1_score(labels, clusters, average="macro"))

    def entropy(values):
        p = np.bincount(values) / len(values)
        return -(p * np.log(p)).sum()

    mean = (entropy(labels) + entropy(clusters)) / 2
    assert scores["nmi"] == pytest.approx(mutual_info_score(labels, clusters) / mean)


def test_data_without_structure_have_low_scores():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(600, 4)), rng.integers(4, size=600)
    scores = clustering_scores(x, labels)
    assert scores["nmi"] < 0.03
    assert scores["f1"] < 0.35
    assert scores == clustering_scores(x, labels)


def test_a_collapse_is_scored_without_a_warning(recwarn):
    labels = np.repeat([0, 1, 2], 10)
    scores = clustering_scores(np.ones((30, 4)), labels)
    assert scores["nmi"] == pytest.approx(0)
    # everything is one class: F1 of that is 2 · 1/3 / (1 + 1/3) and 0 of the others
    assert scores["f1"] == pytest.approx(0.5 / 3)
    assert not recwarn.list


def test_errors():
    with pytest.raises(ValueError, match=r"found shapes \(3, 2\) and \(2,\)"):
        recall_at_1(np.zeros((3, 2)), [0, 1])
    with pytest.raises(ValueError, match="not finite"):
        clustering_scores([[0.0], [np.nan]], [0, 1])
    with pytest.raises(ValueError, match="not finite"):
        linear_svm([[0.0], [np.inf]], [0, 1], [[0.0]])
    with pytest.raises(ValueError, match="3 clusters for 2 classes"):
        matched_labels([0, 1, 2], [0, 1, 1])
