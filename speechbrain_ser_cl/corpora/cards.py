"""Reads every corpus whose card describes its file names."""

from __future__ import annotations

import csv
import logging
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from speechbrain_ser_cl.corpora.card import (
    FIELDS,
    FOLDER,
    Card,
    Counts,
    Field,
    Licence,
    Table,
    card_names,
    load_card,
)
from speechbrain_ser_cl.corpora.checks import (
    AUDIO_SUFFIXES,
    Candidate,
    CorpusError,
    count_speakers,
    make_utterances,
    numbers,
)
from speechbrain_ser_cl.corpora.emotion_words import EMOTION_WORDS, translate
from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.registry import CORPORA
from speechbrain_ser_cl.utils.errors import did_you_mean, offenders
from speechbrain_ser_cl.utils.files import walk
from speechbrain_ser_cl.utils.media import MEDIA

logger = logging.getLogger(__name__)

Row = dict[str, str]
Rows = list[tuple[str | None, Row]]
"""Path, None where it is missing, and values of each utterance."""


class CardReader:
    """Reads the corpus of a card. Can be registered like a function.

    Arguments
    ---------
    card : Card
        Description of the corpus.

    Example
    -------
    >>> read_emodb = CardReader(get_card("emodb"))
    >>> read_emodb("no/such/folder")
    Traceback (most recent call last):
    speechbrain_ser_cl.corpora.checks.CorpusError: emodb: there is no folder \
no/such/folder
    """

    def __init__(self, card: Card) -> None:
        self.card = card
        self.__doc__ = card.summary
        self.__qualname__ = self.__name__ = f"read_{card.name}"

    @property
    def licence(self) -> Licence:
        """Licence of the corpus."""
        return self.card.terms

    def __call__(
        self, folder: str | Path, allow_missing: bool = False
    ) -> list[Utterance]:
        """Reads the corpus.

        Arguments
        ---------
        folder : str or pathlib.Path
            Folder of the corpus, its parent or one of its subfolders.
        allow_missing : bool
            Whether missing files, corrupt files and wrong counts give one warning
            instead of an error.

        Returns
        -------
        list of Utterance
            Sorted by id.

        Raises
        ------
        CorpusError
            For a wrong folder, file names that do not fit the pattern, codes that the
            card does not have, and known cut copies. Unless ``allow_missing``, also for
            missing or corrupt files and wrong counts.
        """
        card, folder = self.card, Path(folder)
        if not folder.is_dir():
            raise CorpusError(f"{card.name}: there is no folder {folder}")
        listing = Listing(folder, [*AUDIO_SUFFIXES, *card.media])
        find = _rows_of_tables if card.tables else _rows_of_names
        rows = find(card, listing)
        for table in card.more:
            _add(table, rows, card, listing)
        self.check(rows, listing)
        candidates, elsewhere = _candidates(card, rows, folder)
        expected = _release(card, len(candidates) + len(elsewhere)).expected()
        if elsewhere:
            expected.pop("speakers", None)
        for emotion in elsewhere:
            for key in expected.keys() & {"utterances", emotion}:
                expected[key] -= 1
        utterances = make_utterances(
            candidates,
            corpus=card.name,
            language=card.languages[0],
            folder=folder,
            expected=expected,
            count=count_speakers,
            allow_missing=allow_missing,
            bad=card.bad,
            scales=card.dimensions,
        )
        length = utterances[0].duration
        if (
            card.refuse_one_length
            and len(utterances) > 1
            and all(u.duration == length for u in utterances)
        ):
            raise CorpusError(
                f"{card.name} in {folder}: all {len(utterances)} files last {length} "
                "s. This is one of the copies that were cut or padded to one length; "
                "get the original one"
            )
        return utterances

    def check(self, rows: Rows, listing: Listing) -> None:
        """Checks the rows of the tables; for readers that extend what a card says."""


