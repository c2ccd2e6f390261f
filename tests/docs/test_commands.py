"""Every command on a page runs up to reading its data.

READMEs, pages, the help of ``ser-cl`` and the headers of recipes' scripts. A command
runs here in a folder where its corpora are empty folders: it ends well, or says that
the corpus, run or model is not there. An unknown command, option, key, value, recipe or
file is another error.
"""

import configparser
import importlib.util
import re
import shlex
import shutil
from functools import cache
from pathlib import Path

import pytest

from speechbrain_ser_cl import cli
from speechbrain_ser_cl.cli.train import hparams_file
from speechbrain_ser_cl.results.sweep_file import read_sweep
from speechbrain_ser_cl.sweeps.bench import read_bench
from speechbrain_ser_cl.sweeps.recipe import Recipe, find_script
from speechbrain_ser_cl.sweeps.sweep import row_recipe
from speechbrain_ser_cl.training import launch
from speechbrain_ser_cl.utils.settings import read_yaml, split_overrides
from tests.docs.pages import DOCS, ROOT, WRITTEN, blocks, commands

HPARAMS = ROOT / "recipes" / "own_corpus" / "hparams" / "finetune.yaml"
PLACES = [
    *(path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"),
    ROOT / "benchmarks" / "README.md",
    *(ROOT / "recipes").rglob("README.md"),
    *(ROOT / "recipes").rglob("train.py"),
    *WRITTEN,
    *(ROOT / "speechbrain_ser_cl" / "cli").glob("*.py"),
]
PLACES = [p for p in PLACES if not any(part.startswith("results") for part in p.parts)]
CORPORA = "EmoDB RAVDESS CREMA-D IEMOCAP IEMOCAP_full_release MSP-IMPROV CASIA calls"
OTHERS = {"docker", "git", "pre-commit", "pytest", "python3", "sbatch", "source"}
OTHERS |= {"tensorboard"}
# Messages of commands whose corpus, run, model or file does not exist.
LACKING = re.compile(
    r"is not the corpus|expected one table in|no audio files|there is no folder"
    r"|no folder (my_model|their_predictions.csv);|no finished run|no crossval.json in"
    r"|no few_labels.json in"
    r"|expected fold-0.json, |no losses match 'cen\*'|expected the folder of at least"
    r"|arguments are required: [^-]*$|--write-exclude: expected one argument"
    r"|my_model: none of model.json|HF_HUB_OFFLINE"
    r"|there is no file results/|No such file or directory: '(SPACE|my_space).yaml'"
)


def shown(place):
    """Lists the commands of a page, script or module of the command line."""
    text = place.read_text(encoding="utf-8")
    if place.suffix == ".md":
        found = [
            c for b in blocks(place) if b.language == "bash" for c in commands(b.code)
        ]
        found += re.findall(r"`(ser-cl [^`…]*)`", text)
    else:
        text = re.sub(r" *\\\\?\n *", " ", text)
        found = re.findall(r"^> python (.*)|^  (ser-cl .*)", text, re.MULTILINE)
        found = [re.sub(r"\s\s+\S.*|\s\(.*", "", "".join(one)) for one in found]
    for command in found:
        for one in command.split("&&"):
            words = shlex.split(re.sub(r"\$\w+", "0", one), comments=True)
            yield [re.sub(r"\.venv/bin/|/data/|/path/to/", "", word) for word in words]


def asides(place):
    """Lists options of the recipe in a README's text, each key once in a mapping."""
    groups = [{}]
    text = place.read_text(encoding="utf-8")
    for found in re.findall(r"`(--[a-z_]+ [^`…<]+)`", text):
        if not found.startswith("--seeds"):  # of ser-cl table
            options = split_overrides(shlex.split(found))
            if groups[-1].keys() & options.keys():
                groups.append({})
            groups[-1] |= options
    return groups


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Makes the files of commands: recipes, empty corpora, a YAML, a sweep file."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    for name in [*CORPORA.split(), "my_recipe/hparams"]:
        (folder / name).mkdir(parents=True)
    text = HPARAMS.read_text(encoding="utf-8").replace(
        "folder: null", "folder: calls", 1
    )
    for name in ("my.yaml", "my_recipe/hparams/my.yaml"):
        (folder / name).write_text(text, encoding="utf-8")
    (sweep,) = (b.code for b in blocks(DOCS / "crossval.md") if "rows:" in b.code)
    for name in ("sweep.yaml", "my_table.yaml", "SWEEP.yaml"):
        (folder / name).write_text(sweep, encoding="utf-8")
    shutil.copy(ROOT / "README.md", folder)
    return folder


@cache
def recipe_run(script):
    """Returns the function that a recipe's script runs."""
    spec = importlib.util.spec_from_file_location(f"shown_{hash(script)}", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.run


@cache
def run_script(script, hparams, overrides):
    """Runs a recipe up to its data; returns the error. Checks the keys of demos."""
    try:
        values = Recipe(hparams, script, overrides).values
        if not launch.wants_demo(values):
            launch._main(recipe_run(script), script, print, [str(hparams), *overrides])
    except ValueError as error:
        return error
    return None


def run_recipe(hparams, overrides):
    """Same as ``run_script``; raises the error."""
    error = run_script(find_script(hparams), hparams.resolve(), tuple(overrides))
    if error:
        raise error


def run_ser_cl(words, capsys):
    """Runs ser-cl; training commands only up to their data."""
    arguments, more = cli._parser().parse_known_args(words)
    if words[0] in ("train", "crossval") and words[1:]:
        run_recipe(hparams_file(words[1]), more)
    elif words[0] == "bench":
        file = ROOT / "benchmarks" / "ser.yaml"
        assert arguments.file.name in ("my.yaml", file.name)
        assert read_bench(file, split_overrides(more))
    elif words[0] == "table" and words[1].endswith(".yaml"):
        # tests/consistency/test_recipes.py plans all rows.
        sweep = read_sweep(arguments.file)
        typed = split_overrides(more)
        for row in {row.hparams_file: row for row in sweep.rows}.values():
            assert row_recipe(sweep, row, Path("out"), typed).values
    elif cli.main(words) != 0:
        raise ValueError(capsys.readouterr().err)


def check(words, place, capsys):
    """Runs a command up to its data."""
    program, *words = words
    if program == "ser-cl":
        if len(words) == 1 and not words[0].startswith("-"):
            assert words[0] in cli.COMMANDS
        else:
            run_ser_cl(words, capsys)
    elif program == "pip":
        config = configparser.ConfigParser()
        config.read(ROOT / "setup.cfg")
        if "--index-url" in words:  # PyTorch for CPUs, in the range that is asked for
            needed = config["options"]["install_requires"].split()
            assert set(words[1 : words.index("--index-url")]) <= set(needed)
            return
        assert words[:2] == ["install", "-e"]
        for extra in re.findall(r"\[(\w+)\]", words[2]):
            assert extra in config["options.extras_require"], extra
    elif program in ("torchrun", "python", "train.py"):
        words = [program, *words] if program == "train.py" else words
        while words[0].startswith("--"):
            words.pop(0)
        if not words[0].endswith("train.py"):
            assert words[0] in ("-c", "-m") or (ROOT / words[0]).is_file()
            return
        script, hparams, *overrides = words
        near = ROOT if "/" in script else place.parent
        hparams = (near / script).parent / hparams
        run_recipe(hparams, overrides)
    elif program.startswith("--"):
        (hparams,) = (place.parent / "hparams").glob("*.yaml")
        assert Recipe(hparams, hparams, (program, *words)).values
    else:
        assert program in OTHERS, program


def check_all(found, place, capsys):
    """Lists commands that fail before they read their data."""
    wrong = []
    for words in found:
        try:
            check(list(words), place, capsys)
        except (Exception, SystemExit) as error:
            told = f"{error} {capsys.readouterr().err}"
            if not (LACKING.search(told) or str(error) == "0"):
                wrong.append(f"{shlex.join(words)}: {told}")
    return wrong


@pytest.mark.parametrize("place", PLACES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_gets_as_far_as_its_data(place, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (folder / "hparams").unlink(missing_ok=True)
    if (place.parent / "hparams").is_dir():  # a recipe's README is read in its folder
        (folder / "hparams").symlink_to(place.parent / "hparams")
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "recipes").rglob("*")}
    assert not check_all(shown(place), place, capsys)
    assert before == {
        path: path.stat().st_mtime_ns for path in (ROOT / "recipes").rglob("*")
    }


@pytest.mark.parametrize(
    "readme",
    [p for p in PLACES if p.name == "README.md" and (p.parent / "hparams").is_dir()],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_options_that_a_recipes_text_shows_are_its_own(readme):
    keys = {p: set(read_yaml(p)) for p in (readme.parent / "hparams").glob("*.yaml")}
    for group in asides(readme):
        for path, own in keys.items():
            others = set().union(*keys.values()) - own
            words = tuple(f"--{k}={v}" for k, v in group.items() if k not in others)
            assert Recipe(path, path, words).values


@pytest.mark.parametrize(
    "command",
    [
        "ser-cl predict --model m --formt json x.wav",
        "ser-cl pretend",
        "ser-cl train own_corpus/finetune --foldr calls",
        "ser-cl train own_corpus/finetune --folder calls --batch_size none",
        "ser-cl train own_corpus/finetuned",
        "ser-cl crossval recipes/own_corpus/hparams/other.yaml",
        "ser-cl crossval my.yaml --protocol speakers",
        "ser-cl table recipes/EmoDB_RAVDESS/tables/lambda.yaml",
        "ser-cl table sweep.yaml --learning_rat 1",
        "ser-cl prepare ravdes RAVDESS x.json",
        "ser-cl list loses",
        "python recipes/IEMOCAP_CASIA/train.py hparams/two_stage.yaml --setting tuning "
        '--corpora "{casia: CASIA}"',
        "torchrun --nproc_per_node=2 recipes/own_corpus/train.py hparams/x.yaml",
        "python recipes/train.py hparams/x.yaml",
        "pip install -e '.[dics]'",
        "ser-kl list",
    ],
)
def test_what_is_not_there_is_found(command, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert check_all([shlex.split(command)], ROOT / "README.md", capsys)
