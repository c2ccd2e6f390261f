"""Implements ``ser-cl corpora``: lists the corpora that have a name."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechbrain_ser_cl.cli.completion import registered_names

if TYPE_CHECKING:
    from speechbrain_ser_cl.corpora import Card

SUMMARY = "list the corpora that have a name, or recognise those in a folder"
EPILOG = """\
examples:
  ser-cl corpora                      all, a line each
  ser-cl corpora ravdess              all facts about one
  ser-cl corpora --which /data/x      which corpus is there, and its problems

exit status: 0; 1 when --which finds none, or finds problems.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    name = parser.add_argument("name", nargs="?", help="all facts about this one")
    name.completer = lambda **_: registered_names("corpora")  # type: ignore[attr-defined]
    parser.add_argument(
        "--which",
        type=Path,
        metavar="FOLDER",
        help="recognise the corpora in this folder",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prints the table, a card, or the corpora in a folder."""
    from speechbrain_ser_cl.corpora import get_card
    from speechbrain_ser_cl.corpora.cards import known_cards

    if arguments.which is not None:
        return _which(arguments.which, arguments.json)
    if arguments.name is not None:
        by_name = {card.name: card for card in known_cards()}
        card = by_name.get(arguments.name) or get_card(arguments.name)
        if arguments.json:
            print(json.dumps(asdict(card), indent=1, ensure_ascii=False))
        else:
            print(card_text(card))
        return 0
    cards = known_cards()
    if arguments.json:
        print(json.dumps([asdict(card) for card in cards], indent=1))
        return 0
    rows = [list(TABLE), *(table_row(card) for card in cards)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(TABLE))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
    return 0


TABLE = ("name", "languages", "hours", "utterances", "speakers", "emotions", "terms")


def table_row(card: Card) -> list[str]:
    """Makes a card's row in the table of all corpora.

    Arguments
    ---------
    card : Card
        Description of the corpus.

    Returns
    -------
    list of str
        One cell per column of ``TABLE``; empty if unknown.
    """
    counts = card.counts
    terms = card.licence.name
    if card.licence.allows in ("non-commercial", "research"):
        terms = f"{terms}: {card.licence.limits}"
    return [
        card.name,
        ", ".join(card.languages),
        f"{card.hours:g}" if card.hours else "",
        str(counts.utterances),
        str(counts.speakers or ""),
        str(len(counts.emotions) or ""),
        terms,
    ]


def card_text(card: Card) -> str:
    """Formats all facts of a card, and the command that reads the corpus.

    Arguments
    ---------
    card : Card
        Description of the corpus.

    Returns
    -------
    str
        Lines for the terminal.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import get_card
    >>> print(card_text(get_card("polish")).partition("files")[0])
    Emotions in Polish speech recordings (polish)
      ...
    """
    counts, licence = card.counts, card.licence
    limits = None if licence.allows == "disputed" else licence.limits
    lines: list[tuple[str, str]] = [
        ("page", card.page),
        ("cite", card.citation),
        ("languages", ", ".join(card.languages)),
        ("speech", card.speech),
        ("terms", "; ".join(filter(None, (licence.name, limits)))),
        *(("", f"{who} says: {what}") for who, what in licence.says.items()),
        ("hours", f"{card.hours:g}" if card.hours else "not known"),
        ("utterances", str(counts.utterances)),
        ("speakers", str(counts.speakers or "not known")),
        (
            "emotions",
            ", ".join(f"{name} {n}" for name, n in counts.emotions.items())
            or "not counted",
        ),
        ("checked by", card.checked),
        ("not checked", ", ".join(card.unchecked)),
        *(
            (name, f"{other.utterances} utterances. {other.note}".strip())
            for name, other in card.variants.items()
        ),
        ("also called", ", ".join(card.aliases)),
        ("files", card.example.path if card.example else ""),
        ("labels in", ", ".join(table.file for table in card.tables)),
        ("needs", "the extra media" if card.media else ""),
        *(("note", note) for note in card.notes),
        *(("bad file", f"{name}: {what}") for name, what in card.bad.items()),
    ]
    lines += [
        ("check it", f"ser-cl check /data/{card.name} --corpus {card.name}"),
        (
            "train on it",
            f"ser-cl train own_corpus/finetune --corpora '{{{card.name}: FOLDER}}'"
            + (" --emotion_map all" if counts.emotions else ""),
        ),
    ]
    body = [f"  {key:<12} {value}" for key, value in lines if value]
    return "\n".join([f"{card.title} ({card.name})", *body])


def _which(folder: Path, as_json: bool) -> int:
    """Prints which corpora are in a folder, and the problems of each."""
    from speechbrain_ser_cl.corpora.cards import recognise

    found = recognise(folder)
    if as_json:
        told: list[dict[str, Any]] = [asdict(one) for one in found]
        print(json.dumps(told, indent=1, ensure_ascii=False))
    elif not found:
        print(f"{folder}: no corpus that is known by name; see `ser-cl corpora`")
    else:
        for one in found:
            share = f"{one.found} of {one.expected} utterances"
            print(f"{one.name}: {share}; {one.problem or 'nothing wrong'}")
    return 0 if found and not found[0].problem else 1
