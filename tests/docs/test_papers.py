"""Tables of equation, code and YAML key: the names in them exist."""

import ast
import re

import pytest
from ruamel.yaml import YAML

from tests.docs.pages import DOCS, NAMED_YAML, ROOT

PAPERS = sorted((DOCS / "papers").glob("*.md"))
PACKAGE = ROOT / "speechbrain_ser_cl"


def rows(page):
    """Returns the cells of each row of a page's table."""
    text = page.read_text(encoding="utf-8").split("## Equation, code, YAML")[1]
    lines = re.findall(r"^\| (.*) \|$", text.partition("\n## ")[0], re.MULTILINE)
    header, rule, *body = [line.split(" | ") for line in lines]
    assert header[1:] == ["what", "code", "YAML key"] and set(rule) == {"---"}
    return body


def objects(path):
    """Returns dotted names of the classes, methods and functions of a file."""
    found = set()

    def visit(node, prefix):
        for child in getattr(node, "body", ()):
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                found.add(prefix + child.name)
                visit(child, f"{prefix}{child.name}.")

    visit(ast.parse(path.read_text(encoding="utf-8")), "")
    return found


@pytest.mark.parametrize("page", PAPERS, ids=lambda page: page.stem)
def test_files_objects_and_keys_exist(page):
    text = page.read_text(encoding="utf-8")
    yamls = re.findall(NAMED_YAML, text)
    assert yamls
    keys = {
        key
        for yaml in yamls
        for key in YAML().load((ROOT / yaml).read_text(encoding="utf-8"))
    }
    table = rows(page)
    assert len(table) >= 5
    for paper, _, code, key in table:
        named = re.findall(
            r"`([\w/.-]+\.py)`: ((?:\[?`[\w.]+`(?:\([\w.]+\))?(?:, )?)+)", code
        )
        assert named, f"{paper}: no file and object in {code}"
        assert code.count(".py`") == len(named), code
        for file, names in named:
            recipe = (ROOT / yamls[0]).parents[1]
            path = (recipe if file == "train.py" else PACKAGE) / file
            there = objects(path)
            for name in re.findall(r"`([\w.]+)`", names):
                if not name.endswith(".py"):
                    assert name in there, f"{paper}: {file} has no {name}"
        of_row = re.findall(r"`(\w+)`", key)
        assert of_row or key == "–", paper
        for name in of_row:
            assert name in keys, f"{paper}: no key {name} in {', '.join(yamls)}"


def test_every_equation_of_a_loss_is_on_a_page():
    """A paper's loss in this package is in that paper's table."""
    named = {
        "multitask_da": ("Ahn et al. 2023",),
        "two_stage": ("Xiang 2024",),
        "supervised_contrastive": ("NTUA thesis",),
        "pairwise_cl": ("Khaertdinov et al. 2024",),
    }
    assert {page.stem for page in PAPERS} == set(named)
    for page in PAPERS:
        files = {
            file
            for _, _, code, _ in rows(page)
            for file in re.findall(r"`([\w/]+\.py)`", code)
        }
        for path in (PACKAGE / "losses").glob("[a-z]*.py"):
            text = path.read_text(encoding="utf-8")
            references = "\n".join(
                re.findall(r"References\n +-+\n(.*?)\n\n", text, re.DOTALL)
            )
            if any(name in references for name in named[page.stem]):
                assert f"losses/{path.name}" in files, f"{page.name}: {path.name}"
