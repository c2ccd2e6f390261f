"""The recipe for a user's corpus, on corpora with unusual layouts."""

import csv
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from torch.optim.lr_scheduler import LambdaLR

from speechbrain_ser_cl.backbones import write_untrained_encoder
from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
from speechbrain_ser_cl.data.experiment import read_corpora
from speechbrain_ser_cl.data.protocols import make_folds
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.sweeps.crossval import aggregate
from speechbrain_ser_cl.sweeps.recipe import Recipe
from speechbrain_ser_cl.sweeps.runs import PlannedRun
from speechbrain_ser_cl.training import Launch
from speechbrain_ser_cl.training.launch import wants_demo
from speechbrain_ser_cl.utils.settings import resolve
from tests.processes import run as run_process

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "recipes" / "own_corpus" / "train.py"
HPARAMS = SCRIPT.parent / "hparams" / "finetune.yaml"
ENCODER = {
    "model_type": "whisper",
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
}
WORDS = {"neutral": "sachlich", "happy": "Joy", "sad": "Trauer", "angry": "ANGER"}
COLUMNS = {"file": "take {Nr}", "emotion": "Gefühl", "speaker": "Wer"}
LABELS = {"sachlich": "neutral", "Trauer": "sad"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Makes stereo files at 22 kHz with a German table, and the same in folders."""
    world = tmp_path_factory.mktemp("world")
    source = write_synthetic(
        world / "source", "synthetic_source", n_speakers=5, utterances_per_speaker=8
    )
    odd = world / "odd"
    odd.mkdir()
    rows = ["Nr;Wer;Gefühl"]
    for n, u in enumerate(read_synthetic(source)):
        samples, rate = soundfile.read(u.path)
        samples = np.interp(np.arange(0, len(samples), rate / 22050), *_grid(samples))
        soundfile.write(odd / f"take {n}.wav", np.stack([samples, samples], 1), 22050)
        rows.append(f"{n};{u.speaker[-2:]};{WORDS[u.emotion]}")
        part = {"00": "test", "01": "dev"}.get(u.speaker[-2:], "train")
        target = world / "folders" / part / WORDS[u.emotion] / f"{u.speaker}-{n}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(u.path, target)
    (odd / "takes.csv").write_text("\n".join(rows), encoding="utf-8")
    write_untrained_encoder(ENCODER, world / "encoder")
    return world


def corpora(folder, **options):
    return {"my_corpus": {"folder": str(folder), "reader": "table"} | options}


def _grid(samples):
    return np.arange(len(samples)), samples


@pytest.fixture
def settings(world, tmp_path):
    """Returns the settings of a very small training on the table."""
    return {
        "folder": str(world / "odd"),
        "corpora": corpora(world / "odd", columns=COLUMNS, labels=LABELS),
        "ssl_source": str(world / "encoder"),
        "ssl_revision": None,
        "n_epochs": 2,
        "batch_size": 8,
        "data_folder": str(tmp_path / "data"),
        "output_folder": str(tmp_path / "run"),
        "features_folder": str(tmp_path / "features"),
        "loader_options": {"num_workers": 0},
    }


@pytest.fixture
def run(recipe, settings, on_cpu, capsys):
    """Runs the recipe with some settings changed; returns results and output."""

    def run(**changes):
        (results,) = recipe.run(Launch(HPARAMS, on_cpu(), settings | changes))
        return results, capsys.readouterr().out

    return run


def predictions(folder):
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_becomes_a_model_in_one_command(run, plots, world, settings, tmp_path):
    corpus = sorted((p, p.stat().st_mtime_ns) for p in (world / "odd").rglob("*"))
    results, out = run()
    assert corpus == sorted(
        (p, p.stat().st_mtime_ns) for p in (world / "odd").rglob("*")
    )
    assert results["corpus"] == "my_corpus"
    assert results["setting"] == "cross-entropy"
    assert results["demo"] is False
    assert results["epochs"] == 2
    # The data report is printed first, the result last.
    assert out.index("my_corpus, fold 0") < out.index("0 errors") < out.index("UAR ")
    assert "5" in out.split("speakers")[1].split("\n")[0]

    # The test utterances are those of one speaker, by the protocol.
    emotion_map = {name: [name] for name in ("neutral", "happy", "sad", "angry")}
    items = read_corpora(settings["corpora"], emotion_map)
    split = make_folds(items, "speaker_kfold", 1986)[0]
    rows = predictions(tmp_path / "run")
    assert sorted(row["id"] for row in rows) == split.test
    label_of = {item.utterance.id: item.label for item in items}
    assert all(row["label"] == label_of[row["id"]] for row in rows)
    assert results["data"]["fingerprint"] == split.fingerprint
    assert results["data"]["parts"]["train"]["speakers"] == 3
    correct = np.mean([row["label"] == row["prediction"] for row in rows])
    assert results["test"]["wa"]["value"] == pytest.approx(correct)
    report = json.loads((tmp_path / "run" / "data_report.json").read_text())
    assert report["parts"]["all"]["classes"] == dict.fromkeys(emotion_map, 10)
    for name in ("results.json", "confusion_matrix.png", "model", "utterances.csv"):
        assert (tmp_path / "run" / name).exists(), name
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "my_corpus" in page
    assert f"UAR {100 * results['test']['uar']['value']:.1f} %" in page


def test_a_folder_per_class_with_a_given_split_and_supcon(
    run, recipe, world, settings, on_cpu, tmp_path
):
    yaml = tmp_path / "my.yaml"
    text = HPARAMS.read_text(encoding="utf-8")
    begin, end = text.index("        reader: table"), text.index("emotion_map:")
    mine = (
        "        reader: folders\n"
        '        pattern: "{split}/{emotion}/{speaker}-*"\n'
        "        labels: {sachlich: neutral, Trauer: null}\n"
    )
    text = text[: text.rindex("        #", 0, begin)] + mine + text[end:]
    text = text.replace("    sad: [sad]\n", "")
    text = text.replace(
        "    kind: speaker_kfold\n    n_folds: 5\n", "    kind: given\n"
    )
    yaml.write_text(text, encoding="utf-8")
    settings |= {"folder": str(world / "folders"), "lambda_supcon": 0.5}
    del settings["corpora"]
    (results,) = recipe.run(Launch(yaml, on_cpu(), settings))
    assert results["setting"] == "cross-entropy + 0.5 SupCon"
    assert results["class_names"] == ["neutral", "happy", "angry"]
    assert [results["data"]["parts"][p]["utterances"] for p in ("train", "test")] == [
        18,
        6,
    ]
    assert {row["id"].split("/")[1] for row in predictions(tmp_path / "run")} == {
        "sachlich",
        "Joy",
        "ANGER",
    }
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert all(row["train"]["supcon"] > 0 for row in history if row["epoch"])


def test_unknown_speakers(run, world):
    unknown = COLUMNS | {"speaker": None}
    columns = corpora(world / "odd", columns=unknown, labels=LABELS)
    with pytest.raises(ValueError, match="without a speaker .40: .*random_kfold"):
        run(corpora=columns)
    results, out = run(corpora=columns, protocol={"kind": "random_kfold"}, n_epochs=1)
    assert "WARNING: the speaker is not known (40: " in out
    assert results["test"]["interval_speakers_missing"] == "the speakers are not known"


def test_only_the_middle_of_a_long_utterance_is_tested(recipe, world):
    items = [
        Labelled(u, u.emotion)
        for u in read_synthetic(world / "source")
        if "s00" in u.id
    ]
    hparams = {
        "loader_options": {"num_workers": 0},
        "max_seconds": 0.5,
        "max_test_seconds": 0.75,
        "seed": 0,
        "bucketing": True,
        "batch_size": 4,
        "batches_per_epoch": None,
        "test_batch_size": 1,
    }
    parts = {"train": items, "valid": items, "test": items}
    classes = ["neutral", "happy", "sad", "angry"]
    train, _, test = recipe.make_loaders(hparams, parts, classes)
    assert len(train) == 2
    assert all(batch.speech.shape == (4, 8000) for batch in train)
    of = {item.utterance.id: item.utterance for item in items}
    for batch in test:
        whole, _ = soundfile.read(of[batch.id[0]].path, dtype="float32")
        middle = batch.speech[0].numpy()
        assert len(middle) == 12000
        first = (len(whole) - 12000) // 2
        assert np.array_equal(middle, whole[first : first + 12000])


def damaged(world, tmp_path, change):
    """Makes a linked copy of the corpus with one change."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    for path in (world / "odd").iterdir():
        os.link(path, folder / path.name)
    change(folder)
    return str(folder)


def silence(folder):
    (folder / "take 3.wav").unlink()
    soundfile.write(folder / "take 3.wav", np.zeros(16000), 16000)


def repeat(folder):
    for n in range(8, 40, 8):
        (folder / f"take {n}.wav").unlink()
        os.link(folder / "take 0.wav", folder / f"take {n}.wav")


def misspell(folder):
    text = (folder / "takes.csv").read_text(encoding="utf-8")
    (folder / "takes.csv").unlink()
    (folder / "takes.csv").write_text(text.replace("Trauer", "Truaer", 1), "utf-8")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (silence, "1 error: silent files.*1: my_corpus_take 3.; exclude them"),
        (repeat, "the same audio in two parts, 1 in test/train/valid; exclude all but"),
        (misspell, "1: 'Truaer' 1× did you mean 'trauer'"),
        (lambda folder: (folder / "take 7.wav").unlink(), "missing.*1: take 7"),
    ],
)
def test_bad_data_is_refused_before_anything_is_trained(
    run, world, tmp_path, change, told
):
    folder = damaged(world, tmp_path, change)
    # Raised before an encoder is loaded, which may need a download.
    with pytest.raises(ValueError, match=told):
        run(
            corpora=corpora(folder, columns=COLUMNS, labels=LABELS),
            ssl_source=str(tmp_path / "not_there"),
        )
    assert not (tmp_path / "run").exists()


