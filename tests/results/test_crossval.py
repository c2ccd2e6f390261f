"""Cross-validations from files to tables, against sklearn and other formulas."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from speechbrain_ser_cl.corpora import Utterance
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.metrics.classification import bootstrap_intervals
from speechbrain_ser_cl.metrics.significance import (
    holm,
    paired_fold_tests,
    speaker_permutation_test,
)
from speechbrain_ser_cl.results.costs import build_cost_table
from speechbrain_ser_cl.results.crossval import (
    collect,
    compare,
    read_crossval,
    table_rows,
)
from speechbrain_ser_cl.results.predictions import write_predictions
from speechbrain_ser_cl.results.tables import (
    build_crossval_table,
    collect_crossvals,
    main,
    write_csv,
)
from speechbrain_ser_cl.results.utterances import write_parts

NAMES = ["angry", "happy", "sad"]
# The second corpus has no angry speech.
CLASSES = {"emodb": [0, 1, 2], "emodb_two": [1, 2]}
PROTOCOL = {"kind": "speaker_kfold", "n_folds": 3, "valid": "next"}
SKLEARN = {
    "uar": balanced_accuracy_score,
    "wa": accuracy_score,
    "macro_f1": lambda y, p: f1_score(y, p, average="macro", labels=np.unique(y)),
}


def make_run(folder, fold, seed, right=0.6, setting="probe", **record):
    """Makes a run that tests two speakers of each corpus; returns its lines."""
    rng = np.random.default_rng([fold, seed, int(100 * right)])
    lines = []
    for corpus, classes in CLASSES.items():
        for speaker in (f"{corpus}_s{2 * fold}", f"{corpus}_s{2 * fold + 1}"):
            for n in range(3 * len(classes)):
                label = classes[n % len(classes)]
                guess = rng.integers(0, 3)
                told = label if rng.random() < right else guess
                lines.append((f"{corpus}_{speaker}_{n}", corpus, speaker, label, told))
    folder.mkdir(parents=True)
    ids, corpora, speakers, labels, told = zip(*lines, strict=True)
    write_predictions(
        folder / "predictions.csv", ids, labels, told, np.eye(3)[list(told)], NAMES
    )
    items = [
        Labelled(
            Utterance(
                *(name, Path("a.wav"), 1.0, corpus, speaker),
                *(None, None, "de", None, NAMES[label]),
            ),
            NAMES[label],
        )
        for name, corpus, speaker, label, _ in lines
    ]
    write_parts(folder / "utterances.csv", {"test": items})
    record = {"setting": setting, "encoder": "tiny", "demo": False} | record
    record["data"] = {"fingerprint": f"fold {fold}"}
    (folder / "results.json").write_text(json.dumps(record))
    return lines


@pytest.fixture
def setting(tmp_path):
    """Makes the runs of a setting; returns the pooled result, and the lines."""

    def setting(name="probe", seeds=(0, 1), folds=3, protocol=PROTOCOL, **options):
        lines, results = {}, []
        for fold in range(folds):
            for seed in seeds:
                folder = tmp_path / name / f"{fold}" / f"{seed}"
                lines[fold, seed] = make_run(
                    folder, fold, seed, setting=name, **options
                )
                number = fold if protocol == PROTOCOL else None
                results.append((number, seed, None, folder / "results.json"))
        return collect(results, protocol), lines

    return setting


def of_corpus(lines, corpus):
    """Returns labels and predictions."""
    return zip(*[(y, p) for _, c, _, y, p in lines if c == corpus], strict=True)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("corpus", CLASSES)
def test_summary_of_a_corpus(setting, corpus):
    one, lines = setting()
    assert one.corpora == list(CLASSES)
    summary = one.summary(corpus)
    everything = [line for some in lines.values() for line in some]
    labels, told = of_corpus(everything, corpus)
    for name, metric in SKLEARN.items():
        per_fold = [
            np.mean([metric(*of_corpus(lines[fold, s], corpus)) for s in (0, 1)])
            for fold in range(3)
        ]
        assert [f[name] for f in summary["folds"]] == pytest.approx(per_fold)
        assert summary["mean"][name] == pytest.approx(np.mean(per_fold))
        assert summary["std"][name] == pytest.approx(np.std(per_fold, ddof=1))
        pooled = summary["pooled"][name]
        assert pooled["value"] == pytest.approx(metric(labels, told))
    # Whole speakers are drawn, with their utterances of both seeds.
    speakers = [s for _, c, s, _, _ in everything if c == corpus]
    intervals = bootstrap_intervals(labels, told, 3, speakers)
    assert summary["pooled"]["uar"]["interval"] == pytest.approx(intervals["uar"])
    assert summary["speakers"] == 6
    assert summary["utterances"] == len(labels)
    assert summary["chance"] == pytest.approx(1 / len(CLASSES[corpus]))


def test_seeds_without_folds(setting):
    one, lines = setting(seeds=(3, 5, 7), folds=1, protocol={"kind": "seeds"})
    summary = one.summary("emodb")
    per_seed = [balanced_accuracy_score(*of_corpus(x, "emodb")) for x in lines.values()]
    assert [s["uar"] for s in summary["seeds"]] == pytest.approx(per_seed)
    assert summary["std"]["uar"] == pytest.approx(np.std(per_seed, ddof=1))
    # Two speakers are too few for an interval.
    assert summary["pooled"]["uar"]["interval"] is None


def test_there_and_back(setting, tmp_path):
    one, _ = setting(training_seconds=2.25, peak_memory_mb={"resident": 10.0})
    one.write(tmp_path / "crossval.json")
    other = read_crossval(tmp_path / "crossval.json")
    assert other.about == one.about
    assert other.protocol == PROTOCOL
    assert other.summary("emodb") == one.summary("emodb")
    contents = json.loads((tmp_path / "crossval.json").read_text())
    assert contents["results"]["emodb"] == json.loads(json.dumps(one.summary("emodb")))
    assert contents["cost"]["training_seconds"] == 13.5
    assert contents["cost"]["peak_memory_mb"] == {"resident": 10.0}
    (tmp_path / "crossval.json").write_text('{"runs": [{}]}')
    with pytest.raises(ValueError, match="no protocol, class_names"):
        read_crossval(tmp_path / "crossval.json")


def test_comparison_is_that_of_folds_and_speakers(setting):
    (one, of_one), (other, of_other) = setting("a", right=0.9), setting("b", right=0.4)
    found = compare(one, other, "emodb")
    folds, counts = [], []
    for lines in (of_one, of_other):
        folds.append(
            [
                np.mean(
                    [
                        balanced_accuracy_score(*of_corpus(lines[k, s], "emodb"))
                        for s in (0, 1)
                    ]
                )
                for k in range(3)
            ]
        )
        counts.append({})
        for _, corpus, speaker, label, told in sum(lines.values(), []):
            if corpus == "emodb":
                own = counts[-1].setdefault(speaker, np.zeros((3, 3), int))
                own[label, told] += 1
    assert found["t_test"] == pytest.approx(paired_fold_tests(*folds)["t_test"])
    assert found["permutation"] == speaker_permutation_test(*counts)
    assert found["permutation"] == 2 / 2**6
    pooled = [
        setting.summary("emodb")["pooled"]["uar"]["value"] for setting in (one, other)
    ]
    assert found["difference"] == pytest.approx(pooled[0] - pooled[1])


def test_rows_are_compared_with_the_first_and_corrected(setting):
    right = {"a": 0.3, "b": 0.5, "c": 0.9}
    settings = [setting(name, right=r)[0] for name, r in right.items()]
    fewer = setting("d", seeds=(0,), right=0.9)[0]
    rows = table_rows([*settings, fewer], "emodb")
    assert rows[0]["against_first"] is None
    assert rows[3]["against_first"] is None  # other seeds
    for test in ("t_test", "wilcoxon", "permutation"):
        raw = [row["against_first"][test] for row in rows[1:3]]
        adjusted = [row["against_first"][f"{test}_holm"] for row in rows[1:3]]
        assert adjusted == holm(raw)
        assert adjusted != raw


# ------------------------------------------------------------------ tables


def cells(table, setting):
    (line,) = [x for x in table.splitlines() if x.startswith(f"| {setting} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_says_what_the_files_say(setting, tmp_path):
    (one, _), (other, _) = setting("a", right=0.4, order=2), setting("b", order=1)
    for name, some in (("a", one), ("b", other)):
        some.write(tmp_path / "measured" / name / "crossval.json")
    readme = tmp_path / "README.md"
    readme.write_text(
        "before\n<!-- crossval: begin measured -->\n<!-- crossval: end -->\nafter\n"
    )
    assert main([str(readme), "--check"]) == 1
    assert main([str(readme)]) == 0
    assert main([str(readme), "--check"]) == 0
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n")
    first, second = text.split("**emodb_two, tiny, speaker_kfold** (2 classes, chance:")
    assert "**emodb, tiny, speaker_kfold** (3 classes, chance: UAR 33.3 %)" in first
    for corpus, table in (("emodb", first), ("emodb_two", second)):
        summary = one.summary(corpus)
        row = cells(table, "a")
        assert row[1:3] == ["3", "2"]
        mean, std = summary["mean"]["uar"], summary["std"]["uar"]
        assert row[3] == f"{100 * mean:.1f} ± {100 * std:.1f}"
        pooled = summary["pooled"]["uar"]
        assert row[6] == f"{100 * pooled['value']:.1f}"
        assert row[7] == "{:.1f} to {:.1f}".format(
            *(100 * bound for bound in pooled["interval"])
        )
        p = compare(one, other, corpus)
        assert row[8:] == [f"{p['t_test']:.3f}", f"{p['permutation']:.3f}"]
        assert cells(table, "b")[8:] == ["–", "–"]
    # `order` is used before the name.
    assert first.index("| b |") < first.index("| a |")


def test_printed_figures_stand_beside(setting, tmp_path):
    one, _ = setting("a")
    rows = [
        {"setting": "a", "uar": 97.2, "note": "a paper", "corpus": "emodb"},
        {"setting": "z", "uar": 55.5, "note": "a paper"},
    ]
    first, second = build_crossval_table([one], rows).split("**emodb_two")
    assert cells(first, "a")[-1] == "97.2 (a paper)"
    assert cells(second, "a")[-1] == "–"
    for table in (first, second):
        assert cells(table, "setting")[3] == "UAR %"
        not_run = ["–", "–", "not run here"] + ["–"] * 4
        assert cells(table, "z") == ["z", *not_run, "55.5 (a paper)"]
    # Nothing was run: printed values are shown without a result.
    alone = build_crossval_table([], rows)
    assert cells(alone, "setting")[-2:] == ["UAR %", "printed"]
    assert cells(alone, "z")[1:] == ["–", "not run here", "55.5 (a paper)"]


def test_costs_stand_in_a_readme_with_their_machine(tmp_path):
    machine = {"processor": "CPU X", "cores": 4, "threads": 2, "gpu": None}
    for fold, (seconds, epoch, peak) in enumerate([(40, 3.1, 500), (50, 3.3, 700)]):
        make_run(
            tmp_path / str(fold),
            *(fold, 0),
            machine=machine,
            training_seconds=seconds,
            stages={"contrast": {"epochs": 10, "seconds_per_epoch": epoch}},
            peak_memory_mb={"resident": peak},
        )
    runs = [(k, 0, None, tmp_path / str(k) / "results.json") for k in range(2)]
    collect(runs, PROTOCOL).write(tmp_path / "measured" / "crossval.json")
    readme = tmp_path / "README.md"
    readme.write_text("<!-- costs: begin measured -->\n<!-- costs: end -->\n")
    assert main([str(readme)]) == 0
    assert main([str(readme), "--check"]) == 0
    assert cells(readme.read_text(), "probe")[1:] == [
        "emodb, emodb_two",
        "speaker_kfold",
        "2",
        "45",
        "contrast 10 × 3.20 s",
        "700",
        "CPU X, 2 of 4 cores",
    ]
    one = read_crossval(tmp_path / "measured" / "crossval.json")
    other = replace(one, about=one.about | {"encoder": "larger"})
    table = build_cost_table([one, other]).splitlines()
    assert cells(table[0], "setting")[1:3] == ["encoder", "corpus"]
    assert [cells(line, "probe")[1] for line in table[2:4]] == ["tiny", "larger"]


def test_the_csv_has_every_fold(setting, tmp_path):
    one, _ = setting()
    write_csv([one], tmp_path / "all.csv")
    with open(tmp_path / "all.csv", newline="") as file:
        rows = {(row["corpus"], row["of"]): row for row in csv.DictReader(file)}
    for corpus in CLASSES:
        summary = one.summary(corpus)
        for fold in summary["folds"]:
            row = rows[corpus, f"fold {fold['fold']}"]
            for name in SKLEARN:
                assert float(row[name]) == fold[name]
        assert float(rows[corpus, "std"]["wa"]) == summary["std"]["wa"]
        low, high = summary["pooled"]["macro_f1"]["interval"]
        assert float(rows[corpus, "pooled_low"]["macro_f1"]) == low
        assert float(rows[corpus, "pooled_high"]["macro_f1"]) == high


# ------------------------------------------------------------------ errors


def test_demos_and_doubles_are_no_results(setting, tmp_path):
    one, _ = setting("a", demo=True)
    one.write(tmp_path / "demo" / "crossval.json")
    with pytest.raises(ValueError, match="demo run on synthetic speech"):
        collect_crossvals([tmp_path / "demo"])
    (found,) = collect_crossvals([tmp_path / "demo"], demos=True)
    assert "DEMO on synthetic speech" in build_crossval_table([found])
    one.write(tmp_path / "again" / "crossval.json")
    with pytest.raises(ValueError, match="of the same setting 'a'; keep one"):
        collect_crossvals([tmp_path / "demo", tmp_path / "again"], demos=True)


def test_runs_that_do_not_belong_together(tmp_path):
    make_run(tmp_path / "a", 0, 0, setting="a")
    make_run(tmp_path / "b", 1, 0, setting="b")
    results = [(k, 0, None, tmp_path / n / "results.json") for k, n in enumerate("ab")]
    with pytest.raises(ValueError, match='these settings: .*"a".*"b"'):
        collect(results, PROTOCOL)
    (tmp_path / "a" / "utterances.csv").unlink()
    with pytest.raises(ValueError, match="without utterances.csv beside it"):
        collect(results[:1], PROTOCOL)
    with pytest.raises(ValueError, match="found these settings: none"):
        collect([], PROTOCOL)
