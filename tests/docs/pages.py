"""Reads the site's pages for their tests."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
WRITTEN = sorted(p for p in DOCS.rglob("*.md") if p.parent.name != "api")
NAMED_YAML = r"`(recipes/[\w./-]+\.yaml)`"
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<why>[^\n]*) -->\n)?"
    r"^```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    """A fenced block."""

    language: str
    code: str
    why_not_run: str | None
    line: int


def blocks(page):
    """Lists a page's blocks in order, without those for Sphinx."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            found["language"],
            found["code"],
            found["why"],
            text.count("\n", 0, found.start("code")) + 1,
        )
        for found in BLOCK.finditer(text)
    ]


def commands(code):
    """Lists the commands of a bash block, lines joined, without comments."""
    lines = code.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]
