"""What every corpus reader returns: one record per utterance."""

import unicodedata
from dataclasses import dataclass
from pathlib import Path

EMOTIONS = (
    "angry",
    "happy",
    "excited",
    "sad",
    "neutral",
    "frustrated",
    "fearful",
    "surprised",
    "disgusted",
    "calm",
    "bored",
    "contempt",
    "other",
)
"""The emotion names that published corpora are translated to."""

PARTS = ("train", "valid", "test")
_NAMES = ("id", "corpus", "speaker", "session", "text_id", "emotion", "recording")


def normal(name: str) -> str:
    """Give a name in the Unicode form (NFC) in which names are compared.

    Arguments
    ---------
    name : str
        Of a speaker, a class, a file, ….

    Returns
    -------
    str
        The same where two names look alike.

    Example
    -------
    >>> normal("Ju\u0308rgen") == "J\u00fcrgen"
    True
    """
    return unicodedata.normalize("NFC", name)


@dataclass(frozen=True)
class Utterance:
    """One recorded utterance and what its corpus says about it.

    ``id``, ``speaker``, ``session``, ``text_id`` and ``recording`` begin with the name
    of the corpus, so that they never collide when corpora are used together. All names
    are kept in one Unicode form (NFC), so that names that look alike are equal.

    Arguments
    ---------
    id : str
        Unique name, e.g. ``"emodb_03a01Fa"``.
    path : pathlib.Path
        The audio file.
    duration : float
        Length in seconds, above 0.
    corpus : str
        Name of the corpus, as registered in ``CORPORA``.
    speaker : str or None
        Who speaks, e.g. ``"emodb_03"``; None where that is not known.
    session : str or None
        Recording session; None where the corpus has none.
    gender : str or None
        ``"female"``, ``"male"`` or None where it is not known.
    language : str
        ISO 639 code, e.g. ``"en"``.
    text_id : str or None
        Which prescribed text is spoken; None for free speech.
    emotion : str
        One of ``EMOTIONS``, or for a corpus of one's own another name in lower case;
        ``map_emotions`` refuses such a name unless a class is made of it. Turns on
        which the annotators of a corpus do not agree are ``"other"``.
    split : str or None
        ``"train"``, ``"valid"`` or ``"test"`` where the corpus itself says so.
    recording : str or None
        The longer recording that it is cut from.
    start, end : float or None
        From where to where in the recording, in seconds; an ``end`` of None is
        ``start + duration``.
    intensity : str or None
        How strongly, in the corpus' words, e.g. ``"strong"``; None where it says
        nothing.

    Raises
    ------
    ValueError
        For an emotion that is no name in lower case, a gender or split that is not
        one of those above, a duration that is not above 0, or a ``start`` without
        ``recording``.

    Example
    -------
    >>> utterance = Utterance(
    ...     id="emodb_03a01Fa",
    ...     path=Path("wav/03a01Fa.wav"),
    ...     duration=1.9,
    ...     corpus="emodb",
    ...     speaker="emodb_03",
    ...     session=None,
    ...     gender="male",
    ...     language="de",
    ...     text_id="emodb_a01",
    ...     emotion="happy",
    ... )
    >>> utterance.emotion
    'happy'
    """

    id: str
    path: Path
    duration: float
    corpus: str
    speaker: str | None
    session: str | None
    gender: str | None
    language: str
    text_id: str | None
    emotion: str
    split: str | None = None
    recording: str | None = None
    start: float | None = None
    end: float | None = None
    intensity: str | None = None

    def __post_init__(self) -> None:
        names = f"{self.id}{self.corpus}{self.speaker}{self.session}{self.text_id}"
        if not f"{names}{self.emotion}{self.recording}".isascii():
            for field in _NAMES:
                if name := getattr(self, field):
                    object.__setattr__(self, field, normal(name))
        if not self.emotion or self.emotion != self.emotion.strip().lower():
            raise ValueError(
                f"utterance {self.id}: emotion {self.emotion!r} is not a name in lower "
                f"case, such as {', '.join(EMOTIONS)}"
            )
        if self.gender not in ("female", "male", None):
            raise ValueError(
                f"utterance {self.id}: gender {self.gender!r} is not 'female', "
                "'male' or None"
            )
        if self.split not in (*PARTS, None):
            raise ValueError(
                f"utterance {self.id}: split {self.split!r} is not one of "
                f"{', '.join(PARTS)} or None"
            )
        if not self.duration > 0:
            raise ValueError(
                f"utterance {self.id}: duration {self.duration} s is not above 0"
            )
        if self.start is not None and self.recording is None:
            raise ValueError(f"utterance {self.id}: a start, but of no recording")
