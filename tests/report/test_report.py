"""ser-cl report: the page's content, against the files."""

import base64
import io
import json
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy import stats
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
)

from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.data.protocols import resolve_protocol
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.report import write_report
from speechbrain_ser_cl.results.crossval import collect
from speechbrain_ser_cl.results.embeddings import read_embeddings
from speechbrain_ser_cl.results.measured import find_records
from speechbrain_ser_cl.results.predictions import read_predictions
from speechbrain_ser_cl.results.utterances import read_parts, write_parts
from tests.finished_run import LAYERS, write_trained
from tests.page_reader import Page

ROOT = Path(__file__).resolve().parents[2]


def report(*folders, output, audio=False):
    write_report(folders, output, audio)
    return Page(output.read_text(encoding="utf-8"))


def percent(value):
    return f"{100 * value:.1f}"


@pytest.fixture(scope="module")
def page(trained, tmp_path_factory):
    output = tmp_path_factory.mktemp("page") / "report.html"
    return report(trained, output=output, audio=True)


@pytest.fixture(scope="module")
def crossvals(tmp_path_factory, folds, class_names):
    """Makes two cross-validated settings, as ``ser-cl crossval`` writes them."""
    output = tmp_path_factory.mktemp("crossvals")
    for name, skill in (("good", 2.0), ("poor", 0.7)):
        results = []
        for k, parts in enumerate(folds):
            folder = output / name / f"fold-{k}" / "seed-1"
            record = {"setting": f"{name} setting", "order": 0}
            write_trained(folder, parts, class_names, 10 * k, skill, **record)
            results.append((k, 1, f"split {k}", folder / "results.json"))
        one = collect(results, resolve_protocol("session_kfold"))
        one.write(output / name / "crossval.json")
    return output


def outcome(folder):
    """Returns labels, predictions and speakers of a run's test, as names."""
    found = read_predictions(folder / "predictions.csv")
    parts = read_parts(folder / "utterances.csv")
    speaker_of = {i.utterance.id: i.utterance.speaker for i in parts["test"]}
    names = np.array(found.class_names)
    speakers = np.array([speaker_of[name] for name in found.ids])
    return names[found.labels], names[found.predictions], speakers


def permutation_p(good, poor):
    """Computes how often exchanging speakers gives as large a difference."""
    (labels, ours, speakers), (_, theirs, _) = good, poor

    def difference(exchanged):
        swap = np.isin(speakers, exchanged)
        one, other = np.where(swap, theirs, ours), np.where(swap, ours, theirs)
        recalls = [
            (one == labels)[labels == c].mean() - (other == labels)[labels == c].mean()
            for c in set(labels)
        ]
        return abs(np.mean(recalls))

    names = sorted(set(speakers))
    every = [
        difference([name for name, bit in zip(names, bits, strict=True) if bit])
        for bits in product((0, 1), repeat=len(names))
    ]
    return np.mean(np.array(every) >= every[0] - 1e-9)


def test_the_page_contains_all_files_of_a_run(page):
    assert page.sections[2:] == [
        "Results",
        "What ran",
        "Data and leak check",
        "Learning curves",
        "Confusion matrix",
        "Results per class",
        "Calibration",
        "Results per speaker",
        "Results by group",
        "Layer weights",
        "Embeddings",
        "Worst mistakes",
    ]
    for told in (
        "Demo on synthetic speech",
        "toy-encoder",
        "1 min 15 s",
        "seed: 0",
        "speechbrain_ser_cl",
    ):
        assert told in page.text


def test_metrics_are_those_of_the_predictions(page, trained):
    labels, predictions, _ = outcome(trained)
    uar, wa, f1 = page.table("Test results")
    assert uar["value"] == percent(balanced_accuracy_score(labels, predictions))
    assert wa["value"] == percent((labels == predictions).mean())
    assert f1["value"] == percent(f1_score(labels, predictions, average="macro"))
    results = json.loads((trained / "results.json").read_text())["test"]
    for name, row in (("uar", uar), ("wa", wa), ("macro_f1", f1)):
        low, high = results[name]["interval"]
        assert row["95 % over utterances"] == f"{percent(low)} to {percent(high)}"
    assert uar["by chance"] == "25.0"
    assert wa["by chance"] == percent(
        max(np.unique(labels, return_counts=True)[1]) / len(labels)
    )


