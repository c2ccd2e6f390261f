"""The command line: ``ser-cl list``, ``ser-cl prepare``, ``ser-cl table``.

What a command needs is imported when it runs, so that ``ser-cl --help`` does
not wait for torch.
"""

import argparse
import inspect
import json
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from speechbrain_ser_cl import __version__
from speechbrain_ser_cl.registry import REGISTRIES


def list_entries(arguments: argparse.Namespace) -> int:
    """``ser-cl list``: name, package and one line about each registered part."""
    rows = []
    for registry in REGISTRIES.values():
        if arguments.kind not in (None, registry.plural):
            continue
        for name in registry.names(arguments.pattern):
            summary = (inspect.getdoc(registry.get(name)) or "").partition("\n")[0]
            rows.append(
                {
                    "kind": registry.plural,
                    "name": name,
                    "package": registry.source(name),
                    "summary": summary,
                }
            )
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return 0
    if not rows:
        what = arguments.kind or "names"
        raise ValueError(f"no {what} match {arguments.pattern!r}; try `ser-cl list`")
    widths = {key: max(len(row[key]) for row in rows) for key in rows[0]}
    for row in rows:
        print(
            "  ".join(row[key].ljust(width) for key, width in widths.items()).rstrip()
        )
    return 0


def prepare(arguments: argparse.Namespace) -> int:
    """``ser-cl prepare``: a corpus folder to a manifest, with its counts."""
    from speechbrain_ser_cl.data.manifest import write_manifest
    from speechbrain_ser_cl.registry import CORPORA

    read_corpus = CORPORA.get(arguments.corpus)
    utterances = read_corpus(arguments.folder, allow_missing=arguments.allow_missing)
    write_manifest(utterances, arguments.manifest, arguments.folder)
    hours = sum(utterance.duration for utterance in utterances) / 3600
    print(f"{arguments.manifest}: {len(utterances)} utterances, {hours:.2f} h")
    for key in ("emotion", "speaker"):
        counts = Counter(str(getattr(utterance, key)) for utterance in utterances)
        print(f"  {len(counts)} {key}s: " + _counts(counts))
    return 0


def _counts(counts: Counter) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def table(arguments: argparse.Namespace) -> int:
    """``ser-cl table``: fill a README's result tables from the runs' results."""
    from speechbrain_ser_cl.evaluation.tables import main as fill_tables

    check = ["--check"] if arguments.check else []
    return fill_tables([str(arguments.readme), *check])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ser-cl",
        description="Contrastive learning and domain adaptation for speech emotion "
        "recognition.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Callable, summary: str) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=summary, description=summary)
        subparser.set_defaults(function=function)
        subparser.add_argument(
            "--verbose", action="store_true", help="on an error, print the full trace"
        )
        return subparser

    lister = command("list", list_entries, "what can be built by name")
    lister.add_argument(
        "kind",
        nargs="?",
        choices=[registry.plural for registry in REGISTRIES.values()],
        help="only this kind",
    )
    lister.add_argument(
        "pattern", nargs="?", default="*", help="only names like this: '*con*'"
    )
    lister.add_argument("--json", action="store_true", help="print JSON")

    preparer = command("prepare", prepare, "read a corpus folder, write its manifest")
    preparer.add_argument("corpus", help="a name from `ser-cl list corpora`")
    preparer.add_argument("folder", type=Path, help="where the corpus lies")
    preparer.add_argument("manifest", type=Path, help="the JSON file to write")
    preparer.add_argument(
        "--allow-missing",
        action="store_true",
        help="go on, with a warning, when files are missing or counts are off",
    )

    tabler = command("table", table, "fill a README's tables from results.json files")
    tabler.add_argument("readme", type=Path, help="a README.md with table markers")
    tabler.add_argument(
        "--check", action="store_true", help="write nothing; status 1 when out of date"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ser-cl``.

    Arguments
    ---------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    status : int
        0; 1 when ``table --check`` found an outdated README; 2 after an error,
        which is told in one line on standard error.

    Example
    -------
    >>> main(["list", "losses", "infonce", "--json"])
    [
      {
        "kind": "losses",
        "name": "infonce",
        ...
      }
    ]
    0
    """
    arguments = _parser().parse_args(argv)
    try:
        return arguments.function(arguments)
    except (ValueError, OSError, ImportError) as error:
        if arguments.verbose:
            traceback.print_exc()
        message = " ".join(str(error).split())
        print(f"ser-cl: {message} (--verbose shows the trace)", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