def test_an_error_is_one_line_and_an_exit_status(tmp_path):
    words = [SCRIPT, "hparams/finetune.yaml", "--folder", "nowhere"]
    done = run_process(words, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "ValueError: corpora: my_corpus: there is no folder nowhere, neither in "
    )


def test_a_folder_of_the_user_is_never_replaced_by_the_demo(tmp_path):
    """Also if the YAML names it in the corpus' entry, or it was forgotten."""
    text = HPARAMS.read_text(encoding="utf-8")
    mine = tmp_path / "mine.yaml"
    mine.write_text(text.replace("!ref <folder>", "/data/calls"))
    folders = tmp_path / "folders.yaml"
    folders.write_text(text.replace("reader: table", "reader: folders", 1))
    assert wants_demo(resolve(HPARAMS, {})[1])
    assert not wants_demo(resolve(HPARAMS, {"folder": "/data/calls"})[1])
    assert not wants_demo(resolve(mine, {})[1])
    assert not wants_demo(resolve(folders, {})[1])


def test_real_speech_of_an_odd_layout(run, shared, tmp_path):
    """EmoDB in stereo at 44.1 kHz, described by a table, with a real encoder."""
    folder = tmp_path / "odd"
    folder.mkdir()
    rows = ["path,mood,who"]
    paths = sorted((shared / "corpora" / "EmoDB" / "wav").glob("*.wav"))[::6]
    for path in paths:
        samples, _ = soundfile.read(path)
        soundfile.write(folder / path.name, np.stack([samples, samples], 1), 16000)
        rows.append(f"{path.stem},{path.stem[5]},{path.stem[:2]}")
    (folder / "t.csv").write_text("\n".join(rows))
    letters = {"W": "angry", "F": "happy", "N": "neutral", "T": "sad"}
    results, _ = run(
        corpora=corpora(
            folder,
            columns={"file": "path", "emotion": "mood", "speaker": "who"},
            labels=letters | dict.fromkeys("LEA"),
        ),
        ssl_source=str(shared / "models" / "whisper-tiny.en-encoder"),
        freeze="all",
        max_seconds=2.0,
        batches_per_epoch=2,
        n_epochs=1,
    )
    kept = [path for path in paths if path.stem[5] in letters]
    parts = results["data"]["parts"].values()
    assert sum(part["utterances"] for part in parts) == len(kept)
    assert results["encoder"] == "whisper-tiny.en-encoder"
    assert math.isfinite(results["valid"]["loss"])


