"""The recipe for contrastive losses on spectrograms, run like a user does."""

import csv
import itertools
import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from sklearn.svm import SVC
from speechbrain import Stage

from speechbrain_ser_cl.backbones import write_untrained_encoder
from speechbrain_ser_cl.corpora import write_synthetic
from speechbrain_ser_cl.data.experiment import read_corpora
from speechbrain_ser_cl.data.protocols import make_folds
from speechbrain_ser_cl.inference import EmotionRecognizer
from speechbrain_ser_cl.results import read_embeddings
from speechbrain_ser_cl.training import check_stages, setting_title
from speechbrain_ser_cl.utils.settings import resolve
from tests.hollow import write_iemocap
from tests.processes import Process

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "IEMOCAP" / "supervised_contrastive"
SCRIPT = RECIPE / "train.py"
HPARAMS = RECIPE / "hparams" / "contrastive.yaml"
NAME = "synthetic_source"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Makes a corpus of 6 speakers with 8 utterances each."""
    world = tmp_path_factory.mktemp("world")
    write_synthetic(world / NAME, NAME, n_speakers=6, utterances_per_speaker=8)
    config = {
        "model_type": "whisper",
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
    }
    write_untrained_encoder(config, world / "whisper")
    return world


@pytest.fixture(scope="module")
def settings(world):
    """Returns a very small experiment, on frames of a frozen encoder."""
    return {
        "ssl_source": str(world / "whisper"),
        "corpora": {NAME: str(world / NAME)},
        "protocol": {"kind": "session_kfold", "n_folds": 3},
        "data_folder": str(world / "data"),
        "epochs": 1,
        "fine_tune_epochs": 2,
        "frozen_epochs": 1,
        "batch_size": 6,
        "contrast_batch_size": 6,
        "batches_per_epoch": 2,
        "max_seconds": 0.5,
        "tsne": False,
        "loader_options": {"num_workers": 0},
    }


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def yaml_values():
    """Returns the YAML's values in Python's own types."""
    return json.loads(json.dumps(resolve(HPARAMS, {})[1], default=str))


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    "changes, title",
    [
        ({"setting": "cross_entropy_aug"}, "cross-entropy (aug)"),
        (
            {"setting": "combined_self", "lambda_contrast": 0.1},
            "cross-entropy + 0.1 SupCon τ = 0.1 + 0.5 self-supervised NT-Xent τ = 0.5 "
            "(multi-aug)",
        ),
        (
            {"setting": "self_contrast_svm", "contrast": "ntxent", "temperature": 0.5},
            "self-supervised NT-Xent τ = 0.5 (aug) → NT-Xent τ = 0.5 (multi-aug) → SVM",
        ),
        (
            {"setting": "self_svm", "self_supervised": "barlow_twins"},
            "Barlow Twins (aug) → SVM",
        ),
        (
            {"setting": "self_svm", "self_supervised": "vicreg", "projection_size": 16},
            "VICReg (aug) → SVM",
        ),
        (
            {"setting": "self_fine_tuned_aug", "self_supervised": "moco"},
            "MoCo τ = 0.5 (aug) → CE (fine-tuned, aug)",
        ),
        (
            {"setting": "multiview_svm", "augmentation": "waveform"},
            "SupCon τ = 0.1 (multi-waveform aug) → SVM",
        ),
        (
            {"contrast": "triplet", "margin": 0.2, "mining": "semihard_hard"},
            "triplet m = 0.2 (semihard, hard) → SVM",
        ),
    ],
)
def test_each_kind_of_training_runs_and_has_a_readable_name(run, changes, title):
    results = run(**changes)
    assert results["encoder"] == "whisper"
    assert results["setting"] == title
    by = "svm" if title.endswith("SVM") else "classifier"
    assert results["classifier"] == by
    test, probes = results["test"], results["probes"]["test"]
    assert test["uar"]["value"] == pytest.approx(probes[by]["uar"])
    assert results["valid"]["uar"] == results["probes"]["valid"][by]["uar"]
    for part in results["probes"].values():
        numbers = [part["recall_at_1"], part["kmeans"]["f1"], part["kmeans"]["nmi"]]
        assert all(0 <= number <= 1 for number in numbers)
    assert results["nonfinite_batches"] == 0


def test_every_loss_of_the_yaml_has_a_name_of_its_own():
    values, titles = yaml_values(), set()
    losses = [values[f"{kind}_losses"] for kind in ("contrast", "self_supervised")]
    for name, other in itertools.product(*losses):
        chosen = {"contrast": name, "self_supervised": other}
        chosen["setting"] = "combined_self"
        check_stages(values | chosen)
        titles.add(setting_title(values | chosen))
    assert len(titles) == 32


def test_a_loss_of_the_user_needs_an_entry_and_nothing_else(run, tmp_path):
    mine = tmp_path / "mine.yaml"
    entry = """contrast_losses:
    mine:
        title: my loss m = {margin:g}
        make: !name:speechbrain_ser_cl.losses.TripletLoss
            margin: !ref <margin>
