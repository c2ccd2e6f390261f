"""Implements ``ser-cl compare``: compares several cross-validations in one table."""

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
        metavar="METRIC",
        help="what is pooled and tested: uar (default), wa or macro_f1 of classes; kl, "
        "js, cosine, brier or majority of votes; ccc, pearson or rmse of dimensions, "
        "ccc.arousal of one; "
        "macro_f1, micro_f1 or sample_f1 of several emotions",
    )
    parser.add_argument(
        "--groups", action="store_true", help="also the results by gender, age, …"
    )
    parser.add_argument("--csv", type=Path, help="write each fold's numbers here, too")
    parser.add_argument(
        "--json", action="store_true", help="print JSON, uncorrected p values as well"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the tables."""
    from speechbrain_ser_cl.results.tables import (
        build_crossval_table,
        build_groups_table,
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
        if arguments.groups:
            print(build_groups_table(settings))
    if arguments.csv:
        write_csv(settings, arguments.csv)
    return 0
