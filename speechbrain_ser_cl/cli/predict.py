"""``ser-cl predict``: the emotions of audio files."""

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speechbrain_ser_cl.inference import Classification
    from speechbrain_ser_cl.utils.audio import AudioError

SUMMARY = "classify audio files with an exported model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.epilog = (
        "Exit status: 0; 1 if a file could not be read (the others are classified); "
        "2 after any other error."
    )
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="wav, flac, ogg, mp3, … of any rate")
    add(
        "--model",
        required=True,
        metavar="MODEL",
        help="a folder that `ser-cl export` wrote, or a hub id such as owner/name",
    )
    add("--revision", help="commit, tag or branch of a model on the hub")
    add(
        "--format",
        choices=["table", "json", "csv"],
        default="table",
        help="what is printed (table)",
    )
    add(
        "--window",
        type=float,
        metavar="SECONDS",
        help="a time line: classify windows of so many seconds",
    )
    add(
        "--hop",
        type=float,
        metavar="SECONDS",
        help="from one window to the next (half a window)",
    )
    add("--device", help="cpu, cuda, cuda:1, … (a GPU where there is one)")


def run(arguments: argparse.Namespace) -> int:
    """Classifies the files; prints them in the order given."""
    from tqdm import tqdm

    from speechbrain_ser_cl.inference import EmotionRecognizer

    # File names may hold bytes that cannot be printed.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    recognizer = EmotionRecognizer.from_pretrained(
        arguments.model, arguments.revision, arguments.device
    )
    found = recognizer.classify_files(arguments.files, arguments.window, arguments.hop)
    hide = len(arguments.files) == 1 or not sys.stderr.isatty()
    results = list(tqdm(found, total=len(arguments.files), unit="file", disable=hide))
    failed = any(isinstance(found, Exception) for _, found in results)
    if arguments.format == "json":
        print(
            json.dumps(
                [_as_json(*result) for result in results], indent=2, allow_nan=False
            )
        )
    else:
        rows = [
            row
            for path, found in results
            if not isinstance(found, Exception)
            for row in _rows(path, found)
        ]
        header = ["file", "part", "start", "end", "emotion", "probability"]
        header += [f"p_{name}" for name in recognizer.class_names]
        if arguments.format == "csv":
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerows([header, *rows])
        else:
            _print_table([header, *rows])
    for path, result in results:
        if isinstance(result, Exception):
            print(f"ser-cl: {result}", file=sys.stderr)
        elif result.silent:
            print(
                f"ser-cl: warning: {path}: silent, no sample is above -60 dB of full "
                "scale; its emotion means nothing",
                file=sys.stderr,
            )
    return 1 if failed else 0


def _as_json(path: str | Path, found: "Classification | AudioError") -> dict[str, Any]:
    if isinstance(found, Exception):
        return {"file": str(path), "error": str(found)}
    return {"file": str(path)} | found.as_dict()


def _rows(path: str | Path, found: "Classification") -> Iterable[list[str]]:
    """One row for the file, then one per window."""
    parts = [("file", found), *(("window", window) for window in found.timeline)]
    for part, one in parts:
        yield [
            str(path),
            part,
            f"{one.start:.2f}",
            f"{one.end:.2f}",
            one.emotion,
            f"{one.probability:.6f}",
            *(f"{p:.6f}" for p in one.probabilities.values()),
        ]


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns; probabilities have three decimals."""
    header, *body = rows
    body = [[*row[:5], *(f"{float(p):.3f}" for p in row[5:])] for row in body]
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    for row in [header, *body]:
        cells = [
            text.ljust(width) if i in (0, 1, 4) else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
