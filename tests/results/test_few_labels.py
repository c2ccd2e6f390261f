"""Draws of few labels: means, intervals, tests, tables."""

import csv
import json

import numpy as np
import pytest
from scipy import stats

from speechbrain_ser_cl.cli import main as ser_cl
from speechbrain_ser_cl.metrics.pwcca import pwcca
from speechbrain_ser_cl.metrics.significance import holm, mean_interval
from speechbrain_ser_cl.results.alignment import (
    alignment_table,
    view_alignment,
    write_alignment,
)
from speechbrain_ser_cl.results.few_labels import (
    few_label_points,
    few_label_table,
    read_few_labels,
    write_few_labels,
)
from speechbrain_ser_cl.results.tables import main

ABOUT = {
    "encoder": "tiny",
    "corpora": ["toy"],
    "chance": 0.25,
    "baseline": "supervised",
    "demo": False,
}
GAIN = {"supervised": 0.0, "Pairwise-CL": 0.05, "frozen": -0.02}


@pytest.fixture
def rows():
    """Makes two views, three methods, two fractions, 10 draws on 3 folds."""
    rng = np.random.default_rng(0)
    return [
        {
            "view": view,
            "method": method,
            "fraction": fraction,
            "draw": draw,
            "labelled": 10 + fold,
            "fold": fold,
            "uar": 0.5 + gain + rng.normal(0, 0.05),
            "wa": 0.4,
        }
        for view in ("w2v2", "mel")
        for method, gain in GAIN.items()
        for fraction in (0.1, 0.05)
        for draw in range(10)
        for fold in range(3)
    ]


def uars(rows, *key):
    """Computes, by draw, the mean over the folds."""
    own = [r for r in rows if (r["view"], r["method"], r["fraction"]) == key]
    return [np.mean([r["uar"] for r in own if r["draw"] == k]) for k in range(10)]


def test_points_against_scipy(rows):
    points = few_label_points(rows, "supervised")
    assert [(p.view, p.fraction, p.method) for p in points] == [
        (view, fraction, method)
        for view in ("w2v2", "mel")
        for fraction in (0.05, 0.1)
        for method in GAIN
    ]
    p_values = []
    for point in points:
        values = uars(rows, point.view, point.method, point.fraction)
        assert (point.draws, point.folds, point.labelled) == (10, 3, 11)
        assert point.uar == pytest.approx(np.mean(values))
        expected = stats.t.interval(0.95, 9, np.mean(values), stats.sem(values))
        assert point.interval == pytest.approx(expected)
        if point.method == "supervised":
            assert point.p is None and point.p_holm is None
            continue
        other = uars(rows, point.view, "supervised", point.fraction)
        expected = stats.mannwhitneyu(values, other, alternative="two-sided").pvalue
        assert point.p == pytest.approx(expected)
        p_values.append(point.p)
    corrected = [p.p_holm for p in points if p.p is not None]
    assert corrected == pytest.approx(holm(p_values))
    assert len(corrected) == 8


def test_few_draws_have_no_interval_and_no_test(rows):
    rows = [row for row in rows if row["draw"] < 2]
    points = few_label_points(rows, "supervised")
    assert {(p.interval, p.p) for p in points} == {(None, None)}
    assert mean_interval([1.0, 1.0]) is None
    assert "| – |" in few_label_table(ABOUT, points)


def test_rows_that_do_not_fit_together(rows):
    with pytest.raises(ValueError, match="w2v2, supervised, 0.1 .* draw 0 of fold 0"):
        few_label_points([*rows, rows[0]], "supervised")
    with pytest.raises(ValueError, match="draw 0 lacks the folds 0"):
        few_label_points(rows[1:], "supervised")


def written(folder, rows, about=ABOUT):
    for fold in range(3):
        path = folder / f"fold-{fold}" / "few_labels.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        own = [
            {k: v for k, v in row.items() if k != "fold"}
            for row in rows
            if row["fold"] == fold
        ]
        write_few_labels(path, about, fold, 0, own)
    return folder


def test_a_readme_says_what_the_files_say(rows, tmp_path):
    written(tmp_path / "measured", rows)
    about, again = read_few_labels(tmp_path / "measured")
    assert about == ABOUT
    points = few_label_points(again, "supervised")
    assert {(p.view, p.uar) for p in points} == {
        (p.view, p.uar) for p in few_label_points(rows, "supervised")
    }
    readme = tmp_path / "README.md"
    readme.write_text("<!-- few_labels: begin measured -->\n<!-- few_labels: end -->\n")
    assert main([str(readme)]) == 0
    text = readme.read_text()
    assert "**toy, tiny** (3 folds, chance: UAR 25.0 %)" in text
    point = points[1]
    low, high = (f"{100 * bound:.1f}" for bound in point.interval)
    p = "< 0.001" if point.p_holm < 0.001 else f"{point.p_holm:.3f}"
    assert f"| {100 * point.uar:.1f} | {low} to {high} | {p} |" in text
    assert main([str(readme), "--check"]) == 0
    assert ser_cl(["few-labels", str(tmp_path / "measured")]) == 0
    figure = tmp_path / "measured" / "few_labels.png"
    assert figure.read_bytes().startswith(b"\x89PNG")
    with open(figure.with_suffix(".csv"), encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert float(lines[1]["uar_low"]) == point.interval[0]
    assert lines[0]["p"] == "" and float(lines[1]["p"]) == point.p


def test_files_that_are_something_else(rows, tmp_path, capsys):
    assert ser_cl(["few-labels", str(tmp_path)]) == 2
    assert "no few_labels.json in it" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no few_labels.json in it"):
        read_few_labels(tmp_path)
    written(tmp_path, rows)
    written(tmp_path / "other", rows, ABOUT | {"encoder": "base"})
    with pytest.raises(ValueError, match="are of different experiments"):
        read_few_labels(tmp_path)
    path = tmp_path / "fold-0" / "few_labels.json"
    found = json.loads(path.read_text())
    del found["rows"][0]["uar"]
    path.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"fold-0.*no rows.0..uar in this"):
        read_few_labels(tmp_path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="the few_labels.json is "):
        read_few_labels(tmp_path)


def test_alignment_of_views(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 4)), rng.normal(size=(100, 6))
    views = {"a": x, "b": y, "c": x @ rng.normal(size=(4, 4))}
    found = view_alignment({"random": views})["random"]
    assert list(found) == ["a – b", "a – c", "b – c"]
    assert found["a – b"] == pytest.approx((pwcca(x, y) + pwcca(y, x)) / 2)
    assert found["a – c"] == pytest.approx(1)
    few = {name: view[:8] for name, view in views.items()}
    assert view_alignment({"random": few})["random"]["a – b"] is None
    with pytest.raises(ValueError, match="random, a and b: .* the same for all"):
        view_alignment({"random": {"a": np.ones((9, 2)), "b": y[:9]}})
    for fold, value in enumerate((0.2, 0.4)):
        path = tmp_path / str(fold) / "alignment.json"
        path.parent.mkdir()
        pairs = {"random": {"a – b": value, "a – c": None}}
        write_alignment(path, ABOUT, fold, 100 + fold, pairs)
    table = alignment_table(tmp_path)
    assert "(2 folds of 100 to 101 utterances not trained on)" in table
    assert "| random | 0.300 ± 0.141 | – |" in table
    write_alignment(path, ABOUT | {"encoder": "base"}, 1, 100, pairs)
    with pytest.raises(ValueError, match="different experiments"):
        alignment_table(tmp_path)
