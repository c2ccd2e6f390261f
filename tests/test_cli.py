"""ser-cl: list, prepare, table, and one-line errors."""

import csv
import json
import os
import platform
import re
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_ser_cl.cli import COMMANDS, main
from speechbrain_ser_cl.cli.completion import registered_names
from speechbrain_ser_cl.cli.train import find_recipes
from speechbrain_ser_cl.registry import LOSSES, REGISTRIES

ROOT = Path(__file__).resolve().parents[1]

LETTERS = {
    "W": ("angry", 127),
    "L": ("bored", 81),
    "E": ("disgusted", 46),
    "A": ("fearful", 69),
    "F": ("happy", 71),
    "T": ("sad", 62),
    "N": ("neutral", 79),
}


@pytest.fixture
def emodb(tmp_path):
    """Makes a small EmoDB: one utterance of each emotion by two speakers."""
    folder = tmp_path / "EmoDB" / "wav"
    folder.mkdir(parents=True)
    for speaker in ("03", "08"):
        for number, letter in enumerate(LETTERS):
            # With different lengths, because EmoDB's reader refuses cut copies.
            samples = np.zeros(8000 + 160 * number, dtype=np.float32)
            soundfile.write(folder / f"{speaker}a01{letter}a.wav", samples, 16000)
    return folder.parent


