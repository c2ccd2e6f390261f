"""Demos: each row of tests/recipes runs with its debug flags, and what some leave."""

import csv
import json
import os
import shlex
import shutil
from functools import cache
from pathlib import Path

import pytest

from speechbrain_ser_cl.corpora import write_synthetic
from speechbrain_ser_cl.utils.settings import read_yaml
from tests.processes import run

ROOT = Path(__file__).resolve().parents[2]
ROWS = {
    row["Hparam_file"]: row
    for table in sorted((ROOT / "tests" / "recipes").glob("*.csv"))
    for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines())
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Runs a row from the root of a checkout; returns its lines, and its results."""

    @cache
    def corpus(name, options):
        """Writes a corpus that several demos have."""
        return write_synthetic(tmp_path_factory.mktemp(name), **dict(options))

    @cache
    def demo(hparams_file):
        row = ROWS[hparams_file]
        checkout = tmp_path_factory.mktemp("checkout")
        (checkout / "recipes").symlink_to(ROOT / "recipes")
        values = read_yaml(ROOT / hparams_file)["demo"]
        results = checkout / values["output_folder"]
        for name, options in values.get("synthetic", {}).items():
            shutil.copytree(
                corpus(name, tuple(options.items())),
                results / name,
                copy_function=os.link,
            )
        flags = shlex.split(row["test_debug_flags"])
        done = run([row["Script_file"], hparams_file, *flags], cwd=checkout)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.splitlines(), results

    return demo


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("hparams_file", ROWS)
def test_debug_flags(demo, hparams_file):
    lines, results = demo(hparams_file)
    assert lines[0].startswith("DEMO") and "synthetic" in lines[0]
    assert "demo" in results.name
    row = ROWS[hparams_file]
    assert lines[-1].startswith(f"python {row['Script_file']} ")
    checks = row["test_debug_checks"]
    files = checks.removeprefix("file_exists=[").removesuffix("]").split(",")
    assert files
    for file in files:
        assert (results / file).is_file()
    if "tensorboard" in row["test_debug_flags"]:
        assert any(results.rglob("events.out.tfevents.*"))


def test_the_demo_of_multitask_domain_adaptation(demo):
    lines, folder = demo("recipes/IEMOCAP_MSP/hparams/multitask_da.yaml")
    uar = {}
    for name, setting in (("source_only", "source only"), ("adapted", "source + ")):
        results = read_json(folder / name / "results.json")
        assert results["demo"] is True
        assert results["setting"].startswith(setting)
        assert {"source", "target", "seed", "test", "valid", "epochs", "data"} <= set(
            results
        )
        low, high = results["test"]["uar"]["interval"]
        assert 0 <= low <= results["test"]["uar"]["value"] <= high <= 1
        uar[name] = f"{100 * results['test']['uar']['value']:.1f}"
        for figure in ("confusion_matrix.png", "learning_curves.png"):
            assert is_png(folder / name / figure)
        rows = read_csv(folder / name / "predictions.csv")
        assert len(rows) == results["data"]["parts"]["target_test"]["utterances"]
        assert len(read_json(folder / name / "history.json")) == results["epochs"]

    # A small table and the next command are printed last.
    end = lines[lines.index(next(line for line in lines if "chance" in line)) :]
    assert any(
        line.startswith("source only") and uar["source_only"] in line for line in end
    )
    assert any(line.startswith("source + ") and uar["adapted"] in line for line in end)
    assert "--source_folder" in end[-1]
    assert "--target_folder" in end[-1]


def test_the_demo_of_two_stages(demo):
    lines, results = demo("recipes/IEMOCAP_CASIA/hparams/two_stage.yaml")
    for setting, title in (
        ("probe", "frozen encoder"),
        ("fine_tuning", "direct fine-tuning"),
        ("two_stage", "two-stage"),
    ):
        for corpus, n_classes in (("synthetic_source", 4), ("synthetic_target", 3)):
            folder = results / setting / corpus
            found = read_json(folder / "results.json")
            assert found["demo"] is True
            assert (found["setting"], found["target"]) == (title, corpus)
            assert found["test"]["chance"] == 1 / n_classes
            uar = f"{100 * found['test']['uar']['value']:.1f}"
            (line,) = [x for x in lines if x.startswith(title) and corpus in x]
            assert uar in line.split()
            for figure in ("confusion_matrix.png", "learning_curves.png"):
                assert is_png(folder / figure)
    # Figure 4: the input of the first layer and the output of each, twice.
    folder = results / "two_stage" / "encoder"
    rows = read_csv(folder / "similarity.csv")
    assert [row["layer"] for row in rows] == ["0", "1", "2"] * 2
    assert [row["model"] for row in rows] == ["pretrained"] * 3 + ["after stage 1"] * 3
    assert all(-1 <= float(row[key]) <= 1 for row in rows for key in list(row)[2:])
    # Its front end is frozen and the layers above are not.
    assert rows[0]["positive"] == rows[3]["positive"]
    assert rows[2]["positive"] != rows[5]["positive"]
    assert is_png(folder / "similarity.png")


def test_the_demo_of_pairwise_contrast(demo):
    lines, results = demo("recipes/IEMOCAP/pairwise_cl/hparams/pairwise_cl.yaml")
    for method, name in (
        ("supervised", "supervised"),
        ("fine_tuned", "Pairwise-CL"),
        ("frozen", "Pairwise-CL, frozen"),
    ):
        for view in ("w2v2", "mel"):
            found = read_json(results / method / view / "results.json")
            assert found["demo"] is True and found["setting"] == name
            assert found["test"]["chance"] == 1 / 3
            assert ("pretraining" in found["stages"]) == (method != "supervised")
    points = read_csv(results / "few_labels.csv")
    assert len(points) == 2 * 2 * 3
    for point in points:
        few = point["fraction"] == "0.1"
        assert point["draws"] == ("3" if few else "1")
        assert bool(point["uar_low"]) == few
        shown = f"{100 * float(point['uar']):.1f}"
        (row,) = [
            line
            for line in lines
            if line.startswith(f"| {point['view']} | {'10' if few else '100'} %")
        ]
        assert f" {shown} " in row
    for name in ("few_labels.png", "tsne/mel-random.png", "tsne/mel-supervised.png"):
        assert is_png(results / name)


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
