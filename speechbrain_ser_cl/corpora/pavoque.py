"""Reads PAVOQUE, one German actor in five styles (Steiner et al. 2013)."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from speechbrain_ser_cl.corpora.card import parse_yaml
from speechbrain_ser_cl.corpora.cards import get_card
from speechbrain_ser_cl.corpora.checks import (
    Candidate,
    CorpusError,
    count_speakers,
    emotion_of,
    locate,
    make_utterances,
    visible,
)
from speechbrain_ser_cl.corpora.cutting import Piece, cut_pieces
from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.registry import CORPORA

logger = logging.getLogger(__name__)

EMOTION = {name: name for name in get_card("pavoque").counts.emotions}
_KEYS = ("prompt", "text", "style", "start", "end")


@CORPORA.register("pavoque")
def read_pavoque(
    folder: str | Path,
    allow_missing: bool = False,
    cut_into: str | Path | None = None,
) -> list[Utterance]:
    """Reads PAVOQUE: 7334 utterances of one man in five styles, German, 44.1 kHz.

    A file ``pavoque-*.yaml`` beside each long recording gives time and style of each
    utterance. The text id is the sentence; 400 sentences are spoken in four or more
    styles, many of them repeatedly, also in the outtakes. 238 entries are left out:
    they are 119 pieces of audio that are listed with two styles.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder with ``pavoque-*.yaml`` and ``pavoque-*.flac``, or its parent.
    allow_missing : bool
        As for :class:`~.cards.CardReader`.
    cut_into : str or pathlib.Path, optional
        Output folder of the utterances as 16 kHz FLAC; existing files are kept.
        Default: ``cut`` in the corpus folder.

    Returns
    -------
    list of Utterance
        Sorted by id.

    Raises
    ------
    CorpusError
        For a damaged list of utterances and unknown styles, and as for
        :class:`~.cards.CardReader`.

    Example
    -------
    >>> read_pavoque("no/such/folder")
    Traceback (most recent call last):
    speechbrain_ser_cl.corpora.checks.CorpusError: pavoque: there is no folder \
no/such/folder
    """
    root = _root(folder)
    listed = [
        (recording, f"{entry['prompt']}-{entry['style']}", entry)
        for recording in visible(root, "pavoque-*.yaml")
        for entry in _entries(recording)
    ]
    times = Counter((recording, entry["start"]) for recording, _, entry in listed)
    unclear = Counter(
        str(entry["style"])
        for recording, _, entry in listed
        if times[recording, entry["start"]] > 1
    )
    if unclear:
        logger.info("pavoque: %d left out, two styles each time", unclear.total())
        listed = [one for one in listed if times[one[0], one[2]["start"]] == 1]
    expected = Counter(get_card("pavoque").counts.expected())
    expected.subtract(unclear)
    expected["utterances"] -= unclear.total()
    emotions = emotion_of(
        ((name, str(entry["style"])) for _, name, entry in listed), EMOTION, "pavoque"
    )
    pieces = [
        Piece(name, audio, entry["start"], entry["end"])
        if (audio := recording.with_suffix(".flac")).is_file()
        else None
        for recording, name, entry in listed
    ]
    paths = cut_pieces(pieces, cut_into or root / "cut", allow_missing, "pavoque")
    return make_utterances(
        (
            Candidate(
                name=name,
                path=path,
                speaker="1",
                emotion=emotions[name],
                gender="male",
                text_id=" ".join(str(entry["text"]).split()),
                recording=recording.stem,
                start=entry["start"],
                end=entry["end"],
            )
            for (recording, name, entry), path in zip(listed, paths, strict=True)
        ),
        corpus="pavoque",
        language="de",
        folder=root,
        expected=expected,
        count=count_speakers,
        allow_missing=allow_missing,
    )


def count_pavoque(folder: str | Path) -> Counter[str]:
    """Counts the utterances that have audio, by style, without cutting them.

    Arguments
    ---------
    folder : str or pathlib.Path
        As for ``read_pavoque``.

    Returns
    -------
    collections.Counter
        Style to number of utterances.

    Raises
    ------
    CorpusError
        As for ``read_pavoque``, for folders and lists.

    Example
    -------
    >>> count_pavoque("no/such/folder")
    Traceback (most recent call last):
    speechbrain_ser_cl.corpora.checks.CorpusError: pavoque: there is no folder \
no/such/folder
    """
    return Counter(
        str(entry["style"])
        for recording in visible(_root(folder), "pavoque-*.yaml")
        if recording.with_suffix(".flac").is_file()
        for entry in _entries(recording)
    )


read_pavoque.count = count_pavoque  # type: ignore[attr-defined]


def _root(folder: str | Path) -> Path:
    return locate(
        folder,
        "pavoque",
        [".", "PAVOQUE", "pavoque", "pavoque-data"],
        "pavoque-*.yaml",
        lambda root: bool(visible(root, "pavoque-*.yaml")),
    )


def _entries(path: Path) -> Iterator[Mapping[str, Any]]:
    """Reads the utterances of a list, without the phonetic segments (9 of 10 lines)."""
    with open(path, encoding="utf-8") as file:
        text = "".join(line for line in file if not line.startswith("  - "))
    try:
        for entry in parse_yaml(text):
            fields = {key: entry[key] for key in _KEYS}
            if not 0 <= fields["start"] < fields["end"]:
                raise ValueError(f"{fields['prompt']} ends before it begins")
            yield fields
    except (yaml.YAMLError, ValueError, KeyError, TypeError) as error:
        raise CorpusError(
            f"pavoque: {path} is not as published ({error!r:.200}); expected a list of "
            f"utterances with {', '.join(_KEYS)}. Get the file again"
        ) from None