def test_calibration_is_that_of_the_predictions(page, trained):
    found = read_predictions(trained / "predictions.csv")
    sure = found.probabilities.max(axis=1)
    right = found.probabilities.argmax(axis=1) == found.labels
    told = [
        row
        for row in page.table("Utterances by confidence")
        if row["probabilities"] == "as trained"
    ]
    assert sum(int(row["utterances"]) for row in told) == len(sure)
    gap = sum(
        abs(right[inside].sum() - sure[inside].sum())
        for inside in (np.ceil(sure * 15) == b for b in range(1, 16))
    )
    results = json.loads((trained / "results.json").read_text())["calibration"]
    assert results["before"]["ece"] == pytest.approx(gap / len(sure), abs=1e-6)
    assert f"from {percent(gap / len(sure))} to" in page.text
    assert "divided by 1.25" in page.text


def test_confusion_and_classes_are_those_of_the_predictions(page, trained, class_names):
    labels, predictions, _ = outcome(trained)
    counts = confusion_matrix(labels, predictions, labels=class_names)
    rows = page.table("Utterances by true class")
    for k, row in enumerate(rows):
        assert row.pop("") == class_names[k]
        share = counts[k] / counts[k].sum()
        assert list(row.values()) == [
            f"{n}{percent(s)} %" for n, s in zip(counts[k], share, strict=True)
        ]
    reference = precision_recall_fscore_support(labels, predictions, labels=class_names)
    for k, row in enumerate(page.table("Results per class")):
        precision, recall, f1, number = (values[k] for values in reference)
        assert row["class"] == class_names[k]
        assert row["utterances"] == str(number)
        assert row["recall"] == percent(recall)
        assert row["precision"] == percent(precision)
        assert row["F1"] == percent(f1)


def test_the_interval_of_a_recall_is_the_bootstrap_over_speakers(
    crossvals, class_names, tmp_path
):
    page = report(crossvals / "good", output=tmp_path / "report.html")
    runs = [outcome(path) for path in sorted(crossvals.glob("good/fold-*/seed-1"))]
    labels, predictions, speakers = map(np.concatenate, zip(*runs, strict=True))
    names, rng = sorted(set(speakers)), np.random.default_rng(5)
    row = page.table("Results per class")[0]
    own = labels == class_names[0]
    hits = {s: (own & (predictions == labels) & (speakers == s)).sum() for s in names}
    totals = {s: (own & (speakers == s)).sum() for s in names}
    draws = [
        sum(map(hits.get, drawn)) / sum(map(totals.get, drawn))
        for drawn in rng.choice(names, (4000, len(names)))
    ]
    low, high = map(float, row["95 % over speakers"].split(" to "))
    assert [low, high] == pytest.approx(100 * np.quantile(draws, [0.025, 0.975]), abs=2)
    assert low < float(row["recall"]) < high


def test_speakers_are_listed_the_worst_first(page, trained):
    labels, predictions, speakers = outcome(trained)
    rows = page.table("Results per speaker")
    assert {row["speaker"] for row in rows} == set(speakers)
    values = [float(row["UAR"]) for row in rows]
    assert values == sorted(values)
    for row in rows:
        own = speakers == row["speaker"]
        uar = balanced_accuracy_score(labels[own], predictions[own])
        assert row["UAR"] == percent(uar)
        assert row["WA"] == percent((labels == predictions)[own].mean())
        assert row["utterances"] == str(own.sum())


