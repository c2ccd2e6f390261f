"""Implements ``ser-cl predict``: classifies audio files."""

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speechbrain_ser_cl.inference import Answer, EmotionRecognizer
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
        choices=["table", "json", "csv", "rttm", "textgrid", "vtt"],
        default="table",
        help="what is printed (table); the last three are times of emotions, for "
        "other programs",
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
    long = parser.add_argument_group(
        "long recordings", "read in blocks, of up to 6 hours; windows of 3 s by default"
    )
    long.add_argument(
        "--activity",
        choices=["none", "energy", "silero"],
        help="only speech, detected by energy or by the package silero-vad "
        "(energy, where another of these options is given)",
    )
    long.add_argument(
        "--turns",
        type=Path,
        metavar="FILE",
        help="in place of --activity: turns, RTTM or a table with start, end, speaker",
    )
    long.add_argument(
        "--smooth",
        type=int,
        metavar="N",
        help="average the probabilities of N windows, an odd number",
    )
    long.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="write a file for each recording here",
    )
    long.add_argument(
        "--plot", action="store_true", help="and a figure of the time line, in FOLDER"
    )
    add("--device", help="cpu, cuda, cuda:1, … (a GPU where there is one)")


def run(arguments: argparse.Namespace) -> int:
    """Classifies the files and prints them in the given order."""
    from tqdm import tqdm

    from speechbrain_ser_cl.inference import EmotionRecognizer

    # File names may contain bytes that cannot be printed.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    recognizer = EmotionRecognizer.from_pretrained(
        arguments.model, arguments.revision, arguments.device
    )
    if _is_long(arguments):
        return _follow(arguments, recognizer)
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
        header = ["file", "part", "start", "end"]
        if recognizer.kind == "dimensions":
            header += recognizer.class_names
        else:
            several = recognizer.kind == "emotions"
            header += ["emotions"] if several else ["emotion", "probability"]
            header += [f"p_{name}" for name in recognizer.class_names]
        if arguments.format == "csv":
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerows([header, *rows])
        else:
            _print_table([header, *rows], 4 if recognizer.kind == "dimensions" else 5)
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


def _is_long(arguments: argparse.Namespace) -> bool:
    options = ("activity", "turns", "smooth", "output", "plot")
    return arguments.format in ("rttm", "textgrid", "vtt") or any(
        getattr(arguments, name) for name in options
    )


def _follow(arguments: argparse.Namespace, recognizer: "EmotionRecognizer") -> int:
    """Classifies recordings in blocks; writes or prints each when it is finished."""
    from tqdm import tqdm

    from speechbrain_ser_cl.recordings import (
        EmotionStream,
        follow_file,
        read_turns,
        spans,
        written,
    )
    from speechbrain_ser_cl.report.figures import plot_timeline
    from speechbrain_ser_cl.utils.audio import AudioError
    from speechbrain_ser_cl.utils.files import replacing

    folder, format = arguments.output, arguments.format
    if arguments.plot and folder is None:
        raise ValueError("--plot needs --output FOLDER, where the figure goes")
    if folder is None and len(arguments.files) > 1 and format != "table":
        raise ValueError(
            f"{len(arguments.files)} recordings as {format} need --output FOLDER"
        )
    failed = False
    for path in map(Path, arguments.files):
        turns = arguments.turns and read_turns(arguments.turns, path.stem)
        stream = EmotionStream(
            recognizer,
            window=arguments.window or min(3.0, recognizer.max_seconds),
            hop=arguments.hop,
            activity=arguments.activity or "energy",
            turns=turns,
            smooth=arguments.smooth or 1,
        )
        try:
            bar = tqdm(
                follow_file(stream, path), path.name, unit="window", disable=None
            )
            windows = list(bar)
        except AudioError as error:
            print(f"ser-cl: {error}", file=sys.stderr)
            failed = True
            continue
        if format == "table":
            lines = [
                f"{s.start:9.2f} {s.end:9.2f}  {s.probability:.3f}  {s.emotion}"
                + (f"  ({s.speaker})" if s.speaker else "")
                for s in spans(windows)
            ]
            text = "\n".join([f"{path}: {stream.seconds:.2f} s", *lines, ""])
        else:
            text = written(windows, path.stem, format, stream.seconds)
        if folder is None:
            print(text, end="")
            continue
        folder.mkdir(parents=True, exist_ok=True)
        suffix = {"table": "txt", "textgrid": "TextGrid"}.get(format, format)
        target = folder / f"{path.stem}.{suffix}"
        with replacing(target) as part:
            part.write_text(text, encoding="utf-8")
        told = [str(target)]
        if arguments.plot and windows:
            figure = folder / f"{path.stem}.png"
            tiers: dict[str | None, list[tuple[float, float, dict[str, float]]]] = {}
            for one in windows:
                row = (one.start, one.end, one.probabilities)
                tiers.setdefault(one.speaker, []).append(row)
            plot_timeline(tiers, stream.seconds, figure)
            told.append(str(figure))
        files = ", ".join(told)
        print(f"{path}: {len(windows)} windows of {stream.seconds:.1f} s: {files}")
    return 1 if failed else 0


def _as_json(path: str | Path, found: "Answer | AudioError") -> dict[str, Any]:
    if isinstance(found, Exception):
        return {"file": str(path), "error": str(found)}
    return {"file": str(path)} | found.as_dict()


def _rows(path: str | Path, found: "Answer") -> Iterable[list[str]]:
    """Returns one row for the file, then one per window."""
    parts = [("file", found), *(("window", window) for window in found.timeline)]
    for part, one in parts:
        yield [str(path), part, f"{one.start:.2f}", f"{one.end:.2f}", *_said(one)]


def _said(one: "Answer") -> list[str]:
    """Returns the cells for a file or a window, in the order of the columns."""
    from speechbrain_ser_cl.inference import Rating, SeveralEmotions

    if isinstance(one, Rating):
        return [f"{value:.6g}" for value in one.values.values()]
    each = [f"{p:.6f}" for p in one.probabilities.values()]
    if isinstance(one, SeveralEmotions):
        return [";".join(one.emotions), *each]
    return [one.emotion, f"{one.probability:.6f}", *each]


def _print_table(rows: Sequence[Sequence[str]], texts: int) -> None:
    """Prints aligned columns; those after the first ones have three decimals."""
    header, *body = rows
    body = [[*row[:texts], *(f"{float(p):.3f}" for p in row[texts:])] for row in body]
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    for row in [header, *body]:
        cells = [
            text.ljust(width) if i in (0, 1) or 4 <= i < texts else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
