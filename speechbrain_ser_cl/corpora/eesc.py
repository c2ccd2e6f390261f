"""Reads the Estonian Emotional Speech Corpus (Altrov and Pajupuu 2012)."""

import re
from pathlib import Path

from speechbrain_ser_cl.corpora.cards import get_card
from speechbrain_ser_cl.corpora.checks import (
    Candidate,
    CorpusError,
    audio_files,
    count_speakers,
    emotion_of,
    locate,
    make_utterances,
    visible,
)
from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.registry import CORPORA
from speechbrain_ser_cl.utils.errors import offenders

EMOTION = {"anger": "angry", "joy": "happy", "sadness": "sad", "neutral": "neutral"}
# First interval of a tier, in Praat's long and short text formats.
TIER = r'"{}"[^"]*"((?:[^"]|"")*)"'


@CORPORA.register("eesc")
def read_eesc(folder: str | Path, allow_missing: bool = False) -> list[Utterance]:
    """Reads EESC: 1164 Estonian sentences by one woman.

    Emotion and sentence are the first intervals of the tiers of these names in the
    ``.TextGrid`` file beside each audio file.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder with audio and ``.TextGrid`` files, or its parent.
    allow_missing : bool
        As for :class:`~.cards.CardReader`.

    Returns
    -------
    list of Utterance
        Sorted by id.

    Raises
    ------
    CorpusError
        For files without an emotion and unknown emotions, and as for
        :class:`~.cards.CardReader`.

    Example
    -------
    >>> read_eesc("no/such/folder")
    Traceback (most recent call last):
    speechbrain_ser_cl.corpora.checks.CorpusError: eesc: there is no folder \
no/such/folder
    """
    root = locate(
        folder,
        "eesc",
        [".", "EKORPUS", "ekorpus", "EESC"],
        "*.TextGrid",
        lambda root: bool(visible(root, "*.TextGrid")),
    )
    audio = {path.stem: path for path in audio_files(root, "*")}
    grids = {path.stem: _text(path) for path in visible(root, "*.TextGrid")}
    marks = {
        tier: {name: re.search(TIER.format(tier), text) for name, text in grids.items()}
        for tier in ("emotion", "sentence")
    }
    without = [name for name in {**audio, **grids} if not marks["emotion"].get(name)]
    if without:
        raise CorpusError(
            f"eesc: no .TextGrid with a tier `emotion` for ({offenders(without)}) in "
            f"{root}. Get the files again, or remove files that do not belong to the "
            "corpus"
        )
    emotions = emotion_of(
        ((name, found[1].strip()) for name, found in marks["emotion"].items() if found),
        EMOTION,
        "eesc",
    )
    return make_utterances(
        (
            Candidate(
                name=name,
                path=audio.get(name),
                speaker="1",
                emotion=emotions[name],
                gender="female",
                text_id=found[1].strip() if found else None,
            )
            for name, found in marks["sentence"].items()
        ),
        corpus="eesc",
        language="et",
        folder=root,
        expected=get_card("eesc").counts.expected(),
        count=count_speakers,
        allow_missing=allow_missing,
    )


def _text(path: Path) -> str:
    """Reads a Praat file: UTF-8, or UTF-16 with a byte order mark."""
    data = path.read_bytes()
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    return data.decode("utf-16" if utf16 else "utf-8-sig", errors="replace")