def test_help_needs_no_torch():
    code = (
        "import sys; from speechbrain_ser_cl.cli import COMMANDS, main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    out = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert out.endswith("0 False\n")
    listed = {line.split()[0] for line in out.splitlines() if line.strip()}
    assert set(COMMANDS) <= listed


def test_list_prints_all_kinds(capsys):
    assert main(["list"]) == 0
    rows = [line.split(maxsplit=3) for line in capsys.readouterr().out.splitlines()]
    assert {row[0] for row in rows} == {"losses", "backbones"} | {
        "poolings",
        "heads",
        "corpora",
    }
    for kind, name, package, summary in rows:
        assert package == "speechbrain_ser_cl"
        assert summary
        assert name in {r.plural: r for r in REGISTRIES.values()}[kind].names()


def test_list_filters_and_prints_json(capsys):
    assert main(["list", "losses", "info*", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"kind", "name", "package", "summary", "call", "paper"} == set(rows[0])
    assert "infonce" in {row["name"] for row in rows}
    assert all(row["name"].startswith("info") for row in rows)


# Their sources have no number for the formula.
UNNUMBERED = {
    "binary_emotions",
    "ccc",
    "distribution_cross_entropy",
    "distribution_kl",
}


def test_every_loss_lists_its_call_and_paper(capsys):
    assert main(["list", "losses", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == LOSSES.names()
    for row in rows:
        summary, call, paper = row["summary"], row["call"], row["paper"]
        assert len(summary) > 20 and summary.endswith("."), row
        arguments = re.fullmatch(r"\((\w+)(, \w+(=None)?)*\)", call)
        assert arguments and arguments[1] != "self", row
        numbered = r"(eqs?\.|sections?) \d.*"
        if row["name"] in UNNUMBERED:
            numbered = ".*"
            paper += ", "
        assert re.fullmatch(
            rf".+ \d{{4}}, {numbered}|NTUA thesis, {numbered}", paper
        ), row
    of = {row["name"]: row for row in rows}
    assert of["infonce"]["call"] == "(z_a, z_b)"
    assert of["supcon"]["call"] == "(embeddings, labels, anchors=None)"
    assert of["supcon"]["paper"] == "Khosla et al. 2020, eq. 2"

    assert main(["list", "losses"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, row in zip(lines, rows, strict=True):
        shown = [row[key] for key in ("name", "call", "summary", "paper")]
        assert re.split(" {2,}", line) == shown


def test_losses_of_other_packages_are_listed(capsys, monkeypatch):
    monkeypatch.setattr(LOSSES, "_entries", dict(LOSSES._entries))
    monkeypatch.setattr(LOSSES, "_sources", dict(LOSSES._sources))

    class Silent:
        def forward(self, a: int, b: str = "b"):
            pass

    class NoForward(torch.nn.Module):
        """Its docstring has another name than the class."""

    LOSSES.register("silent")(Silent)
    LOSSES.register("no_forward")(NoForward)
    LOSSES.register("factory")(lambda temperature: None)
    assert main(["list", "losses"]) == 0
    lines = [re.split(" {2,}", x) for x in capsys.readouterr().out.splitlines()]
    package = Silent.__module__.partition(".")[0]
    assert ["silent", "(a, b='b')", package] in lines
    assert ["factory", package] in lines
    assert main(["list", "losses", "no_forward", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row == {
        "kind": "losses",
        "name": "no_forward",
        "package": package,
        "summary": NoForward.__doc__,
        "call": "",
        "paper": "",
    }


def test_prepare_writes_a_manifest_and_prints_counts(emodb, tmp_path, capsys):
    manifest = tmp_path / "emodb.json"
    with pytest.warns(UserWarning):  # The counts differ from the published ones.
        status = main(
            ["prepare", "emodb", str(emodb), str(manifest), "--allow-missing"]
        )
    assert status == 0
    out = capsys.readouterr().out
    assert f"{manifest}: 14 utterances" in out
    assert "7 emotions: angry 2, bored 2" in out
    assert "2 speakers: " in out and "features of a frozen encoder" in out
    with pytest.warns(UserWarning):
        main(
            ["prepare", "emodb", str(emodb), str(manifest), "--allow-missing", "--json"]
        )
    found = json.loads(capsys.readouterr().out)
    assert (found["utterances"], found["emotions"]["bored"]) == (14, 2)
    assert found["hours"] * 3600 == pytest.approx(7.42)
    entries = json.loads(manifest.read_text())
    emotions = Counter(entry["emotion"] for entry in entries.values())
    assert emotions == {emotion: 2 for emotion, _ in LETTERS.values()}
    for entry in entries.values():
        assert entry["wav"].startswith("{data_root}/")
        assert soundfile.info(entry["wav"].format(data_root=emodb)).frames >= 8000


def test_prepare_real_emodb(shared, tmp_path, capsys):
    manifest = tmp_path / "emodb.json"
    assert main(["prepare", "emodb", str(shared / "corpora/EmoDB"), str(manifest)]) == 0
    out = capsys.readouterr().out
    for emotion, count in LETTERS.values():
        assert f"{emotion} {count}" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "losses", "no-such-*"], "no losses match 'no-such-*'"),
        (["prepare", "emobd", ".", "out.json"], "did you mean 'emodb'"),
        (["prepare", "emodb", "no_such_folder", "out.json"], "no_such_folder"),
        (["compare", "."], "no crossval.json in .; `ser-cl crossval` writes it"),
    ],
)
def test_errors_are_one_line_and_status_2(
    arguments, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("ser-cl: ")
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == []

    assert main([*arguments, "--verbose"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_closed_pipe_is_not_an_error():
    code = "import sys; from speechbrain_ser_cl.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", code, "list", "losses"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_table_fills_and_checks(tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(
        "before\n<!-- results: begin runs -->\n<!-- results: end -->\nafter\n"
    )
    row = {"setting": "printed", "uar": 12.3, "note": "a paper"}
    row |= {"source": "a", "target": "b", "encoder": "c", "target_split": "random"}
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "paper.json").write_text(json.dumps({"rows": [row]}))
    assert main(["table", str(readme), "--check"]) == 1
    assert "12.3" not in readme.read_text()
    assert main(["table", str(readme)]) == 0
    assert "12.3" in readme.read_text()
    assert main(["table", str(readme), "--check"]) == 0

    capsys.readouterr()
    assert main(["table", str(tmp_path / "no_such_readme.md")]) == 2
    assert "no_such_readme.md" in capsys.readouterr().err


@pytest.fixture
def calls(tmp_path):
    """Makes a YAML and its corpus: a table, three speakers, one silent file."""
    folder = tmp_path / "calls"
    folder.mkdir()
    rows = ["file,emotion,speaker"]
    noise = np.random.default_rng(0)
    for n in range(60):
        samples = noise.normal(0, 0.1 if n else 0, 8000)
        soundfile.write(folder / f"{n}.wav", samples, 16000)
        rows.append(f"{n}.wav,{('joy', 'anger')[n // 3 % 2]},s{n % 3}")
    (folder / "calls.csv").write_text("\n".join(rows))
    yaml = tmp_path / "my.yaml"
    yaml.write_text(
        "seed: 1\nfolder: null\nexclude: null\nallow_missing: False\n"
        "corpora:\n    calls:\n        reader: table\n"
        "        folder: !ref <folder>\n        exclude: !ref <exclude>\n"
        "emotion_map: {happy: [happy], angry: [angry]}\n"
        "protocol: {kind: speaker_kfold, n_folds: 3}\n"
        "model: !new:no.such.Thing\n"
    )
    return ["check", str(yaml), "--folder", str(folder)]


def test_check_reports_on_a_recipes_data(calls, tmp_path, capsys):
    exclude = tmp_path / "exclude.txt"
    assert main([*calls, "--write-exclude", str(exclude)]) == 1
    out = capsys.readouterr().out
    assert "columns of calls: file is file, emotion is emotion, speaker is s" in out
    assert "ERROR: silent files, no sample above -60 dB (1: calls_0)" in out
    assert "happy          10     10    10    30" in out
    assert exclude.read_text() == "calls_0\n"
    assert main([*calls, "--allow_missing", "True"]) == 0
    assert "WARNING: silent files" in capsys.readouterr().out
    # The reader accepts the written file.
    assert main([*calls, "--exclude", str(exclude), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parts"]["all"]["utterances"] == 59
    assert [finding["check"] for finding in report["findings"]] == ["tiny class"]
    table = tmp_path / "calls" / "calls.csv"
    table.write_text(table.read_text().replace("file,emotion,s", "Path,mood,S"))
    options = "columns: {emotion: mood, speaker: null}"
    yaml = tmp_path / "my.yaml"
    yaml.write_text(
        yaml.read_text().replace("reader: table", f"reader: table\n        {options}")
    )
    random = ["--protocol", "{kind: random_kfold, n_folds: 3}", "--json"]
    assert main([*calls, "--exclude", str(exclude), *random]) == 0
    assert json.loads(capsys.readouterr().out)["columns"] == {
        "calls": {"taken": {"file": "Path", "emotion": "mood"}, "unused": ["Speaker"]}
    }


def test_check_reports_a_leak_and_other_problems(calls, capsys):
    leaky = ["--protocol", "{kind: random_kfold, n_folds: 3, leaks: []}"]
    assert main([*calls, *leaky, "--emotion_map", "{sad: [sad], mad: [angry]}"]) == 2
    assert "no utterance is in class sad" in capsys.readouterr().err
    assert main([*calls, *leaky]) == 1
    out = capsys.readouterr().out
    assert "ERROR: protocol random_kfold" in out
    assert "share the speaker (3: calls_s0, calls_s1, calls_s2)" in out
    assert "ERROR: silent files" in out


def test_check_lists_files_that_cannot_be_read(calls, tmp_path, capsys):
    (tmp_path / "calls" / "7.wav").write_bytes(b"rubbish")
    (tmp_path / "calls" / "9.wav").unlink()
    exclude = ["--write-exclude", str(tmp_path / "exclude.txt")]
    assert main([*calls, *exclude, "--device", "cpu"]) == 1
    out = capsys.readouterr().out
    assert "missing audio files (1: 9); corrupt or empty audio files (1: 7.wav)" in out
    assert (tmp_path / "exclude.txt").read_text() == "calls_0\ncalls_7\ncalls_9\n"
    assert main([*calls, "--exclude", exclude[1], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parts"]["all"]["utterances"] == 57
    assert main(["check", str(tmp_path / "calls"), "--corpus", "table", *exclude]) == 1
    assert "table_7\ntable_9\n" in (tmp_path / "exclude.txt").read_text()


def test_a_relative_folder_is_looked_for_beside_the_yaml_as_well(
    calls, tmp_path, monkeypatch, capsys, caplog
):
    words = [*calls[:2], "--folder", "calls", "--allow_missing", "True"]
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert main(words) == 0
    assert f"folder is {tmp_path / 'calls'}, beside the YAML" in caplog.text
    assert "60" in capsys.readouterr().out
    (tmp_path / "else" / "calls").mkdir()
    assert main(words) == 2
    told = f"folder is {tmp_path / 'else' / 'calls'}, not {tmp_path / 'calls'}"
    assert told in caplog.text


def test_check_of_a_folder_with_a_table(calls, tmp_path, capsys):
    assert main(["check", str(tmp_path / "calls")]) == 1  # one is silent
    assert "utterances    60" in capsys.readouterr().out


def test_check_of_one_corpus(calls, emodb, tmp_path, capsys):
    # Silence of several lengths, and other counts than the published ones.
    with pytest.warns(UserWarning):
        assert main(["check", str(emodb), "--corpus", "emodb"]) == 1
    assert "silent files, no sample above -60 dB (14: " in capsys.readouterr().out
    for arguments, told in (
        ([str(emodb)], "A corpus of `ser-cl list corpora`: --corpus NAME"),
        ([str(emodb), "--corpus", "emobd"], "did you mean 'emodb'"),
        ([str(emodb), "--corpus", "emodb", "--fold", "1"], "not known with a folder"),
        ([str(tmp_path / "none.yaml")], "none.yaml"),
        ([calls[1]], "corpora: expected the folder of at least one corpus"),
        ([*calls[1:], "--n_epoch", "3"], "my.yaml has no key n_epoch; it has"),
        (
            [*calls[1:], "--emotion_map", "{0: [sad]}"],
            'emotion_map is {"0": ["sad"]}, ',
        ),
        ([*calls[1:3], "no_such"], "there is no folder no_such, neither in"),
    ):
        assert main(["check", *arguments]) == 2
        assert told in capsys.readouterr().err


# train


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """Makes two recipes whose script prints its arguments and exits with status 3."""
    folder = tmp_path / "my_recipes"
    for name in ("A", "B/method"):
        (folder / name / "hparams").mkdir(parents=True)
        (folder / name / "train.py").write_text(
            "import json, sys\nprint(json.dumps(sys.argv))\nsys.exit(3)\n"
        )
        (folder / name / "hparams" / "same.yaml").write_text("seed: 1\n")
    (folder / "A" / "hparams" / "tiny.yaml").write_text(
        "# A tiny thing,\n# for a test. And more.\nseed: 1\n"
    )
    left = folder / "A" / "results" / "tiny" / "hparams"
    left.mkdir(parents=True)
    (left / "copy.yaml").touch()
    monkeypatch.setenv("SER_CL_RECIPES", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("name", ["A/tiny", "tiny", "my_recipes/A/hparams/tiny.yaml"])
def test_train_finds_the_recipe_and_passes_all_options(recipes, name, capfd):
    words = ["--lr", "0.1", "--seed=2", "--emotion_map", "{a: [b]}", "--debug"]
    assert main(["train", name, *words]) == 3  # the script's own status
    script, hparams, *more = json.loads(capfd.readouterr().out)
    assert script == str(recipes / "A" / "train.py")
    assert hparams == str(recipes / "A" / "hparams" / "tiny.yaml")
    assert more == words


@pytest.mark.parametrize("command", ["train", "check", "crossval"])
def test_every_command_knows_recipes_by_name(recipes, command, capsys):
    assert main([command, "A/tyni"]) == 2
    assert "no recipe 'A/tyni'; did you mean A/tiny" in capsys.readouterr().err
    if command != "train":
        # Found and read; its data are missing.
        assert main([command, "A/tiny"]) == 2
        assert str(recipes / "A/hparams/tiny.yaml") in capsys.readouterr().err


def test_train_without_a_name_lists_the_recipes(recipes, capsys):
    assert main(["train", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {"A/same", "A/tiny", "B/method/same"} <= set(rows)
    assert not any("copy" in name for name in rows)
    assert rows["A/tiny"]["summary"] == "A tiny thing, for a test"
    assert main(["train"]) == 0
    assert "A/tiny" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["same"], "'same' may be any of A/same, B/method/same"),
        (["A/tyni"], "no recipe 'A/tyni'; did you mean A/tiny"),
        (["no/such.yaml"], "there is no file no/such.yaml"),
        (["--lr=0.1"], "no recipe is named"),
    ],
)
def test_train_says_which_recipes_there_are(recipes, words, message, capsys):
    assert main(["train", *words]) == 2
    assert message in capsys.readouterr().err


def test_every_recipe_of_the_project_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = set()
    for table in (ROOT / "tests" / "recipes").glob("*.csv"):
        with open(table, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                path = Path(row["Hparam_file"]).relative_to("recipes")
                expected.add("/".join([*path.parts[:-2], path.stem]))
    assert set(find_recipes()) == expected


# doctor and completion


def doctor(capsys):
    status = main(["doctor", "--json"])
    checks = json.loads(capsys.readouterr().out)
    return status, {check["name"]: check for check in checks}


def test_doctor_reports_versions_gpu_extras_and_disk(capsys):
    status, checks = doctor(capsys)
    assert checks["python"]["found"].startswith(platform.python_version())
    trap = checks["torch and torchaudio"]
    assert trap["status"] == "ok"
    assert version("torch") in trap["found"]
    assert "free: " in checks["feature cache"]["found"]
    assert {"GPU", "machine", "recipes", "disk, here"} <= set(checks)
    problems = [name for name, check in checks.items() if check["status"] == "problem"]
    assert status == int(bool(problems))
    assert all(checks[name]["advice"] for name in problems)


def test_doctor_finds_a_torchaudio_that_cannot_be_imported(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "torchaudio.py").write_text(
        "raise RuntimeError('compiled with different CUDA versions')"
    )
    (tmp_path / "torch.py").write_text("raise_anything = missing")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    status, checks = doctor(capsys)
    assert status == 1
    trap = checks["torch and torchaudio"]
    assert trap["status"] == "problem"
    assert "NameError" in trap["found"]  # torch, the first that fails
    (tmp_path / "torch.py").write_text(
        "class cuda:\n"
        "    is_available = staticmethod(lambda: False)\n"
        "class version:\n"
        "    cuda = '13.2'\n"
        "get_num_threads = lambda: 1\n"
    )
    status, checks = doctor(capsys)
    trap = checks["torch and torchaudio"]
    assert (status, trap["status"]) == (1, "problem")
    assert "compiled with different CUDA versions" in trap["found"]
    assert "pip install 'torch" in trap["advice"]


@pytest.mark.parametrize("registry", REGISTRIES.values(), ids=lambda r: r.plural)
def test_names_are_completed_from_what_is_registered(registry):
    assert registered_names(registry.plural) == registry.names()


def test_completion_lists_matching_words(tmp_path):
    def complete(line):
        answer = tmp_path / "answer"
        code = (
            "import sys; from speechbrain_ser_cl.cli import main\n"
            "try: main()\n"
            "finally: assert 'torch' not in sys.modules"
        )
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ
            | {
                "_ARGCOMPLETE": "1",
                "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
                "_ARGCOMPLETE_IFS": "\n",
                "COMP_LINE": line,
                "COMP_POINT": str(len(line)),
            },
            check=False,
        )
        return {word.strip() for word in answer.read_text().splitlines()}

    assert complete("ser-cl pre") == {"predict", "prepare"}
    assert complete("ser-cl list losses infon") == {"infonce"}
    assert {"emodb", "ravdess"} <= complete("ser-cl prepare ")
    assert "IEMOCAP_MSP/multitask_da" in complete("ser-cl train IEM")
    assert complete("ser-cl check own") == {
        "own_corpus/finetune",
        "own_corpus/frozen",
        "own_corpus/probe",
    }
    assert complete("ser-cl check data --corpus emod") == {"emodb"}
    assert complete("ser-cl export run model --format sp") == {"speechbrain"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "ser-cl" in capsys.readouterr().out
