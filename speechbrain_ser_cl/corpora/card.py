"""What a corpus' card says: typed facts, read from YAML.

A card describes a published corpus as data: where it comes from, under which terms,
how its files are named, what its codes mean, how many utterances it has. One engine
(``cards.py``) reads all corpora that have a layout.
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
MAPPED = ("emotion", "speaker", "session", "gender", "language", "text", "part")
FIELDS = (*MAPPED, "intensity")


class _Checked:
    """Keys that a card does not have are refused."""

    __pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True)
class Licence(_Checked):
    """The terms of a corpus.

    Arguments
    ---------
    name : str
        Of the licence, for people.
    share_audio : bool
        Whether snippets of its audio may stand in what is shown to others, such as a
        report.
    source : str
        Whom to name; a card fills it in from its title and citation.
    allows : str
        ``"anything"``, ``"with credit"`` (also where the same terms have to be passed
        on), ``"non-commercial"``, ``"research"``, ``"agreement"`` with the owner,
        ``"disputed"`` where sources disagree, ``"unknown"``.
    says : dict
        Where sources disagree: who says what.

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
        """What a user of a model trained on it must know; None: nothing to say."""
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
    r"""Where a value stands, and what its codes mean.

    Arguments
    ---------
    of : str
        Named groups of the pattern, or columns of the table, in braces; by default
        the one that is called like the field.
    words : dict
        Code, as a regular expression that fits the whole of it, to meaning, in which
        ``\1`` is the first group; null leaves an utterance out (``emotion``, ``part``)
        or means not known (others).
        Without words a value is taken as it is.
    every : int, optional
        For numbers that count on from class to class: 1 is meant again after so many.

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
    """The scale of a dimension such as arousal.

    Arguments
    ---------
    low, high : float
        Its ends.
    of : str
        The column, in braces, where the card's table has it.
    """

    low: float
    high: float
    of: str = ""


@dataclass(frozen=True)
class Table(_Checked):
    """A file of labels: the corpus' own, or one that says more about its files.

    Arguments
    ---------
    file : str
        Its path in the corpus.
    delimiter : str
        Between columns.
    values : dict
        Further columns, the same in all rows.
    key : str
        Of a table that says more: columns in braces that are equal to ``of``.
    of : str
        Named groups or columns in braces.
    optional : bool
        Whether the corpus can be read without it.
    """

    file: str
    delimiter: str = ","
    values: dict[str, str] = field(default_factory=dict)
    key: str = ""
    of: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Counts(_Checked):
    """How many there are of what in a complete copy.

    Arguments
    ---------
    utterances : int
        All; must be the sum of ``emotions`` where those are given.
    speakers : int, optional
        Different ones.
    emotions : dict
        Number of utterances of each.
    note : str
        What is special about this release.
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
        """Give the counts by name, as ``checks.make_utterances`` compares them."""
        found = {"utterances": self.utterances, **self.emotions}
        return found | ({"speakers": self.speakers} if self.speakers else {})


@dataclass(frozen=True)
class Example(_Checked):
    """A file of the corpus and what is known of it, to understand the card by."""

    path: str
    emotion: str
    speaker: str | None = None
    gender: str | None = None
    text: str | None = None
    intensity: str | None = None


@dataclass(frozen=True, kw_only=True)
class Card(_Checked):
    r"""A corpus as data.

    Arguments
    ---------
    name : str
        As registered; the name of the card's file.
    title, languages, page, licence, citation : str, list of str, str, Licence, str
        What it is, ISO 639 codes, where to get it, on which terms, whom to cite.
    counts : Counts
        Of a complete copy.
    checked : str
        How the counts were checked.
    unchecked : list of str
        Keys of the card whose facts nobody has compared with a source.
    aliases : list of str
        Other names.
    hours : float, optional
        Length of all audio.
    speech : str
        How the emotions came about: ``"acted"``, ``"natural"``, ….
    path : str
        Regular expression with named groups that fits the end of each file's path,
        from a folder's beginning on, without suffix.
    ignore : str
        Likewise for audio files beside the corpus' that do not belong to it.
    tables : list of Table
        Instead of ``path``: the files of labels, a row per utterance.
    audio : str
        With ``tables``: the path of a row's audio file without suffix, from the
        corpus' folder on, columns in braces.
    more : list of Table
        Tables that say more about speakers or files.
    marker : str
        Where a reader in Python takes the place of a layout: regular expression of a
        path by which the corpus is known.
    id : str
        Name of an utterance: groups in braces; ``{stem}`` is the file's name.
    media : list of str
        Suffixes of audio or video that libsndfile does not read.
    emotion, speaker, session, gender, language, text, part, intensity : Field
        Where each stands; needed where no group or column has this name, or codes have
        to be translated.
    dimensions : dict
        Name of each dimension to its ``Scale``.
    group_by : dict
        What results can be told by beside gender and language, to where it stands:
        ``{age: "{Age}"}``.
    variants : dict
        Name of another release to its counts.
    bad : dict
        File to what is known to be wrong with it; left out where it cannot be read.
    refuse_one_length : bool
        Whether copies are known whose files were all cut or padded to one length.
    notes : list of str
        What one has to know.
    example : Example, optional
        One file.
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
                "nothing says where the emotion stands: path has no group "
                "(?P<emotion>…) and emotion no key of"
            )

    @property
    def readable(self) -> bool:
        """Whether the engine reads it, without Python of its own."""
        return bool(self.path or self.tables)

    @cached_property
    def groups(self) -> frozenset[str]:
        """Names of the pattern's groups."""
        return frozenset(re.compile(self.path).groupindex)

    @cached_property
    def fields(self) -> dict[str, Field]:
        """Each field that the corpus says something of."""
        found: dict[str, Field] = {}
        for name in FIELDS:
            place = getattr(self, name) or (Field() if name in self.groups else None)
            if place is not None:
                found[name] = replace(place, of=place.of or f"{{{name}}}")
        return found

    @cached_property
    def terms(self) -> Licence:
        """The licence, with whom to name."""
        return replace(self.licence, source=f"{self.title}, {self.citation}")

    @property
    def summary(self) -> str:
        """One line."""
        counts = self.counts
        parts = [
            f"{counts.utterances} utterances",
            f"{counts.speakers} speakers" if counts.speakers else "",
            f"{len(counts.emotions)} emotions" if counts.emotions else "",
            ", ".join(self.languages),
        ]
        return f"{self.title}: {', '.join(filter(None, parts))}."


def load_card(path: str | Path, name: str | None = None) -> Card:
    """Read a card, and refuse what is not one.

    Arguments
    ---------
    path : str or pathlib.Path
        A YAML file.
    name : str, optional
        Of the corpus; by default the file's, without suffix.

    Returns
    -------
    Card
        Its facts.

    Raises
    ------
    CorpusError
        If there is no such file, for YAML that cannot be read, keys that a card does
        not have, keys that it lacks, and values of another type.

    Example
    -------
    >>> load_card(FOLDER / "emodb.yaml").counts.utterances
    535
    """
    path = Path(path)
    try:
        # The C parser is ten times as fast, and there wherever a wheel of yaml is.
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        facts = yaml.load(path.read_text(encoding="utf-8"), loader)
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
        # A key that is not known may be the one that is missing, misspelt.
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


@cache
def _checker() -> TypeAdapter[Card]:
    from pydantic import TypeAdapter

    return TypeAdapter(Card)


def card_names() -> list[str]:
    """Names of the package's own cards, without reading them.

    Returns
    -------
    list of str
        In order.

    Example
    -------
    >>> "emodb" in card_names()
    True
    """
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))
