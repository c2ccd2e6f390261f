"""Tables and curves of sweeps, from constructed settings."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.metrics.kinds import dimension_sums, emotion_sums, vote_sums
from speechbrain_ser_cl.metrics.votes import vote_metrics
from speechbrain_ser_cl.metrics.without_labels import CRITERIA
from speechbrain_ser_cl.results.crossval import (
    CrossValidation,
    Outcome,
    collect,
    read_crossval,
)
from speechbrain_ser_cl.results.predictions import write_predictions
from speechbrain_ser_cl.results.sweep_file import as_text, read_sweep
from speechbrain_ser_cl.results.sweep_tables import (
    NOT_RUN,
    build_sweep_table,
    sweep_points,
    to_latex,
    write_sweep_csv,
)
from speechbrain_ser_cl.results.tables import build_crossval_table, crossval_rows
from speechbrain_ser_cl.sweeps.sweep import write_curves

RIGHT = {"plain": [5, 6, 7], "half": [6, 7, 7], "one": [8, 7, 8]}


@pytest.fixture
def sweep(tmp_path):
    """Makes a sweep of a sweep file's contents."""

    def sweep(text):
        (tmp_path / "my.yaml").write_text("seed: 1\n")
        path = tmp_path / "table.yaml"
        path.write_text(f"title: T\nrecipe: my.yaml\n{text}", encoding="utf-8")
        return read_sweep(path)

    return sweep


def setting(name, right, numbers=None, corpora=("toy",), seeds=False, **about):
    """Makes three folds (or seeds) of one speaker each; 10 utterances of each class."""
    tested = [
        Outcome(
            fold=None if seeds else i,
            seed=i if seeds else 0,
            fingerprint=str(i),
            counts={
                corpus: {f"s{i}": np.array([[n, 10 - n], [2, 8]])} for corpus in corpora
            },
            numbers={} if numbers is None else {"valid.uar": numbers[i]},
        )
        for i, n in enumerate(right)
    ]
    protocol = {"kind": "seeds"} if seeds else {"kind": "speaker_kfold"}
    about = {"setting": name, "encoder": "tiny", **about}
    return CrossValidation(about, protocol, ["sad", "happy"], tested, {})


def uar(right):
    return 100 * (np.array(right) / 10 + 0.8) / 2


THREE = """\
columns: [uar, {metric: valid.uar, title: validation UAR},
          {metric: test.eer, title: EER, percent: False}]
rows:
    - name: plain
    - {name: lambda, sweep_over: {key: weight, values: [0.5, 1], symbol: λ}}
"""


RNG = np.random.default_rng(0)
SPEAKER = np.repeat(np.arange(6), 10)  # two to a fold


def of_kind(kind, names, rows, votes=None):
    """Six speakers in three folds; sums of each utterance."""
    of_folds = [
        {"toy": {f"s{i}": rows[i == SPEAKER].sum(0) for i in (2 * fold, 2 * fold + 1)}}
        for fold in range(3)
    ]
    tested = [Outcome(k, 0, str(k), counts) for k, counts in enumerate(of_folds)]
    if votes is not None:
        for one, other in zip(
            tested, of_kind("votes", names, votes).tested, strict=True
        ):
            one.others["votes"] = other.counts
    about = {"setting": "x", "encoder": "tiny"}
    protocol = {"kind": "speaker_kfold"}
    return CrossValidation(about, protocol, names, tested, {}, kind=kind)


def ccc(y, x):
    covariance = np.mean((y - y.mean()) * (x - x.mean()))
    return 2 * covariance / (y.var() + x.var() + (y.mean() - x.mean()) ** 2)


def as_shown(values, digits=3):
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


