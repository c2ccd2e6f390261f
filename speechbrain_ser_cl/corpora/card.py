"""Corpus cards: typed facts about a corpus, read from YAML.

A card describes a published corpus as data: its source, its licence, the pattern of its
file names, the meaning of its codes and its number of utterances. One engine
(``cards.py``) reads all corpora whose card has a layout.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from speechbrain_ser_cl.corpora.checks import CorpusError
from speechbrain_ser_cl.utils.errors import did_you_mean, shown

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FOLDER = Path(__file__).with_name("cards")
FIELDS = (
    "emotion",
    "speaker",
    "session",
    "gender",
    "language",
    "text",
    "part",
    "intensity",
)


class _Checked:
    """Refuses keys that the schema does not have."""

    __pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True)
class Licence(_Checked):
    """The terms of a corpus.

    Arguments
    ---------
    name : str
        Name of the licence, for display.
    share_audio : bool
        Whether a report or another page may contain snippets of the audio.
    source : str
        Credit line. A card fills it in from its title and citation.
    allows : str
        ``"anything"``; ``"with credit"`` (also for share-alike licences);
        ``"non-commercial"``; ``"research"``; ``"agreement"`` with the owner;
        ``"disputed"`` (sources disagree); ``"unknown"``.
    says : dict
        If sources disagree: name of each source to what it says.

    Example
    -------
    >>> Licence("CC0 1.0", share_audio=True, source="Nobody in particular").share_audio
    True
    """

    name: str
    share_audio: bool = False
    source: str = ""
    allows: Literal[
        "anything",
        "with credit",
        "non-commercial",
        "research",
        "agreement",
        "disputed",
        "unknown",
    ] = "unknown"
    says: dict[str, str] = field(default_factory=dict)

    @property
    def limits(self) -> str | None:
        """Restrictions on a model trained on this corpus. None: none to report."""
        return {
            "anything": None,
            "with credit": None,
            "non-commercial": "non-commercial use only",
            "research": "research only",
            "agreement": "only as the agreement with its owner allows",
            "disputed": "sources disagree on its terms",
            "unknown": "its terms are not known",
        }[self.allows]


@dataclass(frozen=True)
class Field(_Checked):
    r"""Says where a value is found and what its codes mean.

    Arguments
    ---------
    of : str
        Named groups of the pattern, or columns of the table, in braces. Default: the
        group or column with the field's name.
    words : dict
        Code to meaning. A code is a regular expression that matches the whole value;
        ``\1`` in the meaning is its first group. null: the utterance is left out
        (``emotion``, ``part``) or the value is unknown (other fields). Without words,
        values are used as they are.
    every : int, optional
        For numbers that count on from class to class: number of values per class, after
        which the count starts again at 1.

    Example
    -------
    >>> Field(words={r"\d*[13579]": "male", r"\d+": "female"}).words
    {'\\d*[13579]': 'male', '\\d+': 'female'}
    """

    of: str = ""
    words: dict[str, str | None] = field(default_factory=dict)
    every: int | None = None


@dataclass(frozen=True)
class Scale(_Checked):
    """Scale of a dimension such as arousal.

    Arguments
    ---------
    low, high : float
        Lowest and highest value.
    of : str
        Column of the card's table, in braces.
    """

    low: float
    high: float
    of: str = ""


@dataclass(frozen=True)
class Table(_Checked):
    """A file with labels, or with further facts about the files.

    Arguments
    ---------
    file : str
        Path within the corpus folder.
    delimiter : str
        Character between columns.
    values : dict
        Further columns with the same value in all rows.
    key : str
        For a further table: columns in braces whose value is compared with ``of``.
    of : str
        Named groups of the pattern, or columns, in braces.
    optional : bool
        Whether the corpus can be read without this file.
    """

    file: str
    delimiter: str = ","
    values: dict[str, str] = field(default_factory=dict)
    key: str = ""
    of: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Counts(_Checked):
    """Published counts of a complete copy.

    Arguments
    ---------
    utterances : int
        Total. Must equal the sum of ``emotions``, if given.
    speakers : int, optional
        Number of speakers.
    emotions : dict
        Emotion to number of utterances.
    note : str
        Remark about this release.
    """

    utterances: int
    speakers: int | None = None
    emotions: dict[str, int] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        total = sum(self.emotions.values())
        if self.emotions and total != self.utterances:
            raise ValueError(f"emotions add up to {total}, not to {self.utterances}")

    def expected(self) -> dict[str, int]:
        """Returns the counts by name, as ``checks.make_utterances`` expects them."""
        found = {"utterances": self.utterances, **self.emotions}
        return found | ({"speakers": self.speakers} if self.speakers else {})


@dataclass(frozen=True)
class Example(_Checked):
    """One file of the corpus and its labels, as an example."""

    path: str
    emotion: str
    speaker: str | None = None
    gender: str | None = None
    text: str | None = None
    intensity: str | None = None


@dataclass(frozen=True, kw_only=True)
class Card(_Checked):
    r"""Describes a corpus as data.

    Arguments
    ---------
    name : str
        Registered name; also the name of the card's file.
    title, languages, page, licence, citation : str, list of str, str, Licence, str
        Title, ISO 639 codes, web address, licence, reference to cite.
    counts : Counts
        Counts of a complete copy.
    checked : str
        How the counts were verified.
    unchecked : list of str
        Keys of the card that were not compared with a source.
    aliases : list of str
        Other registered names.
    hours : float, optional
        Total length of the audio.
    speech : str
        Origin of the emotions: ``"acted"``, ``"natural"``, ….
    path : str
        Regular expression with named groups. It matches the end of each file's path
        without suffix, and starts at a folder name.
    ignore : str
        Same, for audio files in the folder that do not belong to the corpus.
    tables : list of Table
        In place of ``path``: label files with one row per utterance.
    audio : str
        With ``tables``: path of a row's audio file, without suffix, relative to the
        corpus folder, with columns in braces.
    more : list of Table
        Tables with further facts about speakers or files.
    marker : str
        For corpora with a reader in Python: regular expression of a path by which the
        corpus is recognised.
    id : str
        Name of an utterance, with groups in braces; ``{stem}`` is the file name without
        suffix.
    media : list of str
        Suffixes of audio or video formats that libsndfile does not read.
    emotion, speaker, session, gender, language, text, part, intensity : Field
        Where each value is found. Needed if no group or column has this name, or if
        codes have to be translated.
    dimensions : dict
        Name of each dimension to its ``Scale``.
    group_by : dict
        Further variables to group results by, besides gender and language, and where
        each is found: ``{age: "{Age}"}``.
    variants : dict
        Name of another release to its counts.
    bad : dict
        File to its known defect. The file is left out if it cannot be read.
    refuse_one_length : bool
        Whether copies exist whose files were all cut or padded to one length.
    notes : list of str
        Further facts that a user must know.
    example : Example, optional
        One file and its labels.
    """

    name: str
    title: str
    languages: list[str]
    page: str
    licence: Licence
    citation: str
    counts: Counts
    checked: str
    unchecked: list[str] = field(default_factory=list)
    example: Example | None = None
    aliases: list[str] = field(default_factory=list)
    hours: float | None = None
    speech: str = "acted"
    path: str = ""
    ignore: str = ""
    tables: list[Table] = field(default_factory=list)
    audio: str = ""
    more: list[Table] = field(default_factory=list)
    marker: str = ""
    id: str = "{stem}"
    media: list[str] = field(default_factory=list)
    emotion: Field = Field()
    speaker: Field | None = None
    session: Field | None = None
    gender: Field | None = None
    language: Field | None = None
    text: Field | None = None
    part: Field | None = None
    intensity: Field | None = None
    dimensions: dict[str, Scale] = field(default_factory=dict)
    group_by: dict[str, str] = field(default_factory=dict)
    variants: dict[str, Counts] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    refuse_one_length: bool = False
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        ways = [key for key in ("path", "tables", "marker") if getattr(self, key)]
        if len(ways) > 1:
            raise ValueError(f"has {' and '.join(ways)}, expected one of them")
        if bool(self.tables) != bool(self.audio):
            raise ValueError("tables and audio belong together, found only one")
        keys = [one.name for one in fields(self)]
        for key in self.unchecked:
            if key not in keys:
                raise ValueError(f"unchecked: {key}; {did_you_mean(key, keys)}")
        for key in ("path", "ignore", "marker"):
            try:
                re.compile(getattr(self, key))
            except re.error as error:
                raise ValueError(f"{key} is no regular expression: {error}") from None
        if self.path and not self.emotion.of and "emotion" not in self.groups:
            raise ValueError(
                "expected the place of the emotion: a group (?P<emotion>…) "
                "in path, or a key of in emotion"
            )

    @property
    def readable(self) -> bool:
        """Whether ``cards.py`` can read the corpus without a reader in Python."""
        return bool(self.path or self.tables)

    @cached_property
    def groups(self) -> frozenset[str]:
        """Names of the groups in ``path``."""
        return frozenset(re.compile(self.path).groupindex)

    @cached_property
    def fields(self) -> dict[str, Field]:
        """Fields that the card describes."""
        found: dict[str, Field] = {}
        for name in FIELDS:
            place = getattr(self, name) or (Field() if name in self.groups else None)
            if place is not None:
                found[name] = replace(place, of=place.of or f"{{{name}}}")
        return found

    @cached_property
    def terms(self) -> Licence:
        """Licence with its credit line."""
        return replace(self.licence, source=f"{self.title}, {self.citation}")

    @property
    def summary(self) -> str:
        """One line about the corpus."""
        counts = self.counts
        parts = [
            f"{counts.utterances} utterances",
            f"{counts.speakers} speakers" if counts.speakers else "",
            f"{len(counts.emotions)} emotions" if counts.emotions else "",
            ", ".join(self.languages),
        ]
        return f"{self.title}: {', '.join(filter(None, parts))}."


def load_card(path: str | Path, name: str | None = None) -> Card:
    """Reads a card and checks it.

    Arguments
    ---------
    path : str or pathlib.Path
        A YAML file.
    name : str, optional
        Name of the corpus. Default: the file name without suffix.

    Returns
    -------
    Card
        The card.

    Raises
    ------
    CorpusError
        If the file does not exist, is not YAML, has an unknown key, lacks a key or has
        a value of the wrong type.

    Example
    -------
    >>> load_card(FOLDER / "emodb.yaml").counts.utterances
    535
    """
    path = Path(path)
    try:
        facts = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CorpusError(f"{path}: no card that can be read ({error})") from error
    except yaml.YAMLError as error:
        raise CorpusError(f"{path}: not YAML ({error})") from error
    if not isinstance(facts, dict):
        raise CorpusError(f"{path}: a card is a mapping of keys, found {facts!r}")
    from pydantic import ValidationError

    try:
        card: Card = _checker().validate_python({"name": name or path.stem} | facts)
        return card
    except ValidationError as error:
        # The unknown key may be a misspelling of the missing one.
        strange = "unexpected_keyword_argument"
        first = min(error.errors(), key=lambda one: one["type"] != strange)
        key = ".".join(map(str, first["loc"]))
        found = shown(first["input"]) if first["type"] != "missing" else "nothing"
        hint = ""
        if first["type"] == strange:
            hint = did_you_mean(str(first["loc"][-1]), [f.name for f in fields(Card)])
        raise CorpusError(
            f"{path}: {key or 'the card'}: {first['msg']}, found {found}. {hint}Write "
            "it as in the cards of the package"
        ) from error


def parse_yaml(text: str) -> Any:
    """Parses YAML by yaml's C parser, which is ten times as fast as its Python parser.

    Example
    -------
    >>> parse_yaml("a: [1, 2]")
    {'a': [1, 2]}
    """
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@cache
def _checker() -> TypeAdapter[Card]:
    from pydantic import TypeAdapter

    return TypeAdapter(Card)


def card_names() -> list[str]:
    """Returns the names of the package's own cards without reading them.

    Returns
    -------
    list of str
        Sorted.

    Example
    -------
    >>> "emodb" in card_names()
    True
    """
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))
