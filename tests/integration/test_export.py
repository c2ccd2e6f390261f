"""From a finished run to classifying files with its model."""

import ast
import csv
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional as F
from transformers import Wav2Vec2FeatureExtractor

from speechbrain_ser_cl.backbones import write_untrained_encoder
from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
from speechbrain_ser_cl.export import model_card
from speechbrain_ser_cl.inference import EmotionRecognizer
from speechbrain_ser_cl.results import read_predictions
from speechbrain_ser_cl.results.utterances import read_parts
from speechbrain_ser_cl.training import Launch
from speechbrain_ser_cl.utils.audio import load_audio

SCRIPT = Path(__file__).resolve().parents[2] / "recipes" / "IEMOCAP_MSP" / "train.py"
HPARAMS = SCRIPT.parent / "hparams" / "multitask_da.yaml"
# A model that normalises over time in its first layer, like the paper's encoder.
ENCODER = {
    "model_type": "wav2vec2",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}


@pytest.fixture(scope="module")
def world(recipe, on_cpu, tmp_path_factory):
    """Makes a finished run with domain norm and head, and its corpora."""
    world = tmp_path_factory.mktemp("world")
    for domain in ("source", "target"):
        write_synthetic(
            world / domain,
            f"synthetic_{domain}",
            n_speakers=5,
            utterances_per_speaker=16,
        )
    write_untrained_encoder(ENCODER, world / "encoder")
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(world / "encoder")
    settings = {
        "source_folder": str(world / "source"),
        "target_folder": str(world / "target"),
        "source_corpus": "synthetic",
        "target_corpus": "synthetic",
        "output_folder": str(world / "run"),
        "ssl_source": str(world / "encoder"),
        "ssl_revision": None,
        "freeze": "none",
        "domain_norm": True,
        "domain_head": True,
        "target_labelled": 0.25,
        "n_rounds": 2,
        "source_batches": 4,
        "target_batches": 4,
        "batch_size": 8,
        "patience": None,
        "test_checkpoint": "best",
        "lr": 0.003,
        "loader_options": {"num_workers": 0},
    }
    excepthook = sys.excepthook
    recipe.run(Launch(HPARAMS, on_cpu(), settings))
    sys.excepthook = excepthook
    return world


@pytest.fixture(scope="module")
def run(world):
    return world / "run"


@pytest.fixture(scope="module")
def test_files(world, run):
    """Returns the path of each test utterance, in the order of predictions.csv."""
    path_of = {u.id: u.path for u in read_synthetic(world / "target")}
    return [path_of[name] for name in read_predictions(run / "predictions.csv").ids]


def probabilities(found):
    return np.array([list(one.probabilities.values()) for one in found])


def uncalibrated(run, given):
    """Removes the model's temperature, as in predictions.csv."""
    told = json.loads((run / "results.json").read_text())["calibration"]
    raw = np.asarray(given, dtype=float) ** told["temperature"]
    return raw / raw.sum(axis=-1, keepdims=True)


def test_a_loaded_model_reproduces_the_runs_predictions(run, test_files):
    recognizer = EmotionRecognizer.from_pretrained(run / "model", device="cpu")
    expected = read_predictions(run / "predictions.csv")
    assert recognizer.class_names == expected.class_names
    assert expected.probabilities.std(axis=0).min() > 0.005
    found = [result for _, result in recognizer.classify_files(test_files)]
    raw = uncalibrated(run, probabilities(found))
    np.testing.assert_allclose(raw, expected.probabilities, atol=1e-5)
    assert abs(raw - probabilities(found)).max() > 1e-3
    alone = [recognizer.classify_file(path) for path in test_files[:5]]
    raw = uncalibrated(run, probabilities(alone))
    np.testing.assert_allclose(raw, expected.probabilities[:5], atol=1e-5)
    # The other domain's statistics and head would give another result.
    description = json.loads((run / "model" / "model.json").read_text())
    assert description["domain"] == 1
    assert len(description["heads"]) == 2
    recognizer.model.encoder._norm_options["domain"] = 0
    other = recognizer.classify_batch([torch.randn(16000)])
    recognizer.model.encoder._norm_options["domain"] = 1
    same = recognizer.classify_batch([torch.randn(16000)])
    assert abs(probabilities(other) - probabilities(same)).max() > 1e-3


