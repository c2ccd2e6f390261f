"""Ryerson audio-visual database, speech part (RAVDESS; Livingstone & Russo 2018)."""

import re
from pathlib import Path

from speechbrain_ser_cl.corpora.checks import (
    Candidate,
    audio_files,
    emotion_of,
    finish,
    locate,
    parse_names,
)
from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.registry import CORPORA

# Modality, channel, emotion, intensity, statement, repetition, actor.
NAME = re.compile(
    r"03-(?P<channel>0[12])-(?P<emotion>\d\d)-\d\d-(?P<text>\d\d)-\d\d-(?P<actor>\d\d)"
)
SPEECH = "01"
EMOTION = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgusted",
    "08": "surprised",
}
EXPECTED = {
    "utterances": 1440,
    "neutral": 96,
    **{emotion: 192 for emotion in EMOTION.values() if emotion != "neutral"},
}


@CORPORA.register("ravdess")
def read_ravdess(folder: str | Path, allow_missing: bool = False) -> list[Utterance]:
    """Read RAVDESS speech: 1440 utterances, 24 actors, 8 emotions, English, 48 kHz.

    A file ``Actor_12/03-01-06-01-02-01-12.wav`` is audio only (03), speech (01),
    fearful (06), normal intensity, statement 02, first repetition, actor 12. Actors
    with odd numbers are men. Sung files (channel 02) in the same folders are not
    read.

    Arguments
    ---------
    folder : str or pathlib.Path
        The folder with ``Actor_01`` … ``Actor_24`` or the folder above; wav or flac.
    allow_missing : bool
        Whether corrupt files and wrong counts become one warning.

    Returns
    -------
    list of Utterance
        Sorted by id.

    Raises
    ------
    CorpusError
        For a wrong folder, file names of another form and unknown emotion numbers;
        unless ``allow_missing``, for corrupt files and wrong counts.

    Example
    -------
    >>> read_ravdess("no/such/folder")
    Traceback (most recent call last):
    speechbrain_ser_cl.corpora.checks.CorpusError: ravdess: there is no folder \
no/such/folder
    """
    root = locate(
        folder,
        "ravdess",
        [".", "RAVDESS", "audio_speech_actors_01-24", "Audio_Speech_Actors_01-24"],
        "folders Actor_01 to Actor_24 with files such as 03-01-06-01-02-01-12.wav",
        lambda root: bool(audio_files(root, "Actor_*/03-01-*")),
    )
    names = [
        (path, match)
        for path, match in parse_names(
            audio_files(root, "Actor_*/*"), NAME, "ravdess", "03-01-06-01-02-01-12.wav"
        )
        if match["channel"] == SPEECH
    ]
    emotions = emotion_of(
        ((path.stem, match["emotion"]) for path, match in names), EMOTION, "ravdess"
    )
    return finish(
        (
            Candidate(
                name=path.stem,
                path=path,
                speaker=match["actor"],
                emotion=emotions[path.stem],
                gender="male" if int(match["actor"]) % 2 else "female",
                text_id=match["text"],
            )
            for path, match in names
        ),
        corpus="ravdess",
        language="en",
        folder=root,
        expected=EXPECTED,
        allow_missing=allow_missing,
    )
