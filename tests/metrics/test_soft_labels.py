"""Dimensions, votes, calibration and groups: other libraries, edge cases."""

import json

import numpy as np
import pytest
import torch
import torchmetrics.functional as tm
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, pearsonr
from sklearn.metrics import f1_score

from speechbrain_ser_cl.metrics import (
    KINDS,
    calibration_summary,
    classification_metrics,
    dimension_metrics,
    dimension_summary,
    fit_temperature,
    group_summary,
    kinds,
    macro_f1_of_all,
    multilabel_summary,
    reliability,
    rescale,
    vote_metrics,
    vote_summary,
)
from speechbrain_ser_cl.metrics.resampling import intervals

RNG = np.random.default_rng(0)
LABELS = RNG.normal(3, 1, (40, 2))
PREDICTIONS = 0.5 * LABELS + RNG.normal(1, 0.5, (40, 2))
SPEAKERS = [f"s{i}" for i in np.arange(40) % 8]


def naive_ccc(x, y):
    a, b = x - x.mean(), y - y.mean()
    spread = (a**2).mean() + (b**2).mean() + (x.mean() - y.mean()) ** 2
    return 2 * (a * b).mean() / spread


def test_dimensions_equal_naive_formulas_and_other_libraries():
    found = dimension_metrics(LABELS, PREDICTIONS)
    for k in range(2):
        x, y = PREDICTIONS[:, k], LABELS[:, k]
        assert found["ccc"][k] == pytest.approx(naive_ccc(x, y))
        assert found["pearson"][k] == pytest.approx(pearsonr(x, y)[0])
        assert found["rmse"][k] == pytest.approx(np.sqrt(((x - y) ** 2).mean()))
    theirs = tm.concordance_corrcoef(
        torch.tensor(PREDICTIONS), torch.tensor(LABELS)
    ).numpy()
    # Theirs uses variances over N - 1 but the unscaled distance of the means.
    assert found["ccc"] == pytest.approx(theirs, abs=0.01)


def test_degenerate_dimensions():
    constant = dimension_metrics(LABELS[:, 0], np.full(40, 0.1))
    assert constant["ccc"] == constant["pearson"] == 0
    one = dimension_metrics([2.0], [3.0])
    assert (one["ccc"], one["pearson"], one["rmse"]) == (0, 0, 1)
    assert dimension_metrics([0.1] * 3, [0.1] * 3)["ccc"] == 0
    partly, whole = LABELS.copy(), dimension_metrics(LABELS[:30], PREDICTIONS[:30])
    partly[30:, 0] = np.nan
    found = dimension_metrics(partly, PREDICTIONS)
    assert found["ccc"][0] == pytest.approx(whole["ccc"][0])
    partly[:, 0] = np.nan
    assert np.isnan(dimension_metrics(partly, PREDICTIONS)["ccc"][0])
    with pytest.raises(ValueError, match="same shape"):
        dimension_metrics(LABELS, PREDICTIONS[:, :1])
    with pytest.raises(ValueError, match="finite"):
        dimension_metrics([1.0], [np.nan])


def test_summary_of_dimensions():
    names = ["arousal", "valence"]
    found = dimension_summary(LABELS, PREDICTIONS, names, SPEAKERS, 200)
    json.dumps(found)
    values = dimension_metrics(LABELS, PREDICTIONS)
    assert found["ccc"]["value"] == pytest.approx(values["ccc"].mean())
    assert found["rmse_valence"]["value"] == pytest.approx(values["rmse"][1])
    low, high = found["ccc"]["interval_speakers"]
    assert low < found["ccc"]["value"] < high
    assert found["interval_speakers_missing"] is None and found["speakers"] == 8
    few = dimension_summary(LABELS, PREDICTIONS, names, ["a", "b"] * 20, 10)
    assert few["interval_speakers_missing"] == "2 speakers, an interval needs 5"
    one = dimension_summary([[1.0, 2]], [[1.0, 2]], names)
    assert one["ccc"] == {"value": 0.0, "interval": None, "interval_speakers": None}


