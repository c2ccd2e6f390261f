"""``ser-cl bench``: cells, resuming, tables; ranks against scipy."""

import csv
import json
import re

import numpy as np
import pytest
from scipy import stats

from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.corpora import Utterance, write_synthetic
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.metrics.significance import rank_methods
from speechbrain_ser_cl.results.crossval import read_crossval
from speechbrain_ser_cl.training.probe import LinearProbe


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Returns the folder of a finished bench, and its command line."""
    folder = tmp_path_factory.mktemp("bench")
    sizes = {"n_speakers": 3, "utterances_per_speaker": 8}
    corpora = {
        name: str(write_synthetic(folder / name, name, **sizes))
        for name in ("synthetic_source", "synthetic_target")
    }
    yaml = folder / "my.yaml"
    yaml.write_text(
        "features: {mel: log_mel}\n"
        f"corpora: {json.dumps(corpora)}\n"
        "protocols: {speakers: {kind: speaker_kfold, n_folds: 3, valid: none, "
        "leaks: [text_id, session]}}\n"
        "classifiers: [ridge]\n"
    )
    words = ["bench", str(yaml), "--features_folder", str(folder / "features")]
    words += ["--output_folder", str(folder / "out")]
    assert main(words) == 0
    return folder / "out", words


def test_each_cell_leaves_what_compare_reads(bench, capsys):
    out, words = bench
    with open(out / "bench.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["protocol"], r["train"][10:], r["test"][10:]) for r in rows] == [
        ("speakers", "source", "source"),
        ("speakers", "target", "target"),
        ("cross_corpus", "source", "target"),
        ("cross_corpus", "target", "source"),
    ]
    one = read_crossval(
        out / "cross_corpus/synthetic_source-synthetic_target/mel-ridge/crossval.json"
    )
    counts = one.tested[0].confusion("synthetic_target")
    assert counts.sum() == 24  # all of the target, none of the source
    uar = np.mean(counts.diagonal() / counts.sum(1))
    assert float(rows[2]["uar"]) == pytest.approx(uar)
    page = (out / "bench.html").read_text(encoding="utf-8")
    assert f"{100 * uar:.1f}</td>" in page
    assert rf"{100 * uar:.1f}" in (out / "bench.tex").read_text(encoding="utf-8")


def test_what_is_done_is_kept_and_what_is_new_is_run(bench, capsys):
    out, words = bench
    kept = sorted(out.rglob("crossval.json"))
    before = [path.stat().st_mtime_ns for path in kept]
    kept[0].unlink()
    assert main([*words, "--tables_only"]) == 0
    assert "INCOMPLETE: 1 of 4 cells" in capsys.readouterr().out
    assert main([*words, "--classifiers", "[ridge, logistic]"]) == 0
    told = capsys.readouterr().out
    assert "INCOMPLETE" not in told
    assert "Friedman" in told
    assert [p.stat().st_mtime_ns for p in kept[1:]] == before[1:]
    assert len(list(out.rglob("crossval.json"))) == 8


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--feature", "{a: log_mel}"], "feature: found an unknown .*'features'"),
        (["--features", "{a/b: log_mel}"], "the name 'a/b', expected letters"),
        (["--classifiers", "[svn]"], "'svn', .*expected one of logistic"),
        (["--corpora", "[x]"], r"corpora: found \['x'\], expected a dict"),
        (["--seed", "3"], "belong in another output_folder"),
    ],
)
def test_wrong_entries_are_reported(bench, capsys, more, message):
    _, words = bench
    assert main([*words, *more]) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert re.search(message, told)


def test_ranks_are_those_of_scipy_and_demsar():
    values = np.random.default_rng(0).normal(size=(4, 6)).round(1)
    found = rank_methods(values)
    ranks = np.array([stats.rankdata(-column) for column in values.T]).mean(0)
    assert found["mean_ranks"] == pytest.approx(ranks)
    assert found["friedman"] == pytest.approx(stats.friedmanchisquare(*values).pvalue)
    # Demsar 2006, table 5: q is 2.569 for 4 methods.
    cd = 2.569 * np.sqrt(4 * 5 / 36)
    assert found["critical_difference"] == pytest.approx(cd, abs=1e-3)
    worst = int(ranks.argmax())
    z = (ranks[worst] - ranks.min()) / np.sqrt(20 / 36)
    assert found["against_best"][worst] == pytest.approx(min(1, 6 * stats.norm.sf(z)))
    assert found["against_best"][found["best"]] is None


class Shifted:
    """Vectors of two classes; those of corpus ``b`` are shifted and wider."""

    n_layers, poolings = 1, ("mean",)

    def matrix(self, ids, layer, pooling):
        rng = np.random.default_rng(0)
        rows = [rng.normal(size=3) + 4 * (int(one[2:]) % 2) for one in ids]
        moved = [
            20 + 5 * r if one[0] == "b" else r for one, r in zip(ids, rows, strict=True)
        ]
        return np.array(moved, np.float32)


def test_another_corpus_is_standardised_by_itself():
    def item(corpus, n):
        utterance = Utterance(
            id=f"{corpus}-{n}",
            path="a.wav",
            duration=1.0,
            corpus=corpus,
            speaker=f"{corpus}{n // 2 % 4}",
            session=None,
            gender=None,
            language="en",
            text_id=None,
            emotion="sad",
        )
        return Labelled(utterance, ("low", "high")[n % 2])

    parts = {"train": [item("a", n) for n in (*range(40), 41, 43)]}
    parts["test"] = [item("b", n) for n in range(40)]
    uars = {
        kind: LinearProbe("ridge", normalisations=[kind])
        .run(Shifted(), parts, ["low", "high"])
        .uar
        for kind in ("corpus", "own_corpus")
    }
    assert uars["corpus"] == 0.5  # all on one side
    assert uars["own_corpus"] > 0.95
