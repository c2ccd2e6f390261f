"""Each row of tests/recipes runs with its debug flags and writes the files it names."""

import csv
import shlex
from pathlib import Path

import pytest

from tests.processes import run

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    row
    for table in sorted((ROOT / "tests" / "recipes").glob("*.csv"))
    for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines())
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["Hparam_file"])
def test_debug_flags(row, tmp_path):
    words = [row["Script_file"], row["Hparam_file"]]
    words += shlex.split(row["test_debug_flags"])
    done = run([*words, "--output_folder", tmp_path / "run"], cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    checks = row["test_debug_checks"]
    files = checks.removeprefix("file_exists=[").removesuffix("]").split(",")
    assert files
    for file in files:
        assert (tmp_path / "run" / file).is_file()
    if "tensorboard" in row["test_debug_flags"]:
        assert any((tmp_path / "run").rglob("events.out.tfevents.*"))
