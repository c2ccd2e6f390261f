"""``ser-cl search``: validation part only, pruning, kills, files."""

import contextlib
import csv
import json
import os
import runpy
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.metrics import balanced_accuracy_score

from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.corpora import write_synthetic
from speechbrain_ser_cl.data.experiment import prepare, read_corpora
from speechbrain_ser_cl.data.protocols import make_folds, read_split, write_split
from speechbrain_ser_cl.sweeps import search
from speechbrain_ser_cl.utils.settings import read_yaml

TINY = Path(__file__).parent / "recipe" / "tiny.yaml"
MAP = {"low": ["neutral", "sad"], "high": ["happy", "angry"]}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "c"
    return write_synthetic(folder, "synthetic_source", n_speakers=6)


@pytest.fixture
def here(corpus, tmp_path, monkeypatch):
    """Makes a space; recipes run in this process, and starts of folds are counted."""
    started = []

    def execute(runs, output, **options):
        from speechbrain_ser_cl.sweeps.runs import check_finished

        for run in runs:
            script, *words = run.arguments()
            run.note(run.settings())
            started.append(run.folder)
            runpy.run_path(script)["main"](*words)
            assert check_finished(run) is None
        return {}

    monkeypatch.setattr(search, "execute", execute)
    text = f"""\
recipe: {TINY}
fixed: {{corpora: {{synthetic: {corpus}}}}}
space:
    noise: {{low: 0.0, high: 20.0}}
    epochs: [1, 2]
trials: 12
seed: 1
output_folder: {tmp_path / "out"}
"""
    (tmp_path / "space.yaml").write_text(text)
    return tmp_path, started


def rows(folder):
    with open(folder / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_search_scores_the_validation_part_and_prunes(here, corpus, capsys):
    folder, started = here
    assert main(["search", str(folder / "space.yaml")]) == 0
    told = capsys.readouterr().out
    found = rows(folder / "out")
    assert len(found) == 12
    pruned = [row for row in found if row["state"] == "pruned"]
    assert pruned and all(int(row["folds"]) < 3 for row in pruned)
    assert len(started) == sum(int(row["folds"]) for row in found)
    # The score computed naively, and no id of a test part in any file.
    items = read_corpora({"synthetic_source": corpus}, MAP)
    protocol = read_yaml(TINY)["protocol"]
    folds = make_folds(items, dict(protocol), 3)
    by_id = {item.utterance.id: item for item in items}
    whole = [row for row in found if row["state"] == "complete"]
    best = max(whole, key=lambda row: float(row["uar"]))
    scores = []
    for fold in folds:
        means = [
            np.mean(
                [
                    by_id[i].utterance.duration
                    for i in fold.train
                    if by_id[i].label == name
                ]
            )
            for name in MAP
        ]
        values = np.array([by_id[i].utterance.duration for i in sorted(fold.valid)])
        values += np.random.default_rng(3).normal(0, float(best["noise"]), len(values))
        answers = np.abs(values[:, None] - means).argmin(1)
        truth = [list(MAP).index(by_id[i].label) for i in sorted(fold.valid)]
        scores.append(balanced_accuracy_score(truth, answers))
        split = folder / "out" / "splits" / f"fold-{fold.fold}.json"
        assert read_split(split).test == []
        assert not set(fold.test) & set(json.loads(split.read_text())["train"])
        for path in (folder / "out" / "trials").rglob(f"fold-{fold.fold}/*.csv"):
            assert not any(name in path.read_text() for name in fold.test)
    assert float(best["uar"]) == pytest.approx(np.mean(scores))
    assert f"best validation uar: {100 * np.mean(scores):.1f} %" in told
    # The best settings as a YAML of the recipe, and importances.
    kept = read_yaml(folder / "out" / "best.yaml")
    assert kept["noise"] == pytest.approx(float(best["noise"]))
    assert kept["corpora"]["synthetic"] == str(corpus) and kept["fold"] == 0
    shares = json.loads((folder / "out" / "importance.json").read_text())
    assert shares["noise"] > shares["epochs"] and sum(shares.values()) == pytest.approx(
        1
    )
    assert (folder / "out" / "importance.png").is_file()


def test_two_at_once_of_which_one_is_killed(here, monkeypatch, capsys):
    folder, started = here
    run, gone = search.execute, folder / "gone"
    words = ["search", str(folder / "space.yaml"), "--trials", "4"]

    def first(runs, output, **options):
        if len(started) == 4:  # in the second fold of its second trial
            os.kill(os.getpid(), signal.SIGKILL)
        return run(runs, output, **options)

    def second(runs, output, **options):
        while not gone.exists():
            time.sleep(0.02)
        return run(runs, output, **options)

    def fork(execute):
        child = os.fork()
        if child == 0:
            try:
                monkeypatch.setattr(search, "execute", execute)
                os._exit(main(words))
            finally:
                os._exit(3)
        return child

    killed, other = fork(first), fork(second)
    assert os.waitpid(killed, 0)[1] == signal.SIGKILL
    with contextlib.closing(sqlite3.connect(folder / "out" / "search.db")) as base:
        base.execute("UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00'")
        base.commit()  # as if it were long ago
    gone.touch()
    assert os.waitpid(other, 0)[1] == 0
    found = rows(folder / "out")
    states = Counter(row["state"] for row in found)
    assert states == {"complete": 4, "fail": 1}
    assert [row["trial"] for row in found] == list("01234")
    (failed,) = (row for row in found if row["state"] == "fail")
    again = [row for row in found if row["noise"] == failed["noise"]]
    assert {row["state"] for row in again} == {"fail", "complete"}
    # Each fold of the four was trained once, whoever did it.
    starts = list((folder / "out").rglob("starts.txt"))
    assert len(starts) == 12
    assert all(len(path.read_text().splitlines()) == 1 for path in starts)
    whole = [row for row in found if row["state"] == "complete"]
    best = max(whole, key=lambda row: float(row["uar"]))
    kept = read_yaml(folder / "out" / "best.yaml")
    assert kept["noise"] == pytest.approx(float(best["noise"]))
    # Finished: nothing more runs; another space in the folder is refused.
    assert main(words) == 0 and not started
    capsys.readouterr()
    assert main([*words, "--broken_fold", "7"]) == 2
    assert "holds another search (fixed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("space: {nose: [1, 2]}", "nose is no key .* did you mean 'noise'"),
        ("space: {noise: {low: 2, high: 1}}", r"space\.noise"),
        ("space: {noise: {low: 0, high: 1, log: True}}", "low above 0"),
        ("space: {seed: [1, 2]}", "seed is no key"),
        ("metric: f1", "metric"),
        ("trails: 3", "did you mean 'trials'"),
        ("folds: all", "folds"),
    ],
)
def test_a_wrong_space_is_refused(here, line, told):
    folder, _ = here
    key = line.partition(":")[0]
    kept, skip = [], False
    for old in (folder / "space.yaml").read_text().splitlines():
        skip = old.startswith(f"{key}:") or (skip and old.startswith(" "))
        kept += [] if skip else [old]
    (folder / "space.yaml").write_text("\n".join([*kept, line]))
    with pytest.raises(ValueError, match=told):
        search.read_space(folder / "space.yaml")


