"""Tests between settings, against scipy and against their definitions."""

from itertools import product

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, f1_score

from speechbrain_ser_cl.metrics.significance import (
    holm,
    paired_fold_tests,
    speaker_permutation_test,
)

# ------------------------------------------------------------------ over folds


@pytest.mark.parametrize("seed", range(5))
def test_the_paired_t_test_is_its_formula(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0.5, 0.9, (2, 4 + seed))
    d = a - b
    t = d.mean() / (d.std(ddof=1) / np.sqrt(len(d)))
    expected = 2 * stats.t.sf(abs(t), len(d) - 1)
    assert paired_fold_tests(a, b)["t_test"] == pytest.approx(expected)
    assert paired_fold_tests(b, a)["t_test"] == pytest.approx(expected)


def signed_rank_by_hand(difference):
    """Computes the two-sided p over all possible signs of the ranks."""
    d = np.array([x for x in difference if x != 0])
    ranks = stats.rankdata(np.abs(d))
    observed = ranks[d > 0].sum()
    sums = [ranks[np.array(s)].sum() for s in product([False, True], repeat=len(d))]
    low = np.mean([s <= observed + 1e-9 for s in sums])
    high = np.mean([s >= observed - 1e-9 for s in sums])
    return min(1.0, 2 * min(low, high))


@pytest.mark.parametrize(
    "difference",
    [
        [0.1, 0.2, 0.3, 0.4, 0.5],
        [0.1, -0.2, 0.3, 0.4, 0.5],
        [0.1, 0.1, -0.1, 0.3, 0.2, 0.2],  # ties
        [0.0, 0.1, 0.0, 0.2, -0.3],  # and zeros
        [0.05, -0.05],
        list(np.random.default_rng(1).normal(0.3, 1, 10)),
    ],
)
def test_the_signed_rank_test_is_exact(difference):
    b = np.full(len(difference), 0.5)
    p = paired_fold_tests(b + difference, b)["wilcoxon"]
    assert p == pytest.approx(signed_rank_by_hand(np.round(difference, 12)))


def test_many_folds():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.7, 0.1, (2, 24))
    p = paired_fold_tests(a, b)["wilcoxon"]
    assert p == pytest.approx(stats.wilcoxon(a, b, method="exact").pvalue)


def test_too_few_folds_give_no_p():
    nothing = {"t_test": None, "wilcoxon": None}
    assert paired_fold_tests([0.5, 0.6], [0.5, 0.6]) == nothing
    assert paired_fold_tests([0.5], [0.6]) == nothing
    # The same gain in every fold: no variation, and few folds for the ranks.
    same = paired_fold_tests([0.5, 0.6, 0.7], [0.4, 0.5, 0.6])
    assert same == {"t_test": 0.0, "wilcoxon": 0.25}
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        paired_fold_tests([0.5, 0.6], [0.5, 0.6, 0.7])


# ------------------------------------------------------------------ over speakers

METRIC = {
    "uar": balanced_accuracy_score,
    "wa": lambda labels, predictions: np.mean(labels == predictions),
    "macro_f1": lambda labels, predictions: f1_score(
        labels, predictions, average="macro"
    ),
}


