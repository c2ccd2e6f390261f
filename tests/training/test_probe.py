"""A probe from audio to an exported model, against scikit-learn on simple features."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from speechbrain.utils.run_opts import RunOptions

from speechbrain_ser_cl.backbones import WeightedSSL
from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
from speechbrain_ser_cl.data.experiment import prepare
from speechbrain_ser_cl.data.features.place import (
    estimate_features,
    features_folder,
    kept_features,
)
from speechbrain_ser_cl.data.protocols import make_folds, select_parts
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.report import write_report
from speechbrain_ser_cl.results.crossval import read_crossval
from speechbrain_ser_cl.training import Launch
from speechbrain_ser_cl.training.probe import LinearProbe
from speechbrain_ser_cl.training.utterance_features import UtteranceFeatures
from speechbrain_ser_cl.utils.audio import load_audio

CONFIG = {
    "model_type": "whisper",
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
}
CLASSES = ["angry", "happy", "neutral", "sad"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return write_synthetic(
        folder, "synthetic_source", n_speakers=5, utterances_per_speaker=12
    )


@pytest.fixture(scope="module")
def features(corpus, tmp_path_factory):
    torch.manual_seed(0)
    backbone = WeightedSSL(CONFIG, freeze="all")
    found = UtteranceFeatures("tiny", backbone, tmp_path_factory.mktemp("features"))
    found.fill(read_synthetic(corpus))
    return found


@pytest.fixture(scope="module")
def parts(corpus):
    items = [Labelled(u, u.emotion) for u in read_synthetic(corpus)]
    return select_parts(items, make_folds(items, "leave_one_speaker_out")[0])


def naive(features, items, layer):
    """Computes mean and deviation of a layer, one utterance at a time."""
    rows = []
    for item in items:
        wav = load_audio(item.utterance.path)[None]
        with torch.no_grad():
            frames = list(features.backbone.hidden_states(wav))[layer][0].double()
        rows.append(torch.cat([frames.mean(0), frames.std(0, correction=0)]).numpy())
    return np.stack(rows)


def test_features_of_batches_are_those_of_each_utterance_alone(features, parts):
    ids = [item.utterance.id for item in parts["test"]]
    for layer in range(3):
        found = features.matrix(ids, layer, "statistics")
        np.testing.assert_allclose(
            found, naive(features, parts["test"], layer), atol=2e-5
        )
        assert (features.matrix(ids, layer, "mean") == found[:, :16]).all()


@pytest.mark.parametrize(
    ("pooling", "layers", "C"),
    [("mean", [1], 0.05), ("statistics", [1], 0.05), ("statistics", [0, 1, 2], 0.01)],
)
def test_probabilities_and_exported_model_are_scikit_learns(
    features, parts, pooling, layers, C
):
    probe = LinearProbe(layers=layers, most_layers=2, poolings=[pooling], strengths=[C])
    found = probe.run(features, parts, CLASSES)
    fit, size = [*parts["train"], *parts["valid"]], 16 if pooling == "mean" else 32
    model = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=C, class_weight="balanced", max_iter=5000),
    )
    scores = []
    for layer in found.choice.layers:
        model.fit(naive(features, fit, layer)[:, :size], [item.label for item in fit])
        test = naive(features, parts["test"], layer)[:, :size]
        scores.append(model.decision_function(test))
    expected = softmax(np.mean(scores, axis=0), axis=1)
    np.testing.assert_allclose(found.predictions["probability"], expected, atol=2e-3)
    assert_model_gives(found, parts["test"], found.predictions["probability"])


def assert_model_gives(found, items, expected):
    exported = found.model()
    for item, row in zip(items, expected, strict=True):
        with torch.no_grad():
            logits = exported(load_audio(item.utterance.path)[None])[0]
        np.testing.assert_allclose(logits.softmax(0), row, atol=1e-3)


@pytest.mark.parametrize("pooling", ["mean", "statistics"])
def test_one_model_has_the_mean_scores_of_several_layers(features, parts, pooling):
    options = {"poolings": [pooling], "strengths": [0.05]}
    high, low = (
        LinearProbe(layers=[layer], **options).run(features, parts, CLASSES)
        for layer in (2, 0)
    )
    choice = dataclasses.replace(high.choice, layers=(2, 0))
    both = dataclasses.replace(high, choice=choice, fits=[*high.fits, *low.fits])
    scores = (high.fits[0].test_scores + low.fits[0].test_scores) / 2
    assert_model_gives(both, parts["test"], softmax(scores, axis=1))


def test_nothing_of_the_test_part_chooses_or_fits(features, parts):
    relabelled = parts | {
        "test": [
            Labelled(item.utterance, CLASSES[n % 4])
            for n, item in enumerate(parts["test"])
        ]
    }
    probe = LinearProbe("ridge")
    one, other = (probe.run(features, p, CLASSES) for p in (parts, relabelled))
    assert one.choice == other.choice
    assert one.predictions["probability"] == other.predictions["probability"]
    assert set(one.curve) == {0, 1, 2}
    assert max(one.curve.values()) >= one.choice.uar - 1e-9


def test_a_second_layer_is_averaged_only_if_the_inner_folds_gain(features, parts):
    one, two = (
        LinearProbe("ridge", most_layers=k).run(features, parts, CLASSES)
        for k in (1, 2)
    )
    assert two.choice.layers[:1] == one.choice.layers
    assert one.curve == two.curve
    gain = two.choice.uar - one.choice.uar
    assert gain > 0 if len(two.choice.layers) > 1 else two.choice == one.choice


def test_texts_of_the_test_part_are_not_fitted_on(features, corpus):
    items = [Labelled(u, u.emotion) for u in read_synthetic(corpus)]
    protocol = {"kind": "speaker_text_kfold", "n_folds": 3, "text_folds": 2}
    parts = select_parts(items, make_folds(items, protocol)[0])
    shared = {i.utterance.text_id for i in parts["valid"]}
    assert shared & {i.utterance.text_id for i in parts["test"]}
    probe = LinearProbe(strengths=[0.05])
    found = probe.run(features, parts, CLASSES)
    expected = probe.run(features, parts | {"valid": []}, CLASSES)
    assert found.predictions == expected.predictions


def _said_by(item, speaker):
    return Labelled(dataclasses.replace(item.utterance, speaker=speaker), item.label)


def test_standardised_by_speaker_there_is_no_model(features, parts):
    probe = LinearProbe("svm", normalisations=["speaker"], strengths=[0.01])
    assert probe.run(features, parts, CLASSES).model() is None
    nobody = {name: [_said_by(i, None) for i in part] for name, part in parts.items()}
    with pytest.raises(ValueError, match="needs to know who speaks"):
        probe.run(features, nobody, CLASSES)
    one = {name: [_said_by(i, "one") for i in part] for name, part in parts.items()}
    assert 0 <= LinearProbe("ridge").run(features, one, CLASSES).uar <= 1


def test_the_command_leaves_what_a_cross_validation_leaves(
    corpus, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("SER_CL_CACHE", str(tmp_path / "cache"))
    arguments = ["--corpus", "synthetic_source", "--encoder", "log_mel"]
    arguments += ["--protocol", "leave_one_speaker_out", "--classifier", "ridge"]
    arguments += ["--output_folder", str(tmp_path / "out")]
    assert main(["probe", str(corpus), *arguments]) == 0
    assert "simple baseline: ridge" in capsys.readouterr().out
    (kept,) = kept_features()
    assert kept.folder.parent == features_folder() == tmp_path / "cache" / "features"
    estimate = estimate_features([1.0] * 60, "log_mel")
    assert estimate.statistics_bytes == 60 * 128 * 4 < kept.n_bytes
    found = read_crossval(tmp_path / "out" / "crossval.json")
    assert len(found.tested) == 5 and found.about["encoder"] == "log_mel"
    write_report([tmp_path / "out"], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "chosen by the inner folds" in page and "Learning curves" not in page
    assert main(["probe", str(corpus), *arguments]) == 0
    assert "60 of 60 utterances reused" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", ["leave_one_session_out", "domain_adaptation"])
def test_any_recipe_tests_the_baseline_that_its_yaml_asks_for(
    corpus, tmp_path, protocol
):
    other = write_synthetic(
        tmp_path / "other", "synthetic_target", n_speakers=5, utterances_per_speaker=8
    )
    folders = {"source": str(corpus), "target": str(other)}
    values = {
        "baseline": "probe",
        "recipe": "mine",
        "seed": 1,
        "ssl_source": "log_mel",
        "features_folder": str(tmp_path / "features"),
        "output_folder": str(tmp_path / "run"),
        "data_folder": str(tmp_path / "data"),
        "corpora": {
            name: {"reader": f"synthetic_{name}", "folder": folder}
            for name, folder in folders.items()
        },
        "emotion_map": {name: [name] for name in CLASSES},
        "protocol": protocol,
    }
    yaml = tmp_path / "mine.yaml"
    yaml.write_text(json.dumps(values, indent=1))
    launch = Launch(yaml, RunOptions.from_dictionary({"device": "cpu"}), {})
    experiment = prepare(launch.values)
    launch.start(experiment)
    found = json.loads((tmp_path / "run/baseline/results.json").read_text())
    assert found["setting"] == "simple baseline: logistic regression"
    name = "target_test" if protocol == "domain_adaptation" else "test"
    assert found["test"]["utterances"] == len(experiment.parts[name])