def test_counts_are_those_of_the_parts(page, folds, class_names):
    (parts,) = folds[:1]
    for row, (name, part) in zip(
        page.table("Parts of the data"), parts.items(), strict=True
    ):
        assert row["part"] == name
        assert row["utterances"] == str(len(part))
        assert row["speakers"] == str(len({item.utterance.speaker for item in part}))
        for label in class_names:
            assert row[label] == str(sum(item.label == label for item in part))
    rows = page.table("Utterances of each speaker")
    numbers = [int(row[label]) for row in rows for label in class_names]
    assert sum(numbers) == sum(map(len, parts.values()))
    assert [row["speakers"] for row in page.table("Shared between parts")] == ["0"] * 3
    assert "shares no speaker" in page.text


def test_shared_speakers_and_changed_files_are_warned_of(folds, class_names, tmp_path):
    parts = {name: list(part) for name, part in folds[0].items()}
    parts["train"].append(parts["test"].pop())
    run = write_trained(tmp_path / "run", parts, class_names)
    page = report(run, output=tmp_path / "report.html")
    assert "share speakers (train and test: 1)" in page.text
    assert "fingerprints differ" not in page.text

    write_parts(run / "utterances.csv", folds[0])
    with pytest.raises(ValueError, match=r"utterances\.csv: is not the file that the"):
        report(run, output=tmp_path / "report.html")
    # Runs of earlier versions have no checksums.
    results = json.loads((run / "results.json").read_text())
    del results["files"]
    (run / "results.json").write_text(json.dumps(results))
    page = report(run, output=tmp_path / "report.html")
    assert "share speakers" not in page.text
    assert "fingerprints differ" in page.text

    parts["valid"].append(parts["train"][0])
    write_parts(run / "utterances.csv", parts)
    page = report(run, output=tmp_path / "report.html")
    assert "train and valid share the utterance id" in page.text


def test_unknown_speakers_are_not_taken_for_different_ones(
    folds, class_names, tmp_path
):
    parts = {
        name: [Labelled(replace(i.utterance, speaker=None), i.label) for i in part]
        for name, part in folds[0].items()
    }
    run = write_trained(tmp_path / "run", parts, class_names)
    page = report(run, output=tmp_path / "report.html")
    assert "may share speakers with training" in page.text
    assert "shares no speaker" not in page.text
    assert "There is no interval over speakers" in page.text
    assert page.rows("Results per speaker") == []
    told = [row["attribute"] for row in page.table("How many of the 10")]
    assert told == ["class", "gender", "text"]


def test_learning_curves_and_layer_weights_have_their_numbers_beside_them(page):
    rows = page.table("Numbers by epoch")
    assert [row["emotion: training"] for row in rows] == ["1", "0.5", "0.3333"]
    assert [row["contrastive: training"] for row in rows] == ["1.9", "1.8", "1.7"]
    assert [row["validation metrics: UAR"] for row in rows] == ["0.5", "0.6", "0.7"]
    assert [row["learning rate"] for row in rows] == ["0.1", "0.01", "0.001"]
    weights = [float(row["weight"]) for row in page.table("Layer weights")]
    assert weights == LAYERS


def test_the_worst_mistakes_come_first_and_can_be_heard(page, trained, items):
    found = read_predictions(trained / "predictions.csv")
    rows = page.table("The ")
    wrong = np.flatnonzero(found.labels != found.predictions)
    p_true = found.probabilities[np.arange(len(found.ids)), found.labels]
    worst = sorted(wrong, key=lambda i: p_true[i])[:20]
    assert [row["utterance"] for row in rows] == [found.ids[i] for i in worst]
    assert [row["p of the true class"] for row in rows] == [
        percent(p_true[i]) for i in worst
    ]
    assert "Audio of synthetic_target" in page.text
    path_of = {item.utterance.id: item.utterance.path for item in items}
    sounds = [a for tag, a in page.elements if tag == "audio"]
    assert [sound["aria-label"] for sound in sounds] == [found.ids[i] for i in worst]
    for sound in sounds:
        kind, _, code = sound["src"].partition(";base64,")
        assert kind == "data:audio/flac"
        heard, rate = soundfile.read(io.BytesIO(base64.b64decode(code)))
        said, _ = soundfile.read(path_of[sound["aria-label"]])
        assert rate == 16000
        np.testing.assert_allclose(heard, said, atol=1e-4)


