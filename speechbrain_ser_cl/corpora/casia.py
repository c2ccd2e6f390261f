"""CASIA Chinese emotional speech, the set of 1200 (Institute of Automation, CAS)."""

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

NAME = re.compile(r"2(0[1-9]|[1-4]\d|50)")  # 201 to 250
EMOTION = {
    "angry": "angry",
    "fear": "fearful",
    "happy": "happy",
    "neutral": "neutral",
    "sad": "sad",
    "surprise": "surprised",
}
# As the folders are called, in lower case; some copies spell one of them otherwise.
SPEAKER = {
    "liuchanhong": "liuchanhong",
    "liuchanhg": "liuchanhong",
    "wangzhe": "wangzhe",
    "zhaoquanyin": "zhaoquanyin",
    "zhaozuoxiang": "zhaozuoxiang",
}
MEN = {"wangzhe", "zhaozuoxiang"}
EXPECTED = {"utterances": 1200, **dict.fromkeys(EMOTION.values(), 200)}


@CORPORA.register("casia")
def read_casia(folder: str | Path, allow_missing: bool = False) -> list[Utterance]:
    """Read CASIA: 1200 utterances, 4 speakers, 6 emotions, Mandarin, 16 kHz.

    A file ``wangzhe/angry/201.wav`` is sentence 201 by this speaker in this emotion.
    All speakers say the same 50 sentences in all emotions, so a split that is random
    has each sentence on both sides.

    Arguments
    ---------
    folder : str or pathlib.Path
        The folder with the speakers' folders, or the one above.
    allow_missing : bool
        Whether corrupt files and wrong counts become one warning.

    Returns
    -------
    list of Utterance
        Sorted by id.

    Raises
    ------
    CorpusError
        For a wrong folder, unknown folders of emotions and file names of another
        form; unless ``allow_missing``, for corrupt files and wrong counts.

    Example
    -------
    >>> read_casia("no/such/folder")
    Traceback (most recent call last):
    speechbrain_ser_cl.corpora.checks.CorpusError: casia: there is no folder \
no/such/folder
    """

    def of_speakers(root: Path) -> list[Path]:
        found = audio_files(root, "*/*/*")
        return [path for path in found if path.parts[-3].lower() in SPEAKER]

    root = locate(
        folder,
        "casia",
        [".", "CASIA", "casia"],
        "folders of speakers with files such as wangzhe/angry/201.wav",
        lambda root: bool(of_speakers(root)),
    )
    names = {
        path: f"{SPEAKER[path.parts[-3].lower()]}_{path.parts[-2]}_{path.stem}"
        for path, _ in parse_names(of_speakers(root), NAME, "casia", "201.wav")
    }
    emotions = emotion_of(
        ((name, path.parts[-2]) for path, name in names.items()), EMOTION, "casia"
    )
    return finish(
        (
            Candidate(
                name=name,
                path=path,
                speaker=(speaker := name.partition("_")[0]),
                emotion=emotions[name],
                gender="male" if speaker in MEN else "female",
                text_id=path.stem,
            )
            for path, name in names.items()
        ),
        corpus="casia",
        language="zh",
        folder=root,
        expected=EXPECTED,
        allow_missing=allow_missing,
    )
