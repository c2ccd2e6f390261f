"""Tables in READMEs equal the committed results."""

import re
import runpy
from pathlib import Path

import pytest

from speechbrain_ser_cl.results.tables import main

ROOT = Path(__file__).resolve().parents[2]
READMES = [
    path
    for path in (ROOT / "README.md", *sorted((ROOT / "recipes").rglob("README.md")))
    # benchmarks/tables.py writes those without an argument.
    if re.search(r"<!-- [a-z_]+: begin \w", path.read_text(encoding="utf-8"))
]


def test_there_are_tables():
    assert READMES


@pytest.mark.parametrize(
    "readme", READMES, ids=lambda path: str(path.parent.relative_to(ROOT))
)
def test_tables_are_up_to_date(readme):
    assert main([str(readme), "--check"]) == 0


def test_results_are_kept_small():
    files = [path for path in ROOT.glob("recipes/**/measured/*") if path.is_file()]
    assert files and sum(path.stat().st_size for path in files) <= 300_000


def test_the_tables_of_the_benchmarks_are_up_to_date():
    script = ROOT / "benchmarks" / "tables.py"
    assert runpy.run_path(str(script))["main"](["--check"]) == 0
