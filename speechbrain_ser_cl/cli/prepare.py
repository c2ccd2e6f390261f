"""Implements ``ser-cl prepare``: writes a corpus' manifest and prints its counts."""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from speechbrain_ser_cl.cli.completion import registered_names

SUMMARY = "read a corpus folder, write its manifest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    corpus: Any = parser.add_argument(
        "corpus", help="a name from `ser-cl list corpora`"
    )
    corpus.completer = lambda **_: registered_names("corpora")
    parser.add_argument("folder", type=Path, help="folder of the corpus")
    parser.add_argument("manifest", type=Path, help="the JSON file to write")
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="continue, with a warning, if files are missing or counts are wrong",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Reads the corpus, writes the manifest and prints the counts."""
    from speechbrain_ser_cl.data.features.place import estimate_features
    from speechbrain_ser_cl.data.manifest import write_manifest
    from speechbrain_ser_cl.registry import CORPORA

    read_corpus = CORPORA.get(arguments.corpus)
    utterances = read_corpus(arguments.folder, allow_missing=arguments.allow_missing)
    write_manifest(utterances, arguments.manifest, arguments.folder)
    hours = sum(utterance.duration for utterance in utterances) / 3600
    counts = {
        f"{key}s": Counter(str(getattr(utterance, key)) for utterance in utterances)
        for key in ("emotion", "speaker")
    }
    features = estimate_features(utterance.duration for utterance in utterances)
    if arguments.json:
        found = {
            "manifest": str(arguments.manifest),
            "utterances": len(utterances),
            "features": features._asdict(),
        }
        print(json.dumps(found | {"hours": hours} | counts, indent=2, sort_keys=True))
        return 0
    print(f"{arguments.manifest}: {len(utterances)} utterances, {hours:.2f} h")
    for name, count in counts.items():
        told = ", ".join(f"{key} {n}" for key, n in sorted(count.items()))
        print(f"  {len(count)} {name}: {told}")
    print(f"  {features}")
    return 0
