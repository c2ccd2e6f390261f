"""Import rules between the package's parts, checked in its import statements."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "speechbrain_ser_cl"

# part of the package -> (parts it may import, outside packages it may import)
SCIENCE = {"numpy", "scipy", "sklearn"}
RULES = {
    "registry": (set(), set()),
    "utils": (
        set(),
        {
            "av",
            "hyperpyyaml",
            "numpy",
            "pydantic",
            "pydantic_core",
            "ruamel",
            "soundfile",
            "soxr",
            "torch",
            "typing_extensions",
        },
    ),
    "losses": ({"registry"}, {"torch"}),
    "nnet": ({"registry"}, {"torch"}),
    "augment": ({"registry"}, {"torch", "torch_audiomentations"}),
    "backbones": (
        {"registry", "nnet", "utils"},
        {
            "torch",
            "typing_extensions",
            "transformers",
            "safetensors",
            "opensmile",
            "peft",
            "speechbrain",
        },
    ),
    "corpora": (
        {"registry", "utils"},
        {"numpy", "scipy", "soundfile", "soxr", "tqdm", "pydantic", "yaml"}
        | {"openpyxl", "pyarrow", "typing_extensions"},
    ),
    "data": (
        {"registry", "utils", "corpora"},
        {
            "numpy",
            "scipy",
            "soundfile",
            "soxr",
            "tqdm",
            "filelock",
            "torch",
            "speechbrain",
        },
    ),
    "metrics": ({"utils"}, SCIENCE),
    "results": ({"utils", "corpora", "data", "metrics"}, SCIENCE | {"ruamel"}),
    "report": (
        {"__version__", "utils", "corpora", "data", "metrics", "results"},
        SCIENCE | {"jinja2", "matplotlib", "soundfile", "tqdm", "umap"},
    ),
    "sweeps": (
        {
            *("utils", "data", "metrics", "results", "report", "training"),
            "model_folder",
        },
        {"distributed", "joblib", "optuna", "ray", "ruamel", "speechbrain", "tqdm"}
        | {"filelock", "numpy"},
    ),
    "training": (
        {
            *("registry", "utils", "corpora", "data", "metrics", "results", "report"),
            *("backbones", "losses", "nnet", "augment", "model_folder"),
        },
        SCIENCE
        | {"filelock", "hyperpyyaml", "ruamel", "speechbrain", "torch", "tqdm", "yaml"}
        | {"opensmile", "typing_extensions", "mlflow", "wandb"},
    ),
}
TOP = {"cli", "demo", "evaluate", "export", "hub", "inference", "recordings"}
OPTIONAL = {
    "av",
    "distributed",
    "matplotlib",
    "mlflow",
    "opensmile",
    "optuna",
    "parselmouth",
    "peft",
    "ray",
    "silero_vad",
    "torch_audiomentations",
    "umap",
    "wandb",
}


def files():
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path):
    """Returns the sub-package or module that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(tree):
    """Returns dotted names imported in a tree, without relative imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative import: write the whole dotted path"
            if node.module == PACKAGE.name:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def at_module_level(tree):
    """Returns the tree without function bodies."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = []
    return tree


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def is_stdlib(name):
    return name in sys.stdlib_module_names


@pytest.mark.parametrize("part", sorted(RULES))
def test_a_part_imports_only_what_its_layer_may(part):
    parts, outside = RULES[part]
    seen = 0
    for path in files():
        if part_of(path) != part:
            continue
        seen += 1
        for name in imports(parse(path)):
            top, *rest = name.split(".")
            if top == PACKAGE.name:
                allowed = rest and rest[0] in parts | {part}
            else:
                allowed = top in outside or is_stdlib(top)
            assert allowed, f"{path.relative_to(ROOT)} may not import {name}"
    assert seen, f"no file in {part}"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_rules_for_every_file(path):
    names = list(imports(parse(path)))
    tops = {name.partition(".")[0] for name in names}
    assert "torchaudio" not in tops, "use soundfile and soxr"
    assert "recipes" not in tops, "the package never imports a recipe"
    if part_of(path) not in TOP:
        above = {f"{PACKAGE.name}.{name}" for name in TOP} & set(names)
        assert not above, f"{above} sits on top: nothing imports it"
    eager = {name.partition(".")[0] for name in imports(at_module_level(parse(path)))}
    assert not eager & OPTIONAL, "import it in the function that needs it"
