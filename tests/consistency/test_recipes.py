"""Recipes follow the rules of SpeechBrain's own checks."""

import ast
import csv
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.sweeps.recipe import find_script
from speechbrain_ser_cl.utils.settings import read_yaml

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = (
    "Task,Dataset,Script_file,Hparam_file,Data_prep_file,Readme_file,Result_url,"
    "HF_repo,test_debug_flags,test_debug_checks,performance"
)
FILE_COLUMNS = ("Script_file", "Hparam_file", "Data_prep_file", "Readme_file")
AUDIO = {".wav", ".flac", ".mp3", ".ogg", ".sph", ".m4a", ".avi", ".mp4"}
WEIGHTS = {".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".onnx", ".h5", ".pkl"}


def of_recipes(pattern):
    """Lists files of the recipes, without copies in the folders of runs."""
    return sorted(
        path
        for path in (ROOT / "recipes").rglob(pattern)
        if not any(part.startswith("results") for part in path.relative_to(ROOT).parts)
    )


def hparams_files():
    """Lists the recipes' YAMLs, without sweep files in folders named ``tables``."""
    return [path for path in of_recipes("*.yaml") if path.parent.name != "tables"]


def sweep_files():
    """Lists the sweep files of ``ser-cl table``."""
    return [path for path in of_recipes("*.yaml") if path.parent.name == "tables"]


def table_rows():
    rows = []
    for table in sorted((ROOT / "tests" / "recipes").glob("*.csv")):
        with open(table, newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            rows += [(table, row) for row in reader]
    return rows


def row_id(value):
    table, row = value
    return f"{table.stem}:{row.get('Hparam_file')}"


@pytest.fixture(scope="module")
def tracked():
    """Lists paths that git tracks."""
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True
    )
    if listing.returncode or not listing.stdout:
        pytest.skip("not a git checkout: what is tracked is unknown")
    paths = (ROOT / name for name in listing.stdout.split("\0") if name)
    return [path for path in paths if path.exists()]


def test_there_are_recipes():
    assert of_recipes("train.py")
    assert of_recipes("*.yaml")
    assert table_rows()


def test_every_yaml_is_listed_in_its_datasets_table():
    listed = {
        (table.stem, path)
        for table, row in table_rows()
        for path in row["Hparam_file"].split()
    }
    for yaml in hparams_files():
        path = yaml.relative_to(ROOT)
        assert (path.parts[1], str(path)) in listed, (
            f"{path} is missing in tests/recipes/{path.parts[1]}.csv"
        )


@pytest.mark.parametrize("entry", table_rows(), ids=row_id)
def test_row_is_complete(entry):
    table, row = entry
    assert ",".join(map(str, row)) == COLUMNS
    assert None not in row.values(), "fewer columns than the header"
    assert row["Dataset"] == table.stem
    for column in ("Task", "Script_file", "Hparam_file", "Readme_file"):
        assert row[column], f"{column} is empty"
    assert row["test_debug_flags"].strip()
    assert find_script(ROOT / row["Hparam_file"]) == ROOT / row["Script_file"]
    for column in FILE_COLUMNS:
        for path in row[column].split():
            assert (ROOT / path).is_file(), f"{column}: {path} does not exist"
    readme = (ROOT / row["Readme_file"]).read_text(encoding="utf-8")
    for column in ("Result_url", "HF_repo"):
        for url in row[column].split():
            assert url in readme, f"{column}: {url} is not in {row['Readme_file']}"


@pytest.mark.parametrize(
    "path", sweep_files(), ids=lambda path: str(path.relative_to(ROOT / "recipes"))
)
def test_every_sweep_file_fits_its_recipe(path, capsys):
    """Keys and rows are valid; without corpora nothing would run."""
    assert main(["table", str(path), "--dry-run"]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out.splitlines()
    assert all(" not run here (" in line for line in told[:-1])
    assert told[-1].startswith("0 runs, ")


def test_every_recipe_knows_trackers():
    without = [path for path in hparams_files() if "loggers" not in read_yaml(path)]
    assert not without


@pytest.mark.parametrize("entry", table_rows(), ids=row_id)
def test_every_yaml_key_is_used(entry):
    _, row = entry
    # The package reads what recipes share.
    readers = [ROOT / row["Script_file"]]
    for part in ("training", "data", "sweeps"):
        readers += (ROOT / "speechbrain_ser_cl" / part).rglob("*.py")
    script = "\n".join(path.read_text(encoding="utf-8") for path in readers)
    yaml = (ROOT / row["Hparam_file"]).read_text(encoding="utf-8")
    unused = [
        key
        for key, value in re.findall(r"^([A-Za-z_]\w*):(.*)$", yaml, re.MULTILINE)
        if "!apply" not in value
        and key != "recipe"  # for ser-cl train
        and not is_used(key, yaml, script)
    ]
    assert not unused, f"keys of {row['Hparam_file']} that nothing uses: {unused}"


@cache
def read_keys(script):
    """Returns the keys that code reads, and patterns of those that it composes."""
    patterns = (
        r"""\[["'](\w+)["'](?:\]| if )""",
        r"""\belse ["'](\w+)["']\]""",
        r"""\b(?:hparams|modules)\.(?=(\w+))""",
        r"""(?:hparams|values)\.get\(\s*["'](\w+)["']""",
    )
    keys = {key for one in patterns for key in re.findall(one, script)}
    made = re.findall(r"""\[f["']([\w{}]+)["']\]""", script)  # hparams[f"{loss}_lr"]
    return keys, [re.sub(r"{\w+}", r"\\w+", one) for one in made]


def is_used(key, yaml, script):
    keys, made = read_keys(script)
    return (
        key in keys
        or re.search(rf"!(?:ref|copy)[^\n]*<{key}[>.\[]", yaml)
        or any(re.fullmatch(one, key) for one in made)
    )


def test_key_use_is_recognised():
    yaml = "a: 1\nb: !ref <a>/x\nc: !ref <b>\nlist: !ref <d[0]>"
    assert is_used("a", yaml, "") and is_used("d", yaml, "")
    assert not is_used("x", yaml, "")
    for script in (
        'hparams["x"]',
        "self.hparams.x(1)",
        "self.modules.x",
        'hparams.get("x", 1)',
        'values.get("x")',
        'hparams["x" if a else "y"]',
        'hparams["y" if a else "x"]',
    ):
        assert is_used("x", "", script), script
    for script in ("x", "hparams.xy", "other.x", '"x"'):
        assert not is_used("x", "", script), script
    assert is_used("my_lr", "", 'hparams[f"{stage}_lr"]')
    assert not is_used("my_rate", "", 'hparams[f"{stage}_lr"]')


@pytest.mark.parametrize(
    "script", of_recipes("*.py"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_script_says_what_how_and_who(script):
    docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8")))
    assert docstring, "no header"
    if script.name == "train.py":
        assert "python train.py" in docstring, "the header tells how to run it"
        assert "Authors" in docstring


def test_everything_public_has_a_docstring():
    missing = []
    for path in [*ROOT.glob("speechbrain_ser_cl/**/*.py"), *of_recipes("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        scopes = [tree] + [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
        for scope in scopes:
            for node in scope.body:
                if (
                    isinstance(node, ast.ClassDef | ast.FunctionDef)
                    and not node.name.startswith("_")
                    and not ast.get_docstring(node)
                    and "override" not in map(ast.unparse, node.decorator_list)
                ):
                    missing.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not missing


def test_no_large_file_audio_or_weights(tracked):
    for path in tracked:
        assert path.stat().st_size <= 1_000_000, f"{path} is over 1 MB"
        assert path.suffix.lower() not in AUDIO | WEIGHTS, f"{path} is tracked"


def test_extra_requirements_have_lower_bounds():
    for path in of_recipes("extra_requirements.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            requirement = line.partition("#")[0].strip()
            assert not requirement or ">=" in requirement, f"{path}: {line}"
