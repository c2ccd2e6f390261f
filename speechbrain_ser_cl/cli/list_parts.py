"""Implements ``ser-cl list``: lists the parts that can be built by name."""

import argparse
import inspect
import json
import re
from typing import Any

from speechbrain_ser_cl.cli.completion import registered_names
from speechbrain_ser_cl.registry import PACKAGE, REGISTRIES

SUMMARY = "list what can be built by name"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.add_argument(
        "kind",
        nargs="?",
        choices=[registry.plural for registry in REGISTRIES.values()],
        help="only this kind",
    )
    pattern: Any = parser.add_argument(
        "pattern", nargs="?", default="*", help="only names like this: '*con*'"
    )
    pattern.completer = lambda parsed_args, **_: registered_names(parsed_args.kind)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prints kind, name, package and a line about each registered part."""
    rows = []
    for registry in REGISTRIES.values():
        if arguments.kind not in (None, registry.plural):
            continue
        for name in registry.names(arguments.pattern):
            part = registry.get(name)
            row = {
                "kind": registry.plural,
                "name": name,
                "package": registry.source(name),
                "summary": (inspect.getdoc(part) or "").partition("\n")[0],
            }
            if registry.plural == "losses":
                row |= {"call": _call(part), "paper": _paper(part)}
            rows.append(row)
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return 0
    if not rows:
        what = arguments.kind or "names"
        raise ValueError(f"no {what} match {arguments.pattern!r}; try `ser-cl list`")
    columns = ["kind", "name", "package", "summary"]
    if arguments.kind == "losses":
        columns = ["name", "call", "summary", "paper", "package"]
        for row in rows:
            # Shown only if known.
            row["package"] = row["package"].replace(PACKAGE, "")
    widths = {key: max(len(row[key]) for row in rows) for key in columns}
    for row in rows:
        print(
            "  ".join(row[key].ljust(width) for key, width in widths.items()).rstrip()
        )
    return 0


def _call(part: Any) -> str:
    """Returns the arguments of a class's ``forward``; '' if it defines none."""
    forward: Any = getattr(part, "forward", None)
    # torch gives a module without forward() a function with another name.
    if not inspect.isclass(part) or getattr(forward, "__name__", "") != "forward":
        return ""
    _, *arguments = inspect.signature(forward).parameters.values()
    return str(inspect.Signature([a.replace(annotation=a.empty) for a in arguments]))


def _paper(part: Any) -> str:
    """Returns authors and year of the docstring's first reference; '' without one."""
    reference = re.search(
        r"^References\n-+\n(.+(?:\n.+)*)", inspect.getdoc(part) or "", re.MULTILINE
    )
    if reference is None:
        return ""
    return " ".join(reference[1].split()).partition(":")[0]
