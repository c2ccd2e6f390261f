"""The recipe for multitask domain adaptation, run like a user does.

What needs a process of its own (kills, several ranks, the demo's command) has one; the
rest calls the recipe's functions, which saves the import each time.
"""

import csv
import json
import os
import random
import runpy
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml

from speechbrain_ser_cl.backbones import WeightedSSL, write_untrained_encoder
from speechbrain_ser_cl.corpora import write_synthetic
from speechbrain_ser_cl.results import read_embeddings
from speechbrain_ser_cl.results.utterances import read_parts
from speechbrain_ser_cl.training import Launch
from tests.processes import Process
from tests.processes import run as run_process

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "IEMOCAP_MSP"
SCRIPT = RECIPE / "train.py"
HPARAMS = RECIPE / "hparams" / "multitask_da.yaml"
ENCODER = {
    "model_type": "whisper",
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.1,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Makes two corpora (4 speakers, 16 utterances each), encoder with dropout."""
    world = tmp_path_factory.mktemp("world")
    for domain in ("source", "target"):
        write_synthetic(
            world / domain,
            f"synthetic_{domain}",
            n_speakers=4,
            utterances_per_speaker=16,
        )
    write_untrained_encoder(ENCODER, world / "encoder")
    return world


@pytest.fixture(scope="module")
def settings(world):
    """Returns the settings of a very small experiment."""
    return {
        "source_folder": str(world / "source"),
        "target_folder": str(world / "target"),
        "source_corpus": "synthetic",
        "target_corpus": "synthetic",
        "ssl_source": str(world / "encoder"),
        "ssl_revision": None,
        "freeze": "none",
        "source_valid": 0.25,
        "target_labelled": 0.25,
        "n_rounds": 1,
        "source_batches": 2,
        "target_batches": 2,
        "target_batches_unlabelled": 2,
        "batch_size": 8,
        "patience": None,
        "lr": 0.003,
        "loader_options": {"num_workers": 0},
    }


def command(settings, **changes):
    """Returns the command line of an experiment."""
    words = [str(SCRIPT), "hparams/multitask_da.yaml", "--device", "cpu"]
    for key, value in (settings | changes).items():
        text = "null" if value is None else str(value)
        words += [f"--{key}", text]
    return words


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def probabilities(folder):
    """Returns the lines of predictions.csv by utterance."""
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def checkpoints(folder):
    """Returns metadata and folder of each checkpoint, oldest first."""
    found = []
    for path in folder.glob("save/CKPT*/CKPT.yaml"):
        try:
            found.append((yaml.safe_load(path.read_text()), path.parent))
        except FileNotFoundError:  # being deleted
            continue
    return sorted(found, key=lambda item: item[0]["unixtime"])


def learned(folder):
    """Returns all parameters of the last checkpoint."""
    _, path = checkpoints(folder)[-1]
    return {
        f"{name}.{key}": value
        for name in ("model", "projection", "augmentation_head")
        for key, value in torch.load(path / f"{name}.ckpt").items()
        if not key.startswith("encoder.norm.")  # statistics of speech
    }


def same_parameters(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in one.items()
    )


# ------------------------------------------------------------------ the demo


def test_the_main_command_runs_the_demo_from_the_recipes_folder(tmp_path):
    folder = tmp_path / "recipes" / "IEMOCAP_MSP"
    folder.mkdir(parents=True)
    for name in ("train.py", "hparams"):
        (folder / name).symlink_to(RECIPE / name)
    small = {"n_rounds": 1, "source_batches": 1, "target_batches": 1}
    words = ["train.py", "hparams/multitask_da.yaml", "--device", "cpu"]
    words += [str(word) for k, v in small.items() for word in (f"--{k}", v)]
    done = run_process(words, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("DEMO")
    (results,) = (folder / "results").iterdir()
    assert "demo" in results.name
    assert read_json(results / "adapted" / "results.json")["demo"] is True


# ------------------------------------------------------------------ kill and resume


def kill_when(process, is_time, folder):
    """Kills the process with signal 9 when its last checkpoint meets a condition."""
    deadline = time.monotonic() + 240
    try:
        while True:
            found = checkpoints(folder)
            if found and is_time(found[-1][0], found[-1][1]):
                break
            assert process.poll() is None, "the run ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()


def epoch_of(path):
    try:
        return yaml.safe_load((path / "counter.ckpt").read_text())["current"]
    except FileNotFoundError:  # the run has just replaced this checkpoint
        return None


def test_killed_in_an_epoch_and_between_epochs_it_ends_like_an_uninterrupted_run(
    run, settings, tmp_path
):
    longer = {
        "n_rounds": 3,
        "source_batches": 20,
        "target_batches": 8,
        "domain_norm": True,
        "domain_head": True,
    }
    killed = tmp_path / "killed"
    words = command(settings, output_folder=killed, ckpt_interval_steps=2, **longer)

    # In the middle of epoch 3, of the source.
    kill_when(
        Process(words, cwd=tmp_path),
        lambda meta, path: not meta["end-of-epoch"] and epoch_of(path) == 3,
        killed,
    )
    meta, path = checkpoints(killed)[-1]
    assert not meta["end-of-epoch"]
    step = yaml.safe_load((path / "brain.ckpt").read_text())["step"]
    assert 0 < step < 20
    # Between epochs 4 and 5, while another checkpoint may be being written.
    kill_when(
        Process(words, cwd=tmp_path),
        lambda meta, path: meta["end-of-epoch"] and meta["epoch"] == 4,
        killed,
    )
    assert not (killed / "results.json").exists()

    resumed = run("killed", **longer)
    whole = run("whole", **longer)
    for key in (
        "test",
        "valid",
        "layer_weights",
        "epochs",
        "data",
        "nonfinite_batches",
    ):
        assert resumed[key] == whole[key], key
    for name in ("predictions.csv", "history.json"):
        ours, theirs = (tmp_path / run / name for run in ("killed", "whole"))
        assert ours.read_bytes() == theirs.read_bytes(), name
    assert same_parameters(learned(killed), learned(tmp_path / "whole"))
    assert len(read_json(killed / "history.json")) == 6


def test_a_finished_run_started_again_says_the_same(run, plain):
    first = read_json(plain / "results.json")
    predictions = (plain / "predictions.csv").read_bytes()
    again = json.loads(json.dumps(run(output_folder=str(plain))))
    assert again["test"] == first["test"]
    assert again["training_seconds"] == first["training_seconds"]
    assert (plain / "predictions.csv").read_bytes() == predictions


def test_what_a_run_leaves_fits_together(plain):
    folder, results = plain, read_json(plain / "results.json")
    parts = read_parts(folder / "utterances.csv")
    for name, part in results["data"]["parts"].items():
        labels = [item.label for item in parts[name]]
        assert {label: labels.count(label) for label in set(labels)} == part["classes"]
    rows = probabilities(folder)
    embeddings = read_embeddings(folder / "embeddings.npz")
    assert embeddings.ids == list(rows)
    assert embeddings.labels == [row["label"] for row in rows.values()]
    tested = {item.utterance.id: item.utterance for item in parts["target_test"]}
    assert embeddings.speakers == [tested[name].speaker for name in rows]
    assert set(embeddings.corpora) == {"synthetic_target"}
    assert embeddings.embeddings.shape == (len(rows), ENCODER["d_model"])
    assert results["class_names"] == ["negative", "positive"]


def test_dropout_is_active_in_these_runs(run, tmp_path, plain):
    # Otherwise the tests above would not show that its state is resumed.
    config = ENCODER | {name: 0.0 for name in ENCODER if "dropout" in name}
    write_untrained_encoder(config, tmp_path / "encoder")
    run("without", ssl_source=str(tmp_path / "encoder"))
    assert not same_parameters(learned(plain), learned(tmp_path / "without"))


def test_loading_in_workers_makes_no_difference(run, tmp_path, plain):
    run(loader_options={"num_workers": 2})
    assert same_parameters(learned(tmp_path / "run"), learned(plain))


# ------------------------------------------------------------------ switches


@pytest.fixture(scope="module")
def plain(recipe, settings, on_cpu, tmp_path_factory):
    """Returns the folder of the experiment without switches."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    recipe.run(Launch(HPARAMS, on_cpu(), settings | {"output_folder": str(folder)}))
    return folder


TERMS = {
    "lambda_emo": "emotion",
    "lambda_aug": "augmentation",
    "lambda_cont": "contrastive",
    "lambda_im": "information_maximization",
}


def test_nothing_switched_has_all_terms_in_both_phases(plain):
    results = read_json(plain / "results.json")
    assert results["setting"] == "source + labelled target, all losses"
    assert results["demo"] is False
    history = read_json(plain / "history.json")
    assert [row["phase"] for row in history] == ["source", "target"]
    for row in history:
        assert row["train"].keys() == set(TERMS.values())


@pytest.mark.parametrize("switch", TERMS)
def test_a_weight_of_zero_leaves_the_term_out(run, tmp_path, plain, switch):
    results = run(**{switch: 0.0})
    for row in read_json(tmp_path / "run" / "history.json"):
        assert row["train"].keys() == set(TERMS.values()) - {TERMS[switch]}
    if switch != "lambda_emo":
        assert results["setting"].endswith(f"without {TERMS[switch]}")
    assert not same_parameters(learned(tmp_path / "run"), learned(plain))


@pytest.mark.parametrize(
    ("switches", "setting", "phases"),
    [
        (
            {"lambda_aug": 0.0, "lambda_cont": 0.0, "lambda_im": 0.0},
            "source + labelled target, emotion loss only",
            ["source", "target"],
        ),
        (
            {"target_labels": False},
            "source + unlabelled target, all losses",
            ["source", "target"],
        ),
        (
            {"target_labels": False, "lambda_im": 0.0, "lambda_aug": 0.0},
            "source + unlabelled target, "
            "without augmentation, information_maximization",
            ["source", "target"],
        ),
        ({"use_target": False}, "source only, all losses", ["source"]),
        ({"use_source": False}, "labelled target only, all losses", ["target"]),
        (
            {"domain_norm": True},
            "source + labelled target, all losses, domain norm",
            ["source", "target"],
        ),
        (
            {"domain_head": True},
            "source + labelled target, all losses, domain head",
            ["source", "target"],
        ),
        (
            {"domain_head": True, "domain_norm": True, "target_labels": False},
            "source + unlabelled target, all losses, domain norm",
            ["source", "target"],
        ),
    ],
)
def test_a_setting_is_named_and_trained_as_named(
    run, tmp_path, plain, switches, setting, phases
):
    results = run(**switches)
    assert results["setting"] == setting
    history = read_json(tmp_path / "run" / "history.json")
    assert [row["phase"] for row in history] == phases
    labelled = switches.get("target_labels", True)
    for row in history:
        has_labels = labelled or row["phase"] == "source"
        assert ("emotion" in row["train"]) == has_labels
    assert 0 <= results["test"]["uar"]["value"] <= 1
    assert not same_parameters(learned(tmp_path / "run"), learned(plain))


def test_symmetric_averages_both_directions(run, tmp_path, plain):
    run(symmetric=True)
    terms = [
        read_json(folder / "history.json")[0]["train"]
        for folder in (tmp_path / "run", plain)
    ]
    assert terms[0]["contrastive"] != terms[1]["contrastive"]
    assert terms[0]["contrastive"] == pytest.approx(terms[1]["contrastive"], rel=0.1)


def test_frozen_parts_do_not_change(run, world, tmp_path):
    run(freeze="all")
    trained = learned(tmp_path / "run")
    encoder = WeightedSSL(world / "encoder").state_dict()
    for name, value in encoder.items():
        same = torch.equal(trained[f"model.encoder.backbone.{name}"], value)
        assert same == (name != "layer_weights"), name


def test_number_of_target_labels_and_new_speakers(run, tmp_path):
    results = run(target_labelled=12)
    parts = results["data"]["parts"]
    assert parts["target_train"]["utterances"] == 12
    assert parts["target_test"]["utterances"] == 64 - 12
    shared = results["data"]["shared_between_parts"]["target"]["speaker"]
    assert shared["target_train/target_test"] > 0

    results = run("speakers", target_labelled=12, target_split="speaker")
    assert results["target_split"] == "speaker"
    parts = results["data"]["parts"]
    assert parts["target_train"] == parts["target_train"] | {
        "utterances": 12,
        "speakers": 1,
    }
    assert parts["target_test"]["utterances"] == 48
    assert results["data"]["unused_target_utterances"] == 4
    shared = results["data"]["shared_between_parts"]["target"]["speaker"]
    assert shared["target_train/target_test"] == 0


@pytest.mark.parametrize("criterion", ["wa", "weighted_risk"])
def test_the_best_epoch_can_be_tested(run, tmp_path, criterion):
    own = {"valid_metric": criterion, "target_both": criterion == "weighted_risk"}
    results = run(n_rounds=3, test_checkpoint="best", lr=0.05, **own)
    history = read_json(tmp_path / "run" / "history.json")
    assert len(history) == results["epochs"] == 6
    best = max(row["valid"][criterion] for row in history)
    assert results["valid"][criterion] == best
    assert history[results["tested_epoch"] - 1]["valid"] == results["valid"]


# ------------------------------------------------------------------ target labels


@pytest.fixture(scope="module")
def wrong_labels(world, tmp_path_factory):
    """Makes the target corpus with emotions shuffled among its utterances."""
    folder = tmp_path_factory.mktemp("wrong") / "target"
    shutil.copytree(world / "target", folder)
    contents = read_json(folder / "corpus.json")
    emotions = [entry["emotion"] for entry in contents["utterances"]]
    random.Random(1).shuffle(emotions)
    for entry, emotion in zip(contents["utterances"], emotions, strict=True):
        entry["emotion"] = emotion
    (folder / "corpus.json").write_text(json.dumps(contents))
    return folder


@pytest.mark.parametrize("split", ["utterance", "speaker"])
def test_without_target_labels_none_of_them_is_used(run, tmp_path, wrong_labels, split):
    unlabelled = {
        "target_labels": False,
        "target_split": split,
        "n_rounds": 2,
        "patience": 1,
        "test_checkpoint": "best",
    }
    run("right", **unlabelled)
    run("wrong", target_folder=str(wrong_labels), **unlabelled)
    right, wrong = (tmp_path / name for name in ("right", "wrong"))
    assert same_parameters(learned(right), learned(wrong))
    assert (right / "history.json").read_bytes() == (
        wrong / "history.json"
    ).read_bytes()
    one, other = probabilities(right), probabilities(wrong)
    assert one.keys() == other.keys()
    different = 0
    for name, row in one.items():
        different += row["label"] != other[name]["label"]
        for column in row.keys() - {"label"}:
            assert row[column] == other[name][column]
    assert different > 5  # the labels exist for the test


STATISTICS = {
    "use_target": False,
    "target_labels": False,
    "target_statistics": True,
    "domain_norm": True,
}


def test_statistics_alone_change_the_predictions_and_nothing_that_is_learned(
    run, tmp_path, wrong_labels
):
    results = run("statistics", **STATISTICS)
    assert results["setting"] == (
        "source + statistics of unlabelled target, all losses, domain norm"
    )
    run("source", **STATISTICS | {"target_statistics": False})
    run("wrong", target_folder=str(wrong_labels), **STATISTICS)
    own, source, wrong = (tmp_path / n for n in ("statistics", "source", "wrong"))
    assert same_parameters(learned(own), learned(source))
    one, other, third = (probabilities(f) for f in (own, source, wrong))
    assert one.keys() == other.keys() == third.keys()
    column = "p_positive"
    assert all(one[name][column] != other[name][column] for name in one)
    assert all(one[name][column] == third[name][column] for name in one)


def test_source_emotions_that_the_target_lacks_can_be_left_out(run, tmp_path, world):
    folder = tmp_path / "target"
    shutil.copytree(world / "target", folder)
    contents = read_json(folder / "corpus.json")
    for entry in contents["utterances"]:
        if entry["emotion"] == "neutral":
            entry["emotion"] = "happy"
    (folder / "corpus.json").write_text(json.dumps(contents))
    results = run(target_folder=str(folder), shared_emotions=True)
    assert results["setting"] == (
        "source + labelled target (shared emotions), all losses"
    )
    # 4 speakers with 4 utterances of each of 4 emotions, of which neutral is left out.
    parts = results["data"]["parts"]
    counts = [parts[f"source_{name}"]["classes"] for name in ("train", "valid")]
    assert sum(c["positive"] for c in counts) == 16
    assert sum(c["negative"] for c in counts) == 32


def test_with_target_labels_they_are_used(run, tmp_path, plain, wrong_labels):
    run(target_folder=str(wrong_labels))
    assert not same_parameters(learned(tmp_path / "run"), learned(plain))


# ------------------------------------------------------------------ several processes

# Runs the recipe and saves the parameters of each rank.
RANK = """
import importlib.util, os, sys
import torch

spec = importlib.util.spec_from_file_location("multitask_da_train", {script!r})
recipe = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recipe)


class Brain(recipe.MultitaskBrain):
    def evaluate(self, *args, **kwargs):
        state = {{
            name.replace(".module.", ".").removeprefix("module."): value
            for name, value in self.modules.state_dict().items()
        }}
        torch.save(state, f"rank{{os.environ['RANK']}}.pt")
        return super().evaluate(*args, **kwargs)


recipe.MultitaskBrain = Brain
recipe.main(recipe.run, recipe.__file__)
"""


def test_two_processes_train_one_model(settings, tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(RANK.format(script=str(SCRIPT)))
    words = command(settings, output_folder=tmp_path / "run", n_rounds=2)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    words[:2] = [*torchrun, str(script), str(HPARAMS)]
    done = run_process([*words, "--distributed_backend", "gloo"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    results = read_json(tmp_path / "run" / "results.json")
    assert len(list(tmp_path.rglob("results.json"))) == 1
    assert 0 <= results["test"]["uar"]["value"] <= 1
    assert results["epochs"] == 4
    parts = results["data"]["parts"]
    rows = probabilities(tmp_path / "run")
    assert len(rows) == parts["target_test"]["utterances"] == 48

    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    trained = learned(tmp_path / "run")
    assert trained.keys() <= ranks[0].keys()
    for name, value in trained.items():
        assert torch.equal(ranks[0][name], value), name
        assert torch.equal(ranks[1][name], value), name


# ------------------------------------------------------------------ real speech


def test_real_speech_and_a_real_encoder(run, shared, tmp_path):
    results = run(
        source_corpus="ravdess",
        source_folder=str(shared / "corpora" / "RAVDESS"),
        target_corpus="emodb",
        target_folder=str(shared / "corpora" / "EmoDB"),
        ssl_source=str(shared / "models" / "whisper-tiny.en-encoder"),
        freeze=2,
        source_valid=24,
        target_labelled=0.1,
        source_batches=3,
        target_batches=2,
        max_seconds=2.0,
        lr=1e-4,
    )
    written = read_json(tmp_path / "run" / "results.json")
    assert {"format": 1, **json.loads(json.dumps(results))} == written
    assert (results["source"], results["target"]) == ("ravdess", "emodb")
    assert results["encoder"] == "whisper-tiny.en-encoder"
    assert results["demo"] is False
    parts = results["data"]["parts"]
    # RAVDESS: angry, sad, neutral, calm, happy. EmoDB: 127 + 62 + 79 + 71.
    assert parts["source_train"]["utterances"] == 5 * 192 - 96 - 24
    assert parts["target_train"]["utterances"] == 34
    assert parts["target_test"]["utterances"] == 339 - 34
    assert len(results["data"]["fingerprint"]) == 64
    assert len(results["layer_weights"]) == 5
    assert sum(results["layer_weights"]) == pytest.approx(1)
    uar = results["test"]["uar"]
    assert 0 < uar["interval"][0] <= uar["value"] <= uar["interval"][1] < 1
    assert results["versions"]["torch"] == version("torch")
    assert results["machine"]["cores"] == os.cpu_count()
    assert results["peak_memory_mb"]["resident"] > 100
    assert results["training_seconds"] > 0


# ------------------------------------------------------------------ errors


def error_of(monkeypatch, *words):
    """Returns the script's error message."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert isinstance(exit_.value.code, str), "not a message: the exit status is 0"
    return exit_.value.code


def error_with(monkeypatch, settings, tmp_path, **changes):
    changes = {"output_folder": tmp_path / "run"} | changes
    words = command(settings, **changes)[1:]
    return error_of(monkeypatch, *words)


def test_an_error_is_one_line_and_an_exit_status(tmp_path):
    done = run_process([SCRIPT, "hparams/multitask.yaml"], cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "hparams/multitask.yaml" in last
    assert str(RECIPE) in last
    assert "hparams/multitask_da.yaml" in last  # the existing ones


@pytest.mark.parametrize("given", ["source_folder", "target_folder"])
def test_one_folder_only_is_an_error(monkeypatch, settings, tmp_path, given):
    other = {"source_folder": "target_folder", "target_folder": "source_folder"}[given]
    # Raised before an encoder is loaded, which may need a download.
    changes = {other: None, "ssl_source": tmp_path / "not_there"}
    says = error_with(monkeypatch, settings, tmp_path, **changes)
    assert "Only one of source_folder and target_folder" in says
    assert "Give both" in says
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_wrong_folder_is_an_error(monkeypatch, settings, tmp_path, world):
    says = error_with(
        monkeypatch, settings, tmp_path, target_folder=tmp_path / "nowhere"
    )
    assert str(tmp_path / "nowhere") in says
    says = error_with(
        monkeypatch,
        settings,
        tmp_path / "again",
        target_folder=world / "encoder",
        target_corpus="emodb",
    )
    assert str(world / "encoder") in says
    assert "emodb" in says.lower()


def test_nothing_to_train_on_is_an_error(monkeypatch, settings, tmp_path):
    neither = {"use_source": False, "use_target": False}
    says = error_with(monkeypatch, settings, tmp_path, **neither)
    assert "use_source" in says
    assert "use_target" in says
    idle = {"target_labels": False, "lambda_aug": 0.0, "lambda_cont": 0.0}
    idle |= {"lambda_im": 0.0}
    assert "use_target" in error_with(monkeypatch, settings, tmp_path, **idle)
    half = {"target_statistics": True, "use_target": False}
    says = error_with(monkeypatch, settings, tmp_path, **half)
    assert "target_labels: False and domain_norm: True" in says
    blind = {"use_source": False, "target_labels": False}
    says = error_with(monkeypatch, settings, tmp_path, **blind)
    assert "target_labels" in says
    assert "True" in says


def test_an_unknown_key_is_an_error(monkeypatch, settings, tmp_path):
    says = error_with(monkeypatch, settings, tmp_path, lambda_contrastive=0.0)
    assert "lambda_contrastive" in says


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("freeze", "everything", "frontend"),
        ("valid_metric", "accuracy", "wa"),
        ("target_split", "speakers", "speaker"),
        ("target_labelled", 64, "64"),
        ("temperature", 0.0, "temperature"),
    ],
)
def test_a_wrong_value_is_an_error(
    monkeypatch, settings, tmp_path, key, value, expected
):
    says = error_with(monkeypatch, settings, tmp_path, **{key: value})
    assert str(value) in says
    assert expected in says


def test_a_folder_with_another_run_is_an_error(monkeypatch, settings, tmp_path, plain):
    own = {"output_folder": plain, "lr": 0.002}
    says = error_with(monkeypatch, settings, tmp_path, **own)
    assert "lr: 0.003" in says
    assert "lr: 0.002" in says
    assert "--output_folder" in says
