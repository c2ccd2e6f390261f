"""Berlin database of emotional speech (EmoDB; Burkhardt et al. 2005)."""

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

NAME = re.compile(r"(?P<speaker>\d\d)(?P<text>[ab]\d\d)(?P<emotion>[A-Z])[a-z]")
EMOTION = {
    "W": "angry",
    "L": "bored",
    "E": "disgusted",
    "A": "fearful",
    "F": "happy",
    "T": "sad",
    "N": "neutral",
}
MEN = {"03", "10", "11", "12", "15"}
EXPECTED = {
    "utterances": 535,
    "angry": 127,
    "bored": 81,
    "disgusted": 46,
    "fearful": 69,
    "happy": 71,
    "sad": 62,
    "neutral": 79,
}


@CORPORA.register("emodb")
def read_emodb(folder: str | Path, allow_missing: bool = False) -> list[Utterance]:
    """Read EmoDB: 535 utterances, 10 speakers, 7 emotions, German, 16 kHz.

    A file ``03a01Fa.wav`` is speaker 03, text a01, emotion F (the letters of the
    German words), version a.

    Arguments
    ---------
    folder : str or pathlib.Path
        ``EmoDB``, its ``wav`` or the folder above.
    allow_missing : bool
        Whether corrupt files and wrong counts become one warning.

    Returns
    -------
    list of Utterance
        Sorted by id.

    Raises
    ------
    CorpusError
        For a wrong folder, file names of another form, unknown emotion letters,
        and copies that were cut or padded to one length; unless
        ``allow_missing``, for corrupt files and wrong counts.

    Example
    -------
    >>> read_emodb("no/such/folder")
    Traceback (most recent call last):
    speechbrain_ser_cl.corpora.checks.CorpusError: emodb: there is no folder \
no/such/folder
    """
    root = locate(
        folder,
        "emodb",
        [".", "wav", "EmoDB/wav", "emodb/wav"],
        "audio files such as 03a01Fa.wav",
        lambda root: any(NAME.fullmatch(p.stem) for p in audio_files(root, "*")),
    )
    names = parse_names(audio_files(root, "*"), NAME, "emodb", "03a01Fa.wav")
    emotions = emotion_of(
        ((path.stem, match["emotion"]) for path, match in names), EMOTION, "emodb"
    )
    utterances = finish(
        (
            Candidate(
                name=path.stem,
                path=path,
                speaker=match["speaker"],
                emotion=emotions[path.stem],
                gender="male" if match["speaker"] in MEN else "female",
                text_id=match["text"],
            )
            for path, match in names
        ),
        corpus="emodb",
        language="de",
        folder=root,
        expected=EXPECTED,
        allow_missing=allow_missing,
    )
    if len(utterances) > 1 and len({u.duration for u in utterances}) == 1:
        raise CorpusError(
            f"emodb in {root}: all {len(utterances)} files last "
            f"{utterances[0].duration} s. This is one of the copies that were cut or "
            "padded to one length; get the original one"
        )
    return utterances