def test_audio_is_included_only_if_allowed_and_readable(folds, class_names, tmp_path):
    def told(corpus, path, *options):
        parts = {
            name: [
                Labelled(replace(i.utterance, corpus=corpus, path=path), i.label)
                for i in part
            ]
            for name, part in folds[0].items()
        }
        write_trained(tmp_path / "run", parts, class_names)
        output = tmp_path / "report.html"
        write_report([tmp_path / "run"], output, True, options)
        page = Page(output.read_text(encoding="utf-8"))
        return page.text, "audio" in {tag for tag, _ in page.elements}

    here = folds[0]["test"][0].utterance.path
    for owned in ((), ("iemocap",)):
        text, heard = told("iemocap", here, *owned)
        assert "No audio of iemocap: its terms" in text and not heard
    text, heard = told("mine", here)
    assert "No audio of mine: no declared licence" in text and not heard
    text, heard = told("mine", here, "mine")
    assert "Audio of mine: own corpus" in text and heard
    text, heard = told("synthetic_target", tmp_path / "gone.wav")
    assert "could not be read: " in text and "gone.wav" in text and not heard
    # A shared page does not reveal where it was made.
    assert str(tmp_path) not in text


def test_a_shared_page_contains_no_path(folds, class_names, tmp_path):
    run = write_trained(tmp_path / "run", folds[0], class_names)
    settings = f"# Made of {tmp_path}/my.yaml\nfolder: {tmp_path}/my calls\nlr: 0.1\n"
    (run / "hyperparams.yaml").write_text(settings)
    output = tmp_path / "report.html"
    write_report([run], output)
    page = output.read_text(encoding="utf-8")
    assert str(tmp_path) not in page
    assert str(tmp_path) not in (run / "predictions.csv").read_text()
    assert "folder: …/my calls\nlr: 0.1" in page


def test_audio_needs_the_option(trained, tmp_path):
    page = report(trained, output=tmp_path / "report.html")
    assert "audio" not in {tag for tag, _ in page.elements}


def test_neighbours_on_the_map_are_counted_in_the_embeddings(page, trained, folds):
    found = read_embeddings(trained / "embeddings.npz")
    vectors = found.embeddings / np.linalg.norm(found.embeddings, axis=1)[:, None]
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    near = np.argsort(-similarity, axis=1)[:, :10]
    tested = {i.utterance.id: i.utterance for i in folds[0]["test"]}
    utterances = [tested[name] for name in found.ids]
    known = {
        "class": found.labels,
        "speaker": found.speakers,
        "gender": [utterance.gender for utterance in utterances],
        "text": [utterance.text_id for utterance in utterances],
    }
    rows = page.table("How many of the 10")
    assert [row["attribute"] for row in rows] == list(known)
    for row, values in zip(rows, known.values(), strict=True):
        values = np.array(values)
        same = values[near] == values[:, None]
        assert float(row["the same"]) == pytest.approx(100 * same.mean(), abs=0.3)
        pairs = (values[:, None] == values).sum() - len(values)
        by_chance = pairs / (len(values) * (len(values) - 1))
        assert row["if unrelated"] == percent(by_chance)
    points = [a for tag, a in page.elements if tag == "use" and "point" in a["class"]]
    assert len(points) == len(found.ids)


