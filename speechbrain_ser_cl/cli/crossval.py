"""Implements ``ser-cl crossval``: runs all folds and seeds of a recipe."""

import argparse
from pathlib import Path
from typing import Any

from speechbrain_ser_cl.cli.train import hparams_file

SUMMARY = "run all folds and seeds of a recipe and combine the results"
DESCRIPTION = """\
Runs each fold with each seed of a recipe, found by its name as `ser-cl train` does or
by its YAML, as a process of its own: the recipe's train.py with
--split_file, --fold, --seed and --output_folder. The folds are those of the YAML's
protocol; they are checked for leaks and saved as <output_folder>/splits/fold-<k>.json.
"""
EPILOG = """\
Any other --key value replaces that key of the YAML, as with train.py; {fold} and {seed}
in a value are replaced by those of the run. Four keys have a special meaning:
  --protocol       one of leave_one_session_out, session_speaker_swap, session_kfold,
                   leave_one_speaker_out, speaker_kfold, random_kfold, given (the
                   corpus' own parts), seeds (no folds, the recipe splits by its seed),
                   "{kind: speaker_kfold, n_folds: 10}", or folds of others, "{kind:
                   emobox, folder: EmoBox/data}" (or emo_superb)
  --corpora        "{emodb: /data/EmoDB}"
  --seed           of the folds, and of the training unless --seeds is given
  --output_folder  folder of all results (<output_folder of the YAML>/crossval)

examples:
  ser-cl crossval recipes/EmoDB_RAVDESS/two_stage/hparams/two_stage.yaml \\
      --corpora "{emodb: /data/EmoDB}" --seeds 0 1 2 --output_folder results/two_stage
  ser-cl crossval recipes/IEMOCAP_MSP/hparams/multitask_da.yaml --seeds 0 1 2
  ser-cl compare results/two_stage results/baseline

exit status: 0 all runs are finished, 1 some failed, 2 an error before the first run,
130 interrupted. --resume continues after any of them.
"""
USAGE = "ser-cl crossval RECIPE|RECIPE.yaml [options] [--key value ...]"
TAKES_MORE = True


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    add = parser.add_argument
    add("hparams", type=Path, metavar="RECIPE.yaml", help="the recipe's YAML")
    add("--seeds", type=int, nargs="+", metavar="N", help="seeds of the trainings")
    add("--folds", type=int, nargs="+", metavar="K", help="only these folds, from 0 on")
    add(
        "--splits",
        type=Path,
        metavar="FOLDER",
        help="use these fold-<k>.json, for example published ones",
    )
    add_engine_arguments(parser)
    add("--script", type=Path, help="instead of the train.py found above the YAML")


def _measured_file(text: str) -> Path:
    if not text.endswith(".json.xz"):
        raise argparse.ArgumentTypeError(f"{text} does not end in .json.xz")
    return Path(text)


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that control how runs are started and kept."""
    add = parser.add_argument
    add(
        "--measured",
        type=_measured_file,
        metavar="FILE.json.xz",
        help="add the results to this small file, for a README's table",
    )
    add(
        "--jobs", type=_positive, metavar="N", help="runs at a time (one per GPU, or 1)"
    )
    add("--resume", action="store_true", help="run only what is not finished")
    add(
        "--backend",
        default="local",
        choices=["local", "dask", "ray"],
        help="what runs the processes: local (this machine, default), dask or ray",
    )
    add(
        "--cluster",
        metavar="ADDRESS",
        help="of a dask scheduler or ray cluster whose machines all see the "
        "output_folder; by default one is started here",
    )
    add(
        "--runs-per-gpu",
        type=_positive,
        default=1,
        metavar="N",
        help="processes that share a GPU (1)",
    )


def engine_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the values of the arguments of ``add_engine_arguments``."""
    names = ("measured", "resume", "jobs", "backend", "cluster", "runs_per_gpu")
    return {name: getattr(arguments, name) for name in names}


def run(arguments: argparse.Namespace) -> int:
    """Runs what is not finished; prints the table or the failed runs."""
    from speechbrain_ser_cl.sweeps.crossval import crossval
    from speechbrain_ser_cl.sweeps.recipe import Recipe, find_script

    hparams = hparams_file(str(arguments.hparams))
    script = arguments.script or find_script(hparams)
    recipe = Recipe(hparams.absolute(), script.absolute(), tuple(arguments.more))
    return crossval(
        recipe,
        seeds=arguments.seeds,
        folds=arguments.folds,
        splits=arguments.splits,
        **engine_options(arguments),
    )