def test_votes_equal_scipy():
    votes = RNG.integers(0, 4, (30, 4)) + [[1, 0, 0, 0]]
    p = RNG.dirichlet([1.0] * 4, 30)
    found = vote_metrics(votes, p)
    for i in range(30):
        v = votes[i] / votes[i].sum()
        assert found["kl"][i] == pytest.approx(entropy(v, p[i]))
        assert found["js"][i] == pytest.approx(jensenshannon(v, p[i], 2) ** 2)
        cosine = v @ p[i] / np.linalg.norm(v) / np.linalg.norm(p[i])
        assert found["cosine"][i] == pytest.approx(cosine)
        assert found["brier"][i] == pytest.approx(((v - p[i]) ** 2).sum())
        tied = (v == v.max()).sum() > 1
        agrees = np.nan if tied else float(p[i].argmax() == v.argmax())
        assert found["majority"][i] == pytest.approx(agrees, nan_ok=True)
    sure = vote_metrics([[0, 1]], [[1.0, 0.0]])
    assert np.isfinite(sure["kl"]) and sure["js"] == pytest.approx(1)
    report = vote_summary(votes, p, np.arange(30) % 6, 50)
    assert report["kl"]["value"] == pytest.approx(found["kl"].mean())
    json.dumps(report)
    tied = vote_summary([[1, 1]], [[0.3, 0.7]])["majority"]
    assert tied["value"] is None
    with pytest.raises(ValueError, match="a vote in each row"):
        vote_metrics([[0, 0]], [[0.3, 0.7]])


def test_several_emotions_equal_sklearn():
    y, x = RNG.random((2, 50, 4)) < 0.4
    y[:, 3] = False
    found = multilabel_summary(y, x, np.arange(50) % 7, 50)
    macro = f1_score(y[:, :3], x[:, :3], average="macro")
    assert found["macro_f1"]["value"] == pytest.approx(macro)
    micro = f1_score(y, x, average="micro")
    assert found["micro_f1"]["value"] == pytest.approx(micro)
    samples = f1_score(y, x, average="samples", zero_division=1)
    assert found["sample_f1"]["value"] == pytest.approx(samples)
    with pytest.raises(ValueError, match="0 or 1"):
        multilabel_summary([[0.5]], [[1]])


def test_macro_f1_of_all_is_that_of_sklearn():
    for _ in range(20):
        y, x = RNG.integers(0, 5, (2, 6))
        assert macro_f1_of_all(y, x, 5) == pytest.approx(
            f1_score(y, x, average="macro")
        )


def test_the_temperature_is_found_and_calibrates():
    true = RNG.normal(0, 1, (4000, 4))
    p = np.exp(true) / np.exp(true).sum(1, keepdims=True)
    labels = (p.cumsum(1) > RNG.random((4000, 1))).argmax(1)
    temperature = fit_temperature(3 * true[2000:], labels[2000:])
    sure = np.exp(3 * true[:2000])
    sure /= sure.sum(1, keepdims=True)
    found = calibration_summary(sure, labels[:2000], temperature)
    np.testing.assert_allclose(rescale(sure, 3.0), p[:2000], atol=1e-12)
    assert found["temperature"] == pytest.approx(3, rel=0.1)
    assert found["after"]["ece"] < 0.05 < 0.15 < found["before"]["ece"]
    assert found["after"]["brier"] < found["before"]["brier"]
    json.dumps(found)
    # One of one right equals 5 of 6: log 5 = 2 / T.
    assert fit_temperature([[2.0, 0.0]], [0]) == pytest.approx(2 / np.log(5), rel=1e-4)


