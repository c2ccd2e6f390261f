"""Implements ``ser-cl completion``: prints a shell's completion script."""

import argparse
import re
from importlib.metadata import entry_points
from pathlib import Path

from speechbrain_ser_cl.registry import PACKAGE

SUMMARY = 'print a shell\'s completion script: eval "$(ser-cl completion bash)"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.epilog = (
        'In ~/.bashrc: eval "$(ser-cl completion bash)"; in ~/.zshrc the same with '
        "zsh; in fish: ser-cl completion fish | source"
    )
    parser.add_argument("shell", choices=["bash", "zsh", "fish"])


def run(arguments: argparse.Namespace) -> int:
    """Prints the script."""
    from argcomplete.shell_integration import shellcode

    shell = arguments.shell
    print(shellcode(["ser-cl"], shell="bash" if shell == "zsh" else shell))
    return 0


def registered_names(plural: str) -> list[str]:
    """Reads registered names without importing the parts, which takes seconds.

    Arguments
    ---------
    plural : str
        ``"losses"``, ``"corpora"``, ….

    Returns
    -------
    list of str
        Names of the package's own parts and of plug-ins.

    Example
    -------
    >>> "infonce" in registered_names("losses")
    True
    """
    register = re.compile(rf'{plural.upper()}\.register\("([^"]+)"\)')
    names = {
        name
        for path in Path(__file__).resolve().parents[1].rglob("*.py")
        for name in register.findall(path.read_text(encoding="utf-8"))
    }
    if plural == "corpora":
        cards = Path(__file__).resolve().parents[1] / "corpora" / "cards"
        # Keys with a marker are for Python only.
        names |= {
            path.stem
            for path in cards.glob("*.yaml")
            if "\nmarker:" not in path.read_text(encoding="utf-8")
        }
    names |= {point.name for point in entry_points(group=f"{PACKAGE}.{plural}")}
    return sorted(names)
