"""ser-cl: list, prepare, table, and errors that fit in one line."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import soundfile

from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.registry import REGISTRIES

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
    """A small EmoDB: one utterance of each emotion by two speakers."""
    folder = tmp_path / "EmoDB" / "wav"
    folder.mkdir(parents=True)
    for speaker in ("03", "08"):
        for number, letter in enumerate(LETTERS):
            # No two of the same length: EmoDB's reader refuses cut copies.
            samples = np.zeros(8000 + 160 * number, dtype=np.float32)
            soundfile.write(folder / f"{speaker}a01{letter}a.wav", samples, 16000)
    return folder.parent


def test_help_needs_no_torch():
    code = (
        "import sys; from speechbrain_ser_cl.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    out = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert out.endswith("0 False\n")
    for command in ("list", "prepare", "table"):
        assert command in out


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
    assert {"kind", "name", "package", "summary"} == set(rows[0])
    assert "infonce" in {row["name"] for row in rows}
    assert all(row["name"].startswith("info") for row in rows)


def test_prepare_writes_a_manifest_and_prints_counts(emodb, tmp_path, capsys):
    manifest = tmp_path / "emodb.json"
    with pytest.warns(UserWarning):  # The golden counts are not met.
        status = main(
            ["prepare", "emodb", str(emodb), str(manifest), "--allow-missing"]
        )
    assert status == 0
    out = capsys.readouterr().out
    assert f"{manifest}: 14 utterances" in out
    assert "7 emotions: angry 2, bored 2" in out
    assert "2 speakers: " in out
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
