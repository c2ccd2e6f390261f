"""Metrics and bootstrap intervals against scikit-learn and naive loops."""

import json
import warnings

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from speechbrain_ser_cl.metrics import (
    bootstrap_intervals,
    chance_uar,
    classification_metrics,
    summary,
)


def by_sklearn(labels, predictions):
    """Computes means over the classes that occur in the labels."""
    present = np.unique(labels)
    options = {"labels": present, "average": "macro", "zero_division": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "uar": recall_score(labels, predictions, **options),
            "wa": accuracy_score(labels, predictions),
            "macro_f1": f1_score(labels, predictions, **options),
        }


@pytest.mark.parametrize("n_classes", [1, 2, 4, 8])
@pytest.mark.parametrize("n_utterances", [1, 3, 10, 500])
def test_metrics_equal_sklearn(n_classes, n_utterances):
    """Small samples lack classes in the labels, the predictions or both."""
    rng = np.random.default_rng(n_utterances)
    for _ in range(20):
        labels, predictions = rng.integers(0, n_classes, (2, n_utterances))
        found = classification_metrics(labels, predictions, n_classes)
        assert found == pytest.approx(by_sklearn(labels, predictions))


def test_predicting_an_absent_class_is_an_error_of_the_true_class():
    found = classification_metrics([0, 0, 1, 1], [0, 2, 1, 1], n_classes=3)
    assert found["uar"] == pytest.approx(0.75)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)


def test_guessing_reaches_chance():
    rng = np.random.default_rng(0)
    labels = rng.choice(4, size=40000, p=[0.7, 0.1, 0.1, 0.1])
    guesses = rng.integers(0, 4, 40000)
    found = classification_metrics(labels, guesses, 4)
    assert found["uar"] == pytest.approx(chance_uar(4), abs=0.01)
    always_the_same = classification_metrics(labels, 0 * labels, 4)
    assert always_the_same["uar"] == pytest.approx(chance_uar(4))
    with pytest.raises(ValueError, match="at least 1"):
        chance_uar(0)


def naive_intervals(labels, predictions, n_classes, groups, n_resamples, seed):
    """Resamples, collects the utterances one by one, and calls scikit-learn."""
    rng = np.random.default_rng(seed)
    names = sorted(set(groups))
    members = {name: np.flatnonzero(np.asarray(groups) == name) for name in names}
    values = {"uar": [], "wa": [], "macro_f1": []}
    for _ in range(n_resamples):
        drawn = [names[i] for i in rng.integers(0, len(names), len(names))]
        index = np.concatenate([members[name] for name in drawn])
        for name, value in by_sklearn(labels[index], predictions[index]).items():
            values[name].append(value)
    return {k: np.quantile(v, [0.05, 0.95]) for k, v in values.items()}


@pytest.mark.parametrize("over", ["utterances", "groups"])
def test_intervals_equal_a_naive_bootstrap(over):
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, 120)
    predictions = np.where(rng.random(120) < 0.6, labels, rng.integers(0, 3, 120))
    if over == "groups":
        groups = [f"s{i}" for i in rng.integers(0, 12, 120)]
        naive_groups = groups
    else:
        groups = None
        naive_groups = list(range(120))
    found = bootstrap_intervals(
        labels, predictions, 3, groups, n_resamples=20000, confidence=0.9
    )
    naive = naive_intervals(labels, predictions, 3, naive_groups, 1000, seed=1)
    for name, bounds in naive.items():
        assert found[name] == pytest.approx(bounds, abs=0.008)


