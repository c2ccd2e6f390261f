"""The Pairwise-CL recipe, run like a user does."""

import csv
import importlib.util
import json
import re
import runpy
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_ser_cl.backbones import write_untrained_encoder
from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.corpora import write_synthetic
from speechbrain_ser_cl.inference import EmotionRecognizer
from speechbrain_ser_cl.registry import BACKBONES
from speechbrain_ser_cl.training import Launch
from speechbrain_ser_cl.utils.settings import read_yaml
from tests import hollow
from tests.processes import Process

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "IEMOCAP" / "pairwise_cl"
SCRIPT = RECIPE / "train.py"
HPARAMS = RECIPE / "hparams" / "pairwise_cl.yaml"
ENCODER = {
    "model_type": "whisper",
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
}
LABELS = {"synthetic_source": {"angry": ["angry"], "sad": ["sad"]}}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Makes a corpus (6 speakers, 3 sessions, 12 utterances each) and an encoder."""
    world = tmp_path_factory.mktemp("world")
    name = "synthetic_source"
    write_synthetic(world / name, name, n_speakers=6, utterances_per_speaker=12)
    write_untrained_encoder(ENCODER, world / "whisper")
    return world


@pytest.fixture(scope="module")
def settings(world):
    """Returns a very small experiment; half of the utterances have no class."""
    return {
        "corpora": {"synthetic_source": str(world / "synthetic_source")},
        "emotion_map": LABELS,
        "protocol": {"kind": "session_kfold", "n_folds": 3},
        "feature_folder": str(world / "features"),
        "ssl_source": str(world / "whisper"),
        "average_frames": 5,
        "views": ["w2v2", "mel"],
        "pretrain_epochs": 2,
        "pretrain_batch_size": 8,
        "tune_epochs": 2,
        "fractions": [0.25, 1.0],
        "draws": 2,
        "full_draws": 1,
        "tsne": False,
        "loader_options": {"num_workers": 0},
    }


def command(settings, **changes):
    """Returns the command line of an experiment."""
    words = [str(SCRIPT), "hparams/pairwise_cl.yaml"]
    for key, value in (settings | {"device": "cpu"} | changes).items():
        text = json.dumps(value) if isinstance(value, dict | list | None) else value
        words += [f"--{key}", str(text)]
    return words


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(recipe, settings, on_cpu, tmp_path_factory):
    """Returns the folder of the unchanged experiment, and its results."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    changes = {"output_folder": str(folder)}
    (found,) = recipe.run(Launch(HPARAMS, on_cpu(), settings | changes))
    return folder, found


def test_pre_training_is_on_all_emotions_and_on_nobody_who_is_tested(finished):
    results = read_json(finished[0] / "fine_tuned" / "mel" / "results.json")
    parts = results["data"]["parts"]
    # 3 sessions of 2 speakers: of 12 utterances each, 3 are angry and 3 sad.
    assert [parts[name]["utterances"] for name in parts] == [12, 12, 12]
    assert results["pretrained_on"] == {"emotions": "all", "utterances": 24}
    assert set(results["data"]["shared_between_parts"]["speaker"].values()) == {0}
    assert results["parameters"] == {"encoder": 35008, "head": 128 * 192 + 192 + 386}


def test_few_labels_are_so_many_of_each_class(finished):
    rows = read_json(finished[0] / "few_labels.json")["rows"]
    assert len(rows) == 2 * 3 * (2 + 1)
    assert {(row["fraction"], row["labelled"]) for row in rows} == {
        (0.25, 4),
        (1.0, 12),
    }
    assert all(0 <= row["uar"] <= 1 for row in rows)
    full = [row for row in rows if row["fraction"] == 1]
    assert [row["draw"] for row in full] == [0] * 6
    (row,) = [r for r in full if r["view"] == "mel" and r["method"] == "supervised"]
    results = read_json(finished[0] / "supervised" / "mel" / "results.json")
    assert row["uar"] == pytest.approx(results["test"]["uar"]["value"], abs=1e-6)