"""
    text = HPARAMS.read_text(encoding="utf-8").replace("contrast_losses:\n", entry, 1)
    mine.write_text(text)
    assert run(hparams=mine, contrast="mine")["setting"] == "my loss m = 0.05 → SVM"
    mine.write_text(text.replace("        title: my loss m = {margin:g}\n", ""))
    with pytest.raises(ValueError, match="contrast_losses: mine has no title"):
        run("untitled", hparams=mine, contrast="supcon")
    mine.write_text(text.replace("{margin:g}", "{margins:g}"))
    with pytest.raises(ValueError, match="title: 'my loss.*'margins'"):
        run("unknown", hparams=mine, contrast="mine")
    assert not (tmp_path / "untitled").exists() and not (tmp_path / "unknown").exists()


def test_the_svm_is_fitted_on_embeddings_of_unit_length(run, tmp_path, settings):
    results = run(setting="contrast_svm")
    found = read_embeddings(tmp_path / "run" / "embeddings.npz")
    assert np.allclose(np.linalg.norm(found.embeddings, axis=1), 1, atol=1e-2)
    rows = read_csv(tmp_path / "run" / "predictions.csv")
    assert [row["id"] for row in rows] == found.ids
    assert [row["label"] for row in rows] == found.labels
    assert len(rows) == results["test"]["utterances"] == 16
    # An SVM of scikit-learn, fitted on the test part itself, is at least as good.
    own = SVC(kernel="linear").fit(found.embeddings, found.labels)
    assert own.score(found.embeddings, found.labels) >= results["test"]["wa"]["value"]


def test_mining_goes_from_semihard_to_hard_at_four_fifths(recipe):
    def mined(mining, stage=Stage.TRAIN):
        brain = SimpleNamespace(
            hparams=SimpleNamespace(mining=mining), stage={"epochs": 10}
        )
        found = []
        for brain._epoch in range(1, 11):
            found.append(recipe.StageBrain.mining(brain, stage))
        return found

    assert mined("semihard_hard") == ["semihard"] * 8 + ["hard"] * 2
    assert mined("hard") == ["hard"] * 10
    assert mined("hard", Stage.VALID) == ["all"] * 10


@pytest.mark.parametrize(
    "monitor, named", [("recall_at_1", "Recall@1"), ("svm_uar", "the SVM's UAR")]
)
def test_the_epoch_can_be_chosen_by_what_embeddings_are_for(
    run, tmp_path, monitor, named
):
    results = run(
        contrast="triplet",
        mining="hard",
        contrast_monitor=monitor,
        epochs=5,
        batches_per_epoch=4,
    )
    assert results["setting"] == f"triplet m = 0.05 (hard), epoch by {named} → SVM"
    epochs = json.loads((tmp_path / "run" / "history.json").read_text())
    scores = [epoch["valid"][monitor] for epoch in epochs]
    assert len(set(scores)) > 1
    best = max(range(5), key=lambda n: (scores[n], n))  # of equal ones, the last
    assert results["tested_epoch"] == best + 1
    assert results["stages"]["scl"]["best_epoch"] == best + 1
    # It is that of the final embeddings, computed again.
    probes = results["probes"]["valid"]
    again = probes["recall_at_1"] if monitor == "recall_at_1" else probes["svm"]["uar"]
    assert scores[best] == again == results["valid"][monitor]


def test_frozen_epochs_train_the_classifier_alone(run, tmp_path):
    stages = str(tmp_path / "stages")
    run("one", setting="contrast_svm", stage_folder=stages)
    run(
        "two",
        setting="contrast_fine_tuned",
        stage_folder=stages,
        fine_tune_epochs=2,
        frozen_epochs=2,
    )
    paths = {p.name.split("-")[0]: p for p in Path(stages).iterdir()}
    assert set(paths) == {"scl", "scl+ft"}  # the first stage is not trained again
    encoders = [
        torch.load(next(paths[name].glob("save/CKPT*/encoder.ckpt")))
        for name in ("scl", "scl+ft")
    ]
    for name, value in encoders[0].items():
        assert torch.equal(value, encoders[1][name]), name
    run("three", setting="contrast_svm", stage_folder=stages, temperature=0.5)
    assert len(list(Path(stages).iterdir())) == 3  # another loss gives another stage
    sgd = tmp_path / "sgd.yaml"
    sgd.write_text(HPARAMS.read_text(encoding="utf-8").replace("Adam\n", "RMSprop\n"))
    run("four", hparams=sgd, setting="contrast_svm", stage_folder=stages)
    assert len(list(Path(stages).iterdir())) == 4  # another optimiser does too


def test_the_whole_encoder_can_be_trained_too(run):
    run(setting="contrast_fine_tuned", freeze="none")
    results = run(
        "views", setting="cross_entropy_aug", freeze="none", augmentation="waveform"
    )
    assert results["setting"] == "cross-entropy (waveform aug)"
    with pytest.raises(ValueError, match="augmentation: waveform"):
        run("masks", setting="cross_entropy_aug", freeze="none")


def test_the_crnn_reads_spectrograms_and_their_views(run):
    results = run(setting="combined_self", ssl_source=None)
    assert results["encoder"] == "spectrogram_crnn"
    run("views", setting="multiview_svm", ssl_source=None, augmentation="waveform")


@pytest.mark.parametrize("own", [{}, {"ssl_source": None}])
def test_the_exported_classifier_predicts_what_was_tested(run, tmp_path, own):
    run(setting="cross_entropy", **own)
    folder = tmp_path / "run"
    recognizer = EmotionRecognizer.from_pretrained(folder / "model", device="cpu")
    where = {row["id"]: row["wav"] for row in read_csv(folder / "utterances.csv")}
    # The model has a temperature, which predictions.csv does not contain.
    t = json.loads((folder / "results.json").read_text())["calibration"]["temperature"]
    for row in read_csv(folder / "predictions.csv")[:3]:
        found = recognizer.classify_file(where[row["id"]]).probabilities
        total = sum(float(row[f"p_{name}"]) ** (1 / t) for name in found)
        for name, probability in found.items():
            # Spectrograms are stored in float16.
            expected = float(row[f"p_{name}"]) ** (1 / t) / total
            assert probability == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"setting": "tripled"}, "setting is 'tripled'.*cross_entropy"),
        ({"contrast": "infonce"}, "contrast is 'infonce'.*smooth_triplet"),
        ({"mining": "easy"}, "mining is 'easy'.*semihard_hard"),
        ({"settings": {"contrast_svm": ["scl", "fit"]}}, "stage fit.*combined"),
        ({"stages": {"sscl": {"views": 1}}, "setting": "self_svm"}, "sscl: views is 1"),
        ({"stages": {"scl": {"monitor": "uar"}}}, "scl: monitor is uar"),
        ({"stages": {"scl": {"monitor": None}}}, "scl: monitor is None"),
        ({"contrast_monitor": "recall"}, "scl: monitor is 'recall'.*recall_at_1"),
        (
            {"stages": {"sscl": {"monitor": "recall_at_1"}}, "setting": "self_svm"},
            "sscl: monitor is recall_at_1.*weights has self_supervised",
        ),
    ],
)
def test_switches_that_mean_nothing_are_refused_at_once(
    run, tmp_path, changes, message
):
    if "stages" in changes:  # a mapping replaces that of the YAML
        plain = yaml_values()["stages"]
        ours = {name: plain[name] | own for name, own in changes["stages"].items()}
        changes = changes | {"stages": plain | ours}
    with pytest.raises(ValueError, match=message):
        run(**changes)
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------ kill and resume


def test_killed_in_either_stage_it_ends_like_an_uninterrupted_run(
    run, settings, tmp_path
):
    longer = {
        "setting": "contrast_fine_tuned",
        "epochs": 3,
        "fine_tune_epochs": 3,
        "batches_per_epoch": 4,
    }
    killed = tmp_path / "killed"
    words = [str(SCRIPT), "hparams/contrastive.yaml"]
    words += ["--device", "cpu", "--ckpt_interval_steps", "1"]
    words += ["--output_folder", str(killed)]
    for key, value in (settings | longer).items():
        text = json.dumps(value) if isinstance(value, dict | None) else str(value)
        words += [f"--{key}", text]
    for stage in ("scl-*", "scl+ft-*"):
        process = Process(words, cwd=tmp_path)
        deadline = time.monotonic() + 240
        while not in_the_middle(killed / "stages", stage):
            assert process.poll() is None, process.communicate()[1][-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()
        process.wait()
    assert not (killed / "results.json").exists()
    resumed, whole = run("killed", **longer), run("whole", **longer)
    for key in ("test", "valid", "probes", "epochs", "tested_epoch", "data"):
        assert resumed[key] == whole[key], key
    for name in ("predictions.csv", "history.json"):
        ours, theirs = ((tmp_path / r / name).read_bytes() for r in ("killed", "whole"))
        assert ours == theirs, name
    assert run("whole", **longer) == whole


def in_the_middle(folder, stage):
    """Returns whether a checkpoint within the second epoch or later exists."""
    found = []
    for path in folder.glob(f"{stage}/save/CKPT*/CKPT.yaml"):
        try:
            found.append(yaml.safe_load(path.read_text()))
        except FileNotFoundError:  # being deleted
            continue
    within = [meta for meta in found if not meta["end-of-epoch"]]
    return bool(within) and any(meta["end-of-epoch"] for meta in found)


# ------------------------------------------------------------------ IEMOCAP


def test_iemocap_in_the_layout_of_its_owners_runs_the_thesis_folds(run, tmp_path):
    root = write_iemocap(tmp_path)
    # Only the rare emotions, to save time.
    labels = {"fearful": ["fearful"], "surprised": ["surprised"]}
    hparams = tmp_path / "rare.yaml"
    start, _, rest = HPARAMS.read_text(encoding="utf-8").partition("emotion_map:\n")
    _, _, rest = rest.partition("\n\n")
    hparams.write_text(f"{start}emotion_map: {json.dumps(labels)}\n\n{rest}")
    items = read_corpora({"iemocap": root}, labels)
    folds = make_folds(items, "session_speaker_swap")
    assert len(folds) == 10
    results = run(
        hparams=hparams,
        corpora={"iemocap": str(root)},
        protocol={"kind": "session_speaker_swap", "n_folds": None},
        data_folder=str(tmp_path / "data"),
        ssl_source=None,
        setting="contrast_fine_tuned",
        fold=3,
    )
    assert (results["fold"], results["n_folds"]) == (3, 10)
    assert results["data"]["fingerprint"] == folds[3].fingerprint
    parts = {row["id"]: row for row in read_csv(tmp_path / "run" / "utterances.csv")}
    who = {
        name: {
            (r["session"], r["speaker"]) for r in parts.values() if r["part"] == name
        }
        for name in ("train", "valid", "test")
    }
    (valid,), (test,) = who["valid"], who["test"]
    assert valid[0] == test[0] and valid[1] != test[1]
    assert valid[0] not in {session for session, _ in who["train"]}
