"""``ser-cl crossval`` like users run it: folds, kills, Ctrl-C, other engines."""

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

import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
from speechbrain_ser_cl.data.protocols import make_folds, write_split

ROOT = Path(__file__).resolve().parents[2]
RECIPE = Path(__file__).parent / "recipe"
YAML = RECIPE / "tiny.yaml"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Makes 12 speakers with 8 utterances each."""
    folder = tmp_path_factory.mktemp("corpus")
    return write_synthetic(
        folder, "synthetic_source", n_speakers=12, utterances_per_speaker=8
    )


@pytest.fixture
def words(corpus, tmp_path):
    """Returns the command's arguments, some changed."""

    def words(*more, output=tmp_path / "out", **changes):
        changes = {"corpora": f"{{synthetic: {corpus}}}"} | changes
        given = ["crossval", str(YAML), "--output_folder", str(output), *more]
        for key, value in changes.items():
            given += [f"--{key}", str(value)]
        return given

    return words


@pytest.fixture
def start(words):
    """Starts the command as its own process, like a shell."""
    started = []

    def start(*more, **changes):
        command = [sys.executable, "-m", "speechbrain_ser_cl.cli"]
        process = subprocess.Popen(
            command + words(*more, **changes),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # If the tests run in a script's background, Ctrl-C is disabled.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def transposed(pairs):
    return list(zip(*pairs, strict=True))


def uar_of(pairs):
    return balanced_accuracy_score(*transposed(pairs))


def starts(folder):
    """Returns process numbers of a run's starts."""
    path = folder / "starts.txt"
    if not path.exists():
        return []
    return [int(line.split()[0]) for line in path.read_text().splitlines()]


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited for a minute"
        time.sleep(0.05)


def processes_about(path):
    """Lists command lines of all processes that mention a path, from ps."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found += [line] * (str(path) in line)
    return found


def is_alive(pid):
    """Returns whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


# ------------------------------------------------------------------ it works


def test_folds_and_seeds_to_tables(words, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(words("--seeds", "5", "6", "--jobs", "2", noise=0.1)) == 0
    printed = capsys.readouterr().out
    assert "fold 0: 32 train, 32 valid, 32 test; train and test share" in printed

    predicted = {}
    for fold in range(3):
        split = read_json(out / "splits" / f"fold-{fold}.json")
        assert split["seed"] == 3
        for seed in (5, 6):
            run = out / f"fold-{fold}" / f"seed-{seed}"
            with open(run / "predictions.csv", newline="") as file:
                rows = list(csv.DictReader(file))
            assert sorted(row["id"] for row in rows) == split["test"]
            assert len(starts(run)) == 1
            predicted[fold, seed] = [(r["label"], r["prediction"]) for r in rows]

    # The numbers, computed again.
    results = read_json(out / "crossval.json")["results"]["synthetic_source"]
    uar = {key: uar_of(p) for key, p in predicted.items()}
    per_fold = [(uar[fold, 5] + uar[fold, 6]) / 2 for fold in range(3)]
    assert [fold["uar"] for fold in results["folds"]] == pytest.approx(per_fold)
    assert results["mean"]["uar"] == pytest.approx(sum(per_fold) / 3)
    pooled = [pair for some in predicted.values() for pair in some]
    value = results["pooled"]["uar"]
    assert value["value"] == pytest.approx(uar_of(pooled))
    assert value["interval"][0] < value["value"] < value["interval"][1]
    assert results["speakers"] == 12
    counts = confusion_matrix(*transposed(pooled), labels=["low", "high"])
    assert results["confusion_matrix"] == counts.tolist()
    assert (out / "confusion_matrix_synthetic_source.png").stat().st_size > 1000

    table = (out / "crossval.md").read_text()
    assert table in printed
    table, by_group = table.split("| setting | corpus | by |")
    assert "| noise 0.1 |" in by_group and "| gender |" in by_group
    (row,) = [line for line in table.splitlines() if line.startswith("| noise 0.1")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:3] == ["3", "2"]
    assert cells[3].startswith(f"{100 * results['mean']['uar']:.1f} ± ")
    with open(out / "crossval.csv", newline="") as file:
        lines = {row["of"]: row for row in csv.DictReader(file)}
    assert float(lines["fold 1"]["uar"]) == pytest.approx(per_fold[1])
    assert float(lines["pooled_low"]["uar"]) == value["interval"][0]

    # Another setting on the same folds, beside the first.
    other = read_json(out / "crossval.json") | {"setting": "other", "order": 1}
    for run in other["runs"]:
        for speaker, (one, two) in run["counts"]["synthetic_source"].items():
            run["counts"]["synthetic_source"][speaker] = [[sum(one), 0], [0, sum(two)]]
    (tmp_path / "crossval.json").write_text(json.dumps(other))
    capsys.readouterr()
    assert main(["compare", str(tmp_path)]) == 0
    told = capsys.readouterr().out.splitlines()
    rows = [line.strip("| ").split(" | ") for line in told if "± " in line][:2]
    assert [row[0] for row in rows] == ["noise 0.1", "other"]
    assert rows[1][3] == "100.0 ± 0.0"
    assert rows[0][-2:] == ["–", "–"]
    assert all(p == "< 0.001" or 0 < float(p) < 0.05 for p in rows[1][-2:])

    assert main(["compare", str(tmp_path), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["corpus"] == "synthetic_source" and told["class_names"]
    first, second = told["settings"]
    assert (first["setting"], second["setting"]) == ("noise 0.1", "other")
    assert first["summary"]["mean"]["uar"] == pytest.approx(results["mean"]["uar"])
    assert second["summary"]["mean"]["uar"] == 1.0
    assert first["against_first"] is None
    assert 0 <= second["against_first"]["t_test_holm"] < 0.05


def test_folds_can_be_chosen_and_added_later(words, tmp_path):
    out = tmp_path / "out"
    assert main(words("--folds", "2")) == 0
    assert [path.name for path in sorted(out.glob("fold-*"))] == ["fold-2"]
    assert main(words("--resume")) == 0
    assert len(starts(out / "fold-2" / "seed-3")) == 1
    assert len(read_json(out / "crossval.json")["runs"]) == 3
    # All runs are finished: nothing runs.
    assert main(words("--resume")) == 0
    assert [len(starts(out / f"fold-{k}" / "seed-3")) for k in range(3)] == [1, 1, 1]


def test_given_splits(words, tmp_path, corpus, capsys):
    protocol = {"kind": "random_kfold", "n_folds": 4}
    for split in make_folds(read_synthetic(corpus), protocol, seed=42):
        write_split(split, tmp_path / "made" / f"fold-{split.fold}.json")
    given = words("--splits", str(tmp_path / "made"), "--folds", "3")
    assert main(given) == 0
    used = tmp_path / "out" / "splits" / "fold-3.json"
    assert read_json(used) == read_json(tmp_path / "made" / "fold-3.json")
    with open(tmp_path / "out/fold-3/seed-3/predictions.csv", newline="") as file:
        tested = sorted(row["id"] for row in csv.DictReader(file))
    assert tested == read_json(used)["test"]
    assert read_json(tmp_path / "out/crossval.json")["protocol"]["n_folds"] == 4
    (tmp_path / "made" / "fold-1.json").unlink()
    capsys.readouterr()
    assert "without a gap" in error_of(capsys, [*given, "--resume"])


def test_values_of_the_fold_stand_in_overrides(words, tmp_path):
    there = tmp_path / "go-1-3"
    there.touch()
    flags = words("--folds", "1", wait_for=str(tmp_path / "go-{fold}-{seed}"))
    assert main(flags) == 0
    log = (tmp_path / "out" / "fold-1" / "seed-3" / "crossval.log").read_text()
    assert f"epoch 1 waits for {there}" in log


def test_a_real_recipe_repeats_its_demo_over_seeds(tmp_path, capsys):
    """No corpora are given, so it runs on synthetic speech, with two settings."""
    out = tmp_path / "out"
    small = ["--n_rounds", "1", "--source_batches", "1", "--target_batches", "1"]
    yaml = "recipes/IEMOCAP_MSP/hparams/multitask_da.yaml"
    command = ["crossval", str(ROOT / yaml), "--output_folder", str(out), *small]
    assert main([*command, "--seeds", "7", "--device", "cpu"]) == 0
    table = (out / "crossval.md").read_text()
    assert table in capsys.readouterr().out
    assert "DEMO on synthetic speech" in table
    results, by_group = table.split("| setting | corpus | by |")
    for part in (results, by_group):
        rows = [line for line in part.splitlines() if line.startswith("| source")]
        assert len(rows) == 2
    for name in ("source_only", "adapted"):
        one = read_json(out / name / "crossval.json")
        (run,) = one["runs"]
        assert (run["fold"], run["seed"]) == (None, 7)
        told = read_json(out / "seed-7" / name / "results.json")
        assert one["setting"] == told["setting"]
        assert run["fingerprint"] == told["data"]["fingerprint"]
        (results,) = one["results"].values()
        uar = told["test"]["uar"]
        assert results["mean"]["uar"] == pytest.approx(uar["value"])
        assert results["pooled"]["uar"]["interval"] == pytest.approx(
            uar["interval_speakers"]
        )
    assert main([*command, "--seeds", "7", "--device", "cpu", "--resume"]) == 0


# ------------------------------------------------------------------ failures


def test_a_broken_fold_is_reported_and_only_it_runs_again(words, tmp_path, capsys):
    out = tmp_path / "out"
    script = tmp_path / "copy" / "train.py"
    shutil.copytree(RECIPE, script.parent)
    broken = words("--script", str(script), broken_fold=1)
    assert main(broken) == 1
    said = capsys.readouterr()
    error = said.err
    assert "1 of 3 runs failed:" in error
    gap = "INCOMPLETE: 1 of 3 runs have no result (fold 1, seed 3)"
    assert gap in said.out
    kept = read_json(out / "crossval.json")
    assert kept["missing"] == [{"fold": 1, "seed": 3}]
    assert kept["results"]["synthetic_source"]["pooled"]["uar"]["value"] is None
    assert "missing: fold 1, seed 3" in (out / "crossval.csv").read_text()
    assert main(["compare", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"**noise 0.0: {gap}")
    # Also if the command never reached that point, for example after a kill.
    for _ in range(2):
        page = tmp_path / "report.html"
        assert main(["report", str(out), "--output", str(page)]) == 0
        assert f"<p>{gap}" in page.read_text()
        (out / "crossval.json").unlink(missing_ok=True)
    assert "fold 1, seed 3: exit status 1; the end of" in error
    assert "    ValueError: this fold does not work" in error
    assert "--resume" in error
    assert not (out / "crossval.json").exists()

    script.write_text(script.read_text().replace("raise ValueError", "str"))
    assert main([*broken, "--resume"]) == 0
    assert [len(starts(out / f"fold-{k}" / "seed-3")) for k in range(3)] == [1, 2, 1]
    assert (out / "crossval.json").exists()


def test_a_killed_fold_continues(start, tmp_path):
    out = tmp_path / "out"
    run = out / "fold-1" / "seed-3"
    shared = {"wait_for": str(tmp_path / "go{fold}"), "helper": True, "jobs": 3}
    for fold in "02":
        (tmp_path / f"go{fold}").touch()
    process = start(**shared)
    # Kill it after the first of two epochs.
    log = run / "crossval.log"
    wait_until(lambda: log.exists() and "waits for" in log.read_text())
    (run / "epochs.txt").write_text("0\n")
    os.kill(starts(run)[0], signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "fold 1, seed 3: killed by SIGKILL" in error
    assert "waits for" in error  # the end of its log
    # Its children are ended too.
    assert processes_about(tmp_path) == []

    (tmp_path / "go1").touch()
    process = start("--resume", **shared)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert [len(starts(out / f"fold-{k}" / "seed-3")) for k in range(3)] == [1, 2, 1]
    assert (run / "epochs.txt").read_text().split() == ["0", "1"]


@pytest.mark.parametrize(
    ("backend", "jobs", "to_group"),
    [
        ("local", "1", False),
        ("local", "2", False),
        ("local", "2", True),
        ("dask", "2", True),
    ],
)
def test_ctrl_c_leaves_nothing_running(start, tmp_path, backend, jobs, to_group):
    if backend == "dask":
        pytest.importorskip("distributed")
    out = tmp_path / "out"
    process = start(
        "--jobs", jobs, "--backend", backend, wait_for=tmp_path / "never", helper=True
    )
    wait_until(lambda: len(list(out.rglob("starts.txt"))) == int(jobs))
    running = [pid for path in out.rglob("starts.txt") for pid in starts(path.parent)]
    assert len(processes_about(out)) >= 2 * int(jobs)  # and their supervisors
    # A terminal signals all processes of the command, `kill` only one.
    (os.killpg if to_group else os.kill)(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted; the same command with --resume continues" in error
    if backend == "local":  # dask's workers report this
        assert "Traceback" not in error
    assert processes_about(tmp_path) == []
    assert not any(map(is_alive, running))
    assert not list(out.glob(".running-*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_runs_end_when_their_command_is_killed(start, tmp_path, number):
    out = tmp_path / "out"
    process = start("--jobs", "2", wait_for=tmp_path / "never")
    wait_until(lambda: len(list(out.rglob("starts.txt"))) == 2)
    process.send_signal(number)
    process.wait()
    wait_until(lambda: processes_about(tmp_path) == [])
    # Its files say that it runs; the next command detects that it does not.
    (left,) = out.glob(".running-*")
    for fold in (0, 1):
        shutil.rmtree(out / f"fold-{fold}")
    (tmp_path / "never").touch()
    again = start("--folds", "0", wait_for=tmp_path / "never")
    assert again.wait(60) == 0
    assert not list(out.glob(".running-*")), left


ends_with_its_parent = pytest.mark.skipif(
    sys.platform != "linux",
    reason="trainings end with a killed command by prctl, a call that only Linux has: "
    "on other systems there is no such promise to test",
)


@ends_with_its_parent
def test_a_training_ends_with_the_command_that_started_it(tmp_path):
    (tmp_path / "my.yaml").write_text("seed: 1\n")
    script = "import time\nopen('started', 'w').close()\ntime.sleep(600)\n"
    (tmp_path / "train.py").write_text(script)
    command = [sys.executable, "-m", "speechbrain_ser_cl.cli", "train"]
    process = subprocess.Popen([*command, str(tmp_path / "my.yaml")], cwd=tmp_path)
    wait_until(lambda: (tmp_path / "started").exists())
    process.kill()
    process.wait()
    wait_until(lambda: processes_about(tmp_path) == [])


@ends_with_its_parent
def test_a_run_ends_with_its_supervisor(start, tmp_path):
    """As when an engine kills the children of its workers."""
    run = tmp_path / "out" / "fold-0" / "seed-3"
    process = start("--folds", "0", wait_for=tmp_path / "never")
    wait_until(lambda: starts(run))
    guard = (
        Path(f"/proc/{starts(run)[0]}/stat").read_text().rpartition(")")[2].split()[1]
    )
    os.kill(int(guard), signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "fold 0, seed 3: killed by SIGKILL" in error
    wait_until(lambda: processes_about(tmp_path) == [])


def test_a_run_that_still_runs_is_not_run_beside(start, words, tmp_path, capsys):
    run = tmp_path / "out" / "fold-0" / "seed-3"
    go = tmp_path / "go"
    first = start("--folds", "0", wait_for=go)
    wait_until(lambda: starts(run))
    assert main(words("--folds", "0", "--resume", wait_for=go)) == 1
    assert "another process is running in" in capsys.readouterr().err
    go.touch()
    assert first.wait(60) == 0
    assert len(starts(run)) == 1


# ------------------------------------------------------------------ other engines


def test_dask_with_two_workers(words, tmp_path):
    pytest.importorskip("distributed")
    out = tmp_path / "out"
    meet = {"wait_for": str(out / "fold-{fold}" / "seed-3" / "starts.txt")}
    assert main(words("--backend", "dask", "--jobs", "2", **meet)) == 0
    assert len(read_json(out / "crossval.json")["runs"]) == 3


def test_a_dask_cluster_that_is_there(words, tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster:
        address = cluster.scheduler_address
        assert main(words("--backend", "dask", "--cluster", address)) == 0
    assert len(read_json(tmp_path / "out" / "crossval.json")["runs"]) == 3


def test_each_run_has_a_gpu_of_its_own(words, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    out = tmp_path / "out"
    assert main(words()) == 0
    devices = [
        (out / f"fold-{k}" / "seed-3" / "starts.txt").read_text().split()[1]
        for k in range(3)
    ]
    assert set(devices) == {"4", "7"}


# ------------------------------------------------------------------ errors


def error_of(capsys, arguments):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("ser-cl: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("more", "changes", "told"),
    [
        (["--folds", "3"], {}, "the protocol makes 3 folds: 0 to 2"),
        (["--fold", "1"], {}, "--fold is set by this command; choose with --folds"),
        (["--seeds", "1", "1"], {}, "--seeds: each once"),
        (["--cluster", "tcp://x"], {}, "--cluster needs --backend dask or ray"),
        ([], {"corpora": "{}"}, "corpora is {}, expected a mapping of corpora"),
        ([], {"corpora": "EmoDB"}, 'corpora is "EmoDB", expected a mapping of'),
        ([], {"corpora": "{synthetic: no_such}"}, "no_such"),
        ([], {"protocol": "kfold"}, "kind 'kfold', expected one of"),
        (
            [],
            {"protocol": "{kind: speaker_kfold, n_folds: 3, leaks: [text_id]}"},
            "share the session",
        ),
        (["--folds", "0"], {"protocol": "seeds"}, "protocol seeds has none"),
        (["stray"], {}, "found 'stray' where an option was expected"),
    ],
)
def test_errors_before_anything_runs(words, tmp_path, capsys, more, changes, told):
    assert told in error_of(capsys, words(*more, **changes))
    assert not list(tmp_path.rglob("starts.txt"))


def test_folds_that_cannot_work_are_reported_first(words, corpus, tmp_path, capsys):
    """One speaker alone is sad: without her in training, sadness cannot be learned."""
    wavs = sorted(corpus.rglob("*.wav"))[:18]
    rows = [
        f"{wav.relative_to(tmp_path.parent)},{emotion},{speaker}"
        for wav, (speaker, emotion) in zip(
            wavs,
            [
                (speaker, emotion)
                for speaker in ("a", "b", "c")
                for emotion in ["happy"] * 3
                + ["sad" if speaker == "a" else "happy"] * 3
            ],
            strict=True,
        )
    ]
    table = tmp_path.parent / "table.csv"
    table.write_text("\n".join(["file,emotion,speaker", *rows]))
    entry = f"{{folder: {tmp_path.parent}, reader: table, table: {table.name}}}"
    changes = {
        "corpora": f"{{mine: {entry}}}",
        "emotion_map": "{high: [happy], low: [sad]}",
        "protocol": "{kind: leave_one_speaker_out}",
    }
    told = error_of(capsys, words(**changes))
    assert "2 of 3 folds cannot work, nothing was started: fold" in told
    assert "no training utterance of class low" in told
    assert not list(tmp_path.rglob("starts.txt"))
    bad = [int(k) for k in re.findall(r"fold (\d): no training", told)]
    (good,) = {0, 1, 2} - set(bad)
    words = words("--folds", str(good), **changes)
    assert main(words) == 0, capsys.readouterr().err


def test_an_output_folder_with_something_else(words, tmp_path, capsys):
    assert main(words("--folds", "0")) == 0
    capsys.readouterr()
    assert "--resume continues" in error_of(capsys, words())
    other = error_of(capsys, words("--resume", noise=0.5))
    assert "yaml: noise: 0.0 there, 0.5 now" in other
    other = error_of(capsys, words("--resume", seed=4))
    assert "another split than the one made now" in other
    assert len(starts(tmp_path / "out" / "fold-0" / "seed-3")) == 1


def test_a_script_that_ignores_its_split_is_an_error(words, tmp_path, capsys):
    script = tmp_path / "copy" / "train.py"
    shutil.copytree(RECIPE, script.parent)
    text = script.read_text()
    assert 'values["split_file"]' in text
    script.write_text(text.replace('values["split_file"]', "None"))
    # Its own folds use the training's seed.
    assert main(words("--folds", "0", "--seeds", "8", "--script", str(script))) == 1
    assert "the script did not use --split_file" in capsys.readouterr().err


def test_a_recipe_without_folds(tmp_path, capsys):
    (tmp_path / "train.py").touch()
    yaml = tmp_path / "my.yaml"
    arguments = ["crossval", str(yaml)]
    assert "there is no file" in error_of(capsys, arguments)
    yaml.write_text("seed: 1\noutput_folder: out\nprotocol: null\n")
    told = error_of(capsys, [*arguments, "--protocol", "random_kfold"])
    assert "no key corpora, emotion_map, fold, split_file" in told
    (tmp_path / "train.py").unlink()
    assert "no train.py belongs to" in error_of(capsys, arguments)