def test_a_trial_trains_nothing_on_the_validation_part(tmp_path):
    hparams = Path(__file__).parents[2] / "recipes/own_corpus/hparams/frozen.yaml"
    told = f"recipe: {hparams}\nspace: {{lr: [0.1, 0.2]}}\noutput_folder: out\n"
    (tmp_path / "space.yaml").write_text(told)
    values = search.read_space(tmp_path / "space.yaml").recipe.values
    assert values["refit"] is False and values["baseline"] is None


def test_a_recipe_does_not_read_the_audio_of_the_test_part(tmp_path):
    corpus = write_synthetic(
        tmp_path / "c", "synthetic_source", n_speakers=6, utterances_per_speaker=4
    )
    items = read_corpora({"synthetic_source": corpus}, MAP)
    protocol = {"kind": "speaker_kfold", "n_folds": 3, "leaks": ["session", "text_id"]}
    (fold, *_) = make_folds(items, protocol, 0)
    for item in items:  # audio that cannot be read
        if item.utterance.id in fold.test:
            silence = np.full(8000, np.nan, np.float32)
            soundfile.write(item.utterance.path, silence, 16000, "FLOAT", format="WAV")
    (blind,) = search.without_test([fold])
    values = {
        "corpora": {"synthetic_source": str(corpus)},
        "emotion_map": MAP,
        "protocol": protocol,
        "fold": 0,
        "seed": 0,
        "data_folder": str(tmp_path / "data"),
    }
    for name, split in (("blind", blind), ("whole", fold)):
        write_split(split, tmp_path / f"{name}.json")
    with pytest.raises(ValueError, match="unreadable|not finite"):
        prepare(values | {"split_file": str(tmp_path / "whole.json")}, report=True)
    found = prepare(values | {"split_file": str(tmp_path / "blind.json")}, report=True)
    assert found.parts["test"] == found.parts["valid"]
    assert {u for part in found.parts.values() for u, _ in part}.isdisjoint(
        item.utterance for item in items if item.utterance.id in fold.test
    )
    assert found.record()["data"]["parts"]["test"]["utterances"] == len(fold.valid)
