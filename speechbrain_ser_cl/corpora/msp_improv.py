"""Reads MSP-IMPROV, acted dyadic conversations (Busso et al. 2017)."""

import re
from collections import Counter
from pathlib import Path

from speechbrain_ser_cl.corpora.card import Scale
from speechbrain_ser_cl.corpora.checks import (
    Candidate,
    audio_files,
    emotion_of,
    locate,
    make_utterances,
    numbers,
)
from speechbrain_ser_cl.corpora.emotion_words import EMOTION_WORDS
from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.registry import CORPORA

# UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:1.857143; V:3.0; D:2.571429 ; N:4.428571;
LINE = re.compile(
    r"UTD-IMPROV-"
    r"(?P<name>(?P<sentence>S\d\d)[A-Z]-(?P<speaker>(?P<letter>[FM])0(?P<session>[1-6]))"
    r"-(?P<scenario>[PRST])-\w+)"
    r"\.avi\s*;\s*(?P<emotion>[^;\s]+)\s*;(?P<values>.*)"
)
# WORKER00000001; Neutral; Neutral; A:3.000000; V:3.000000; D:NaN; N:5.0;
LISTENER = re.compile(r"WORKER\w*\s*;\s*(?P<emotion>[^;]*)")
VALUE = re.compile(r"([AVDN]):([\d.]+)")
DIMENSIONS = {"A": "arousal", "V": "valence", "D": "dominance", "N": "naturalness"}
SCALES = {name: Scale(1, 5) for name in DIMENSIONS.values()}
LABEL_FILES = ("Evaluation.txt", "Evalution.txt")
EMOTION = {
    "A": "angry",
    "H": "happy",
    "S": "sad",
    "N": "neutral",
    "O": "other",
    "X": "other",
}
EXPECTED = {
    "utterances": 8438,
    "angry": 792,
    "happy": 2644,
    "neutral": 3477,
    "sad": 885,
    "other": 640,
}


@CORPORA.register("msp_improv")
def read_msp_improv(folder: str | Path, allow_missing: bool = False) -> list[Utterance]:
    """Reads MSP-IMPROV: 8438 turns, 12 speakers in 6 sessions, English, 44.1 kHz.

    The emotion is the annotators' agreed one (``Evaluation.txt``), not the intended one
    in the file name; other (O) and no agreement (X) are ``"other"``. The text id is the
    target sentence of read (T) and improvised (S) turns; dialogue turns (P, R) have
    none. Votes are each listener's chosen emotion; dimensions are mean ratings.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder with ``Evaluation.txt`` (in some releases ``Evalution.txt``) and
        ``session1`` … ``session6``, which may be below ``Audio``; or its parent.
    allow_missing : bool
        As for :class:`~.cards.CardReader`.

    Returns
    -------
    list of Utterance
        Sorted by id.

    Raises
    ------
    CorpusError
        For unknown emotion codes, and as for :class:`~.cards.CardReader`.

    Example
    -------
    >>> read_msp_improv("no/such/folder")
    Traceback (most recent call last):
    speechbrain_ser_cl.corpora.checks.CorpusError: msp_improv: there is no folder \
no/such/folder
    """
    root = locate(
        folder,
        "msp_improv",
        [".", "MSP-IMPROV", "MSP_IMPROV"],
        " or ".join(LABEL_FILES),
        lambda root: any((root / name).is_file() for name in LABEL_FILES),
    )
    labels = next(p for p in map(root.joinpath, LABEL_FILES) if p.is_file())
    sessions = root / "Audio" if (root / "Audio").is_dir() else root
    audio = {
        path.stem: path
        for path in audio_files(sessions, "session[1-6]/*/*/MSP-IMPROV-*")
    }
    turns: list[re.Match[str]] = []
    votes: list[Counter[str]] = []
    for line in labels.read_text(errors="replace").splitlines():
        if match := LINE.match(line):
            turns.append(match)
            votes.append(Counter())
        elif votes and (said := LISTENER.match(line)):
            word = said["emotion"].strip().lower()
            votes[-1][EMOTION_WORDS.get(word, "other")] += 1
    emotions = emotion_of(
        ((turn["name"], turn["emotion"]) for turn in turns), EMOTION, "msp_improv"
    )
    return make_utterances(
        (
            Candidate(
                name=turn["name"],
                path=audio.get(f"MSP-IMPROV-{turn['name']}"),
                speaker=turn["speaker"],
                emotion=emotions[turn["name"]],
                session=f"session{turn['session']}",
                gender="female" if turn["letter"] == "F" else "male",
                text_id=turn["sentence"] if turn["scenario"] in "ST" else None,
                dimensions=numbers(
                    {DIMENSIONS[key]: n for key, n in VALUE.findall(turn["values"])}
                ),
                votes=heard,
            )
            for turn, heard in zip(turns, votes, strict=True)
        ),
        corpus="msp_improv",
        language="en",
        folder=root,
        expected=EXPECTED,
        allow_missing=allow_missing,
        scales=SCALES,
    )
