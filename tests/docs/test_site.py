"""The site builds without a warning, is complete, and opens in a browser."""

import ast
import html
import re
import runpy
import zlib

import pytest

from speechbrain_ser_cl.cli.corpora import card_text
from speechbrain_ser_cl.corpora import all_cards
from tests.docs.pages import DOCS, ROOT
from tests.processes import run

pytest.importorskip("sphinx", reason="the extra docs")
PACKAGE = ROOT / "speechbrain_ser_cl"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Returns the folder of the site."""
    folder = tmp_path_factory.mktemp("site")
    command = ["-m", "sphinx", "-W", "--keep-going", "-q"]
    command += ["-A", "versions=1"]  # as where others lie beside it
    doctrees = tmp_path_factory.mktemp("doctrees")
    done = run([*command, "-d", doctrees, DOCS, folder], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_name_that_a_package_gives_out_is_in_the_reference(site):
    *_, packed = (site / "objects.inv").read_bytes().split(b"\n", 4)
    lines = zlib.decompress(packed).decode().splitlines()
    there = {line.split()[0] for line in lines if line.split()[1].startswith("py:")}
    given_out = {
        f"{PACKAGE.name}.{path.parent.name}.{name}"
        for path in PACKAGE.glob("*/__init__.py")
        if path.parent.name not in ("cli", "crossval", "demo")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
        for name in ast.literal_eval(node.value)
    }
    assert len(given_out) > 80
    # Constants have no docstring.
    assert (
        not {name for name in given_out if not name.rpartition(".")[2].isupper()}
        - there
    )
    for module in ("experiment", "features.cache", "protocols", "splits"):
        assert any(name.startswith(f"{PACKAGE.name}.data.{module}.") for name in there)


def test_formulas_tables_and_the_tutorial_are_on_their_pages(site):
    losses = (site / "api" / "losses.html").read_text(encoding="utf-8")
    assert losses.count("<math") > 20 and r"\frac" not in losses
    paper = (site / "papers" / "two_stage.html").read_text(encoding="utf-8")
    readme = (
        ROOT / "recipes" / "EmoDB_RAVDESS" / "two_stage" / "README.md"
    ).read_text()
    table = readme.split("<!-- crossval: begin measured -->")[1].split("<!--")[0]
    numbers = re.findall(r"\d+\.\d", table)
    assert numbers and all(number in paper for number in numbers)
    tutorial = (site / "tutorial.html").read_text(encoding="utf-8")
    text = re.sub("<[^>]*>", "", tutorial)
    assert "Prediction" in text and "# %%" not in text.replace("knows # %%", "")
    for line in (DOCS / "tutorial.py").read_text(encoding="utf-8").splitlines():
        if line.startswith("ser_cl("):
            plain = text.replace("&#39;", "'").replace("&quot;", '"')
            assert line in plain


def test_the_page_of_corpora_says_what_the_cards_say(site):
    page = (site / "cards.html").read_text(encoding="utf-8")
    text = html.unescape(re.sub("<[^>]*>", "", page))
    for card in all_cards():
        assert card_text(card) in text
        cells = re.sub("<[^>]*>", "\n", page.split(f"<td><p>{card.name}</p></td>")[1])
        assert str(card.counts.utterances) in cells.split()[:10]


@pytest.mark.parametrize("page", ["index", "api/losses", "papers/multitask_da"])
def test_pages_open_without_complaints(site, chromium, page):
    dom = chromium.open(site / f"{page}.html", "--dump-dom")
    assert chromium.console == []
    assert "</article>" in dom


def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(
            r'<(?:script|img|link)[^>]*(?:src|href)="(https?:[^"]+)', text
        )
        assert not loaded, page


def test_versions_lie_side_by_side(site, tmp_path):
    publish = runpy.run_path(str(DOCS / "publish.py"))["main"]
    for version in ("0.2.0", "0.10.0", "0.9.1", "0.11.0rc1", "0.9.1"):
        publish([str(site), str(tmp_path), version])
    listed = re.findall('href="(.*?)"', (tmp_path / "versions.html").read_text())
    expected = ["0.11.0rc1", "0.10.0", "0.9.1", "0.2.0"]
    assert listed == [f"{version}/index.html" for version in expected]
    assert all((tmp_path / page).is_file() for page in listed)
    assert "url=0.10.0/index.html" in (tmp_path / "index.html").read_text()
    for page in ("index.html", "api/losses.html"):
        path = tmp_path / "0.2.0" / page
        (others,) = re.findall('href="([^"]*versions.html)"', path.read_text("utf-8"))
        assert (path.parent / others).resolve() == tmp_path / "versions.html"
    with pytest.raises(SystemExit, match="expected one such as"):
        publish([str(site), str(tmp_path), "../x"])