def two_settings(seed, n_speakers, gain, each=12):
    """Makes labels (S, N) and predictions of two settings, better by speaker."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(each) % 3, (n_speakers, 1))
    easy = rng.uniform(0.4, 0.7, (n_speakers, 1))
    predictions = []
    for right in (easy + gain, easy):
        guess = rng.integers(0, 3, labels.shape)
        predictions.append(np.where(rng.random(labels.shape) < right, labels, guess))
    return labels, *predictions


def counts(labels, predictions):
    table = np.zeros((len(labels), 3, 3), dtype=int)
    np.add.at(table, (np.arange(len(labels))[:, None], labels, predictions), 1)
    return {f"s{i}": own for i, own in enumerate(table)}


@pytest.mark.parametrize("metric", METRIC)
@pytest.mark.parametrize("seed", range(2))
def test_the_permutation_test_is_scipys(seed, metric):
    labels, a, b = two_settings(seed, n_speakers=5, gain=0.15)

    def difference(whose_a, whose_b, axis):
        assert axis in (-1, 1)
        values = []
        for one, other in zip(*map(np.atleast_2d, (whose_a, whose_b)), strict=True):
            both = np.stack([a, b])  # code 2 i + k: speaker i's of setting k
            pick = [
                np.stack([both[code % 2][code // 2] for code in codes.astype(int)])
                for codes in (one, other)
            ]
            m = METRIC[metric]
            values.append(
                m(labels.ravel(), pick[0].ravel()) - m(labels.ravel(), pick[1].ravel())
            )
        return np.array(values)

    codes = 2 * np.arange(5)
    expected = stats.permutation_test(
        (codes, codes + 1),
        difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
        batch=1,
    )
    p = speaker_permutation_test(counts(labels, a), counts(labels, b), metric)
    assert p == pytest.approx(expected.pvalue)


def test_drawn_exchanges_are_near_all_exchanges():
    labels, a, b = two_settings(1, n_speakers=12, gain=0.2)
    settings = counts(labels, a), counts(labels, b)
    exact = speaker_permutation_test(*settings)
    drawn = [
        speaker_permutation_test(*settings, n_resamples=2000, seed=s) for s in (0, 1)
    ]
    assert 0.01 < exact < 0.5
    assert drawn == pytest.approx([exact] * 2, abs=0.04)
    assert drawn[0] != drawn[1]
    assert speaker_permutation_test(*settings, n_resamples=2000) == drawn[0]


def test_false_alarms_are_as_rare_as_promised_and_gains_are_found():
    def share_below(gain):
        found = [
            speaker_permutation_test(counts(labels, a), counts(labels, b))
            for labels, a, b in (two_settings(s, 8, gain) for s in range(200))
        ]
        return np.mean(np.array(found) < 0.05)

    assert share_below(0.0) < 0.09
    assert share_below(0.3) > 0.7


def test_one_speaker_gives_no_significant_difference():
    """Forty utterances are better, all by one speaker."""
    labels = np.tile(np.arange(42) % 3, (10, 1))
    a, b = labels.copy(), labels.copy()
    b[0] = (labels[0] + 1) % 3
    assert speaker_permutation_test(counts(labels, a), counts(labels, b)) == 1.0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"metric": "accuracy"}, "'accuracy', expected one of uar"),
        ({"n_resamples": 0}, "n_resamples is 0"),
        ({"b": {"other": np.eye(2, dtype=int)}}, "not tested on the same speakers"),
        ({"b": {"s": np.array([[2, 0], [0, 1]])}}, "not tested on the same utterances"),
    ],
)
def test_settings_that_do_not_fit_each_other(change, told):
    one = {"s": np.eye(2, dtype=int)}
    with pytest.raises(ValueError, match=told):
        speaker_permutation_test(**({"a": one, "b": one} | change))


# ------------------------------------------------------------------ several tests


def holm_by_hand(p_values):
    """Computes adjusted p: the smallest level at which Holm's steps reject it."""
    n = len(p_values)
    adjusted = []
    for p in p_values:
        levels = sorted({min(1.0, q * k) for q in p_values for k in range(1, n + 1)})
        for level in levels:
            rejected = set()
            for step, q in enumerate(sorted(p_values)):
                if q * (n - step) > level + 1e-15:
                    break
                rejected.add(q)
            if p in rejected:
                adjusted.append(level)
                break
        else:
            adjusted.append(1.0)
    return adjusted


@pytest.mark.parametrize("seed", range(10))
def test_holm_equals_its_definition(seed):
    rng = np.random.default_rng(seed)
    p_values = list(rng.uniform(0, 0.3, rng.integers(1, 7)))
    if seed % 2:
        p_values.append(p_values[0])
    assert holm(p_values) == pytest.approx(holm_by_hand(p_values))


def test_holm_leaves_out_what_was_not_tested():
    assert holm([None, 0.02, None]) == [None, 0.02, None]
    assert holm([]) == []
    with pytest.raises(ValueError, match=r"found \[1\.2\]"):
        holm([1.2])


def test_folds_of_which_one_differs():
    tests = paired_fold_tests([0.5, 0.6, 0.7], [0.5, 0.6, 0.8])
    assert tests["wilcoxon"] == 1.0
    assert tests["t_test"] == pytest.approx(stats.ttest_1samp([0, 0, 0.1], 0).pvalue)