@cache
def get_card(name: str) -> Card:
    """Returns the card of a corpus.

    Arguments
    ---------
    name : str
        A name in ``card_names()``, or an alias.

    Returns
    -------
    Card
        The card; each file is read once.

    Raises
    ------
    CorpusError
        If there is no such card; suggests the nearest name.

    Example
    -------
    >>> get_card("cremad").name
    'crema_d'
    """
    if name in card_names():
        return load_card(FOLDER / f"{name}.yaml")
    known = {alias: card.name for card in all_cards() for alias in card.aliases}
    if name in known:
        card: Card = get_card(known[name])
        return card
    raise CorpusError(
        f"no corpus {name!r}; {did_you_mean(name, [*card_names(), *known])}"
        "`ser-cl corpora` lists all"
    )


def all_cards() -> list[Card]:
    """Returns the package's own cards.

    Returns
    -------
    list of Card
        Sorted by name.

    Example
    -------
    >>> len(all_cards()) > 40
    True
    """
    return [get_card(name) for name in card_names()]


def known_cards() -> list[Card]:
    """Returns the package's own cards and those of readers that plug-ins registered.

    Returns
    -------
    list of Card
        Sorted by name.

    Example
    -------
    >>> known_cards() == all_cards()
    True
    """
    own = card_names()
    readers = (CORPORA.get(name) for name in CORPORA.names() if name not in own)
    cards = [reader.card for reader in readers if isinstance(reader, CardReader)]
    of_name = {card.name: card for card in [*cards, *all_cards()]}
    return [of_name[name] for name in sorted(of_name)]


def register_cards(own: Mapping[str, type[CardReader]]) -> None:
    """Registers a reader for each card that has a layout, under its name and aliases.

    Arguments
    ---------
    own : mapping
        Corpus name to a reader that extends what the card says.
    """
    for card in all_cards():
        if card.readable:
            CORPORA.register(card.name)(own.get(card.name, CardReader)(card))
        for alias in card.aliases:
            CORPORA.alias(alias, card.name)


class Listing:
    """Lists the files below a folder once.

    Arguments
    ---------
    folder : pathlib.Path
        Folder to search, including linked folders, without hidden files.
    suffixes : iterable of str
        Audio suffixes in lower case.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ["a.flac", "._a.flac", "b.WAV", "readme.txt"]:
    ...     (folder / name).touch()
    >>> listing = Listing(folder, [".wav", ".flac"])
    >>> [Path(path).name for path in listing.audio], len(listing.others)
    (['a.flac', 'b.WAV'], 1)
    """

    def __init__(self, folder: Path, suffixes: Iterable[str]) -> None:
        self.folder = folder
        self.audio: list[str] = []
        self.others: list[str] = []
        suffixes = frozenset(suffixes)
        for path in walk(folder):
            suffix = os.path.splitext(path)[1].lower()
            (self.audio if suffix in suffixes else self.others).append(path)

    def below(self, path: str) -> str:
        """Returns a path relative to the folder."""
        return os.path.relpath(path, self.folder).replace(os.sep, "/")


def anchored(pattern: str) -> re.Pattern[str]:
    """Anchors a card's pattern, so that it matches whole names at the end of a path."""
    return re.compile(f"(?:.*/)?(?:{pattern})", re.DOTALL)


def _release(card: Card, found: int) -> Counts:
    """Returns the counts of the release of this size, else of the default release."""
    for name, counts in card.variants.items():
        if counts.utterances == found != card.counts.utterances:
            logger.info("%s: %s. %s", card.name, name, counts.note)
            return counts
    return card.counts