def speaker_study(rng, n_speakers, n_classes=4, per_speaker=20):
    """Draws speakers of different difficulty; the expected UAR is 2/3."""
    share_right = rng.beta(8, 4, size=n_speakers)
    labels = np.tile(np.arange(n_classes), n_speakers * per_speaker // n_classes)
    speakers = np.repeat(np.arange(n_speakers), per_speaker)
    right = rng.random(len(labels)) < share_right[speakers]
    other = (labels + rng.integers(1, n_classes, len(labels))) % n_classes
    return labels, np.where(right, labels, other), speakers


def test_coverage_over_speakers():
    """Nominal over speakers; too narrow over their utterances."""
    rng = np.random.default_rng(2)
    covered = {"speakers": 0, "utterances": 0}
    for trial in range(300):
        labels, predictions, speakers = speaker_study(rng, n_speakers=60)
        for over, groups in (("speakers", speakers), ("utterances", None)):
            low, high = bootstrap_intervals(
                labels, predictions, 4, groups, n_resamples=400, seed=trial
            )["uar"]
            covered[over] += low <= 2 / 3 <= high
    assert 0.91 <= covered["speakers"] / 300 <= 0.98
    assert covered["utterances"] / 300 < 0.88


def test_the_only_utterance_of_a_class_is_in_every_resample():
    """Without it, the UAR would be that of the other class, and could be 1."""
    labels, predictions = [0] * 30 + [1], [0] * 31
    for groups in (None, list(range(31))):
        found = bootstrap_intervals(labels, predictions, 2, groups)
        assert found["uar"] == (0.5, 0.5)
    predictions = [0] * 15 + [1] * 16
    low, high = bootstrap_intervals(labels, predictions, 2)["uar"]
    assert 0.6 < low < 0.75 < high < 0.9


def test_coverage_with_a_rare_class():
    """Recalls 0.8 and 0.6; the second class has 8 of 200 utterances on average."""
    rng, covered = np.random.default_rng(3), 0
    for trial in range(300):
        labels = (rng.random(200) < 0.04).astype(int)
        labels[0] = 1
        right = rng.random(200) < np.where(labels, 0.6, 0.8)
        predictions = np.where(right, labels, 1 - labels)
        low, high = bootstrap_intervals(
            labels, predictions, 2, n_resamples=300, seed=trial
        )["uar"]
        covered += low <= 0.7 <= high
    # Below the nominal 95 %, because eight utterances underestimate their variation.
    assert 0.85 <= covered / 300 <= 0.97


def test_intervals_hold_the_value_and_shrink_with_confidence():
    rng = np.random.default_rng(0)
    labels, predictions, speakers = speaker_study(rng, n_speakers=30)
    values = classification_metrics(labels, predictions, 4)
    wide = bootstrap_intervals(labels, predictions, 4, speakers, confidence=0.99)
    narrow = bootstrap_intervals(labels, predictions, 4, speakers, confidence=0.5)
    for name, value in values.items():
        assert wide[name][0] < narrow[name][0] < value
        assert value < narrow[name][1] < wide[name][1]


def test_intervals_are_reproducible():
    labels, predictions = np.random.default_rng(0).integers(0, 2, (2, 50))
    first = bootstrap_intervals(labels, predictions, 2, seed=3)
    assert first == bootstrap_intervals(labels, predictions, 2, seed=3)
    assert first != bootstrap_intervals(labels, predictions, 2, seed=4)


def test_too_few_groups_give_no_interval():
    labels = [0, 1] * 10
    groups = ["a", "b", "c", "d"] * 5
    nothing = {"uar": None, "wa": None, "macro_f1": None}
    assert bootstrap_intervals(labels, labels, 2, groups) == nothing
    assert bootstrap_intervals([0, 1], [0, 1], 2) == nothing
    groups[0] = "e"
    assert bootstrap_intervals(labels, labels, 2, groups)["uar"] == (1.0, 1.0)


def test_summary_is_ready_for_json():
    rng = np.random.default_rng(0)
    labels, predictions, speakers = speaker_study(rng, n_speakers=8)
    report = summary(labels, predictions, 4, [f"s{i}" for i in speakers])
    assert json.loads(json.dumps(report))["class_counts"] == [40] * 4
    assert report["confusion_matrix"] == confusion_matrix(labels, predictions).tolist()
    assert (report["utterances"], report["speakers"]) == (160, 8)
    assert report["chance"] == 0.25
    for name, value in by_sklearn(labels, predictions).items():
        entry = report[name]
        assert entry["value"] == pytest.approx(value)
        for interval in (entry["interval"], entry["interval_speakers"]):
            assert interval[0] < value < interval[1]
    assert report["interval_speakers_missing"] is None


def test_summary_says_why_there_is_no_interval_over_speakers():
    labels = [0, 1] * 10
    few = summary(labels, labels, 2, speakers=["a", "b"] * 10)
    assert few["uar"]["interval_speakers"] is None
    assert few["interval_speakers_missing"] == "2 speakers, an interval needs 5"
    unknown = summary(labels, labels, 2)
    assert unknown["speakers"] is None
    assert "not known" in unknown["interval_speakers_missing"]


@pytest.mark.parametrize(
    "labels, predictions, message",
    [
        ([], [], "labels: expected a non-empty"),
        ([0, 1], [0], "2 labels but 1 predictions"),
        ([0, 3], [0, 1], r"labels: .*in \[0, 3\), found 0 to 3"),
        ([0, 1], [0, -1], "predictions: .*found -1 to 0"),
        ([0, 1], [0.2, 0.8], "predictions: .*float64"),
    ],
)
def test_bad_lists_are_refused(labels, predictions, message):
    for function in (classification_metrics, bootstrap_intervals, summary):
        with pytest.raises(ValueError, match=message):
            function(labels, predictions, 3)


def test_bad_bootstrap_options_are_refused():
    labels = [0, 1] * 5
    with pytest.raises(ValueError, match="3 groups but 10 labels"):
        bootstrap_intervals(labels, labels, 2, groups="abc")
    with pytest.raises(ValueError, match="confidence is 95"):
        bootstrap_intervals(labels, labels, 2, confidence=95)
    with pytest.raises(ValueError, match="n_resamples is 0"):
        bootstrap_intervals(labels, labels, 2, n_resamples=0)
