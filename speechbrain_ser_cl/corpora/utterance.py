"""What every corpus reader returns: one record per utterance."""

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    dimensions : mapping, optional
        Name to value on the corpus' own scale, e.g. ``{"arousal": 2.5}``; what is not
        known is not in it.
    votes : mapping, optional
        Emotion to how many listeners heard it, e.g. ``{"happy": 3, "neutral": 6}``, or
        to their share. None: nobody was asked, or nobody said an emotion.
    groups : mapping, optional
        What else results are to be told by, e.g. ``{"age": "34"}``.

    Raises
    ------
    ValueError
        For an emotion that is no name in lower case, a gender or split that is not
        one of those above, a duration that is not above 0, a ``start`` without
        ``recording``, or a dimension or number of votes that is not finite, or votes
        below 0.

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
    # Mappings have no hash; the id tells utterances apart.
    dimensions: Mapping[str, float] | None = field(default=None, hash=False)
    votes: Mapping[str, float] | None = field(default=None, hash=False)
    groups: Mapping[str, str] | None = field(default=None, hash=False)

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
        if self.dimensions is not None:
            self._check("dimensions", self.dimensions, -math.inf)
        if self.votes is not None:
            self._check("votes", self.votes, 0)
            cast = {normal(name): n for name, n in self.votes.items() if n}
            object.__setattr__(self, "votes", cast or None)
        if self.start is not None and self.recording is None:
            raise ValueError(f"utterance {self.id}: a start, but of no recording")

    def _check(self, what: str, numbers: Mapping[str, float], least: float) -> None:
        for name, number in numbers.items():
            if not (name and math.isfinite(number) and number >= least):
                raise ValueError(
                    f"utterance {self.id}: {what} has {name!r}: {number!r}, expected a "
                    f"name and a finite number{' of at least 0' if not least else ''}"
                )
