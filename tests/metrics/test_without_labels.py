"""Criteria without labels, against their formulas."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy, multivariate_normal
from sklearn.metrics import mutual_info_score

from speechbrain_ser_cl.metrics.without_labels import (
    mutual_information,
    neighborhood_density,
    weighted_risk,
)

RNG = np.random.default_rng(0)
P = softmax(RNG.normal(size=(30, 4)), axis=1)


def test_mutual_information_is_that_of_utterance_and_prediction():
    wanted = entropy(P.mean(0)) - np.mean([entropy(row) for row in P])
    assert mutual_information(P) == pytest.approx(wanted)
    sure = RNG.integers(0, 3, 50)
    same = mutual_info_score(np.arange(50), sure)
    assert mutual_information(np.eye(3)[sure]) == pytest.approx(same)


def test_density_is_the_mean_entropy_of_the_neighbours():
    told = []
    for i, row in enumerate(P):
        others = np.delete(P, i, axis=0)
        cosine = others @ row / np.linalg.norm(others, axis=1) / np.linalg.norm(row)
        told.append(entropy(softmax(cosine / 0.05)))
    assert neighborhood_density(P) == pytest.approx(np.mean(told))


def test_the_weighted_risk_is_that_of_the_other_domain():
    source, target = RNG.normal(size=(4000, 2)), RNG.normal(size=(4000, 2))
    target[:, 0] += 0.7
    source_loss, target_loss = source[:, 0] ** 2, target[:, 0] ** 2
    told = -weighted_risk(source_loss, source, target)
    assert abs(told - target_loss.mean()) < 0.15  # the source's is 1, this one's 1.5
    ratio = multivariate_normal([0.7, 0]).pdf(source)
    ratio /= multivariate_normal([0, 0]).pdf(source)
    assert told == pytest.approx(np.mean(ratio * source_loss), abs=0.15)


@pytest.mark.parametrize("wrong", [[[0.5, 0.2]], [0.5, 0.5], [[2.0, -1.0]]])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(ValueError, match="rows sum to 1"):
        mutual_information(wrong)
    with pytest.raises(ValueError, match="4 source utterances"):
        weighted_risk([1.0], [[0.0]], [[1.0]] * 5)
