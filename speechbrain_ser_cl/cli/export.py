"""Implements ``ser-cl export``: exports a finished run's model."""

import argparse
import json
from pathlib import Path

SUMMARY = "write a finished run's model and its model card into a folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's output folder")
    parser.add_argument("folder", type=Path, metavar="MODEL_DIR", help="output folder")
    parser.add_argument(
        "--format",
        choices=["native", "speechbrain", "onnx"],
        default="native",
        help="native (default): for `ser-cl predict` and EmotionRecognizer, without "
        "any code; speechbrain: for EncoderClassifier.from_hparams; onnx: needs the "
        "extra onnx",
    )
    parser.add_argument(
        "--force", action="store_true", help="write into a folder that is not empty"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Writes the folder and prints its contents."""
    from speechbrain_ser_cl.export import export_run

    files = export_run(
        arguments.run, arguments.folder, arguments.format, arguments.force
    )
    if arguments.json:
        sizes = [{"path": str(f), "bytes": f.stat().st_size} for f in files]
        print(json.dumps({"format": arguments.format, "files": sizes}, indent=2))
        return 0
    for file in files:
        print(f"{file}  {file.stat().st_size / 1e6:.1f} MB")
    if arguments.format == "native":
        print(f"Try it: ser-cl predict --model {arguments.folder} speech.wav")
    else:
        print(f"{files[0]} says how to use it.")
    return 0