def _rows_of_names(card: Card, listing: Listing) -> Rows:
    """Yields path and values of each file whose name fits the pattern."""
    form, ignored = anchored(card.path), anchored(card.ignore)
    found: Rows = []
    strange = []
    for path in listing.audio:
        bare = os.path.splitext(path)[0]
        if card.ignore and ignored.fullmatch(bare):
            continue
        match = form.fullmatch(bare)
        if match is None:
            strange.append(path)
            continue
        values = match.groupdict(default="")
        values["stem"] = os.path.basename(bare)
        found.append((path, values))
    if not found:
        raise _not_here(card, listing)
    parents = {os.path.dirname(path) for path, _ in found if path}
    beside = [
        os.path.basename(path) for path in strange if os.path.dirname(path) in parents
    ]
    if beside:
        form_of = f"{Path(card.example.path).name}" if card.example else card.path
        raise CorpusError(
            f"{card.name}: file names that are not of the form {form_of} "
            f"({offenders(beside)}). Remove files that do not belong to the corpus"
        )
    return found


def _not_here(card: Card, listing: Listing) -> CorpusError:
    """Describes why a folder is not the corpus."""
    wanted = card.tables[0].file if card.tables else None
    if card.example:
        wanted = " and ".join(filter(None, (wanted, card.example.path)))
    there = sorted(p.name for p in listing.folder.iterdir() if p.name[0] != ".")
    return CorpusError(
        f"{card.name}: {listing.folder} is not the corpus. Looked for files such as "
        f"{wanted or card.path} in it; found "
        f"{offenders(there) if there else 'an empty folder'}"
    )


def _rows_of_tables(card: Card, listing: Listing) -> Rows:
    """Yields path and values of each row; the path is None if the file is missing."""
    depth = card.audio.count("/") + 1
    files = {
        "/".join(os.path.splitext(path)[0].split("/")[-depth:]): path
        for path in listing.audio
    }
    rows: Rows = []
    for table in card.tables:
        path = find_table(table.file, listing)
        if path is None:
            if table.optional:
                continue
            raise _not_here(card, listing)
        for row in _read_table(path, table, card):
            row = row | table.values
            cells = {name: _Cell(value) for name, value in row.items()}
            name = _filled(card.audio, cells, card, path)
            row["stem"] = name.rpartition("/")[2]
            rows.append((files.get(name), row))
    return rows


class _Cell(str):
    """A value that may be a file name: ``{column.stem}`` in a card."""

    @property
    def stem(self) -> str:
        """Value without its suffix."""
        return Path(self).stem


def find_table(name: str, listing: Listing) -> str | None:
    """Finds a table below the folder, or beside the folder that the user gave."""
    for path in listing.others:
        if path.endswith(f"/{name}"):
            return path
    above = listing.folder.absolute().parents[:2]
    for folder in (listing.folder.absolute(), *above):
        if (folder / name).is_file():
            return str(folder / name)
    return None


def _read_table(path: str, table: Table, card: Card) -> list[Row]:
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = list(csv.DictReader(file, delimiter=table.delimiter))
    if not rows:
        raise CorpusError(f"{card.name}: {path} has no rows")
    return [
        {key.strip(): (value or "").strip() for key, value in row.items() if key}
        for row in rows
    ]


def _filled(template: str, values: Mapping[str, str], card: Card, where: str) -> str:
    """Fills the braces of a template with values."""
    try:
        return template.format_map(values)
    except KeyError as error:
        name = str(error.args[0])
        raise CorpusError(
            f"{card.name}: {where} has no column {name!r}; "
            f"{did_you_mean(name, values)}it has {', '.join(values)}"
        ) from None


def _add(table: Table, rows: Rows, card: Card, listing: Listing) -> None:
    """Adds to each row the columns that a further table has for its key."""
    path = find_table(table.file, listing)
    if path is None and not table.optional:
        raise CorpusError(f"{card.name}: there is no {table.file} in {listing.folder}")
    further: dict[str, Row] = {}
    if path is not None:
        further = {
            _filled(table.key, row, card, path): row
            for row in _read_table(path, table, card)
        }
        absent = {_filled(table.of, row, card, card.name) for _, row in rows}
        absent -= further.keys()
        if absent:
            raise CorpusError(
                f"{card.name}: {path} has no row for ({offenders(absent)}). Get the "
                "complete file" + (" or remove it" if table.optional else "")
            )
    nothing: Row = defaultdict(str)
    for _, row in rows:
        key = _filled(table.of, row, card, card.name)
        for column, value in further.get(key, nothing).items():
            row.setdefault(column, value)


