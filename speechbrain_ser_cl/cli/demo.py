"""Implements ``ser-cl demo``: serves a local page to try a model."""

import argparse
import os
import sys
import threading
import webbrowser
from pathlib import Path

SUMMARY = "open a local page to drop or record speech and see its emotions"
PORT = 8463


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.epilog = (
        "The page can be reached from this machine only (127.0.0.1), and what is "
        "dropped or recorded stays on it. From another machine: ssh -L "
        f"{PORT}:127.0.0.1:{PORT} HOST. Ctrl-C stops it, with exit status 0."
    )
    add = parser.add_argument
    add(
        "model",
        metavar="MODEL_DIR",
        help="a folder that `ser-cl export` wrote, or a hub id such as owner/name",
    )
    add("--revision", help="commit, tag or branch of a model on the hub")
    add("--device", help="cpu, cuda, cuda:1, … (a GPU where there is one)")
    add(
        "--port",
        type=_port,
        default=PORT,
        help=f"of 127.0.0.1; 0 takes a free one ({PORT})",
    )
    add("--no-browser", action="store_true", help="print the address, open nothing")


def run(arguments: argparse.Namespace) -> int:
    """Serves the page until Ctrl-C."""
    from speechbrain_ser_cl.demo import DemoServer
    from speechbrain_ser_cl.inference import EmotionRecognizer

    recognizer = EmotionRecognizer.from_pretrained(
        arguments.model, arguments.revision, arguments.device
    )
    folder = Path(arguments.model)
    name = folder.resolve().name if folder.is_dir() else arguments.model
    with DemoServer(recognizer, name, arguments.port) as server:
        print(f"{server.url} (Ctrl-C stops it)", flush=True)
        if not arguments.no_browser and _has_screen():
            threading.Thread(
                target=webbrowser.open, args=[server.url], daemon=True
            ).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nstopping", flush=True)
    return 0


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0 to 65535")
    return int(text)


def _has_screen() -> bool:
    """Returns whether there is a screen; without one, a text browser may open."""
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True
