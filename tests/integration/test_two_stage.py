"""The recipe for two-stage contrastive fine-tuning, run like a user does.

What needs a process of its own (kills, several ranks, the demo's command) has one; the
rest calls the recipe's functions, which saves the import each time.
"""

import csv
import json
import re
import runpy
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from speechbrain_ser_cl.backbones import WeightedSSL, write_untrained_encoder
from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.corpora import write_synthetic
from speechbrain_ser_cl.inference import EmotionRecognizer
from speechbrain_ser_cl.training import Launch
from tests.processes import Process, start_ranks

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "IEMOCAP_CASIA"
SCRIPT = RECIPE / "train.py"
HPARAMS = RECIPE / "hparams" / "two_stage.yaml"
TRANSFORMER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "hidden_dropout": 0.1,
    "activation_dropout": 0.1,
    "attention_dropout": 0.1,
}
ENCODERS = {
    "whisper": {
        "model_type": "whisper",
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "dropout": 0.1,
        "attention_dropout": 0.1,
    },
    **{name: {"model_type": name} | TRANSFORMER for name in ("hubert", "wavlm")},
    "wav2vec2": {"model_type": "wav2vec2", "feat_extract_norm": "layer"} | TRANSFORMER,
}
LABELS = {
    "synthetic_source": {"angry": ["angry"], "happy": ["happy"], "low": ["sad"]},
    "synthetic_target": {"angry": ["angry"], "other": ["happy", "neutral"]},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Makes two corpora (6 speakers, 12 utterances each) and encoders with dropout."""
    world = tmp_path_factory.mktemp("world")
    for name in LABELS:
        write_synthetic(world / name, name, n_speakers=6, utterances_per_speaker=12)
    for name, config in ENCODERS.items():
        write_untrained_encoder(config, world / name)
    return world


def protocol(kind):
    """Returns a protocol for both corpora, in three folds."""
    return {"per_corpus": {name: {"kind": kind, "n_folds": 3} for name in LABELS}}


@pytest.fixture(scope="module")
def settings(world):
    """Returns the settings of a very small experiment."""
    return {
        "corpora": {name: str(world / name) for name in LABELS},
        "emotion_map": LABELS,
        "protocol": protocol("session_kfold"),
        "train_on_valid": False,
        "ssl_source": str(world / "whisper"),
        "ssl_revision": None,
        "batch_size": 8,
        "replacement": True,
        "batch_norm": True,
        "contrast_epochs": 1,
        "contrast_batches": 2,
        "contrast_lr": 0.01,
        "classifier_epochs": 2,
        "classifier_lr": 0.01,
        "tuning_epochs": 1,
        "similarity_utterances": 0,
        "loader_options": {"num_workers": 0},
    }


def command(settings, **changes):
    """Returns the command line of an experiment."""
    words = [str(SCRIPT), "hparams/two_stage.yaml", "--device", "cpu"]
    for key, value in (settings | changes).items():
        text = json.dumps(value) if isinstance(value, dict | None) else str(value)
        words += [f"--{key}", text]
    return words


@pytest.fixture
def run(recipe, settings, on_cpu, tmp_path):
    """Runs the experiment with some settings changed; returns results by corpus."""

    def run(name="run", **changes):
        changes = {"output_folder": str(tmp_path / name)} | changes
        results = recipe.run(Launch(HPARAMS, on_cpu(), settings | changes))
        return {result["target"]: result for result in results}

    return run


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def weights(folder, part):
    """Returns the weights of a part of the exported model."""
    tensors = load_file(folder / "model" / "model.safetensors")
    return {name: tensor for name, tensor in tensors.items() if part in name}


def pretrained(world, name="whisper"):
    return WeightedSSL(world / name).encoder.state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in one.items()
    )


def encoder_of(folder):
    return {
        name.partition("backbone.encoder.")[2]: tensor
        for name, tensor in weights(folder, "backbone.encoder.").items()
    }


# ------------------------------------------------------------------ kill and resume


def checkpoints(folder):
    """Returns metadata of each checkpoint, oldest first."""
    found = []
    for path in folder.glob("save/CKPT*/CKPT.yaml"):
        try:
            found.append(yaml.safe_load(path.read_text()))
        except FileNotFoundError:  # being deleted
            continue
    return sorted(found, key=lambda meta: meta["unixtime"])


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
    longer = {
        "contrast_epochs": 3,
        "contrast_batches": 20,
        "classifier_epochs": 30,
        "corpus_norm": True,
        "similarity_utterances": 12,
    }
    killed = tmp_path / "killed"
    words = command(settings, output_folder=killed, ckpt_interval_steps=2, **longer)

    def in_the_middle_of(folder, epoch):
        found = checkpoints(folder)
        done = sum(meta["end-of-epoch"] for meta in found)
        return found and not found[-1]["end-of-epoch"] and done >= min(1, epoch - 1)

    # In the middle of stage 1's second epoch or later, then of the first classifier.
    kill_when(
        Process(words, cwd=tmp_path),
        lambda: in_the_middle_of(killed / "encoder", 2),
    )
    assert not (killed / "synthetic_source").exists()
    kill_when(
        Process(words, cwd=tmp_path),
        lambda: in_the_middle_of(killed / "synthetic_source", 2),
    )
    assert not (killed / "synthetic_source" / "results.json").exists()

    resumed = run("killed", **longer)
    whole = run("whole", **longer)
    for corpus in LABELS:
        for key in ("test", "valid", "epochs", "data", "nonfinite_batches"):
            assert resumed[corpus][key] == whole[corpus][key], (corpus, key)
        for name in ("predictions.csv", "history.json"):
            ours, theirs = (tmp_path / r / corpus / name for r in ("killed", "whole"))
            assert ours.read_bytes() == theirs.read_bytes(), (corpus, name)
        assert same(
            weights(killed / corpus, ""), weights(tmp_path / "whole" / corpus, "")
        )
    ours, theirs = (tmp_path / r / "encoder" / "similarity.csv" for r in
                    ("killed", "whole"))  # fmt: skip
    assert read_csv(ours) == read_csv(theirs)
    assert resumed["synthetic_source"]["stages"]["contrast"]["epochs"] == 3


def test_a_finished_run_started_again_says_the_same(run, two_stage):
    folder, results = two_stage
    assert run(output_folder=str(folder)) == results


# ------------------------------------------------------------------ settings


@pytest.fixture(scope="module")
def two_stage(recipe, settings, on_cpu, tmp_path_factory):
    """Returns the folder of the unchanged experiment, and its results."""
    folder = tmp_path_factory.mktemp("two_stage") / "run"
    launch = Launch(HPARAMS, on_cpu(), settings | {"output_folder": str(folder)})
    return folder, {result["target"]: result for result in recipe.run(launch)}


def test_each_corpus_has_results_of_its_own_classes(two_stage):
    folder, results = two_stage
    assert set(results) == set(LABELS)
    for corpus, classes in LABELS.items():
        found = results[corpus]
        assert found["class_names"] == sorted(classes)
        assert found["test"]["chance"] == 1 / len(classes)
        assert (found["setting"], found["target"]) == ("two-stage", corpus)
        assert found["source"] == "synthetic_source + synthetic_target"
        rows = read_csv(folder / corpus / "predictions.csv")
        parts = found["data"]["parts"]
        assert len(rows) == parts["test"]["utterances"]
        assert all(row["id"].startswith(corpus) for row in rows)
        assert {row["label"] for row in rows} == set(classes)
        # 3 sessions of 2 speakers: one tests, one validates, one trains.
        assert [parts[name]["speakers"] for name in ("train", "valid", "test")] == [
            2,
            2,
            2,
        ]
        shared = found["data"]["shared_between_parts"]["speaker"]
        assert set(shared.values()) == {0}
        assert found["stages"].keys() == {
            "frozen_layers",
            "contrast",
            "frames",
            "classifier",
        }
        seconds = sum(s["seconds"] for s in found["stages"].values())
        own = found["stages"]["classifier"]["seconds"]
        expected = own + (seconds - own) / 2  # the common cost is halved
        assert found["training_seconds"] == pytest.approx(expected, abs=0.2)
    assert len({found["data"]["fingerprint"] for found in results.values()}) == 1
    assert not (folder / "features").exists()  # no longer needed


def test_stage_two_leaves_the_encoder_of_stage_one_alone(two_stage, world):
    folder, _ = two_stage
    one, other = (encoder_of(folder / corpus) for corpus in LABELS)
    assert same(one, other)
    first = pretrained(world)
    changed = {name for name in one if not torch.equal(one[name], first[name])}
    assert changed
    assert not any("conv" in name for name in changed)  # the front end is frozen
    pooling = [weights(folder / corpus, "pooling") for corpus in LABELS]
    assert pooling[0] and not same(*pooling)  # trained in stage 2


def test_the_exported_model_predicts_what_was_tested(two_stage):
    folder = two_stage[0] / "synthetic_source"
    recognizer = EmotionRecognizer.from_pretrained(folder / "model", device="cpu")
    where = {row["id"]: row["wav"] for row in read_csv(folder / "utterances.csv")}
    # The model has a temperature, which predictions.csv does not contain.
    t = read_json(folder / "results.json")["calibration"]["temperature"]
    for row in read_csv(folder / "predictions.csv")[:4]:
        found = recognizer.classify_file(where[row["id"]]).probabilities
        total = sum(float(row[f"p_{name}"]) ** (1 / t) for name in found)
        for name in ("angry", "happy", "low"):
            # Frames are stored in float16.
            expected = float(row[f"p_{name}"]) ** (1 / t) / total
            assert found[name] == pytest.approx(expected, abs=5e-3)


def test_the_probe_leaves_the_pretrained_encoder_alone(run, world, tmp_path):
    results = run(setting="probe")
    for corpus in LABELS:
        assert results[corpus]["setting"] == "frozen encoder"
        assert results[corpus]["source"] == corpus
        assert same(encoder_of(tmp_path / "run" / corpus), pretrained(world))
    assert "contrast" not in results[corpus]["stages"]


def test_direct_fine_tuning_trains_an_encoder_for_each_corpus(run, world, tmp_path):
    results = run(setting="fine_tuning")
    first = pretrained(world)
    encoders = [encoder_of(tmp_path / "run" / corpus) for corpus in LABELS]
    assert not same(*encoders)
    for encoder in encoders:
        changed = {
            n for n, value in encoder.items() if not torch.equal(value, first[n])
        }
        assert changed and not any("conv" in name for name in changed)
    assert results["synthetic_target"]["setting"] == "direct fine-tuning"
    # The second corpus does not start from the encoder that the first one trained.
    alone = run("alone", setting="fine_tuning", corpora={
        "synthetic_source": None,
        "synthetic_target": str(world / "synthetic_target"),
    })  # fmt: skip
    assert alone.keys() == {"synthetic_target"}
    assert alone["synthetic_target"]["test"] == results["synthetic_target"]["test"]


def test_the_transformer_has_its_own_learning_rate(two_stage):
    (row,) = (two_stage[0] / "encoder" / "train_log.txt").read_text().splitlines()
    assert "lr encoder.backbone: 4.00e-03, lr encoder.pooling: 1.00e-02" in row


@pytest.mark.parametrize("encoder", ["hubert", "wavlm", "wav2vec2"])
def test_other_encoders(run, world, encoder, tmp_path):
    run(ssl_source=str(world / encoder))
    found = encoder_of(tmp_path / "run" / "synthetic_source")
    first = pretrained(world, encoder)
    changed = {name for name in found if not torch.equal(found[name], first[name])}
    assert changed
    assert not any(n.startswith(("model.feature_",)) for n in changed)


@pytest.mark.parametrize(
    ("freeze", "layers"), [(1, [-1]), (1, None), ("frontend", None), ("all", None)]
)
def test_what_is_frozen_and_which_layers_are_summed(
    run, world, freeze, layers, tmp_path
):
    results = run(freeze=freeze, layers=layers)
    assert results["synthetic_source"]["layers"] == ([2] if layers else [0, 1, 2])
    found = encoder_of(tmp_path / "run" / "synthetic_source")
    first = pretrained(world)
    changed = {name for name in found if not torch.equal(found[name], first[name])}
    layer = {name.partition("layers.")[2][:1] for name in changed if "layers." in name}
    assert layer == {1: {"1"}, "frontend": {"0", "1"}, "all": set()}[freeze]
    # Outputs of frozen layers are stored for other runs.
    kept = list((tmp_path / "run" / "data" / "states").glob("*/*.safetensors"))
    assert bool(kept) == (freeze != "frontend")


def test_frozen_layers_are_computed_once_for_all_runs(run, tmp_path):
    shared = {"freeze": 1, "data_folder": str(tmp_path / "data")}
    run("first", **shared)
    states = sorted((tmp_path / "data" / "states").glob("*/*.safetensors"))
    before = [path.stat().st_mtime_ns for path in states]
    run("second", fold=1, setting="fine_tuning", **shared)
    assert sorted((tmp_path / "data" / "states").glob("*/*.safetensors")) == states
    assert [path.stat().st_mtime_ns for path in states] == before


def test_standardised_embeddings_and_class_weights_make_a_difference(run, two_stage):
    weighted = run("weighted", class_weights=True)["synthetic_target"]
    standardised = run("standardised", corpus_norm=True)["synthetic_target"]
    plain = two_stage[1]["synthetic_target"]
    assert weighted["stages"]["contrast"]["epochs"] == 1
    for changed in (weighted, standardised):
        assert changed["valid"]["loss"] != plain["valid"]["loss"]


# ------------------------------------------------------------------ folds


def test_random_folds_are_as_printed_and_report_their_leaks(run):
    changes = {"protocol": protocol("random_kfold"), "train_on_valid": True}
    found = run(**changes)["synthetic_source"]
    parts = found["data"]["parts"]
    assert parts.keys() == {"train", "test"}  # utterances outside the test part train
    assert parts["train"]["utterances"] == 2 * parts["test"]["utterances"] == 36
    shared = found["data"]["shared_between_parts"]
    assert shared["speaker"]["train/test"] == 12  # of both corpora
    assert shared["text_id"]["train/test"] > 0
    own = found["protocol"]["per_corpus"]["synthetic_source"]
    assert own["leaks"] == ["session", "speaker", "text_id"]


def test_cross_validation_as_one_command(settings, tmp_path):
    own = settings | {"setting": "probe", "classifier_epochs": 1}
    words = ["crossval", str(HPARAMS), "--output_folder", str(tmp_path / "out")]
    words += ["--folds", "0", "2"]
    for key, value in own.items():
        text = json.dumps(value) if isinstance(value, dict | None) else str(value)
        words += [f"--{key}", text]
    assert main(words) == 0
    tested = set()
    for corpus, classes in LABELS.items():
        found = read_json(tmp_path / "out" / corpus / "crossval.json")
        assert found["class_names"] == sorted(classes)
        assert found["setting"] == "frozen encoder"
        assert set(found["results"]) == {corpus}
        assert [row["fold"] for row in found["results"][corpus]["folds"]] == [0, 2]
        assert found["results"][corpus]["speakers"] == 4
        tested.add(found["results"][corpus]["utterances"])
    assert tested == {36}


# ------------------------------------------------------------------ several processes


def test_two_processes_train_one_model(settings, tmp_path):
    own = {"freeze": 1}
    words = command(settings, output_folder=tmp_path / "run", **own)
    ranks = start_ranks(2, [*words, "--distributed_backend", "gloo"], cwd=tmp_path)
    for rank in ranks:
        assert rank.wait() == 0, rank.communicate()[1][-3000:]
    assert len(list(tmp_path.rglob("results.json"))) == 2
    for corpus in LABELS:
        results = read_json(tmp_path / "run" / corpus / "results.json")
        rows = read_csv(tmp_path / "run" / corpus / "predictions.csv")
        assert len(rows) == results["data"]["parts"]["test"]["utterances"]
        assert results["stages"]["contrast"]["epochs"] == 1


# ------------------------------------------------------------------ real speech


def test_real_speech_and_a_real_encoder(run, shared):
    emotions = ["angry", "bored", "disgusted", "fearful", "happy", "neutral", "sad"]
    results = run(
        corpora={"emodb": str(shared / "corpora" / "EmoDB")},
        emotion_map={"emodb": {name: [name] for name in emotions}},
        protocol="speaker_kfold",
        setting="probe",
        train_on_valid=True,
        ssl_source=str(shared / "models" / "whisper-tiny.en-encoder"),
        freeze="all",
        layers=[0],
        hidden_size=None,
        class_weights=True,
        classifier_epochs=2,
        batch_size=32,
    )["emodb"]
    assert results["encoder"] == "whisper-tiny.en-encoder"
    assert results["test"]["chance"] == 1 / 7
    assert results["test"]["speakers"] == 2
    assert results["data"]["parts"]["train"]["speakers"] == 8
    # Only the convolutions, two epochs: not good, but better than chance.
    assert results["test"]["uar"]["value"] > 0.35


# ------------------------------------------------------------------ errors


def error_with(monkeypatch, settings, tmp_path, **changes):
    """Returns the script's error message."""
    words = command(settings, output_folder=tmp_path / "run", **changes)[1:]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert isinstance(exit_.value.code, str), "not a message: the exit status is 0"
    return exit_.value.code


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"setting": "twostage"}, "setting is 'twostage', expected one of probe, "),
        ({"test_checkpoint": "first"}, "test_checkpoint is 'first'"),
        (
            {"test_checkpoint": "best", "train_on_valid": True},
            "train_on_valid is True.*test_checkpoint: last",
        ),
        (
            {"contrast_epoch": 3},
            "no key contrast_epoch; did you mean 'contrast_epochs'",
        ),
    ],
)
def test_switches_that_mean_nothing(monkeypatch, settings, tmp_path, changes, said):
    # Raised before an encoder is loaded, which may need a download.
    changes |= {"ssl_source": tmp_path / "not_there"}
    message = error_with(monkeypatch, settings, tmp_path, **changes)
    assert re.search(said, message), message


def test_too_few_utterances_of_an_emotion(monkeypatch, settings, tmp_path):
    message = error_with(
        monkeypatch, settings, tmp_path, replacement=False, batch_size=32
    )
    # 2 speakers train, with 3 angry utterances each; half of a batch is angry.
    assert "synthetic_source has 6 that are angry, a step may take 8" in message
    assert "replacement: True" in message