def _candidates(
    card: Card, rows: Rows, folder: Path
) -> tuple[list[Candidate], list[str]]:
    """Translates the rows to candidates; also returns the emotions left out."""
    meanings = {
        name: _meaning(card, name, field, rows, folder)
        for name, field in card.fields.items()
    }
    nothing: Callable[[Row], str | None] = lambda row: None  # noqa: E731
    emotion, speaker, session, gender, language, text, part, intensity = (
        meanings.get(name, nothing) for name in FIELDS
    )
    by_language = len(card.languages) > 1
    candidates, elsewhere, without = [], [], 0
    for path, row in rows:
        what, which = emotion(row), part(row)
        if what is None:
            without += 1
            continue
        if "part" in meanings and which is None:
            elsewhere.append(what)
            continue
        who, tongue, said = speaker(row) or None, language(row), text(row) or None
        candidates.append(
            Candidate(
                name=card.id.format_map(row | {"speaker": who} if who else row),
                path=None if path is None else Path(path),
                speaker=who,
                emotion=what,
                session=session(row) or None,
                gender=gender(row) or None,
                text_id=f"{tongue}_{said}" if said and tongue and by_language else said,
                language=tongue,
                split=which,
                intensity=intensity(row) or None,
                dimensions=_dimensions(card, row),
                groups={
                    name: value
                    for name, of in card.group_by.items()
                    if (value := row.get(of.strip("{}")))
                }
                or None,
            )
        )
    if without or elsewhere:
        logger.info(
            "%s: of %d, %d left out without a label, %d of other parts",
            *(card.name, len(rows), without, len(elsewhere)),
        )
    return candidates, elsewhere


def _dimensions(card: Card, row: Row) -> dict[str, float] | None:
    """Reads the dimensions of a row."""
    texts = {
        name: row.get(scale.of.strip("{}"), "")
        for name, scale in card.dimensions.items()
    }
    try:
        return numbers(texts)
    except CorpusError as error:
        raise CorpusError(f"{card.name}: {card.id.format_map(row)}: {error}") from None


def _meaning(
    card: Card,
    name: str,
    field: Field,
    rows: Rows,
    folder: Path,
) -> Callable[[Row], str | None]:
    """Returns a function from a row to a field's meaning; translates each code once."""
    whole = re.fullmatch(r"\{(\w+)\}", field.of)
    if whole:
        column = whole[1]

        def code_of(row: Row) -> str:
            return row.get(column, "")

    else:
        columns = re.findall(r"\{(\w+)\}", field.of)

        def code_of(row: Row) -> str:
            # A value without one of its groups is unknown.
            there = all(row.get(column) for column in columns)
            return field.of.format_map(row) if there else ""

    codes = {code_of(row) for _, row in rows}
    if name == "emotion" and not field.words:
        found = translate(
            (code_of(row) for _, row in rows),
            None,
            EMOTION_WORDS,
            what="emotion",
            key="emotion: words",
            where=f"{card.name} in {folder}",
        )
        return lambda row: found[code_of(row)]
    known: dict[str, str | None] = {}
    unknown = set()
    patterns = [(re.compile(word), mean) for word, mean in field.words.items()]
    for code in codes:
        if not field.words:
            known[code] = code
        elif code in field.words:
            known[code] = field.words[code]
        else:
            fits = [(m, mean) for form, mean in patterns if (m := form.fullmatch(code))]
            if fits:
                match, mean = fits[0]
                known[code] = mean and match.expand(mean)
            elif code or name in ("emotion", "part"):
                unknown.add(code)
    if field.every:
        known = {
            code: str((int(value or 1) - 1) % field.every + 1)
            for code, value in known.items()
        }
    if unknown:
        wrong = [
            f"{card.id.format_map(row)} has {code_of(row)!r}"
            for _, row in rows
            if code_of(row) in unknown
        ]
        what = "label" if name == "emotion" else name
        raise CorpusError(
            f"{card.name}: unknown {what} codes ({offenders(wrong)}). Known are "
            f"{', '.join(sorted(field.words))}"
        )
    return lambda row: known.get(code_of(row))