def test_what_is_frozen_is_computed_once_and_fitted_again(
    run, recipe, settings, tmp_path, monkeypatch
):
    settings |= {"features_folder": str(tmp_path / "features"), "freeze": "all"}
    parts = []
    loaders = recipe.make_loaders
    monkeypatch.setattr(
        recipe, "make_loaders", lambda *all: parts.append(all[1]) or loaders(*all)
    )

    def told(name):
        results, _ = run(output_folder=str(tmp_path / name))
        assert results["refit"] is True
        return predictions(tmp_path / name)

    first = told("run")
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.glob("features/*/*.safetensors")}
    assert len({path.parent for path in kept}) == 1
    assert told("again") == first
    assert kept == {p: p.stat().st_mtime_ns for p in kept}
    # The second training uses both parts, and has the same test part.
    assert len(parts[1]["train"]) == len(parts[0]["train"]) + len(parts[0]["valid"])
    assert parts[1]["test"] == parts[0]["test"]


@pytest.mark.parametrize(("patience", "again"), [(None, 3), (5, 1)])
def test_all_epochs_are_done_again_where_nothing_stops_early(
    run, recipe, tmp_path, monkeypatch, patience, again
):
    fit_again, make_trainer = recipe.fit_again, recipe.make_trainer

    def after_the_first(first, *others):
        first.history.tested["epoch"] = 1
        return fit_again(first, *others)

    def with_warm_up(*all, **how):
        if how["epochs"] == 3 and "patience" in how:  # the first training
            how["lr_scheduler"] = lambda o: LambdaLR(o, lambda epoch: epoch / 2)
        return make_trainer(*all, **how)

    monkeypatch.setattr(recipe, "fit_again", after_the_first)
    monkeypatch.setattr(recipe, "make_trainer", with_warm_up)
    run(freeze="all", start=None, n_epochs=3, patience=patience)
    first, log = (
        [line.partition(" - ")[0] for line in path.read_text().splitlines()]
        for path in (
            tmp_path / "run" / p for p in ("train_log.txt", "refit/train_log.txt")
        )
    )
    assert "0.00e+00" in log[0]
    assert log == first[:again]


