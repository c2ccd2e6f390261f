"""Implements ``ser-cl search``: searches settings of a recipe by validation score."""

import argparse
from pathlib import Path

SUMMARY = "search the best settings of a recipe (extra: search)"
EPILOG = """\
The YAML says recipe, space, output_folder, and perhaps fixed, metric, trials, folds
and seed; see speechbrain_ser_cl/sweeps/search.py. Any other --key value is a fixed
override. The same command in several terminals shares the work, and continues after
a kill.

example, my_space.yaml:
  recipe: recipes/own_corpus/hparams/finetune.yaml
  fixed: {folder: /data/calls}
  space:
      lr: {low: 0.00001, high: 0.001, log: True}
      lambda_supcon: [0.0, 0.1, 1.0]
  trials: 30
  output_folder: results/search
"""
USAGE = "ser-cl search SPACE.yaml [--trials N] [--key value ...]"
TAKES_MORE = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.add_argument(
        "space", type=Path, metavar="SPACE.yaml", help="description of the search"
    )
    parser.add_argument("--trials", type=int, help="total number, replaces the YAML's")
    parser.add_argument("--output_folder", type=Path, help="replaces the YAML's")


def run(arguments: argparse.Namespace) -> int:
    """Searches and prints the best settings."""
    from dataclasses import replace

    from speechbrain_ser_cl.sweeps.search import read_space, search
    from speechbrain_ser_cl.utils.settings import split_overrides

    space = read_space(arguments.space, split_overrides(arguments.more))
    if arguments.trials is not None:
        space = replace(space, trials=max(arguments.trials, 1))
    if arguments.output_folder is not None:
        space = replace(space, output=arguments.output_folder)
    print(search(space))
    return 0
