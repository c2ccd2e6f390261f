"""Implements ``ser-cl table``: fills a README's result tables, or runs a sweep file."""

import argparse
from pathlib import Path

from speechbrain_ser_cl.cli.crossval import add_engine_arguments, engine_options

SUMMARY = "fill a README's tables; or run a sweep file and write its table"
DESCRIPTION = """\
README.md: writes the tables of results.json or crossval.json files between marks, each
on its own line; paths are relative to the README:
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
With a sweep file any other --key value replaces that key in the YAML of every row, such
as the folders of the corpora. Rows whose corpus is missing are not run; the table says
so, beside the printed value. Files in the output folder:
  <sweep>.md, .tex, .csv          the table; its numbers
  <sweep>_<key>.csv, .png         the curves of a sweep over a key
  <recipe>/<overrides>/           each row, as written by ser-cl crossval
Tables with the same output folder share rows with the same overrides.

examples:
  ser-cl table README.md --check
  ser-cl table my_table.yaml --dry-run --corpora "{emodb: /data/EmoDB}"
  ser-cl table my_table.yaml --jobs 2 --resume --corpora "{emodb: /data/EmoDB}"

exit status: 0; 1 a README is out of date, or runs failed; 2 after an error;
130 interrupted. speechbrain_ser_cl/results/sweep_file.py describes sweep files.
"""
SUFFIXES = (".yaml", ".yml")
USAGE = "ser-cl table (README.md | SWEEP.yaml) [options] [--key value ...]"
TAKES_MORE = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
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
    from speechbrain_ser_cl.sweeps.sweep import run_sweep
    from speechbrain_ser_cl.utils.settings import split_overrides

    return run_sweep(
        arguments.file,
        output=arguments.output_folder,
        seeds=arguments.seeds,
        folds=arguments.folds,
        more=split_overrides(arguments.more),
        dry_run=arguments.dry_run,
        **engine_options(arguments),
    )