@dataclass(frozen=True)
class Recognised:
    """A corpus that was recognised in a folder.

    Arguments
    ---------
    name : str
        Registered name.
    found, expected : int
        Number of utterances in the folder, and in a complete copy.
    problem : str or None
        Error of the corpus reader. None: the copy is complete.
    """

    name: str
    found: int
    expected: int
    problem: str | None


def recognise(folder: str | Path) -> list[Recognised]:
    """Recognises the corpora in a folder by their file names.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder to search, at any depth.

    Returns
    -------
    list of Recognised
        Most likely corpus first. Contains corpora whose pattern fits at least half of
        the audio files that any pattern fits, and smaller corpora that are complete.

    Raises
    ------
    CorpusError
        If the folder does not exist.

    Example
    -------
    >>> recognise(getfixture("tmp_path"))
    []
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CorpusError(f"there is no folder {folder}")
    listing = Listing(folder, [*AUDIO_SUFFIXES, *MEDIA])
    fits = [(card, _fits(card, listing)) for card in known_cards()]
    most = max(number for _, number in fits)
    found = [
        one
        for card, number in fits
        if number and (number >= most / 2 or number >= card.counts.utterances)
        if (one := _examined(card, folder)).found
        # A complete small corpus beside a large one.
        if number >= most / 2 or one.problem is None
    ]
    # Complete copies first, then nearly complete ones.
    return sorted(
        found,
        key=lambda one: (one.problem is not None, abs(one.found / one.expected - 1)),
    )


def _fits(card: Card, listing: Listing) -> int:
    """Counts the files that fit the corpus' naming pattern."""
    if card.tables:
        there = [find_table(table.file, listing) for table in card.tables]
        return len(listing.audio) if all(there) else 0
    if card.marker:
        form = anchored(card.marker)
        marked = any(form.fullmatch(path) for path in listing.others)
        return len(listing.audio) if marked else 0
    form, allowed = anchored(card.path), (*AUDIO_SUFFIXES, *card.media)
    return sum(
        suffix.lower() in allowed and form.fullmatch(bare) is not None
        for bare, suffix in map(os.path.splitext, listing.audio)
    )


def _examined(card: Card, folder: Path) -> Recognised:
    """Reports what the corpus reader finds in the folder."""
    expected = card.counts.utterances
    reader = CORPORA.get(card.name)
    if hasattr(reader, "count"):  # this reader writes files
        return _counted(card, reader.count, folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = reader(folder, allow_missing=True)
        except CorpusError as error:
            return Recognised(card.name, 0, expected, str(error))
    told = [str(warning.message).partition("in spite of ")[2] for warning in caught]
    expected = _release(card, len(found)).utterances
    return Recognised(
        card.name, len(found), expected, "; ".join(filter(None, told)) or None
    )


def _counted(
    card: Card, count: Callable[[Path], Mapping[str, int]], folder: Path
) -> Recognised:
    """Counts the utterances that a reader in Python finds in the folder."""
    expected = card.counts
    try:
        found = count(folder)
    except CorpusError as error:
        return Recognised(card.name, 0, expected.utterances, str(error))
    wrong = [
        f"{name} {found.get(name, 0)} instead of {number}"
        for name, number in expected.emotions.items()
        if found.get(name, 0) != number
    ]
    problem = f"counts that are not the published ones ({offenders(wrong)})"
    return Recognised(
        *(card.name, sum(found.values()), expected.utterances),
        problem if wrong else None,
    )
