"""Reads IEMOCAP, a database of emotional dyadic conversations (Busso et al. 2008)."""

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
    visible,
)
from speechbrain_ser_cl.corpora.emotion_words import EMOTION_WORDS
from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.registry import CORPORA

# [6.2901 - 8.2357]	Ses01F_impro01_F000	neu	[2.5000, 2.5000, 2.5000]
LINE = re.compile(
    r"\[[^\]]*\]\s+"
    r"(?P<name>Ses0(?P<session>[1-5])[FM]_(?P<part>\w+)_(?P<letter>[FM])\d+)"
    r"\s+(?P<emotion>\w+)\s+"
    r"\[(?P<valence>[^,\]]*),?(?P<arousal>[^,\]]*),?(?P<dominance>[^,\]]*)"
)
# C-E4:	Frustration; Anger;	(tired); C-F1 is the actor.
LISTENER = re.compile(r"C-E\d+:\s+(?P<words>[^()]*)")
# Parts of a script that was recorded in pieces end with a letter: script01_1b.
SCRIPT = re.compile(r"script\d\d_\d")
EMOTION = {
    "neu": "neutral",
    "hap": "happy",
    "exc": "excited",
    "sad": "sad",
    "ang": "angry",
    "fru": "frustrated",
    "fea": "fearful",
    "sur": "surprised",
    "dis": "disgusted",
    "oth": "other",
    "xxx": "other",
}
SCALES = {name: Scale(1, 5) for name in ("valence", "arousal", "dominance")}
FOUR_CLASSES = {"angry", "happy", "excited", "neutral", "sad"}
EXPECTED = {
    "utterances": 10039,
    "angry": 1103,
    "happy + excited": 1636,
    "neutral": 1708,
    "sad": 1084,
    "four classes in iemocap_Ses01": 1085,
    "four classes in iemocap_Ses02": 1023,
    "four classes in iemocap_Ses03": 1151,
    "four classes in iemocap_Ses04": 1031,
    "four classes in iemocap_Ses05": 1241,
}


@CORPORA.register("iemocap")
def read_iemocap(folder: str | Path, allow_missing: bool = False) -> list[Utterance]:
    """Reads IEMOCAP: 10 039 turns, 10 speakers in 5 sessions, English, 16 kHz.

    The speaker is the session and the letter of the *last* part of the name:
    ``Ses01M_impro01_F000`` is the woman of session 1. The letter in the dialogue's name
    is the person with motion capture markers. Votes are those of the listeners
    (``C-E…``); some listeners chose two emotions; free words count as ``"other"``.
    Turns without agreement (``xxx``) are ``"other"``. The text id is the script;
    improvised turns have none.

    Arguments
    ---------
    folder : str or pathlib.Path
        ``IEMOCAP_full_release`` with ``Session1`` … ``Session5``, or its parent.
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
    >>> read_iemocap("no/such/folder")
    Traceback (most recent call last):
    speechbrain_ser_cl.corpora.checks.CorpusError: iemocap: there is no folder \
no/such/folder
    """
    labels = "Session[1-5]/dialog/EmoEvaluation/*.txt"
    root = locate(
        folder,
        "iemocap",
        [".", "IEMOCAP_full_release", "IEMOCAP/IEMOCAP_full_release"],
        labels,
        lambda root: bool(visible(root, labels)),
    )
    audio = {
        path.stem: path
        for path in audio_files(root, "Session[1-5]/sentences/wav/*/Ses*")
    }
    turns: list[re.Match[str]] = []
    votes: list[Counter[str]] = []
    for path in visible(root, labels):
        for line in path.read_text(errors="replace").splitlines():
            if match := LINE.match(line):
                turns.append(match)
                votes.append(Counter())
            elif votes and (said := LISTENER.match(line)):
                votes[-1].update(_heard(said["words"]))
    emotions = emotion_of(
        ((turn["name"], turn["emotion"]) for turn in turns), EMOTION, "iemocap"
    )
    return make_utterances(
        (
            Candidate(
                name=turn["name"],
                path=audio.get(turn["name"]),
                speaker=f"Ses0{turn['session']}{turn['letter']}",
                emotion=emotions[turn["name"]],
                session=f"Ses0{turn['session']}",
                gender="female" if turn["letter"] == "F" else "male",
                text_id=script[0] if (script := SCRIPT.match(turn["part"])) else None,
                dimensions=numbers({name: turn[name] for name in SCALES}),
                votes=heard,
            )
            for turn, heard in zip(turns, votes, strict=True)
        ),
        corpus="iemocap",
        language="en",
        folder=root,
        expected=EXPECTED,
        count=_count,
        allow_missing=allow_missing,
        scales=SCALES,
    )


def _heard(words: str) -> list[str]:
    said = (word.strip().lower().removesuffix(" state") for word in words.split(";"))
    return [EMOTION_WORDS.get(word, "other") for word in said if word]


def _count(utterances: list[Utterance]) -> Counter[str]:
    counts = Counter(
        f"four classes in {u.session}" for u in utterances if u.emotion in FOUR_CLASSES
    )
    counts["happy + excited"] = sum(
        u.emotion in ("happy", "excited") for u in utterances
    )
    return counts
