"""Implements ``ser-cl train``: runs a recipe by its name."""

import argparse
import difflib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SUMMARY = "run a recipe's train.py, found by the recipe's name"
EPILOG = """\
Any --key value replaces that key of the recipe's YAML; SpeechBrain's own options
(--device cpu, --precision bf16, --debug) work too. Paths are relative to the working
folder.

Recipes are looked for in the folder that the environment variable SER_CL_RECIPES names,
in recipes/ of the working folder and of those above it, and beside this package (a
checkout, pip install -e).

examples:
  ser-cl train                                  (lists the recipes)
  ser-cl train IEMOCAP_MSP/multitask_da         (its demo)
  ser-cl train RAVDESS_CREMA-D/multitask_da --source_folder /data/RAVDESS \\
      --target_folder /data/CREMA-D --ssl_source openai/whisper-tiny.en
"""
USAGE = "ser-cl train [RECIPE] [--json] [--verbose] [--key value ...]"
TAKES_MORE = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    recipe: Any = parser.add_argument(
        "recipe",
        nargs="?",
        metavar="RECIPE",
        help="a name such as EmoDB_RAVDESS/multitask_da, or the path of a YAML, a copy "
        "of a recipe's if it says recipe: own_corpus; none: list the recipes",
    )
    recipe.completer = lambda **_: sorted(find_recipes())
    parser.add_argument("--json", action="store_true", help="list the recipes as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Runs the recipe in a process of its own and returns its exit status."""
    if arguments.recipe is None:
        return _list(arguments)
    from speechbrain_ser_cl.sweeps.recipe import find_script
    from speechbrain_ser_cl.sweeps.supervisor import die_with_parent

    hparams = hparams_file(arguments.recipe)
    script = find_script(hparams)
    command = [sys.executable, str(script), str(hparams.absolute()), *arguments.more]
    with subprocess.Popen(command, preexec_fn=die_with_parent) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()  # both processes got the signal
            return 130


def find_recipes() -> dict[str, Path]:
    """Finds all recipes.

    Returns
    -------
    dict
        Name to YAML: ``{"EmoDB_RAVDESS/multitask_da": Path(".../multitask_da.yaml"),
        …}``. Of two with one name, the first that is found.
    """
    from speechbrain_ser_cl.sweeps.recipe import recipe_folders

    found: dict[str, Path] = {}
    for folder in recipe_folders():
        for path in sorted(folder.glob("**/hparams/*.yaml")):
            inside = path.relative_to(folder)
            if any(part.startswith("results") for part in inside.parts):
                continue  # output of runs
            name = "/".join([*inside.parts[:-2], inside.stem])
            found.setdefault(name, path)
    return found


def hparams_file(recipe: str) -> Path:
    """Finds the YAML of a recipe.

    Arguments
    ---------
    recipe : str
        Name of a recipe or path of a YAML.

    Returns
    -------
    pathlib.Path
        The file; a given path need not exist.

    Raises
    ------
    ValueError
        If no recipe, or more than one, has that name; the message suggests similar
        names.
    """
    if recipe.endswith((".yaml", ".yml")):
        return Path(recipe)
    recipes = find_recipes()
    if not recipes:
        raise ValueError(
            "no recipes found: they are not part of the installed package. Clone the "
            "project and run this in its folder, or set SER_CL_RECIPES to its recipes/"
        )
    meant = [name for name in recipes if name == recipe or name.endswith(f"/{recipe}")]
    if len(meant) == 1:
        return recipes[meant[0]]
    if meant:
        raise ValueError(f"{recipe!r} may be any of {', '.join(meant)}: say which one")
    near = difflib.get_close_matches(recipe, recipes, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(f"no recipe {recipe!r}; {hint}`ser-cl train` lists all")


def _list(arguments: argparse.Namespace) -> int:
    if arguments.more:
        raise ValueError(f"no recipe is named; found only {' '.join(arguments.more)}")
    rows = [
        {"name": name, "path": str(path), "summary": _summary(path)}
        for name, path in sorted(find_recipes().items())
    ]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return 0
    if not rows:
        hparams_file("")  # the error message names the file
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print(f"{row['name']:{width}}  {row['summary']}".rstrip())
    return 0


def _summary(path: Path) -> str:
    """Returns the first sentence of the comment at the top of the YAML."""
    comment = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            if not line.startswith("#"):
                break
            comment.append(line.strip("# \n"))
    return " ".join(comment).partition(". ")[0].rstrip(".")
