"""The command line ``ser-cl``: one module per command.

A command's module has ``SUMMARY``, one line; ``add_arguments(parser)``; and
``run(arguments)``, which returns the exit status. ``USAGE``, ``DESCRIPTION`` and
``EPILOG`` are shown as they are by ``--help``. With ``TAKES_MORE`` the command accepts
``--key value`` of a YAML, as ``arguments.more``. Heavy modules are imported in ``run``,
so that ``ser-cl --help`` does not import torch. Errors that a user can correct are
raised as ``ValueError``, ``OSError`` or ``ImportError``.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from speechbrain_ser_cl import __version__
from speechbrain_ser_cl.cli import (
    bench,
    check,
    compare,
    completion,
    corpora,
    crossval,
    demo,
    doctor,
    evaluate,
    export,
    few_labels,
    list_parts,
    predict,
    prepare,
    probe,
    push,
    report,
    search,
    table,
    train,
)
from speechbrain_ser_cl.utils.errors import plain_warnings

COMMANDS = {
    "list": list_parts,
    "corpora": corpora,
    "prepare": prepare,
    "check": check,
    "probe": probe,
    "bench": bench,
    "train": train,
    "crossval": crossval,
    "search": search,
    "compare": compare,
    "report": report,
    "table": table,
    "few-labels": few_labels,
    "export": export,
    "push": push,
    "evaluate": evaluate,
    "predict": predict,
    "demo": demo,
    "doctor": doctor,
    "completion": completion,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ser-cl",
        description="Contrastive learning and domain adaptation for speech emotion "
        "recognition.",
        epilog="Exit status: 0; 1 when a check failed (each command's "
        "help says what); 2 after an error; 130 when interrupted.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        takes_more = getattr(module, "TAKES_MORE", False)
        command = commands.add_parser(
            name,
            help=module.SUMMARY,
            usage=getattr(module, "USAGE", None),
            description=getattr(module, "DESCRIPTION", module.SUMMARY),
            epilog=getattr(module, "EPILOG", None),
            allow_abbrev=not takes_more,  # --fold must not become --folds
        )
        if hasattr(module, "EPILOG"):
            command.formatter_class = argparse.RawDescriptionHelpFormatter
        command.set_defaults(function=module.run, takes_more=takes_more)
        module.add_arguments(command)
        command.add_argument(
            "--verbose", action="store_true", help="on an error, print the full trace"
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``ser-cl``.

    Arguments
    ---------
    argv : sequence of str, optional
        Arguments. Default: those of the process.

    Returns
    -------
    status : int
        0; 1 when a check failed: an outdated README by ``table --check``, errors in the
        data by ``check``, failed runs of ``crossval``, unreadable files by ``predict``,
        a problem by ``doctor``; 2 after an error, which is printed as one line on
        standard error; 130 when interrupted. ``train`` has the status of the recipe's
        script.

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
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)
    arguments, more = parser.parse_known_args(argv)
    arguments.more = more
    if more and not arguments.takes_more:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    try:
        with plain_warnings():
            status: int = arguments.function(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader closed the pipe, as in `ser-cl list | head`: do not flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # shell convention: 128 + SIGPIPE
    except (ValueError, OSError, ImportError) as error:
        if arguments.verbose:
            traceback.print_exc()
        message = " ".join(str(error).split())
        print(f"ser-cl: {message} (--verbose shows the trace)", file=sys.stderr)
        return 2