@pytest.fixture(scope="module")
def model_dir(run, tmp_path_factory):
    """Exports the run by the command line."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    assert main(["export", str(run), str(folder)]) == 0
    return folder


def test_export_writes_the_model_and_a_card_of_the_runs_own_numbers(run, model_dir):
    assert {path.name for path in model_dir.iterdir()} == {
        "README.md",
        "model.json",
        "model.safetensors",
    }
    card = (model_dir / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "speechbrain_ser_cl"
    results = json.loads((run / "results.json").read_text())
    test = results["test"]
    for name, key in (("UAR", "uar"), ("macro-F1", "macro_f1")):
        low, high = test[key]["interval_speakers"]
        value = test[key]["value"]
        start = f"| {name} | {100 * value:.1f} | {100 * low:.1f} to {100 * high:.1f} |"
        assert start in card
    (hits, missed), (_, others) = test["confusion_matrix"]
    recall = 100 * hits / (hits + missed)
    assert f"| negative | {hits} | {missed} | {recall:.1f} |" in card
    train = results["data"]["parts"]["target_train"]
    counts = [train["classes"][name] for name in ("negative", "positive")]
    row = next(line for line in card.splitlines() if line.startswith("| target train"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == "synthetic_target"
    assert list(map(int, cells[3:5])) == [train["utterances"], train["speakers"]]
    assert list(map(int, cells[6:])) == counts
    # The random split shares all speakers, which the card must say.
    assert f"5 of its {test['speakers']} speakers are in other parts too" in card
    assert "A demonstration, not a model to use" in card
    assert "synthetic_source: generated by speechbrain_ser_cl" in card
    assert "## Limits" in card and "## Intended use" in card
    assert "{{" not in card and "None" not in card


def test_the_cards_code_runs(model_dir, test_files, monkeypatch, capsys):
    monkeypatch.chdir(model_dir.parent)
    shutil.copy(test_files[0], "speech.wav")
    code = (model_dir / "README.md").read_text().split("```")[1]
    exec(code.removeprefix("python"), {})
    found = ast.literal_eval(capsys.readouterr().out)
    assert list(found) == ["negative", "positive"]


def test_a_card_for_onnx_says_how_exact_it_is(run):
    parts = read_parts(run / "utterances.csv")
    tested = read_predictions(run / "predictions.csv").ids
    results = json.loads((run / "results.json").read_text())
    facts = {"format": "onnx", "folder": "m", "parameters": 1, "onnx_difference": 2e-7}
    card = model_card(results, parts, tested, ["negative", "positive"], facts)
    assert "differed from those of PyTorch\nby 2.0e-07 at most" in card


def test_export_refuses_unusable_runs(run, world, model_dir, tmp_path, capsys):
    def fails(*words):
        assert main(["export", *map(str, words)]) == 2
        return capsys.readouterr().err

    assert "is not empty" in fails(run, model_dir)
    assert main(["export", str(run), str(model_dir), "--force", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["files"]
    assert [Path(file["path"]).name for file in written][0] == "README.md"
    error = fails(world, tmp_path / "a")
    assert "no results.json, so no finished run" in error
    assert str(run) in error  # the run below it
    damaged = Path(shutil.copytree(run, tmp_path / "run"))
    lines = (damaged / "predictions.csv").read_text().splitlines()
    cells = lines[1].split(",")
    cells[-2:] = ["1.0", "0.0"] if float(cells[-2]) < 0.5 else ["0.0", "1.0"]
    (damaged / "predictions.csv").write_text(
        "\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n"
    )
    assert "predictions.csv: is not the file that" in fails(damaged, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    shutil.rmtree(damaged / "model")
    assert "no model; the run is of a recipe or version" in fails(
        damaged, tmp_path / "b"
    )


def test_predict_prints_table_csv_and_json(
    run, model_dir, test_files, tmp_path, capsys
):
    expected = read_predictions(run / "predictions.csv")
    files = [str(path) for path in test_files[:3]]
    words = ["predict", "--model", str(model_dir), "--device", "cpu", *files]

    assert main([*words, "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["file"] for row in rows] == files
    assert {row["part"] for row in rows} == {"file"}
    for i, row in enumerate(rows):
        assert row["emotion"] == expected.class_names[expected.predictions[i]]
        said = [float(row[f"p_{name}"]) for name in expected.class_names]
        raw = uncalibrated(run, said)
        np.testing.assert_allclose(raw, expected.probabilities[i], atol=1e-4)
        assert float(row["probability"]) == max(said)

    broken = tmp_path / "broken.wav"
    broken.write_text("no audio")
    assert main([*words, str(broken), "--format", "json", "--window", "0.5"]) == 1
    out, error = capsys.readouterr()
    assert f"ser-cl: {broken}: not a readable audio file" in error
    *found, failed = json.loads(out)
    assert [one["file"] for one in found] == files
    assert failed == {"file": str(broken), "error": failed["error"]}
    for one in found:
        assert one["timeline"][0]["start"] == 0.0
        assert one["timeline"][-1]["end"] == one["end"]
        assert sum(one["probabilities"].values()) == pytest.approx(1)

    assert main([*words, "--window", "0.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["file", "part", "start", "end"]
    assert len(lines) == 1 + sum(1 + len(one["timeline"]) for one in found)

    assert main(["predict", "--model", str(run), files[0]]) == 2
    assert "no model.json in this folder" in capsys.readouterr().err


def test_speechbrains_own_classifier_loads_it(run, test_files, tmp_path):
    from speechbrain.inference.classifiers import EncoderClassifier

    assert (
        main(["export", str(run), str(tmp_path / "sb"), "--format", "speechbrain"]) == 0
    )
    classifier = EncoderClassifier.from_hparams(
        str(tmp_path / "sb"),
        savedir=str(tmp_path / "saved"),
        run_opts={"device": "cpu"},
    )
    expected = read_predictions(run / "predictions.csv")
    for i in range(4):
        log_probabilities, score, index, text = classifier.classify_file(
            str(test_files[i])
        )
        raw = uncalibrated(run, log_probabilities.exp()[0])
        np.testing.assert_allclose(raw, expected.probabilities[i], atol=1e-5)
        assert text == [expected.class_names[expected.predictions[i]]]
    signals = [load_audio(path) for path in test_files[:4]]
    longest = max(map(len, signals))
    wavs = torch.stack([F.pad(s, (0, longest - len(s))) for s in signals])
    lengths = torch.tensor([len(s) / longest for s in signals])
    together = classifier.classify_batch(wavs, lengths)[0].exp()
    raw = uncalibrated(run, together)
    np.testing.assert_allclose(raw, expected.probabilities[:4], atol=1e-5)
    recognizer = EmotionRecognizer.from_pretrained(run / "model", device="cpu")
    torch.testing.assert_close(
        classifier.encode_batch(wavs, lengths),
        recognizer.encode_batch(signals),
        rtol=1e-4,
        atol=1e-5,
    )
