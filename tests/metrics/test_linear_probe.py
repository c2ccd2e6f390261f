"""The linear probe against scikit-learn and the formulas."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.svm import LinearSVC

from speechbrain_ser_cl.metrics.linear_probe import (
    fit_classifier,
    held_out_scores,
    inner_folds,
    ridge_scores,
    standardiser,
)
from speechbrain_ser_cl.metrics.logistic import fit_logistic


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 90, p=[0.6, 0.3, 0.1])
    return rng.normal(size=(90, 6)) + 1.5 * np.eye(6)[labels], labels


@pytest.mark.parametrize("size", [6, 200])  # also more dimensions than utterances
def test_ridge_of_all_folds_at_once_is_a_weighted_ridge_of_each(data, size):
    x, labels = data
    x = np.concatenate([x, np.random.default_rng(1).normal(size=(90, size - 6))], 1)
    folds = np.arange(90) % 4
    weights = (90 / (3 * np.bincount(labels)))[labels]
    found = ridge_scores(x, labels, folds, [0.001, 0.1]).argmax(2)
    for C, predicted in zip([0.001, 0.1], found, strict=True):
        for fold in range(4):
            train, held_out = folds != fold, folds == fold
            model = RidgeClassifier(alpha=1 / C)
            model.fit(x[train], labels[train], weights[train])
            assert (model.predict(x[held_out]) == predicted[held_out]).all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_weights_of_each_classifier_are_scikit_learns(data, n_classes):
    x, labels = data[0], np.minimum(data[1], n_classes - 1)
    models = {
        "logistic": LogisticRegression(C=0.1, class_weight="balanced", tol=1e-8),
        "svm": LinearSVC(C=0.1, class_weight="balanced", random_state=0),
        "ridge": RidgeClassifier(alpha=10, class_weight="balanced"),
    }
    for name, model in models.items():
        model.fit(x, labels)
        *_, (weights, bias) = fit_classifier(
            name, x, labels, [0.01, 0.1], tolerance=1e-8
        )
        logits = x @ weights.T + bias
        assert (logits.argmax(1) == model.predict(x)).all()
        if name == "logistic":  # started from the solution of another strength
            shares = np.exp(logits - logits.max(1, keepdims=True))
            shares /= shares.sum(1, keepdims=True)
            np.testing.assert_allclose(shares, model.predict_proba(x), atol=1e-4)


@pytest.mark.parametrize("size", [6, 200])
def test_logistic_regressions_of_all_folds_are_scikit_learns(data, size):
    x, labels = data
    x = np.concatenate([x, np.random.default_rng(1).normal(size=(90, size - 6))], 1)
    folds = np.arange(90) % 4
    labels[(folds == 1) & (labels == 2)] = 0
    folds[labels == 2] = 3  # fitted without this class when fold 3 is held out
    strengths = [0.01, 1.0]
    weights = np.array([np.where(folds == fold, 0.0, 1.0) for fold in range(4)])
    fits = fit_logistic(x, labels, strengths, weights, 1e-8)
    told = held_out_scores("logistic", x, labels, folds, strengths, False).argmax(2)
    for C, (found, biases), predicted in zip(strengths, fits, told, strict=True):
        for fold in range(4):
            train = folds != fold
            model = LogisticRegression(C=C, tol=1e-8, max_iter=1000)
            model.fit(x[train], labels[train])
            scores = (x @ found[fold].T + biases[fold])[:, model.classes_]
            shares = np.exp(scores - scores.max(1, keepdims=True))
            shares /= shares.sum(1, keepdims=True)
            np.testing.assert_allclose(shares, model.predict_proba(x), atol=1e-5)
            # Fitted with less precision: only two classes that are level may change.
            second, first = np.sort(shares[~train], axis=1)[:, -2:].T
            same = predicted[~train] == model.predict(x[~train])
            assert same[first - second > 0.01].all()


def test_inner_folds_never_part_a_speaker():
    labels = np.arange(60) % 3
    speakers = [f"s{n // 6}" for n in range(60)]
    folds = inner_folds(labels, speakers, 5)
    assert set(folds) == set(range(5))
    for speaker in set(speakers):
        assert len(set(folds[np.array(speakers) == speaker])) == 1
    with pytest.raises(ValueError, match="one speaker only"):
        inner_folds(labels, ["s"] * 60)


def test_constant_dimensions_are_left_alone():
    mean, std = standardiser(np.array([[1.0, 5.0], [3.0, 5.0]]))
    assert mean.tolist() == [2, 5] and std.tolist() == [1, 1]


def test_vectors_far_from_zero_are_fitted_in_single_precision_too(data):
    x, labels = data[0] + 1e4 * np.arange(6), data[1]
    found = []
    for precision in (np.float32, np.float64):
        x = x.astype(precision)
        ((weights, bias),) = fit_logistic(x, labels, [0.01], np.ones((1, 90)), 1e-6)
        found.append((x @ weights[0].T.astype(float) + bias[0]).argmax(1))
    assert (found[0] == found[1]).mean() > 0.95
