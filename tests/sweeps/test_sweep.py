"""``ser-cl table SWEEP.yaml`` like users run it: from a file to tables and curves."""

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.corpora import write_synthetic

ROOT = Path(__file__).resolve().parents[2]
RECIPE = Path(__file__).parent / "recipe"
SWEEP = """\
title: Noise_1 & its 100 % τ
recipe: {recipe}/tiny.yaml
output_folder: {output}
columns: [uar, {{metric: valid.uar, title: validation UAR}}, wa]
baseline: as it is
printed_in: Somebody 2023, table 1
rows:
    - name: noise
      sweep_over: {{key: noise, values: [0.1, 0.4], symbol: σ}}
      printed: {{0.4: {{uar: 50.10 ± 2.00}}}}
    - name: as it is
      printed: {{uar: "54.70 ± 4.03"}}
"""
NAMES = ["noise, σ = 0.1", "noise, σ = 0.4", "as it is"]
FOLDERS = ["noise-0.1", "noise-0.4", "default"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Makes 12 speakers with 8 utterances each."""
    folder = tmp_path_factory.mktemp("corpus")
    return write_synthetic(
        folder, "synthetic_source", n_speakers=12, utterances_per_speaker=8
    )


@pytest.fixture(scope="module")
def given(corpus):
    """Returns command line options for all rows."""
    return ["--corpora", f"{{synthetic: {corpus}}}", "--jobs", "2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, given):
    """Returns the file and output folder of a finished sweep."""
    folder = tmp_path_factory.mktemp("sweep")
    out = folder / "out"
    file = folder / "noise.yaml"
    file.write_text(SWEEP.format(recipe=RECIPE, output=out), encoding="utf-8")
    command = [
        "table",
        str(file),
        *given,
        "--measured",
        str(folder / "measured.json.xz"),
    ]
    assert main(command) == 0
    return file, out


def starts(out):
    """Returns how often each run was started."""
    return {
        path.parent.relative_to(out / "tiny").as_posix(): len(path.read_text().split())
        // 2
        for path in out.rglob("starts.txt")
    }


def per_fold(out, row):
    """Returns labels and predictions of each fold, from the runs' files."""
    found = []
    for fold in range(3):
        path = out / "tiny" / row / f"fold-{fold}" / "seed-3" / "predictions.csv"
        with open(path, newline="") as file:
            lines = list(csv.DictReader(file))
        found.append([[line[c] for line in lines] for c in ("label", "prediction")])
    return found


def uars(out, row):
    return np.array([balanced_accuracy_score(*fold) for fold in per_fold(out, row)])


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ------------------------------------------------------------------ it works


def t_interval(values):
    """Computes Student's 95 % interval of a mean; scipy gives nan if all equal."""
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return values.mean() - half, values.mean() + half


def test_the_table_is_what_the_runs_gave(whole):
    file, out = whole
    lines = (out / "noise.md").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("**Noise_1 & its 100 % τ** (synthetic_source, duration")
    assert "2 classes, chance: UAR 50.0 %" in lines[0]
    header = cells(lines[2])
    rows = {
        cells(line)[0]: dict(zip(header, cells(line), strict=True))
        for line in lines[4:7]
    }
    assert list(rows) == NAMES
    baseline = uars(out, "default")
    p_values = [stats.ttest_rel(uars(out, row), baseline).pvalue for row in FOLDERS[:2]]
    # Holm for two tests: the smaller p doubled, the larger not below that.
    first = min(1, 2 * min(p_values))
    holm = [first if p == min(p_values) else max(first, p) for p in p_values]
    for name, folder, p in zip(NAMES, FOLDERS, [*holm, None], strict=True):
        values, row = 100 * uars(out, folder), rows[name]
        assert row["folds"] == "3" and row["seeds"] == "1"
        assert row["UAR %"] == f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"
        pooled = [sum(both, []) for both in zip(*per_fold(out, folder), strict=True)]
        assert row["pooled UAR %"] == f"{100 * balanced_accuracy_score(*pooled):.1f}"
        low, high = t_interval(values)
        assert row["95 % over folds"] == f"{low:.1f} to {high:.1f}"
        low, high = map(float, row["95 % over speakers"].split(" to "))
        assert low < float(row["pooled UAR %"]) < high
        assert row["validation UAR %"] == "–"  # this recipe does not report it
        if p is None:
            assert row["p, folds"] == row["p, speakers"] == "–"
        else:
            assert row["p, folds"] == f"{p:.3f}"
            assert 0 < float(row["p, speakers"]) <= 1
    printed = [rows[name]["printed UAR %"] for name in NAMES]
    assert printed == ["–", "50.10 ± 2.00", "54.70 ± 4.03"]
    assert "against “as it is”" in lines[-1]
    assert lines[-1].endswith("Printed: Somebody 2023, table 1.")


def test_latex_says_the_same_and_can_be_read(whole):
    _, out = whole
    text = (out / "noise.tex").read_text(encoding="utf-8")
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert code.isascii()
    # Braces, environments and formulas are closed; special characters are escaped.
    depth = 0
    for sign in re.sub(r"\\[{}]", "", code):
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0
    stack = []
    for what, name in re.findall(r"\\(begin|end)\{(\w+)\}", code):
        if what == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack
    assert len(re.findall(r"(?<!\\)\$", code)) % 2 == 0
    assert not re.search(r"(?<!\\)[%#]", code)
    outside = re.sub(r"\$[^$]*\$", "", code)
    assert not re.search(r"(?<!\\)[_^~]", outside)
    # The cells equal those of the Markdown table.
    spec = re.search(r"\\begin\{tabular\}\{(l+r+)\}", code)[1]
    body = re.search(r"\\toprule(.*)\\bottomrule", code, re.DOTALL)[1]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert all(len(re.split(r"(?<!\\)&", line)) == len(spec) for line in lines)
    shown = [
        [
            cell.strip()
            .replace(r"$\pm$", "±")
            .replace(r"$\sigma$", "σ")
            .replace(r"\%", "%")
            .replace("--", "–")
            for cell in re.split(r"(?<!\\)&", line.removesuffix(r"\\"))
        ]
        for line in lines
    ]
    markdown = (out / "noise.md").read_text(encoding="utf-8").splitlines()
    assert shown == [cells(markdown[i]) for i in (2, 4, 5, 6)]
    assert r"\caption{Noise\_1 \& its 100 \% $\tau$ (synthetic\_source" in code


def test_the_curve_is_what_the_runs_gave(whole):
    _, out = whole
    assert (out / "noise_noise.png").stat().st_size > 5000
    points = [
        row for row in read_csv(out / "noise_noise.csv") if row["metric"] == "uar"
    ]
    assert [(row["curve"], row["value"]) for row in points] == [
        ("noise", "0.1"),
        ("noise", "0.4"),
    ]
    for point, folder in zip(points, FOLDERS, strict=False):
        values = uars(out, folder)
        assert float(point["mean"]) == pytest.approx(values.mean())
        assert float(point["std"]) == pytest.approx(values.std(ddof=1))
        low, high = t_interval(values)
        assert float(point["low"]) == pytest.approx(low)
        assert float(point["high"]) == pytest.approx(high)
        told = json.loads((out / "tiny" / folder / "crossval.json").read_text())
        pooled = told["results"]["synthetic_source"]["pooled"]["uar"]
        assert float(point["pooled"]) == pooled["value"]
        assert [float(point[f"pooled_{end}"]) for end in ("low", "high")] == (
            pooled["interval"]
        )
    # The table's own file has the other row too.
    rows = [row["row"] for row in read_csv(out / "noise.csv") if row["metric"] == "wa"]
    assert rows == NAMES


def test_a_readme_takes_the_table_from_copies(whole, capsys):
    file, out = whole
    readme = file.with_name("README.md")
    readme.write_text(
        "Before\n<!-- sweep: begin noise.yaml folder=measured.json.xz -->\n"
        "<!-- sweep: end -->\nAfter\n"
    )
    assert main(["table", str(readme), "--check"]) == 1
    assert main(["table", str(readme)]) == 0
    assert main(["table", str(readme), "--check"]) == 0
    assert (out / "noise.md").read_text() in readme.read_text()
    # The whole table without a run.
    readme.write_text(readme.read_text().replace("=measured.json.xz", "=nowhere"))
    assert main(["table", str(readme)]) == 0
    told = readme.read_text()
    assert "| as it is | – | – | not run here | 54.70 ± 4.03 |" in told
    # A demo's result is not accepted.
    path = next(out.rglob("default/crossval.json"))
    demo = json.loads(path.read_text()) | {"demo": True}
    place = file.parent / "demos" / "tiny" / "default"
    place.mkdir(parents=True)
    (place / "crossval.json").write_text(json.dumps(demo))
    readme.write_text(readme.read_text().replace("=nowhere", "=demos"))
    capsys.readouterr()
    assert main(["table", str(readme)]) == 2
    assert "from a demo run on synthetic speech" in capsys.readouterr().err


# ------------------------------------------------------------------ what is missing


def test_only_what_is_missing_runs(whole, given, tmp_path, capsys):
    file, out = whole
    before = starts(out)
    assert set(before.values()) == {1} and len(before) == 9
    # A second table that shares two rows with the first.
    other = tmp_path / "other.yaml"
    other.write_text(
        SWEEP.format(recipe=RECIPE, output=out).replace("0.1, 0.4", "0.4, 0.9")
    )
    command = ["table", str(other), *given]
    capsys.readouterr()
    assert main([*command, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "noise, σ = 0.4  3 of 3 runs there" in told
    assert "noise, σ = 0.9  0 of 3 runs there" in told
    assert "9 runs, 6 of them there, 3 to do" in told
    assert starts(out) == before and not (out / "other.md").exists()
    assert main([*command, "--dry-run", "--folds", "7"]) == 2
    assert "--folds 7: the protocol makes 3 folds: 0 to 2" in capsys.readouterr().err
    assert main([*command, "--folds", "2"]) == 0
    assert starts(out) == before | {"noise-0.9/fold-2/seed-3": 1}
    row = (out / "other.md").read_text().splitlines()[5]
    assert cells(row)[:2] == ["noise, σ = 0.9", "1"]
    assert main(command) == 0
    new = {f"noise-0.9/fold-{k}/seed-3": 1 for k in range(3)}
    assert starts(out) == before | new
    lines = (out / "other.md").read_text().splitlines()
    assert [cells(line)[0] for line in lines[4:7]] == [
        "noise, σ = 0.4",
        "noise, σ = 0.9",
        "as it is",
    ]


def test_rows_without_their_corpus_are_not_run(tmp_path, capsys):
    file, out = tmp_path / "noise.yaml", tmp_path / "out"
    file.write_text(SWEEP.format(recipe=RECIPE, output=out))
    assert main(["table", str(file), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "as it is        not run here (corpora: no folder is given)" in told
    assert "3 of 3 rows not run here" in told
    assert not out.exists()
    nowhere = ["--corpora", "{synthetic: /no/such/folder}"]
    assert main(["table", str(file), *nowhere]) == 0
    told = capsys.readouterr().out
    assert "corpora: there is no folder /no/such/folder" in told
    table = (out / "noise.md").read_text()
    assert "| as it is | – | – | not run here | 54.70 ± 4.03 | – | – |" in table
    assert table in told
    assert not list(out.rglob("starts.txt"))
    assert not list(out.glob("*.png"))


@pytest.mark.parametrize(
    ("needs", "told"),
    [
        ("[corpora.synthetic]", "0 of 3 runs there"),
        ("[corpora.emodb]", "not run here (corpora.emodb: no folder is given)"),
        ("[]", "0 of 3 runs there"),
    ],
)
def test_rows_say_which_corpus_they_need(given, tmp_path, capsys, needs, told):
    file = tmp_path / "table.yaml"
    file.write_text(
        f"title: Needs\nrecipe: {RECIPE}/tiny.yaml\nrows: [{{name: a, needs: {needs}}}]"
    )
    assert main(["table", str(file), *given, "--dry-run"]) == 0
    assert f"a  {told}" in capsys.readouterr().out


def test_a_twin_without_one_of_its_corpora(corpus, capsys):
    """Its YAML cannot be read without both."""
    file = ROOT / "recipes" / "EmoDB_RAVDESS" / "tables" / "ablations.yaml"
    given = ["table", str(file), "--dry-run", "--source_folder", str(corpus)]
    assert main(given) == 0
    told = capsys.readouterr().out
    assert "source only" in told and "(target_folder: no folder is given)" in told


def test_a_failed_run_is_reported_and_only_it_runs_again(given, tmp_path, capsys):
    script = tmp_path / "recipe" / "train.py"
    shutil.copytree(RECIPE, script.parent)
    out = tmp_path / "out"
    file = tmp_path / "table.yaml"
    file.write_text(
        f"title: Broken\nrecipe: recipe/tiny.yaml\noutput_folder: {out}\n"
        "columns: [wa]\nrows:\n"
        "    - {name: good}\n"
        "    - {name: bad, overrides: {broken_fold: 2}}\n"
    )
    command = ["table", str(file), *given]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "bad: fold 2, seed 3: exit status 1; the end of" in error
    assert "    ValueError: this fold does not work" in error
    table = (out / "table.md").read_text()
    assert "| bad | – | – | 1 of 3 runs failed |" in table
    assert re.search(r"\| good \| 3 \| 1 \| \d\d\.\d ± ", table)

    script.write_text(script.read_text().replace("raise ValueError", "str"))
    before = starts(out)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "1 runs were begun and are not finished" in error and "--resume" in error
    assert starts(out) == before
    assert main([*command, "--resume"]) == 0
    assert starts(out) == before | {"broken_fold-2/fold-2/seed-3": 2}
    assert "failed" not in (out / "table.md").read_text()


def test_ctrl_c_leaves_nothing_running(given, tmp_path):
    file, out = tmp_path / "table.yaml", tmp_path / "out"
    file.write_text(
        f"title: Waits\nrecipe: {RECIPE}/tiny.yaml\noutput_folder: {out}\n"
        f"overrides: {{helper: True, wait_for: {tmp_path}/never}}\n"
        "rows:\n    - {name: one}\n    - {name: two, overrides: {noise: 0.5}}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "speechbrain_ser_cl.cli", "table", str(file), *given],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        end = time.monotonic() + 60
        while len(starts(out)) < 2:
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "the same command with --resume continues" in error
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            assert str(out).encode() not in entry.read_bytes()
    assert not list(out.glob(".running-*"))


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("title:", "tiTle:", "no title, expected a text"),
        ("title: Noise_1", "title: [1] #", "title is [1], expected a text"),
        ("baseline: as it is", "baseline: no", 'baseline is "no", expected one of'),
        ("printed_in", "printed_im", "unknown key printed_im; did you mean"),
        ("[uar,", "[uarr,", 'columns[0].metric is "uarr", expected uar, wa'),
        ("wa]", "uar]", 'columns is ["uar", "valid.uar", "uar"], expected diff'),
        ("tiny.yaml", "tinny.yaml", "rows[0].recipe is"),
        ("    - name: as it is", "    - names: as it is", "no rows[1].name, expected"),
        ("name: as it is", "name: noise, σ = 0.1", "2 rows have the name"),
        ("key: noise", "key: nose", "'noise, σ = 0.1', is no key of"),
        ("key: noise", "key: fold", "rows[0].sweep_over.key: 'fold' is set for"),
        ("[0.1, 0.4]", "0.1", "rows[0].sweep_over.values is 0.1, expected a list"),
        ("[0.1, 0.4]", "[0.4, 0.4]", "values is [0.4, 0.4], expected each value once"),
        ("{0.4: {uar", "{0.5: {uar", "rows[0].printed is [0.5], expected values of"),
        ("50.10 ± 2.00", "about 50", 'rows[0].printed.0.4.uar is "about 50", exp'),
        ("{uar: 50.10", "{f1: 50.10", 'rows[0].printed.0.4 is "f1", expected met'),
        ("rows:", "seeds: [1, 1]\nrows:", "seeds is [1, 1], expected a list of diff"),
        ("rows:", "needs: [folder]\nrows:", "needs names 'folder', which is no key"),
        (
            "rows:",
            "overrides: {seed: 1}\nrows:",
            "overrides: 'seed' is set for each run",
        ),
        ("rows:", "rows: [", "not valid YAML"),
        ("rows:", "protocol: {kind: kfold}\nrows:", "kind 'kfold', expected one of"),
    ],
)
def test_errors_before_anything_runs(given, tmp_path, capsys, old, new, told):
    text = SWEEP.format(recipe=RECIPE, output=tmp_path / "out")
    assert old in text
    file = tmp_path / "noise.yaml"
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    assert main(["table", str(file), *given]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ser-cl: ") and error.count("\n") == 1
    assert str(file) in error
    assert told in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--noise", "0.5"], "--noise: the row 'noise, σ = 0.1' of"),
        (["--nois", "0.5"], "--nois, of the row 'noise, σ = 0.1', is no key of"),
        (["--check"], "--check is for a README"),
        (["--corpora", "EmoDB"], 'corpora is "EmoDB", expected a mapping of'),
    ],
)
def test_options_that_do_not_fit(tmp_path, capsys, more, told):
    file = tmp_path / "noise.yaml"
    file.write_text(SWEEP.format(recipe=RECIPE, output=tmp_path / "out"))
    status = main(["table", str(file), "--dry-run", *more])
    said = capsys.readouterr()
    assert told in said.out + said.err
    assert status == 2


def test_options_of_sweeps_are_not_for_a_readme(tmp_path, capsys):
    (tmp_path / "README.md").touch()
    given = ["table", str(tmp_path / "README.md"), "--resume", "--noise", "1"]
    assert main(given) == 2
    assert "--resume --noise 1: not with a README" in capsys.readouterr().err
