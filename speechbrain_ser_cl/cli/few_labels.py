"""Implements ``ser-cl few-labels``: combines few-label trainings of all folds."""

import argparse
from pathlib import Path

SUMMARY = "combine few-label trainings of all folds: numbers and figure"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.add_argument(
        "folder",
        type=Path,
        help="with few_labels.json files below it, or a file of measured results; "
        "few_labels.csv and few_labels.png are written there or beside it",
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes both files and prints their paths."""
    from speechbrain_ser_cl.report.figures import plot_few_labels
    from speechbrain_ser_cl.results import (
        few_label_points,
        read_few_labels,
        write_few_label_points,
    )

    about, rows = read_few_labels(arguments.folder)
    points = few_label_points(rows, about["baseline"])
    place = arguments.folder
    folder = place.parent if place.is_file() else place
    numbers, figure = (folder / f"few_labels.{s}" for s in ("csv", "png"))
    write_few_label_points(numbers, points)
    plot_few_labels(points, figure, about["chance"])
    print(f"written: {numbers} and {figure}")
    return 0
