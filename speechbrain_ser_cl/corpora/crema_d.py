"""Crowd-sourced emotional multimodal actors dataset (CREMA-D; Cao et al. 2014)."""

import csv
import re
from pathlib import Path

from speechbrain_ser_cl.corpora.checks import (
    Candidate,
    CorpusError,
    audio_files,
    emotion_of,
    finish,
    locate,
    parse_names,
)
from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.registry import CORPORA
from speechbrain_ser_cl.utils.errors import offenders

# One file of the corpus has the intensity X instead of XX.
NAME = re.compile(
    r"(?P<actor>1\d\d\d)_(?P<text>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(LO|MD|HI|XX?)"
)
EMOTION = {
    "ANG": "angry",
    "DIS": "disgusted",
    "FEA": "fearful",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
EXPECTED = {
    "utterances": 7442,
    "neutral": 1087,
    **{emotion: 1271 for emotion in EMOTION.values() if emotion != "neutral"},
}


@CORPORA.register("crema_d")
def read_crema_d(folder: str | Path, allow_missing: bool = False) -> list[Utterance]:
    """Read CREMA-D: 7442 utterances, 91 actors, 6 emotions, English, 16 kHz.

    A file ``1001_DFA_ANG_XX.wav`` is actor 1001, sentence DFA, intended emotion
    angry, intensity unspecified. Genders come from ``VideoDemographics.csv``, where
    it lies in the folder or beside ``AudioWAV``; without it they are None. Many
    copies hold a part of the corpus: those need ``allow_missing``.

    Arguments
    ---------
    folder : str or pathlib.Path
        ``CREMA-D``, its ``AudioWAV`` or the folder above; wav or flac.
    allow_missing : bool
        Whether corrupt files and wrong counts become one warning.

    Returns
    -------
    list of Utterance
        Sorted by id.

    Raises
    ------
    CorpusError
        For a wrong folder, file names of another form, unknown emotion codes and a
        file of demographics without the actors; unless ``allow_missing``, for
        corrupt files and wrong counts.

    Example
    -------
    >>> read_crema_d("no/such/folder")
    Traceback (most recent call last):
    speechbrain_ser_cl.corpora.checks.CorpusError: crema_d: there is no folder \
no/such/folder
    """
    root = locate(
        folder,
        "crema_d",
        [".", "AudioWAV", "CREMA-D/AudioWAV"],
        "audio files such as 1001_DFA_ANG_XX.wav",
        lambda root: any(NAME.fullmatch(p.stem) for p in audio_files(root, "*")),
    )
    names = parse_names(audio_files(root, "*"), NAME, "crema_d", "1001_DFA_ANG_XX.wav")
    emotions = emotion_of(
        ((path.stem, match["emotion"]) for path, match in names), EMOTION, "crema_d"
    )
    genders = _genders(root)
    unknown = {match["actor"] for _, match in names} - genders.keys()
    if genders and unknown:
        raise CorpusError(
            "crema_d: VideoDemographics.csv does not give the sex of actors "
            f"({offenders(unknown)}). Get the complete file or remove it"
        )
    return finish(
        (
            Candidate(
                name=path.stem,
                path=path,
                speaker=match["actor"],
                emotion=emotions[path.stem],
                gender=genders.get(match["actor"]),
                text_id=match["text"],
            )
            for path, match in names
        ),
        corpus="crema_d",
        language="en",
        folder=root,
        expected=EXPECTED,
        allow_missing=allow_missing,
    )


def _genders(root: Path) -> dict[str, str]:
    """Actor to gender, empty where the file is not there."""
    for folder in (root, root.absolute().parent):
        path = folder / "VideoDemographics.csv"
        if path.is_file():
            with open(path, newline="", encoding="utf-8-sig") as file:
                return {
                    row["ActorID"]: row["Sex"].lower() for row in csv.DictReader(file)
                }
    return {}
