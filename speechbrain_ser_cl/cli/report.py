"""Implements ``ser-cl report``: writes a report on runs as one HTML page."""

import argparse
from pathlib import Path

SUMMARY = "write a page about finished runs or cross-validations"
NAME = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="RUN_OR_CROSSVAL",
        help="output folders of recipes or of ser-cl crossval; settings are compared "
        "with the first",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"output file ({NAME} in the folder; in the working folder, if there are "
        "several folders)",
    )
    parser.add_argument(
        "--audio",
        action="store_true",
        help="put the worst mistakes' audio into the page, where the corpus' terms "
        "allow it",
    )
    parser.add_argument(
        "--own-corpus",
        action="append",
        default=[],
        metavar="CORPUS",
        help="with --audio: a corpus of your own whose audio you may pass on",
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes the page and prints its path."""
    from speechbrain_ser_cl.report import write_report

    folders = arguments.folders
    output = arguments.output
    if output is None:
        output = (folders[0] if len(folders) == 1 else Path()) / NAME
    write_report(folders, output, arguments.audio, arguments.own_corpus)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
    return 0
