"""Learning votes and dimensions: training, files, and refusals elsewhere."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from speechbrain_ser_cl.backbones import write_untrained_encoder
from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.corpora import write_synthetic
from speechbrain_ser_cl.metrics import dimension_metrics
from speechbrain_ser_cl.results.crossval import collect
from speechbrain_ser_cl.results.numbers import read_numbers
from speechbrain_ser_cl.results.predictions import read_predictions
from speechbrain_ser_cl.results.utterances import read_parts

SCRIPT = Path(__file__).resolve().parents[2] / "recipes/CREMA-D/votes/train.py"
HPARAMS = SCRIPT.parent / "hparams" / "votes.yaml"
LEVEL = HPARAMS.with_name("level.yaml")
CLASSES = ["angry", "happy", "neutral", "sad"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = tmp_path_factory.mktemp("world")
    small = {"n_speakers": 6, "utterances_per_speaker": 4, "listeners": 5}
    write_synthetic(world / "corpus", "synthetic_source", **small)
    sizes = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2}
    encoder = {"model_type": "whisper", "encoder_ffn_dim": 16, **sizes}
    write_untrained_encoder(encoder, world / "encoder")
    return world


@pytest.fixture
def settings(world):
    return {
        "corpora": {"synthetic": str(world / "corpus")},
        "emotion_map": {name: [name] for name in CLASSES},
        "protocol": "leave_one_session_out",
        "data_folder": str(world / "data"),
        "features_folder": str(world / "features"),
        "ssl_source": str(world / "encoder"),
        "n_epochs": 2,
        "batch_size": 8,
        "loader_options": {"num_workers": 0},
    }


@pytest.mark.parametrize("setting", ["intended", "majority", "soft_supcon"])
def test_predictions_are_compared_with_the_votes(run, tmp_path, setting):
    results = run(setting=setting)
    found = read_predictions(tmp_path / "run" / "predictions.csv")
    parts = read_parts(tmp_path / "run" / "utterances.csv")
    test = {item.utterance.id: item for item in parts["test"]}
    votes = np.array(
        [[test[n].utterance.votes.get(c, 0) for c in CLASSES] for n in found.ids]
    )
    assert found.class_names == CLASSES
    np.testing.assert_array_equal(found.labels, votes.argmax(axis=1))
    shares = votes / votes.sum(axis=1, keepdims=True)
    brier = ((shares - found.probabilities) ** 2).sum(axis=1).mean()
    assert results["votes"]["brier"]["value"] == pytest.approx(brier, abs=1e-5)
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert ("contrast" in history[0]["train"]) == (setting == "soft_supcon")
    if setting == "majority":
        assert main(["export", str(tmp_path / "run"), str(tmp_path / "exported")]) == 0
        card = (tmp_path / "exported" / "README.md").read_text()
        assert f"| Brier | {brier:.3f} | " in card


@pytest.mark.parametrize(
    ("freeze", "kept"), [("all", True), (1, True), ("none", False)]
)
def test_only_frozen_layers_run_once(run, tmp_path, freeze, kept):
    run(freeze=freeze, n_epochs=1, features_folder=str(tmp_path / "features"))
    assert (tmp_path / "features").exists() == kept


@pytest.mark.parametrize("setting", ["mse", "rank_n_contrast"])
def test_a_dimension_is_on_the_corpus_own_scale(run, tmp_path, setting):
    results = run(hparams=LEVEL, setting=setting)
    folder = tmp_path / "run"
    with open(folder / "dimensions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    y, x = ([float(r[f"{k}_level"]) for r in rows] for k in ("label", "prediction"))
    expected = dimension_metrics(y, x)
    for name, value in expected.items():
        assert results["test"][name]["value"] == pytest.approx(value[0], abs=1e-4)
    assert results["kind"] == "dimensions" and "dimensions.csv" in results["files"]
    train = read_parts(folder / "utterances.csv")["train"]
    known = [item.utterance.dimensions["level"] for item in train]
    # Hardly trained, it predicts nearly the mean of the training data.
    assert min(known) < np.mean(x) < max(known)


@pytest.mark.parametrize(
    ("hparams", "settings_of", "metric"),
    [
        (HPARAMS, ("intended", "distribution"), "kl"),
        (LEVEL, ("mse", "ccc"), "ccc"),
    ],
)
def test_other_kinds_are_compared_as_classes_are(
    run, tmp_path, capsys, hparams, settings_of, metric
):
    for name in settings_of:
        run(name, hparams, setting=name, n_epochs=1)
        for seed in (0, 1):  # the same run twice: no difference between seeds
            path = tmp_path / name / "results.json"
            one = collect([(None, s, None, path) for s in (0, seed)], {"kind": "seeds"})
        one.write(tmp_path / name / "crossval.json")
    folders = [str(tmp_path / name) for name in settings_of]
    capsys.readouterr()
    assert main(["compare", *folders, "--metric", metric, "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    (found,) = (table for table in tables if table["metric"] == metric)
    name = "votes.csv" if metric == "kl" else "dimensions.csv"
    expected = []
    for folder in folders:
        read = read_numbers(Path(folder) / name)
        if metric == "kl":
            said = np.log(np.maximum(read.predictions, 1e-12))
            logs = np.log(read.labels, where=read.labels > 0, out=np.zeros_like(said))
            expected.append((read.labels * (logs - said)).sum(axis=1).mean())
        else:
            expected.append(dimension_metrics(read.labels, read.predictions)["ccc"][0])
    values = [row["summary"]["pooled"][metric]["value"] for row in found["settings"]]
    assert values == pytest.approx(expected, abs=1e-4)
    against = found["settings"][1]["against_first"]
    assert against["difference"] == pytest.approx(expected[1] - expected[0], abs=1e-4)

    assert main(["compare", *folders, "--metric", metric, "--groups"]) == 0
    told = capsys.readouterr().out
    assert "| gender | " in told and "| female: " in told
    page = tmp_path / "report.html"
    assert main(["report", *folders, "--output", str(page)]) == 0
    text = page.read_text()
    for words in ("Results by group", "KL to the votes" if metric == "kl" else "CCC"):
        assert words in text


def test_several_emotions_are_those_that_more_than_chance_heard(run, tmp_path):
    results = run(setting="several", n_epochs=1)
    read = read_numbers(tmp_path / "run" / "emotions.csv")
    parts = read_parts(tmp_path / "run" / "utterances.csv")
    votes_of = {i.utterance.id: i.utterance.votes for i in parts["test"]}
    for name, row in zip(read.ids, read.labels, strict=True):
        votes = votes_of[name]
        heard = [votes.get(c, 0) / sum(votes.values()) > 1 / 4 for c in CLASSES]
        assert row.tolist() == heard
    expected = f1_score(read.labels, read.predictions > 0.5, average="micro")
    assert results["test"]["micro_f1"]["value"] == pytest.approx(expected)
    description = json.loads((tmp_path / "run/model/model.json").read_text())
    assert description["kind"] == "emotions"


def test_a_model_of_a_dimension_is_exported_and_predicts(run, world, tmp_path, capsys):
    run(hparams=LEVEL, setting="mse")
    folder, exported = tmp_path / "run", tmp_path / "exported"
    assert main(["export", str(folder), str(exported)]) == 0
    card = (exported / "README.md").read_text()
    assert "Predicts level" in card and "| CCC |" in card and "true class" not in card
    known = [
        item.utterance.dimensions["level"]
        for item in read_parts(folder / "utterances.csv")["train"]
    ]
    assert f" | {min(known):g} to {max(known):g} |" in card
    read = read_numbers(folder / "dimensions.csv")
    parts = read_parts(folder / "utterances.csv")
    path_of = {i.utterance.id: str(i.utterance.path) for i in parts["test"]}
    files = [path_of[name] for name in read.ids]
    capsys.readouterr()
    words = ["predict", "--model", str(exported), "--device", "cpu", *files]
    assert main([*words, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    values = [one["values"]["level"] for one in found]
    np.testing.assert_allclose(values, read.predictions[:, 0], atol=5e-4)
    assert np.ptp(values) > 0.02
    assert main([*words, "--format", "csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert float(rows[0]["level"]) == pytest.approx(values[0], rel=1e-4)
    assert main([*words, "--window", "0.5"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[-1] == "level"
    told = main(
        ["export", str(folder), str(tmp_path / "sb"), "--format", "speechbrain"]
    )
    assert told != 0
    assert "EncoderClassifier knows classes only" in capsys.readouterr().err


def test_results_are_written_although_the_model_is_refused(run, tmp_path, monkeypatch):
    def refuse(*_):
        raise ValueError("such a model cannot be written")

    monkeypatch.setattr("speechbrain_ser_cl.training.record.write_model", refuse)
    with pytest.raises(ValueError, match="such a model cannot be written"):
        run(hparams=LEVEL, setting="mse")
    (path,) = tmp_path.rglob("results.json")
    assert "level" in json.loads(path.read_text())["class_names"]
    assert (path.parent / "dimensions.csv").is_file()