def test_reliability_equals_torchmetrics():
    p = RNG.dirichlet([1.0] * 3, 200)
    labels = RNG.integers(0, 3, 200)
    theirs = tm.calibration_error(
        torch.tensor(p), torch.tensor(labels), "multiclass", num_classes=3, n_bins=15
    )
    found = reliability(p, labels)
    assert found["ece"] == pytest.approx(theirs.item(), abs=1e-6)
    assert sum(b["count"] for b in found["bins"]) == 200
    perfect = reliability(np.eye(3)[labels], labels)
    assert perfect["ece"] == 0 and perfect["brier"] == 0
    with pytest.raises(ValueError, match="sum 1"):
        reliability([[0.2, 0.2]], [0])


def test_groups_have_a_worst_one_and_a_gap():
    labels = np.arange(400) % 4
    speakers = np.repeat(np.arange(20), 20)
    right = RNG.random(400) < np.where(speakers % 2, 0.4, 0.9)
    predictions = np.where(right, labels, (labels + 1) % 4)
    sums = {}
    for y, x, speaker in zip(labels, predictions, speakers, strict=True):
        key = ("fm"[speaker % 2], int(speaker))
        sums.setdefault(key, np.zeros((4, 4), int))[y, x] += 1
    found = group_summary(KINDS["classes"], "uar", sums, n_resamples=100)
    values = {
        group: classification_metrics(labels[rows], predictions[rows], 4)["uar"]
        for group, rows in (("f", speakers % 2 == 0), ("m", speakers % 2 == 1))
    }
    assert found["worst"] == "m"
    for group, value in values.items():
        assert found["groups"][group]["value"] == pytest.approx(value)
        assert found["groups"][group]["speakers"] == 10
        low, high = found["groups"][group]["interval"]
        assert low < value < high
    gap = values["f"] - values["m"]
    assert found["gap"]["value"] == pytest.approx(gap)
    low, high = found["gap"]["interval"]
    assert 0 < low < gap < high
    json.dumps(found)
    few = {key: part for key, part in sums.items() if key[1] < 9}
    assert group_summary(KINDS["classes"], "uar", few)["gap"]["interval"] is None
    with pytest.raises(ValueError, match="'f2' is none of uar"):
        group_summary(KINDS["classes"], "f2", sums)


def test_measures_of_sums_are_those_of_utterances():
    speakers = RNG.integers(0, 6, 60)
    y, x = RNG.normal(50, 10, (2, 60, 2))
    y[5, 0] = np.nan
    of = [kinds.dimension_sums(y[speakers == s], x[speakers == s]) for s in range(6)]
    found = kinds.each_dimension(sum(part.sum(0) for part in of))
    for name, value in dimension_metrics(y, x).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9)
    constant = kinds.each_dimension(
        kinds.dimension_sums(y, np.full((60, 2), 49.9)).sum(0)
    )
    assert (constant["ccc"] == 0).all() and (constant["pearson"] == 0).all()
    votes, p = RNG.integers(0, 5, (40, 3)) + 1, RNG.dirichlet([1.0] * 3, 40)
    sums = kinds.vote_sums(votes, p).sum(0)
    for name, value in KINDS["votes"].measure(sums).items():
        assert value == pytest.approx(vote_summary(votes, p)[name]["value"])
    true, said = RNG.integers(0, 2, (2, 40, 3))
    sums = kinds.emotion_sums(true, said).sum(0)
    for name, value in KINDS["emotions"].measure(sums).items():
        assert value == pytest.approx(multilabel_summary(true, said)[name]["value"])
    assert KINDS["emotions"].number(sums) == 40


def test_an_interval_over_speakers_covers_the_true_concordance():
    covered = 0
    for trial in range(100):
        rng = np.random.default_rng(trial)
        y = rng.normal(size=(30, 5))
        x = y + rng.normal(size=(30, 5))  # CCC = 2 / (1 + 2)
        speakers = np.repeat(np.arange(30), 5)
        y, x = y.ravel(), x.ravel()
        low, high = intervals(
            lambda i, y=y, x=x: {"ccc": naive_ccc(x[i], y[i])}, 150, speakers, 100
        )["ccc"]
        covered += low <= 2 / 3 <= high
    assert covered >= 85
