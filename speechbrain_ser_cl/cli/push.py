"""Implements ``ser-cl push``: uploads an exported model to the Hugging Face hub."""

import argparse
from pathlib import Path

SUMMARY = "upload an exported model, with its card, to the Hugging Face hub"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.epilog = (
        "Only what `ser-cl export` writes is uploaded, by your own token (hf auth "
        "login, or HF_TOKEN). Read README.md first: it lists the training data, "
        "their licences and the results."
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="folder that `ser-cl export` wrote")
    add("repository", metavar="OWNER/NAME", help="on the hub; created if needed")
    add("--private", action="store_true", help="a new repository is private")
    add("--message", default="", help="of the commit")
    add("--dry-run", action="store_true", help="print what would be uploaded")


def run(arguments: argparse.Namespace) -> int:
    """Uploads the model and prints its address."""
    from speechbrain_ser_cl.hub import FILES, check, push

    metadata = check(arguments.folder)
    print(f"licence: {metadata['license']}; trained on {metadata.get('datasets')}")
    for name in FILES:
        if (path := arguments.folder / name).is_file():
            print(f"{name}  {path.stat().st_size / 1e6:.1f} MB")
    if arguments.dry_run:
        return 0
    address = push(
        arguments.folder, arguments.repository, arguments.private, arguments.message
    )
    print(address)
    if (arguments.folder / "model.json").is_file():
        print(f"Try it: ser-cl predict --model {arguments.repository} speech.wav")
    else:
        print("README.md says how to use it.")
    return 0