def test_representations_are_compared_on_speech_not_trained_on(finished):
    found = read_json(finished[0] / "alignment.json")
    assert found["utterances"] == 48
    assert list(found["pwcca"]) == [
        "random",
        "Pairwise-CL",
        "supervised",
        "Pairwise-CL, tuned",
    ]
    assert list(found["pwcca"]["random"]) == ["w2v2 – mel"]


def test_a_frozen_encoder_is_that_of_pre_training(finished, recipe):
    from safetensors.torch import load_file

    folder, _ = finished
    models = [
        load_file(folder / method / "mel" / "model" / "model.safetensors")
        for method in ("frozen", "fine_tuned", "supervised")
    ]
    (checkpoint,) = (folder / "pretraining" / "save").glob("CKPT*")
    pretrained = torch.load(checkpoint / "mel.ckpt")
    name = "encoder.backbone.convs.0.weight"
    start = pretrained["backbone.convs.0.weight"]
    assert [torch.equal(model[name], start) for model in models] == [True, False, False]


def test_the_exported_model_predicts_what_was_tested(finished):
    for view in ("w2v2", "mel"):
        folder = finished[0] / "fine_tuned" / view
        recognizer = EmotionRecognizer.from_pretrained(folder / "model", device="cpu")
        where = {row["id"]: row["wav"] for row in read_csv(folder / "utterances.csv")}
        for row in read_csv(folder / "predictions.csv")[:3]:
            found = recognizer.classify_file(where[row["id"]])
            # Features are stored in float16.
            assert found.probabilities["sad"] == pytest.approx(
                float(row["p_sad"]), abs=5e-3
            )


def test_pre_training_sees_no_labels(run, finished, tmp_path):
    other = {"synthetic_source": {"angry": ["sad"], "sad": ["angry"]}}
    run(emotion_map=other, methods=["frozen"], draws=1, fractions=[1.0])
    logs = [
        (folder / "pretraining" / "train_log.txt").read_text()
        for folder in (finished[0], tmp_path / "run")
    ]
    assert logs[0] == logs[1] and "contrast" in logs[0]


@pytest.mark.parametrize(("kind", "emotions"), [("target", 12), ("others", 12)])
def test_what_pre_training_is_on(run, finished, tmp_path, kind, emotions):
    found = run(pretrain_on=kind, methods=["fine_tuned"], draws=1, fractions=[1.0])
    results = read_json(tmp_path / "run" / "fine_tuned" / "mel" / "results.json")
    assert results["pretrained_on"] == {"emotions": kind, "utterances": emotions}
    assert results["setting"] == f"Pairwise-CL, {kind.removesuffix('s')} emotions"
    assert found["about"] == finished[1]["about"]  # rows of the same table
    logs = [
        (folder / "pretraining" / "train_log.txt").read_text()
        for folder in (finished[0], tmp_path / "run")
    ]
    assert logs[0] != logs[1]


def kill_when(process, is_time):
    """Kills the process with signal 9 when a condition holds."""
    deadline = time.monotonic() + 240
    try:
        while not is_time():
            assert process.poll() is None, "the run ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()


def test_killed_in_either_stage_it_ends_like_an_uninterrupted_run(
    run, settings, tmp_path
):
    longer = {"pretrain_epochs": 6, "draws": 3}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    words = command(settings, output_folder=killed, **longer)
    log, notes = killed / "pretraining" / "train_log.txt", killed / "few_labels.jsonl"
    kill_when(
        Process(words, cwd=tmp_path),
        lambda: log.exists() and len(log.read_text().splitlines()) > 2,
    )
    assert not notes.exists()
    run("killed", **longer)
    run("whole", **longer)
    # As after a kill in the middle of a line, with some trainings to repeat.
    lines = notes.read_text().splitlines(keepends=True)
    notes.write_text("".join(lines[:5]) + lines[5][:20])
    (killed / "few_labels.json").unlink()
    again = run("killed", **longer)
    for name in ("few_labels.json", "alignment.json"):
        assert read_json(killed / name) == read_json(whole / name), name
    assert run("whole", **longer)["points"] == again["points"]


