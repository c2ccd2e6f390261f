"""Learning votes and dimensions: what is trained, written, and refused elsewhere."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from speechbrain_ser_cl.backbones import write_untrained_encoder
from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.corpora import write_synthetic
from speechbrain_ser_cl.metrics import dimension_metrics
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
        "ssl_source": str(world / "encoder"),
        "n_epochs": 2,
        "batch_size": 8,
        "loader_options": {"num_workers": 0},
    }


@pytest.mark.parametrize("setting", ["intended", "majority", "soft_supcon"])
def test_what_was_learned_is_compared_with_the_votes(run, tmp_path, setting):
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


@pytest.mark.parametrize(("freeze", "kept"), [("all", True), ("none", False)])
def test_only_a_frozen_encoder_runs_once(run, tmp_path, freeze, kept):
    run(freeze=freeze, n_epochs=1, data_folder=str(tmp_path / "data"))
    assert (tmp_path / "data" / "frames").exists() == kept


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
    # Hardly trained, it says about the mean of what it was trained on.
    assert min(known) < np.mean(x) < max(known)


def test_commands_for_classes_say_that_there_are_none(run, tmp_path, capsys):
    run(hparams=LEVEL, setting="mse", n_epochs=1)
    folder = str(tmp_path / "run")
    for command in (
        ["report", folder, "--output", str(tmp_path / "report.html")],
        ["export", folder, str(tmp_path / "exported")],
    ):
        assert main(command) != 0
        told = capsys.readouterr().err
        assert "results are dimensions, expected classes" in told
        assert "Traceback" not in told