def test_a_cross_validation_is_pooled_and_compared(crossvals, tmp_path):
    output = tmp_path / "report.html"
    page = report(crossvals / "good", crossvals / "poor", output=output)
    runs = {
        name: [
            outcome(path) for path in sorted(crossvals.glob(f"{name}/fold-*/seed-1"))
        ]
        for name in ("good", "poor")
    }
    uars = {
        name: [balanced_accuracy_score(run[0], run[1]) for run in found]
        for name, found in runs.items()
    }
    good, poor = page.table("Settings tested on synthetic_target")
    for row, name in ((good, "good"), (poor, "poor")):
        mean, std = np.mean(uars[name]), np.std(uars[name], ddof=1)
        assert row["setting"] == f"{name} setting"
        assert row["runs"] == "5 folds × 1 seed"
        assert row["UAR"] == f"{percent(mean)} ± {percent(std)}"
    p = stats.ttest_rel(uars["poor"], uars["good"]).pvalue
    assert poor["p, over runs"] == ("< 0.001" if p < 0.001 else f"{p:.3f}")
    together = {
        name: list(map(np.concatenate, zip(*found, strict=True)))
        for name, found in runs.items()
    }
    p = permutation_p(together["good"], together["poor"])
    assert poor["p, over speakers"] == f"{p:.3f}"
    assert (good["p, over runs"], good["p, over speakers"]) == ("–", "–")
    labels, predictions, _ = together["good"]
    counts = confusion_matrix(labels, predictions)
    matrix = page.rows("Utterances by true class")[0][1:]
    for row, own in zip(matrix, counts, strict=True):
        shares = own / own.sum()
        cells = [f"{n}{percent(s)} %" for n, s in zip(own, shares, strict=True)]
        assert row[1:] == cells


def test_seeds_of_one_setting_are_put_together(folds, class_names, tmp_path):
    for seed in range(3):
        folder = tmp_path / "runs" / str(seed)
        write_trained(folder, folds[0], class_names, seed)
    page = report(tmp_path / "runs", output=tmp_path / "report.html")
    runs = [outcome(tmp_path / "runs" / str(seed)) for seed in range(3)]
    uars = [balanced_accuracy_score(run[0], run[1]) for run in runs]
    row = page.table("Test results")[0]
    assert row["value"] == percent(np.mean(uars))
    assert row["std over seeds"] == percent(np.std(uars, ddof=1))
    assert [one["UAR"] for one in page.table("Each seed")] == list(map(percent, uars))
    # Each utterance occurs once, with the mean of three runs' probabilities.
    mistakes = page.table("The ")
    names = [one["utterance"] for one in mistakes]
    assert len(set(names)) == len(names)
    assert {one["wrong in runs"][-5:] for one in mistakes} == {" of 3"}
    found = [
        read_predictions(tmp_path / "runs" / str(seed) / "predictions.csv")
        for seed in range(3)
    ]
    i = found[0].ids.index(names[0])
    p_true = np.mean([one.probabilities[i, one.labels[i]] for one in found])
    assert mistakes[0]["p of the true class"] == percent(p_true)


def test_each_corpus_has_results_of_its_own(folds, class_names, tmp_path):
    parts = {
        name: [
            Labelled(replace(item.utterance, corpus="ab"[k % 2]), item.label)
            for k, item in enumerate(part)
        ]
        for name, part in folds[0].items()
    }
    run = write_trained(tmp_path / "run", parts, class_names)
    page = report(run, output=tmp_path / "report.html")
    labels, predictions, _ = outcome(run)
    corpus_of = {i.utterance.id: i.utterance.corpus for i in parts["test"]}
    ids = read_predictions(run / "predictions.csv").ids
    corpora = np.array([corpus_of[name] for name in ids])
    for corpus, (_, first, *_) in zip("ab", page.rows("Test results"), strict=True):
        own = corpora == corpus
        assert f"Results: {corpus}" in page.sections
        uar = balanced_accuracy_score(labels[own], predictions[own])
        assert first[1] == percent(uar)


