"""A wheel installed outside the source tree contains all that the recipes need."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import soundfile

from speechbrain_ser_cl.model_folder import write_model
from tests.test_inference import CLASSES, classifier, speech

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes"

BUILD_SDIST = """
import sys
from setuptools import build_meta

print(build_meta.build_sdist(sys.argv[1]))
"""
# Names in a recipe are resolved like in HyperPyYAML.
USE_ALL = """
import importlib, json, pkgutil, pydoc, sys
import speechbrain_ser_cl

target, wanted = sys.argv[1], json.loads(sys.argv[2])
missing = [path for path in wanted if pydoc.locate(path) is None]
assert not missing, missing
names = ["speechbrain_ser_cl"]
for module in pkgutil.walk_packages(speechbrain_ser_cl.__path__, "speechbrain_ser_cl."):
    names.append(module.name)
for name in names:
    file = importlib.import_module(name).__file__
    assert file.startswith(target), f"{name} comes from {file}"
    print(name)
print("predict")
sys.exit(speechbrain_ser_cl.cli.main(["predict", *sys.argv[3:]]))
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """Returns a folder into which a new wheel is installed."""
    # Built from a copy, because setuptools writes build/ beside the sources and
    # includes what an earlier build left there.
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        ROOT / "speechbrain_ser_cl",
        source / "speechbrain_ser_cl",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    wheels = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    offline = ["--no-index", "--no-deps"]
    subprocess.run(
        [*pip, "wheel", *offline, "--no-build-isolation", "-w", wheels, source],
        check=True,
    )
    (wheel,) = wheels.glob("*.whl")
    target = tmp_path_factory.mktemp("target")
    subprocess.run([*pip, "install", *offline, "--target", target, wheel], check=True)
    return target


@pytest.fixture(scope="module")
def tracked():
    """Lists paths that git tracks."""
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True
    )
    names = [name for name in listing.stdout.split("\0") if name]
    if not names:
        pytest.skip("not a git checkout: what is tracked is unknown")
    return [name for name in names if (ROOT / name).exists()]


@pytest.fixture(scope="module")
def archive(tracked, tmp_path_factory):
    """Returns the source archive, built from a copy of tracked files."""
    source = tmp_path_factory.mktemp("source")
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-c", BUILD_SDIST, out],
        cwd=source,
        check=True,
        capture_output=True,
    )
    return next(out.glob("*.tar.gz"))


def run_installed(target, code, *arguments):
    """Runs code with the installed wheel and without the source tree."""
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=target.parent,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_all_that_recipes_and_predictions_need_is_in_the_wheel(target, tmp_path):
    """In one process, because each imports torch."""
    write_model(tmp_path / "model", classifier(), CLASSES)
    soundfile.write(tmp_path / "a.wav", speech(0.5), 16000)
    words = ["--model", tmp_path / "model", tmp_path / "a.wav", "--format", "json"]
    lines = run_installed(target, USE_ALL, target, json.dumps(named()), *words)
    imported, told = lines[: lines.index("predict")], lines[lines.index("predict") :]
    (found,) = json.loads("".join(told[1:]))
    assert set(found["probabilities"]) == set(CLASSES)
    in_tree = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "speechbrain_ser_cl").rglob("*.py")
    }
    assert set(imported) == in_tree


def test_the_wheel_holds_every_file_of_the_package(target):
    in_tree = {
        path.relative_to(ROOT)
        for path in (ROOT / "speechbrain_ser_cl").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert [name for name in sorted(in_tree) if not (target / name).is_file()] == []


def test_the_command_line_runs_from_the_wheel(target):
    script = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    (version,) = run_installed(target, script, target / "bin" / "ser-cl", "--version")
    assert any(target.glob(f"speechbrain_ser_cl-{version}.dist-info"))


def test_the_source_archive_holds_what_is_tracked(archive, tracked):
    with tarfile.open(archive) as file:
        held = {name.partition("/")[2] for name in file.getnames()}
    # Files for git, the integration server and linters are not for users.
    missing = [n for n in tracked if n not in held and not n.startswith(".")]
    assert missing == []


def test_what_a_package_index_shows_is_in_order(archive, target, tmp_path):
    pytest.importorskip("twine", reason="the extra dev installs it")
    subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", archive],
        check=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert (target / "speechbrain_ser_cl" / "py.typed").is_file()


def test_versions_agree():
    def found(pattern, name):
        text = (ROOT / name).read_text(encoding="utf-8")
        return re.search(pattern, text, re.MULTILINE)[1]

    version = found(r'^__version__ = "(.+)"$', "speechbrain_ser_cl/__init__.py")
    assert found(r"^version: (\S+)$", "CITATION.cff") == version
    assert found(r"^## ([\d.]+)", "CHANGELOG.md") == version


def named():
    """Lists what recipes import, and objects that their YAMLs name."""
    wanted = set()
    for script in recipe_files("*.py"):
        beside = {path.stem for path in script.parent.glob("*.py")}
        wanted |= {
            name
            for name in imported_names(script.read_text(encoding="utf-8"))
            if name.partition(".")[0] not in beside
        }
    for yaml in recipe_files("*.yaml"):
        wanted |= set(
            re.findall(
                r"!(?:new|name|apply|applyref|module):([\w.]+)",
                yaml.read_text(encoding="utf-8"),
            )
        )
    assert any(name.startswith("speechbrain_ser_cl.") for name in wanted), wanted
    return sorted(wanted)


def recipe_files(pattern):
    """Lists files of the recipes, without copies in the folders of runs."""
    for path in RECIPES.rglob(pattern):
        if not any(part.startswith("results") for part in path.relative_to(ROOT).parts):
            yield path


def imported_names(code):
    """Lists dotted paths that a script imports."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
