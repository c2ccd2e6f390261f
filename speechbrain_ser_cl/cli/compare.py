"""``ser-cl compare``: settings of several cross-validations in one table."""

import argparse
import json
from pathlib import Path

SUMMARY = "compare cross-validated settings, with tests of significance"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.add_argument(
        "folders", type=Path, nargs="+", help="with crossval.json files below them"
    )
    parser.add_argument(
        "--metric",
        default="uar",
        choices=["uar", "wa", "macro_f1"],
        help="what is pooled and tested: uar (default), wa or macro_f1",
    )
    parser.add_argument("--csv", type=Path, help="write each fold's numbers here, too")
    parser.add_argument(
        "--json", action="store_true", help="print JSON, uncorrected p values as well"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the tables."""
    from speechbrain_ser_cl.results.tables import (
        build_crossval_table,
        collect_crossvals,
        crossval_rows,
        write_csv,
    )

    settings = collect_crossvals(arguments.folders, demos=True)
    if not settings:
        raise ValueError(
            f"no crossval.json in {', '.join(map(str, arguments.folders))}; "
            "`ser-cl crossval` writes it into its output_folder"
        )
    if arguments.json:
        print(json.dumps(crossval_rows(settings, arguments.metric), indent=1))
    else:
        print(build_crossval_table(settings, metric=arguments.metric))
    if arguments.csv:
        write_csv(settings, arguments.csv)
    return 0