PLUG_IN = """
import torch

class Level(torch.nn.Module):
    def forward(self, wavs, lengths=None):
        return wavs.abs().mean(1, keepdim=True).expand(-1, 3)

class LevelView(torch.nn.Module):
    hop, output_size = None, 4

    def __init__(self):
        super().__init__()
        self.features = Level()
        self.layer = torch.nn.Linear(3, 4)

    def arguments(self):
        return {}

    def encode(self, x):
        return self.layer(x)
"""


def test_a_view_of_the_user_and_one_without_opensmile(
    run, tmp_path, monkeypatch, capsys
):
    """Utterances without features in a view are left out, and counted."""
    (tmp_path / "my_views.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(tmp_path)
    text = HPARAMS.read_text().replace(
        "encoders:\n", "encoders:\n    level: !name:my_views.LevelView\n"
    )
    hparams = tmp_path / "mine.yaml"
    hparams.write_text(text)
    corpus = write_synthetic(
        tmp_path / "corpus", "synthetic_source", n_speakers=6, utterances_per_speaker=4
    )
    wavs = sorted((corpus / "wav").glob("*.wav"))
    soundfile.write(wavs[0], np.zeros(16000), 16000)
    soundfile.write(wavs[1], np.random.default_rng(0).normal(0, 0.1, 700), 16000)
    missing = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "opensmile" else missing(name, *a),
    )
    changes = {
        "corpora": {"synthetic_source": str(corpus)},
        "views": ["level", "egemaps"],
        "feature_folder": str(tmp_path / "features"),
        "methods": ["supervised", "frozen"],
        "fractions": [1.0],
        "alignment": False,
    }
    # A model folder is for registered parts only; removed afterwards.
    my_views = importlib.import_module("my_views")
    monkeypatch.setitem(BACKBONES._entries, "level", my_views.LevelView)
    found = run(hparams=hparams, **changes)
    assert found["about"]["views"] == ["level", "vocal"]
    assert "no opensmile here" in found["about"]["replaced_views"]["egemaps"]
    assert "vocal in its place" in capsys.readouterr().err
    results = read_json(tmp_path / "run" / "frozen" / "vocal" / "results.json")
    left_out = results["data"]["left_out"]
    assert left_out == {"vocal: silent": 1, "vocal: too short": 1}
    assert results["replaced_views"] == found["about"]["replaced_views"]
    n = sum(part["utterances"] for part in results["data"]["parts"].values())
    labels = [path.stem.rpartition("_")[2] for path in wavs[2:]]
    assert n == sum(label in ("angry", "sad") for label in labels)


