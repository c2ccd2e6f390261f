"""``ser-cl table``: fill a README's result tables from the runs' results."""

import argparse
from pathlib import Path

SUMMARY = "fill a README's tables from results.json or crossval.json files"
EPILOG = """\
The tables stand between marks, each on its own line; FOLDER is relative to the README:
  <!-- results: begin FOLDER -->  and  <!-- results: end -->   one row per setting
  <!-- crossval: begin FOLDER --> and  <!-- crossval: end -->  the same, over folds
  <!-- costs: begin FOLDER -->    and  <!-- costs: end -->     its time and memory
  <!-- few_labels: begin FOLDER --> and  <!-- few_labels: end -->  per share of labels
  <!-- alignment: begin FOLDER --> and  <!-- alignment: end -->  PWCCA between views
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("readme", type=Path, help="a README.md with table markers")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; status 1 when out of date"
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes the tables, or says whether they are up to date."""
    from speechbrain_ser_cl.evaluation.tables import main as fill_tables

    check = ["--check"] if arguments.check else []
    return fill_tables([str(arguments.readme), *check])