def test_lower_layers_that_are_frozen_are_kept_as_states(run, tmp_path):
    results, _ = run(freeze=1, start=None, baseline=None, layers=None)
    assert results["refit"] is False
    (about,) = (tmp_path / "features").glob("*/about.json")
    assert json.loads(about.read_text())["features"] == "frozen states [0, 1]"


@pytest.mark.parametrize("freeze", ["all", "frontend"])
def test_training_starts_from_the_probe_and_keeps_it_if_no_epoch_is_better(
    run, tmp_path, freeze
):
    results, out = run(freeze=freeze, lr=0.0, lr_heads=0.0, n_epochs=1, start="probe")
    assert results["refit"] is True
    assert results["tested_epoch"] == 0
    assert f"0.00 GB in {tmp_path / 'features'}" in out
    assert ("not kept, but computed in every epoch" in out) == (freeze != "all")
    simple = json.loads((tmp_path / "run/baseline/results.json").read_text())
    assert simple["test"]["uar"]["value"] == results["test"]["uar"]["value"]
    told = [
        sorted(predictions(tmp_path / "run" / part), key=lambda row: row["id"])
        for part in ("", "baseline")
    ]
    for one, other in zip(*told, strict=True):
        assert one["id"] == other["id"]
        for name in ("neutral", "happy", "sad", "angry"):
            key = f"p_{name}"
            assert float(one[key]) == pytest.approx(float(other[key]), abs=2e-3)
    # The baseline is the first row of the output and of the report.
    assert out.index("simple baseline: logistic") < out.index("\ncross-entropy")
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "simple baseline: logistic regression" in page
    # Also of a cross-validation's table.
    recipe = Recipe(HPARAMS, SCRIPT, ())
    planned = PlannedRun(recipe, tmp_path / "run", 1986, None, None)
    lines = aggregate([planned], tmp_path / "crossval").splitlines()
    (first,) = (n for n, line in enumerate(lines) if "simple baseline" in line)
    assert "cross-entropy" in lines[first + 1]


def test_without_a_start_and_a_baseline_there_is_no_probe(run, tmp_path):
    results, out = run(start=None, baseline=None, layers=None, n_epochs=1)
    assert "simple baseline" not in out
    assert not (tmp_path / "run" / "baseline").exists()
    assert results["tested_epoch"] == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"start": "zeros"}, "start is 'zeros', expected one of None, probe"),
        ({"layers": None}, "found 3 layers, StatisticsPooling and 1 heads; expected"),
    ],
)
def test_an_invalid_start_is_refused(run, changes, told):
    with pytest.raises(ValueError, match=told):
        run(**changes)


def test_the_layer_is_chosen_without_the_test_part(recipe, settings, on_cpu, tmp_path):
    yaml = HPARAMS.with_name("frozen.yaml")
    settings |= {"features_folder": str(tmp_path / "features")}
    (results,) = recipe.run(Launch(yaml, on_cpu(), settings))
    (about,) = (tmp_path / "features").glob("*/about.json")
    assert "standard deviation" in json.loads(about.read_text())["features"]
    (layer,) = json.loads((tmp_path / "run/model/model.json").read_text())["backbone"][
        "arguments"
    ]["layers"]
    assert layer in (0, 1, 2)
    assert results["refit"] is True