def test_iemocap_as_it_is_laid_out(run, tmp_path):
    corpus = hollow.write_iemocap(tmp_path, frames=1600)
    as_printed = read_yaml(HPARAMS)
    found = run(
        corpora={"iemocap": str(corpus)},
        emotion_map=as_printed["emotion_map"],
        protocol=as_printed["protocol"],
        feature_folder=str(tmp_path / "features"),
        fold=4,
        pretrain_epochs=1,
        pretrain_batch_size=1000,
        tune_epochs=1,
        tune_batch_size=1000,
        fractions=[0.01],
        draws=1,
        methods=["supervised"],
        alignment=False,
    )
    assert found["about"]["classes"] == ["angry", "happy", "neutral", "sad"]
    results = read_json(tmp_path / "run" / "supervised" / "mel" / "results.json")
    parts, left_out = results["data"]["parts"], results["data"]["left_out"]
    sizes = {name: part["utterances"] for name, part in parts.items()}
    # Session 5 tests, 1 validates; one dialogue of session 5 is not used.
    assert (sizes["train"], sizes["valid"]) == (1023 + 1151 + 1031, 1085)
    folder = corpus / "Session5" / "sentences" / "wav" / "Ses05M_script01_1"
    assert left_out == {"exclude": len(list(folder.glob("Ses*.wav")))}
    tested = read_csv(tmp_path / "run" / "supervised" / "mel" / "predictions.csv")
    assert len(tested) == sizes["test"]
    dialogues = {row["id"].rpartition("_")[0] for row in tested}
    assert "iemocap_Ses05F_script01_1" in dialogues
    assert "iemocap_Ses05M_script01_1" not in dialogues
    # Sessions 2 to 4 with all ten emotions.
    everything = read_csv(tmp_path / "run" / "supervised" / "mel" / "utterances.csv")
    assert {row["session"] for row in everything if row["part"] == "train"} == {
        "iemocap_Ses02",
        "iemocap_Ses03",
        "iemocap_Ses04",
    }
    assert results["pretrained_on"]["utterances"] > 5500
    few = read_json(tmp_path / "run" / "few_labels.json")["rows"]
    # A hundredth of each class, in whole utterances.
    classes = Counter(row["label"] for row in everything if row["part"] == "train")
    drawn = sum(max(1, (count + 50) // 100) for count in classes.values())
    assert {row["labelled"] for row in few if row["fraction"] == 0.01} == {drawn}


def test_cross_validation_and_its_tables(settings, tmp_path):
    own = settings | {"methods": ["supervised", "frozen"], "fractions": [1.0]}
    words = ["crossval", str(HPARAMS), "--output_folder", str(tmp_path / "out")]
    words += ["--folds", "2"]
    for key, value in own.items():
        text = json.dumps(value) if isinstance(value, dict | list | None) else value
        words += [f"--{key}", str(text)]
    assert main(words) == 0
    for view in ("w2v2", "mel"):
        found = read_json(tmp_path / "out" / "frozen" / view / "crossval.json")
        assert found["setting"] == "Pairwise-CL, frozen"
        assert found["encoder"].startswith(f"{view} view")
        folds = found["results"]["synthetic_source"]["folds"]
        assert [row["fold"] for row in folds] == [2]
    readme = tmp_path / "README.md"
    readme.write_text(
        "".join(
            f"<!-- {kind}: begin out -->\n<!-- {kind}: end -->\n"
            for kind in ("few_labels", "alignment")
        )
    )
    assert main(["table", str(readme)]) == 0
    text = readme.read_text()
    assert "synthetic_source, whisper** (1 fold, chance" in text
    assert re.search(r"\| mel \| 100 % \| 12 \| 1 \| \d+\.\d \| – \|", text)
    assert "1 fold of 48 utterances" in text
    assert main(["table", str(readme), "--check"]) == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pretrain_on": "some"}, "pretrain_on is 'some', expected one of all, "),
        ({"views": ["mel"]}, r"views is \['mel'\]: two or more"),
        ({"views": ["mel", "melt"]}, "views: found melt, expected some of w2v2, mel"),
        ({"methods": []}, "methods: found none"),
        ({"fractions": [5, 10]}, r"fractions: found \[5, 10\], expected above 0"),
        ({"tune_epoch": 3}, "no key tune_epoch; did you mean 'tune_epochs'"),
    ],
)
def test_switches_that_mean_nothing(monkeypatch, settings, tmp_path, changes, said):
    # Raised before an encoder is loaded, which may need a download.
    changes |= {"ssl_source": tmp_path / "not_there"}
    words = command(settings, output_folder=tmp_path / "run", **changes)[1:]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert re.search(said, str(exit_.value.code)), exit_.value.code


def test_no_other_emotions_to_train_on(run):
    everything = {e: [e] for e in ("angry", "happy", "neutral", "sad")}
    with pytest.raises(ValueError, match="leaves 0 of 24 utterances of the train part"):
        run(pretrain_on="others", emotion_map={"synthetic_source": everything})
