"""Implements ``ser-cl table``: fills a README's result tables, or runs a sweep file."""

import argparse
from pathlib import Path

from speechbrain_ser_cl.cli.crossval import add_engine_arguments

SUMMARY = "fill a README's tables; or run a sweep file and write its table"
DESCRIPTION = """\
README.md: fills in tables from results.json or crossval.json files. They stand between
marks, each on its own line; paths are relative to the README:
  <!-- results: begin FOLDER -->  and  <!-- results: end -->   one row per setting
  <!-- crossval: begin FOLDER --> and  <!-- crossval: end -->  the same, over folds
  <!-- groups: begin FOLDER -->   and  <!-- groups: end -->    by gender, age, …
  <!-- costs: begin FOLDER -->    and  <!-- costs: end -->     its time and memory
  <!-- few_labels: begin FOLDER --> and  <!-- few_labels: end -->  per share of labels
  <!-- alignment: begin FOLDER --> and  <!-- alignment: end -->  PWCCA between views
  <!-- sweep: begin SWEEP.yaml folder=FOLDER --> and <!-- sweep: end -->
                                  a sweep's table, from a file of --measured there

SWEEP.yaml: names rows (a recipe's YAML with overrides) and columns (metrics). Runs
what is missing, each fold and seed as a process as with ser-cl crossval, and writes
the table, with intervals and tests against the baseline row, and curves of what is
swept over.
"""
EPILOG = """\
With a sweep file any other --key value replaces that key in the YAML of every row, most
of all the folders of the corpora. Rows without their corpus are not run; the table says
so, beside the printed figure. What is left in the output folder:
  <sweep>.md, .tex, .csv          the table; its numbers
  <sweep>_<key>.csv, .png         the curves of a sweep over a key
  <recipe>/<overrides>/           each row, as ser-cl crossval leaves it
Tables with the same output folder share the rows that they have in common.

examples:
  ser-cl table README.md --check
  ser-cl table my_table.yaml --dry-run --corpora "{emodb: /data/EmoDB}"
  ser-cl table my_table.yaml --jobs 2 --resume --corpora "{emodb: /data/EmoDB}"

exit status: 0; 1 a README is out of date, or runs failed; 2 it cannot work as asked;
130 interrupted. speechbrain_ser_cl/results/sweep_file.py describes sweep files.
"""
SUFFIXES = (".yaml", ".yml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.usage = "ser-cl table (README.md | SWEEP.yaml) [options] [--key value ...]"
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.allow_abbrev = False
    # With a sweep file, unknown options are passed on to train.py.
    parser.set_defaults(takes_more=True)
    add = parser.add_argument
    add(
        "file",
        type=Path,
        metavar="FILE",
        help="a README.md with marks, or a sweep file (.yaml)",
    )
    add(
        "--check",
        action="store_true",
        help="README: write nothing; status 1 when out of date",
    )
    add(
        "--dry-run",
        action="store_true",
        help="sweep: list finished and missing runs, run nothing",
    )
    add(
        "--output_folder",
        type=Path,
        metavar="FOLDER",
        help="sweep: instead of the file's",
    )
    add(
        "--seeds",
        type=int,
        nargs="+",
        metavar="N",
        help="sweep: of the trainings, instead of the file's",
    )
    add("--folds", type=int, nargs="+", metavar="K", help="sweep: only these folds")
    add_engine_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Writes the tables, or prints which are out of date."""
    sweep_only = {
        "--dry-run": arguments.dry_run,
        "--resume": arguments.resume,
        "--output_folder": arguments.output_folder is not None,
        "--seeds": arguments.seeds is not None,
        "--folds": arguments.folds is not None,
        "--measured": arguments.measured is not None,
    }
    if arguments.file.suffix in SUFFIXES:
        if arguments.check:
            raise ValueError("--check is for a README; --dry-run is for a sweep file")
        return _run_sweep(arguments)
    wrong = [option for option, given in sweep_only.items() if given] + arguments.more
    if wrong:
        raise ValueError(
            f"{' '.join(wrong)}: not with a README; expected a sweep file "
            f"({' or '.join(SUFFIXES)}), found {arguments.file}"
        )
    from speechbrain_ser_cl.results.tables import main as fill_tables

    check = ["--check"] if arguments.check else []
    return fill_tables([str(arguments.file), *check])


def _run_sweep(arguments: argparse.Namespace) -> int:
    from speechbrain_ser_cl.sweeps.recipe import Recipe
    from speechbrain_ser_cl.sweeps.sweep import run_sweep

    return run_sweep(
        arguments.file,
        output=arguments.output_folder,
        seeds=arguments.seeds,
        folds=arguments.folds,
        more=Recipe(arguments.file, arguments.file, tuple(arguments.more)).overridden,
        dry_run=arguments.dry_run,
        resume=arguments.resume,
        measured=arguments.measured,
        jobs=arguments.jobs,
        backend=arguments.backend,
        cluster=arguments.cluster,
        runs_per_gpu=arguments.runs_per_gpu,
    )
