"""Reads M3ED, dialogues of Chinese television series (Zhao et al. 2022)."""

import json
from pathlib import Path
from typing import Any

from speechbrain_ser_cl.corpora.cards import get_card
from speechbrain_ser_cl.corpora.checks import (
    Candidate,
    CorpusError,
    audio_files,
    count_speakers,
    emotion_of,
    locate,
    make_utterances,
)
from speechbrain_ser_cl.corpora.emotion_words import GENDER_WORDS
from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.registry import CORPORA

EMOTION = {
    "Anger": "angry",
    "Disgust": "disgusted",
    "Fear": "fearful",
    "Happy": "happy",
    "Neutral": "neutral",
    "Sad": "sad",
    "Surprise": "surprised",
}
PARTS = {"train": "train", "val": "valid", "test": "test"}


@CORPORA.register("m3ed")
def read_m3ed(folder: str | Path, allow_missing: bool = False) -> list[Utterance]:
    """Reads M3ED: 24437 turns of 635 roles in 56 series, Mandarin, 16 kHz.

    The emotion is the annotators' main one (``final_main_emo``); a session is a
    dialogue. The annotations list 12 more turns, which have no audio.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder with ``annotation.json``, ``modality_speech`` and optionally
        ``splitInfo``, which assigns series to training, validation and test.
    allow_missing : bool
        As for :class:`~.cards.CardReader`.

    Returns
    -------
    list of Utterance
        Sorted by id.

    Raises
    ------
    CorpusError
        For a damaged ``annotation.json`` and unknown emotions, and as for
        :class:`~.cards.CardReader`.

    Example
    -------
    >>> read_m3ed("no/such/folder")
    Traceback (most recent call last):
    speechbrain_ser_cl.corpora.checks.CorpusError: m3ed: there is no folder \
no/such/folder
    """
    labels = "annotation.json"
    root = locate(
        folder,
        "m3ed",
        [".", "M3ED", "m3ed"],
        labels,
        lambda root: (root / labels).is_file(),
    )
    audio = {path.stem: path for path in audio_files(root, "modality_speech/*")}
    part = {
        series: PARTS[name]
        for name in PARTS
        if (path := root / "splitInfo" / f"movie_list_{name}.txt").is_file()
        for series in path.read_text(encoding="utf-8").split()
    }
    turns: dict[str, dict[str, Any]] = {}
    try:
        annotated = json.loads((root / labels).read_text(encoding="utf-8"))
        for series, dialogues in annotated.items():
            for dialogue, said in dialogues.items():
                for turn, told in said["Dialog"].items():
                    who = said["SpeakerInfo"][told["Speaker"]]
                    turns[f"{told['Speaker']}_{turn}"] = {
                        "speaker": f"{series}_{who['Name']}",
                        "emotion": told["EmoAnnotation"]["final_main_emo"],
                        "session": dialogue,
                        "gender": GENDER_WORDS.get(str(who.get("Gender", "")).lower()),
                        "split": part.get(series),
                    }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(
            f"m3ed: {root / labels} is not as published ({error!r}); expected series, "
            "dialogues, Dialog and SpeakerInfo. Get the file again"
        ) from None
    there = {name: turn for name, turn in turns.items() if name in audio}
    emotions = emotion_of(
        ((name, turn["emotion"]) for name, turn in there.items()), EMOTION, "m3ed"
    )
    return make_utterances(
        (
            Candidate(name=name, path=audio[name], **turn | {"emotion": emotions[name]})
            for name, turn in there.items()
        ),
        corpus="m3ed",
        language="zh",
        folder=root,
        expected=get_card("m3ed").counts.expected(),
        count=count_speakers,
        allow_missing=allow_missing,
    )
