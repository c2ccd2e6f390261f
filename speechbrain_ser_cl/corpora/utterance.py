"""The record of one utterance, which all corpus readers return."""

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
    """Returns a name in Unicode form NFC, in which names are compared.

    Arguments
    ---------
    name : str
        Name of a speaker, class, file, ….

    Returns
    -------
    str
        Equal for names that look alike.

    Example
    -------
    >>> normal("Ju\u0308rgen") == "J\u00fcrgen"
    True
    """
    return unicodedata.normalize("NFC", name)


@dataclass(frozen=True)
class Utterance:
    """One recorded utterance and its labels.

    ``id``, ``speaker``, ``session``, ``text_id`` and ``recording`` begin with the
    corpus name, so that they are unique across corpora. All names are in Unicode form
    NFC, so that names that look alike are equal.

    Arguments
    ---------
    id : str
        Unique name, e.g. ``"emodb_03a01Fa"``.
    path : pathlib.Path
        The audio file.
    duration : float
        Length in seconds, > 0.
    corpus : str
        Name of the corpus, as registered in ``CORPORA``.
    speaker : str or None
        Speaker, e.g. ``"emodb_03"``; None if unknown.
    session : str or None
        Recording session; None if the corpus has none.
    gender : str or None
        ``"female"``, ``"male"`` or None if unknown.
    language : str
        ISO 639 code, e.g. ``"en"``.
    text_id : str or None
        Id of the prescribed text; None for free speech.
    emotion : str
        One of ``EMOTIONS``. For a user's corpus also another name in lower case, which
        ``map_emotions`` refuses unless a class contains it. Turns without agreement
        between the annotators are ``"other"``.
    split : str or None
        ``"train"``, ``"valid"`` or ``"test"`` if the corpus assigns it, else None.
    recording : str or None
        The longer recording that contains the utterance.
    start, end : float or None
        Start and end in the recording, in seconds. ``end`` None: ``start + duration``.
    intensity : str or None
        Intensity in the corpus' words, e.g. ``"strong"``; None if unknown.
    dimensions : mapping, optional
        Dimension to value on the corpus' own scale, e.g. ``{"arousal": 2.5}``. Contains
        known values only.
    votes : mapping, optional
        Emotion to its number or share of listeners, e.g. ``{"happy": 3, "neutral":
        6}``. None: no listener votes.
    groups : mapping, optional
        Further variables to group results by, e.g. ``{"age": "34"}``.

    Raises
    ------
    ValueError
        For an emotion that is not a lower-case name, another gender or split, a
        duration that is not above 0, a ``start`` without ``recording``, and dimensions
        or votes that are not finite, or votes below 0.

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
    # Mappings have no hash; the id identifies the utterance.
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
            raise ValueError(f"utterance {self.id}: a start without a recording")

    def _check(self, what: str, numbers: Mapping[str, float], least: float) -> None:
        for name, number in numbers.items():
            if not (name and math.isfinite(number) and number >= least):
                raise ValueError(
                    f"utterance {self.id}: {what} has {name!r}: {number!r}, expected a "
                    f"name and a finite number{' of at least 0' if not least else ''}"
                )