def test_crossval_json_alone_is_enough(crossvals, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(crossvals / "good" / "crossval.json", alone)
    page = report(alone, output=tmp_path / "report.html")
    whole = report(crossvals / "good", output=tmp_path / "whole.html")
    for label in ("Test results", "Results per class", "Each fold"):
        assert page.table(label) == whole.table(label)
    uars = [row["UAR"] for row in page.table("Results per speaker")]
    assert uars == [row["UAR"] for row in whole.table("Results per speaker")]
    assert "kind: session_kfold" in page.text


@pytest.mark.parametrize(
    "folder",
    [
        path
        for path in sorted(ROOT.glob("recipes/**/measured/*.json*"))
        if path.name != "paper.json"
    ],
    ids=lambda path: "/".join(path.relative_to(ROOT).parts[1:]),
)
def test_every_committed_result_can_be_reported_on(folder, tmp_path):
    page = report(folder, output=tmp_path / "report.html")
    values: dict[tuple, list] = {}
    for _, run in find_records(folder, "results.json"):
        key = (run["setting"], run["source"], run["target"], run["target_split"])
        values.setdefault(key, []).append(run["test"]["uar"]["value"])
    if len(values) == 1:  # The page is about this setting, and compares nothing.
        ((setting, *_), uars), *_ = values.items()
        assert setting in page.text
        assert f"UAR {percent(np.mean(uars))} % on" in page.text
        return
    shown = [
        (row[0], row[2].split(" ± ")[0])
        for _, *rows in page.rows("Settings tested on")
        for row in rows
    ]
    for (setting, source, target, _), uars in values.items():
        (row,) = [
            row
            for row in shown
            if row[0] == setting
            or (row[0].startswith(f"{setting} (") and f"{source} → {target}" in row[0])
        ]
        assert row[1] == percent(np.mean(uars))


def test_names_cannot_become_markup(folds, class_names, tmp_path):
    evil = '<script>alert("1")</script>\'"&'
    parts = {
        name: [
            Labelled(replace(i.utterance, speaker=evil + i.utterance.speaker), i.label)
            for i in part
        ]
        for name, part in folds[0].items()
    }
    record = {"setting": evil, "encoder": evil}
    write_trained(tmp_path / "run", parts, class_names, **record)
    page = report(tmp_path / "run", output=tmp_path / "report.html")
    assert evil in page.text
    assert page.sections[0] == evil
    scripts = [a for tag, a in page.elements if tag == "script"]
    assert len(scripts) == 3  # the map's points and legends, and ours
    assert "<script>alert" not in (tmp_path / "report.html").read_text()


def test_the_page_is_self_contained(page):
    links = page.attributes("src") + page.attributes("href")
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    names = page.attributes("id")
    assert len(set(names)) == len(names)
    for link in page.attributes("href"):
        assert link[1:] in names or link == "data:,"
    for key in ("aria-labelledby", "aria-describedby"):
        assert set(page.attributes(key)) <= set(names)


def test_every_chart_has_a_title_and_a_description(page):
    pictures = [
        i
        for i, (tag, a) in enumerate(page.elements)
        if (tag, a.get("role")) == ("svg", "img")
    ]
    assert len(pictures) >= 8
    for i in pictures:
        assert [page.elements[i + 1][0], page.elements[i + 2][0]] == ["title", "desc"]


def test_the_command_prints_the_path(trained, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.startswith(f"{run / 'report.html'}: ")
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(run), str(trained)]) == 0
    assert capsys.readouterr().out.startswith("report.html: ")
    page = Page((tmp_path / "report.html").read_text())
    names = [row["setting"] for row in page.table("Settings tested on")]
    assert len(set(names)) == 2


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        (None, None, "there is no folder"),
        ("notes.txt", "", "neither results.json nor crossval.json"),
        ("results.json", "{", "results.json: not valid JSON"),
        ("results.json", "{}", "no key test, and no predictions.csv beside it"),
        ("crossval.json", "{}", "crossval.json"),
    ],
)
def test_errors_are_one_line_and_leave_no_page(
    name, contents, message, tmp_path, capsys
):
    run = tmp_path / "run"
    if name:
        run.mkdir()
        (run / name).write_text(contents)
    assert main(["report", str(run)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error and str(run) in error
    assert not (run / "report.html").exists()