def test_dimensions_are_columns(sweep, tmp_path):
    made = sweep(
        "columns: [ccc, ccc.valence, rmse, uar, valid.ccc]\n"
        "rows: [{name: a, printed: {ccc: 0.5928}}, {name: b}, {name: c}, {name: none}]"
    )
    y = RNG.normal(4, 1, (60, 2))
    said = {
        name: y + noise * RNG.normal(size=y.shape)
        for name, noise in (("a", 2), ("b", 1), ("c", 1.5))
    }
    names = ["arousal", "valence"]
    results = {
        name: of_kind("dimensions", names, dimension_sums(y, x))
        for name, x in said.items()
    } | {"none": NOT_RUN}
    table = build_sweep_table(made, results)
    shown = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    folds = {
        name: np.array(
            [
                [
                    ccc(y[fold == SPEAKER // 2, k], x[fold == SPEAKER // 2, k])
                    for k in (0, 1)
                ]
                for fold in range(3)
            ]
        )
        for name, x in said.items()
    }
    for row, name in zip(shown, said, strict=False):
        assert row["CCC"] == as_shown(folds[name].mean(1))
        assert row["CCC valence"] == as_shown(folds[name][:, 1])
        assert row["UAR %"] == row["valid.ccc"] == "–"
        pooled = np.mean([ccc(y[:, k], said[name][:, k]) for k in (0, 1)])
        assert row["pooled CCC"] == f"{pooled:.3f}"
        low, high = map(float, row["95 % over speakers"].split(" to "))
        assert low < pooled < high
    assert shown[0]["printed CCC"] == "0.5928"
    # Holm over two rows, by hand.
    means = {name: values.mean(1) for name, values in folds.items()}
    p = [stats.ttest_rel(means[name], means["a"]).pvalue for name in "bc"]
    small, large = sorted(p)
    holm = {small: min(1, 2 * small), large: max(min(1, 2 * small), large)}
    told = ["–", *[f"{holm[one]:.3f}" for one in p], "–"]
    assert [row["p, folds"] for row in shown] == told
    assert shown[3]["CCC"] == NOT_RUN and shown[3]["CCC valence"] == "–"
    assert table.about == "toy, tiny, speaker_kfold, arousal, valence"
    assert "p: CCC against “a”" in table.note
    assert "CCC valence & RMSE" in table.latex("x")
    write_sweep_csv(sweep_points(made, results), tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="") as file:
        points = {(p["row"], p["metric"]): p for p in csv.DictReader(file)}
    found = points["b", "ccc.valence"]
    assert float(found["mean"]) == pytest.approx(folds["b"][:, 1].mean())
    assert float(found["pooled"]) == pytest.approx(ccc(y[:, 1], said["b"][:, 1]))
    assert ("b", "uar") not in points
    of_valence = [results["a"], results["b"]]
    compared = build_crossval_table(of_valence, metric="ccc.valence")
    assert f"| {as_shown(folds['b'][:, 1])} |" in compared
    assert f"{ccc(y[:, 1], said['b'][:, 1]):.3f}" in compared
    (rows,) = crossval_rows(of_valence, "ccc.valence")
    assert rows["class_names"] == ("valence",) and rows["metric"] == "ccc"
    with pytest.raises(ValueError, match="no .*'anger'; .*: arousal, valence"):
        build_crossval_table(of_valence, metric="ccc.anger")


def test_votes_are_columns(sweep):
    made = sweep(
        "columns: [kl, majority, uar]\nrows: [{name: a}, {name: b}, {name: c}]"
    )
    votes = RNG.integers(0, 5, (60, 2)) + [1, 0]
    p, other = RNG.dirichlet([1, 1], (2, 60))
    classes = np.eye(4, dtype=int)[RNG.integers(0, 4, 60)].reshape(60, 2, 2)
    heard = {"a": vote_sums(votes, p), "b": vote_sums(votes, other), "c": None}
    results = {
        name: of_kind("classes", ["sad", "happy"], classes, own)
        for name, own in heard.items()
    }
    table = build_sweep_table(made, results)
    a, b, c = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    found, of_b = vote_metrics(votes, p), vote_metrics(votes, other)
    rows = [fold == SPEAKER // 2 for fold in range(3)]
    kl = [found["kl"][own].mean() for own in rows]
    agree = [np.nanmean(found["majority"][own]) for own in rows]
    assert a["KL to the votes"] == as_shown(kl)
    assert a["agreement %"] == as_shown(100 * np.array(agree), 1)
    assert a["pooled KL to the votes"] == f"{found['kl'].mean():.3f}"
    test = stats.ttest_rel([of_b["kl"][own].mean() for own in rows], kl)
    assert b["p, folds"] == f"{test.pvalue:.3f}" and 0 < float(b["p, speakers"]) <= 1
    # A row without votes has its classes.
    assert c["UAR %"] == a["UAR %"] != "–"
    assert {c[k] for k in c if k not in ("row", "folds", "seeds", "UAR %")} == {"–"}
    assert "2 classes, chance: UAR 50.0 %" in table.about


def test_several_emotions_are_columns(sweep):
    made = sweep("columns: [macro_f1, micro_f1, sample_f1]\nrows: [{name: a}]")
    true, said = RNG.integers(0, 2, (2, 60, 3))
    one = of_kind("emotions", ["x", "y", "z"], emotion_sums(true, said))
    table = build_sweep_table(made, {"a": one})
    (row,) = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    rows = [fold == SPEAKER // 2 for fold in range(3)]
    for average in ("macro", "micro"):
        f1 = [100 * f1_score(true[own], said[own], average=average) for own in rows]
        assert row[f"{average}-F1 %"] == as_shown(f1, 1)


def test_a_dimension_that_is_not_learned_is_refused(tmp_path, capsys):
    hparams = Path(__file__).parents[2] / "recipes/MSP-Podcast/hparams/attributes.yaml"
    path = tmp_path / "table.yaml"
    path.write_text(
        f"title: T\nrecipe: {hparams}\ncolumns: [ccc.arosal]\nneeds: [msp_folder]\n"
        "rows: [{name: a}]\n"
    )
    assert main(["table", str(path), "--dry-run"]) == 2
    told = capsys.readouterr().err
    assert "columns: ccc.arosal" in told and "are arousal, valence, dominance" in told


def test_numbers_of_the_runs_are_columns(sweep):
    made = sweep(THREE)
    results = {
        "plain": setting("x", RIGHT["plain"], [0.5, 0.6, 0.7]),
        "lambda, λ = 0.5": setting("x", RIGHT["half"], [0.4, 0.4, 0.7]),
        "lambda, λ = 1": setting("x", RIGHT["one"]),
    }
    results["plain"].tested[0].numbers["test.eer"] = 0.25
    results["plain"].tested[1].numbers["test.eer"] = 0.35
    results["plain"].tested[2].numbers["test.eer"] = 0.30
    table = build_sweep_table(made, results)
    shown = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    assert [row["validation UAR %"] for row in shown] == [
        "60.0 ± 10.0",
        "50.0 ± 17.3",
        "–",
    ]
    # Some runs of the others lack it.
    assert [row["EER"] for row in shown] == ["0.3 ± 0.05", "–", "–"]
    values = uar(RIGHT["half"])
    assert shown[1]["UAR %"] == f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"
    # Holm over two rows, by hand.
    p = [stats.ttest_rel(uar(RIGHT[k]), uar(RIGHT["plain"])).pvalue for k in RIGHT][1:]
    small, large = sorted(p)
    expected = {small: min(1, 2 * small), large: max(min(1, 2 * small), large)}
    assert [row["p, folds"] for row in shown] == [
        "–",
        *[f"{expected[value]:.3f}" for value in p],
    ]
    # Three speakers: too few for an interval over speakers.
    assert [row["95 % over speakers"] for row in shown] == ["–"] * 3
    assert [row["p, speakers"] for row in shown] == ["–"] * 3


def test_the_note_says_how_criteria_without_labels_order_the_runs(sweep):
    made = sweep("rows: [{name: a}, {name: b}]")
    results = {name: setting(name, RIGHT[name]) for name in ("plain", "one")}
    results = dict(zip("ab", results.values(), strict=True))
    assert "Spearman" not in build_sweep_table(made, results).note
    runs = [run for one in results.values() for run in one.tested]
    generator, wanted = np.random.default_rng(0), {}
    truth = [run.confusion("toy").trace() / 20 for run in runs]
    for name in (*CRITERIA, "uar"):
        values = generator.normal(size=len(runs))
        wanted[name] = stats.spearmanr(values, truth).statistic
        for run, value in zip(runs, values, strict=True):
            run.numbers[f"valid.{name}"] = value
    note = build_sweep_table(made, results).note
    assert "over 6 runs" in note
    told = [float(n) for n in re.findall(r" (-?\d\.\d\d)[,.]", note.split("runs:")[1])]
    assert told == [round(rho, 2) for rho in wanted.values()]


def test_repeated_seeds_are_the_unit(sweep):
    made = sweep("rows: [{name: a}, {name: b}]")
    results = {
        "a": setting("a", [5, 6, 7], seeds=True),
        "b": setting("b", [6, 7, 9], seeds=True),
    }
    table = build_sweep_table(made, results)
    assert table.header[:3] == ["row", "seeds", "UAR %"]
    assert table.rows[0][:2] == ["a", "3"]
    assert "95 % over seeds" in table.header and "p, seeds" in table.header
    assert "standard deviation over seeds" in table.note


def test_rows_that_cannot_be_compared_have_no_p(sweep):
    made = sweep("rows: [{name: a}, {name: b}, {name: c}]")
    other = setting("b", [6, 7, 9])
    other.tested.pop()
    results = {"a": setting("a", [5, 6, 7]), "b": other, "c": NOT_RUN}
    table = build_sweep_table(made, results)
    shown = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    assert shown[1]["folds"] == "2" and shown[1]["95 % over folds"] == "–"
    assert [row["p, folds"] for row in shown] == ["–"] * 3
    assert shown[2]["UAR %"] == NOT_RUN
    assert {v for k, v in shown[2].items() if k not in ("row", "UAR %")} == {"–"}
    # Without the baseline there is no comparison.
    table = build_sweep_table(made, results | {"a": "2 of 3 runs failed"})
    assert not [title for title in table.header if title.startswith("p,")]
    assert table.rows[0][3] == "2 of 3 runs failed"


def test_a_demo_is_reported(sweep):
    made = sweep("rows: [{name: a}]")
    table = build_sweep_table(made, {"a": setting("a", [5, 6, 7], demo=True)})
    assert "DEMO on synthetic speech" in table.markdown()


def test_one_of_several_corpora(sweep):
    both = setting("a", [5, 6, 7], corpora=("one", "two"))
    with pytest.raises(ValueError, match="tested on one, two; say which"):
        build_sweep_table(sweep("rows: [{name: a}]"), {"a": both})
    made = sweep("rows: [{name: a, corpus: two}, {name: b, corpus: one}]")
    table = build_sweep_table(made, {"a": both, "b": both})
    assert table.about.startswith("one and two, tiny, speaker_kfold, 2 classes")


def test_curves_of_names_and_of_numbers(sweep, tmp_path):
    made = sweep(
        "rows:\n"
        "    - {name: all, overrides: {loss: ce}}\n"
        "    - {name: triplet, sweep_over: {key: mining, values: [all, hard]}}\n"
        "    - {name: smooth, sweep_over: {key: tau, values: [10, 0.1]}}\n"
        "    - {name: sharp, sweep_over: {key: tau, values: [0.1, 1]}}\n"
    )
    results = {
        row.name: setting(row.name, [5, 6, 4 + i]) for i, row in enumerate(made.rows)
    }
    results["smooth, tau = 10"] = NOT_RUN
    points = sweep_points(made, results)
    written = write_curves(made, points, tmp_path)
    assert [path.name for path in written] == [
        "table_mining.csv",
        "table_mining.png",
        "table_tau.csv",
        "table_tau.png",
    ]
    with open(tmp_path / "table_tau.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "uar"]
    assert [(row["curve"], row["value"]) for row in rows] == [
        ("smooth", "0.1"),
        ("sharp", "0.1"),
        ("sharp", "1"),
    ]
    assert float(rows[-1]["mean"]) == pytest.approx(uar([5, 6, 10]).mean() / 100)


def test_rows_are_filed_under_what_they_override(sweep):
    made = sweep(
        "overrides: {epochs: 5, cache: '{output}/cache'}\nprotocol: speaker_kfold\n"
        "rows:\n"
        "    - name: a\n"
        "    - {name: b, overrides: {loss: supcon, layers: [1, 2]}}\n"
        "    - {name: c, overrides: {layers: [1, 2], loss: supcon}}\n"
        "    - {name: d, overrides: {layers: [1, 3], loss: supcon}}\n"
    )
    a, b, c, d = (row.folder.as_posix() for row in made.rows)
    assert a == "my/epochs-5"
    assert b == c != d
    assert b.startswith("my/epochs-5,layers-")
    assert not set("=[] ") & set(b)  # SpeechBrain splits arguments at "="


@pytest.mark.parametrize(
    "value", [1e-05, 0.1, 3, True, None, "supcon", "0.1", "a: b", [1, "x"], {"k": None}]
)
def test_a_value_is_read_back_as_it_was(value):
    from ruamel.yaml import YAML

    assert YAML(typ="safe").load(as_text(value)) == value


def test_every_greek_letter_is_a_formula():
    assert to_latex("αλω") == r"$\alpha$$\lambda$$\omega$"
    assert to_latex("ΓΛΩ") == r"$\Gamma$$\Lambda$$\Omega$"
    small = {chr(code) for code in range(0x3B1, 0x3CA)} - set("ος")
    assert all(to_latex(letter).startswith("$\\") for letter in small)
    assert to_latex("\\a{b}~^") == (
        r"\textbackslash{}a\{b\}\textasciitilde{}\textasciicircum{}"
    )


def test_what_a_run_says_in_numbers_is_kept(tmp_path):
    """From results.json through crossval.json and back."""
    from speechbrain_ser_cl.corpora import Utterance
    from speechbrain_ser_cl.data.splits import Labelled
    from speechbrain_ser_cl.results.utterances import write_parts

    utterance = Utterance(
        "u", Path("u.wav"), 1.0, "toy", "s", None, None, None, None, "sad"
    )
    write_predictions(
        tmp_path / "predictions.csv", ["u"], [0], [0], [[1, 0]], ["a", "b"]
    )
    write_parts(tmp_path / "utterances.csv", {"test": [Labelled(utterance, "a")]})
    record = {
        "setting": "x",
        "seed": 4,
        "demo": False,
        "valid": {"uar": 0.5, "loss": float("nan")},
        "test": {"uar": {"value": 1.0}, "recall_at_1": {"value": 0.25, "of": [1]}},
        "data": {"hours": 3},
    }
    (tmp_path / "results.json").write_text(json.dumps(record))
    one = collect([(0, 4, "f", tmp_path / "results.json")], {"kind": "random_kfold"})
    one.write(tmp_path / "crossval.json")
    again = read_crossval(tmp_path / "crossval.json")
    assert again.tested[0].numbers == {"valid.uar": 0.5, "test.recall_at_1": 0.25}
    assert again.values("toy", "test.recall_at_1") == [0.25]
    assert again.values("toy", "test.nmi") == []
