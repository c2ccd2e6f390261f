"""Reads a user's corpus described by a table: a row per file or part of a file.

Also reads audformat databases: ``table: [db.emotion.csv, db.files.csv]``.
"""

import glob
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from speechbrain_ser_cl.corpora.checks import (
    READABLE,
    Candidate,
    CorpusError,
    make_utterances,
    numbers,
    one_name,
)
from speechbrain_ser_cl.corpora.cutting import Piece, cut_pieces
from speechbrain_ser_cl.corpora.emotion_words import (
    EMOTION_WORDS,
    GENDER_WORDS,
    NO_LABEL,
    SPLIT_WORDS,
    Exclusion,
    translate,
)
from speechbrain_ser_cl.corpora.file_names import find_files
from speechbrain_ser_cl.corpora.table_file import (
    READERS,
    TEXTS,
    Row,
    read_rows,
    tables_in,
)
from speechbrain_ser_cl.corpora.utterance import Utterance, normal
from speechbrain_ser_cl.registry import CORPORA
from speechbrain_ser_cl.utils.errors import did_you_mean, offenders

logger = logging.getLogger(__name__)

NEEDED = ("file", "emotion")
_TIMES = ("start", "end", "duration")
# Usual names of columns with ratings.
RATINGS = {"arousal", "activation", "valence", "dominance"}
FIELDS = (
    *NEEDED,
    *("speaker", "session", "gender", "language", "text", "split"),
    *_TIMES,
)
# Usual names of columns, in lower case, without blanks and underscores. Names after the
# bar are used only if the values fit.
USUAL_NAMES = {
    "file": "path filename filepath wav wavpath wavfile audio audiopath audiofile "
    "| name recording clip utterance id",
    "emotion": "label emotionlabel emotions emo | class category target gt",
    "speaker": "spk spkr speakerid spkid spkrid actor actorid speakername subject "
    "subjectid talker",
    "session": "sessionid",
    "gender": "sex speakergender",
    "language": "lang",
    "text": "textid sentenceid",
    "split": "set partition subset",
    "start": "starttime startsec onset begin",
    "end": "endtime endsec offset stop",
    "duration": "dur durationsec",
}
_MILLISECONDS = re.compile("(start|end|begin|stop|onset|offset)(time)?(ms|msec|millis)")
Words = Mapping[str, str | None] | None
_LONGEST = 1e6  # seconds, length of a recording
_MANY = 20  # more different numbers than this are ratings, not codes


@dataclass
class _Part:
    """A row: a file, or part of a file."""

    row: int
    said: Row
    start: float
    end: float | None
    path: Path | None = None
    file: str = ""
    emotion: str | None = None
    votes: Mapping[str, float] | None = None
    dimensions: Mapping[str, float] | None = None

    @property
    def is_cut(self) -> bool:
        """Whether it is part of a file."""
        return self.start > 0 or self.end is not None

    @property
    def name(self) -> str:
        """File name without suffix, with start and end of a part."""
        if not self.is_cut:
            return self.file
        first = [self.start] if self.said.get("start") else []
        bounds = first + ([] if self.end is None else [self.end])
        return f"{self.file}_" + "-".join(f"{bound:.3f}" for bound in bounds)


@CORPORA.register("table")
def read_table(
    folder: str | Path,
    allow_missing: bool = False,
    corpus: str = "table",
    table: str | Sequence[str] | None = None,
    columns: Words = None,
    labels: Words = None,
    splits: Words = None,
    exclude: str | Path | Iterable[str] | None = None,
    cut_into: str | Path | None = None,
    language: str = "und",
    encoding: str | None = None,
    raters: str | None = None,
    dimensions: Words = None,
    votes: Words = None,
    groups: Words = None,
) -> "TableUtterances":
    r"""Reads a user's corpus from a table with one row per utterance.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder of the table, to which file names are relative; or the table itself.
    allow_missing : bool
        Whether missing and corrupt files give a warning instead of an error.
    corpus : str
        Name for the corpus; prefix of ids and speakers.
    table : str or list of str, optional
        Name of the table in ``folder``: ``.csv``, ``.tsv``, ``.txt``, ``.jsonl``; with
        the extra ``tables`` also ``.xlsx`` and ``.parquet``. Default: the only table in
        the folder. Further tables add columns to the first: rows with the same file
        (and the same ``start`` and ``end``, if both have them) are joined.
    columns : mapping, optional
        Field to column name, where they differ: ``{file: path, emotion: mood, speaker:
        agent}``. ``file`` and ``emotion`` are needed. ``speaker``, ``session``,
        ``gender``, ``language``, ``text``, ``split``, ``start`` and ``end`` (or
        ``duration``, with ``start``) are optional. Columns with these or usual names
        such as ``path``, ``Label``, ``Speaker ID`` are found, and logged. Several
        columns can be combined: ``{file: "wav/{take}_{number}.wav"}``. null: the field
        is not read.
    labels : mapping, optional
        Meaning of emotion words that are not known: ``{Wut: angry}``; null leaves a
        word's rows out.
    splits : mapping, optional
        Same for the words in the column ``split``: ``{fold1: test}``.
    exclude : list of str or path, optional
        Ids or files to leave out, or a text file with them.
    cut_into : str or pathlib.Path, optional
        Output folder of the parts, if rows have ``start`` and ``end``. Parts are
        written once, as 16 kHz mono.
    language : str
        ISO 639 code of all rows, if no column has it.
    encoding : str, optional
        Encoding of the table. Default: detected.
    raters : str, optional
        ``"plurality"``: a file may have several rows, one per listener. Its emotion is
        the most frequent one, or ``"other"`` in case of a tie; the counts are its
        ``votes``; its dimensions are means.
    dimensions : mapping, optional
        Dimension to its column of numbers: ``{arousal: aro, valence: val}``. Empty
        cells are unknown values.
    votes : mapping, optional
        Emotion to the column with its number or share of votes: ``{happy: n_happy, sad:
        n_sad}``.
    groups : mapping, optional
        Further variables to group results by, besides gender and language, to their
        columns: ``{age: Alter}``.

    Returns
    -------
    TableUtterances
        List of ``Utterance`` sorted by id, with the columns that were used. Without a
        column of speakers, ``speaker`` is None.

    Raises
    ------
    CorpusError
        For a missing or unreadable table, missing columns, rows that are too short or
        too long, unknown emotion words and files in several rows. Unless
        ``allow_missing``, also for missing or corrupt files.

    Example
    -------
    >>> import numpy, soundfile
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "a.wav", numpy.zeros(8000), 16000)
    >>> _ = (folder / "calls.csv").write_text("path;mood;agent\na.wav;Wut;Anna\n")
    >>> (utterance,) = read_table(
    ...     folder,
    ...     columns={"file": "path", "emotion": "mood", "speaker": "agent"},
    ...     labels={"Wut": "angry"},
    ... )
    >>> utterance.id, utterance.emotion, utterance.speaker, utterance.duration
    ('table_a', 'angry', 'table_Anna', 0.5)
    """
    if raters not in (None, "plurality"):
        raise CorpusError(f"{corpus}: raters is {raters!r}, expected plurality or null")
    root, paths = _find(Path(folder), table, corpus)
    said_columns = _known_fields(columns, corpus)
    rows = read_rows(paths[0], encoding)
    where = f"{corpus}: {paths[0]}"
    for more in paths[1:]:
        key = _resolved(said_columns, rows, splits, where, ("file", "start", "end"))
        rows = _joined(rows, read_rows(more, encoding), key, where, more)
    columns = _resolved(said_columns, rows, splits, where)
    asked = _asked("dimensions", dimensions, rows, where)
    asked |= _asked("votes", votes, rows, where)
    asked |= _asked("groups", groups, rows, where)
    parts = _parts([_values(row, columns | asked) for row in rows], where)
    found = find_files(root, (part.said["file"] for part in parts), where)
    for part, (path, name) in zip(parts, found, strict=True):
        part.path, part.file = path, name
    excluded = Exclusion(exclude, where)
    parts = [
        part
        for part in parts
        if not excluded(
            *(part.said["file"], part.file, part.name, f"{corpus}_{part.name}"),
            part.file + (part.path.suffix if part.path else ""),
        )
    ]
    excluded.tell_unused()

    emotions = _emotions(parts, labels, f"{where}, column {columns['emotion']}")
    splits_of = translate(
        (part.said["split"] for part in parts if part.said.get("split")),
        splits,
        SPLIT_WORDS,
        what="part of a split",
        key="splits",
        where=f"{where}, column {columns.get('split')}",
    )
    kept = []
    for part in parts:
        part.emotion = emotions[part.said["emotion"]]
        if part.emotion and splits_of.get(part.said.get("split", ""), "any"):
            kept.append(part)
    if len(kept) < len(rows):
        logger.info(
            "%s: %d of %d rows left out, as labels, splits and exclude say",
            corpus,
            len(rows) - len(kept),
            len(rows),
        )
    for part in kept:
        part.dimensions = _numbers(part, "dimensions", where)
        part.votes = _numbers(part, "votes", where)
    kept = _agreed(kept, raters, where)
    _check_found(kept, root, where)
    segmented = any(part.is_cut for part in kept)
    files = [part.path for part in kept]
    if segmented:
        files = _cut(kept, cut_into, allow_missing, where)
    utterances = make_utterances(
        (
            Candidate(
                name=part.name,
                path=path,
                speaker=part.said.get("speaker") or None,
                emotion=part.emotion or "",
                session=part.said.get("session") or None,
                gender=GENDER_WORDS.get(part.said.get("gender", "").lower()),
                text_id=part.said.get("text") or None,
                language=part.said.get("language") or None,
                split=splits_of.get(part.said.get("split", "")),
                recording=part.file if segmented else None,
                start=part.start if segmented else None,
                end=part.end,
                votes=part.votes,
                dimensions=part.dimensions,
                groups=_texts(part, "groups") or None,
            )
            for part, path in zip(kept, files, strict=True)
        ),
        corpus=corpus,
        language=language,
        folder=root,
        expected={},
        allow_missing=allow_missing,
    )
    return TableUtterances(utterances, columns | asked, list(rows[0]))


class TableUtterances(list[Utterance]):
    """The utterances of a table, and the columns that were used.

    Arguments
    ---------
    utterances : iterable of Utterance
        The utterances.
    columns : mapping
        Field, such as ``"speaker"``, to its column, or to several columns in braces.
    there : sequence of str
        All columns of the table.

    Example
    -------
    >>> TableUtterances([], {"file": "wav/{take}"}, ["take", "note"]).unused
    ['note']
    """

    def __init__(
        self,
        utterances: Iterable[Utterance],
        columns: Mapping[str, str],
        there: Sequence[str],
    ) -> None:
        super().__init__(utterances)
        self.columns = dict(columns)
        used = {name for said in columns.values() for name in _columns_of(said)}
        self.unused = [name for name in there if name not in used]


def _find(
    folder: Path, table: str | Sequence[str] | None, corpus: str
) -> tuple[Path, list[Path]]:
    """Finds the tables, and the folder that file names are relative to."""
    if folder.is_file():
        if table is not None:
            raise CorpusError(
                f"{corpus}: folder {folder} is a file; give its folder, or no table"
            )
        folder, table = folder.parent, folder.name
    if not folder.is_dir():
        raise CorpusError(f"{corpus}: there is no folder {folder}")
    tables = list(tables_in(folder))
    names = [path.name for path in tables]
    if table is None:
        if len(tables) == 1:
            return folder, tables
        inside = [] if names else list(islice(tables_in(folder, "**/*"), 3))
        deeper = [path.relative_to(folder).as_posix() for path in inside]
        found = ", ".join(names) or "none"
        found += f" but, in its folders, {', '.join(deeper)}" if deeper else ""
        texts = [] if names else sorted(path.name for path in folder.glob("*.txt"))
        found += f"; there is {', '.join(texts)}" if texts else ""
        old = sorted(p.name for p in folder.iterdir() if p.suffix in (".xls", ".ods"))
        found += f"; save {', '.join(old)} as .xlsx or .csv" if old else ""
        choice = (names or deeper or texts or ["labels.csv"])[0]
        if (folder / "db.yaml").exists() and len(names) > 1:  # an audformat database
            choice = f"[{', '.join(names)}], first the one with the emotions"
        raise CorpusError(
            f"{corpus}: expected one table in {folder}, found {found}. Say which: "
            f"table: {choice}"
        )
    chosen = [table] if isinstance(table, str) else table
    if not (
        isinstance(chosen, Sequence)
        and chosen
        and all(isinstance(name, str) for name in chosen)
    ):
        raise CorpusError(
            f"{corpus}: table is {table!r}, expected a file name such as labels.csv"
        )
    paths = [folder / name for name in chosen]
    for path in paths:
        if not path.is_file():
            raise CorpusError(
                f"{corpus}: there is no table {path}; "
                f"{did_you_mean(path.name, names)}tables there: "
                f"{', '.join(names) or 'none'}"
            )
        if path.suffix.lower() not in (*TEXTS, *READERS):
            raise CorpusError(
                f"{corpus}: {path} is not one of {', '.join((*TEXTS, *READERS))}. "
                "Save it as CSV"
            )
    return folder, paths


def _known_fields(columns: Words, corpus: str) -> dict[str, str | None]:
    """Checks the keys of ``columns`` before the table is read."""
    if not isinstance(columns or {}, Mapping):
        raise CorpusError(
            f"{corpus}: columns is {columns!r}, expected what each is called: "
            "{file: path, emotion: mood}"
        )
    columns = dict(columns or {})
    for field in columns:
        if field not in FIELDS:
            raise CorpusError(
                f"{corpus}: columns has the unknown key {field!r}; "
                f"{did_you_mean(field, FIELDS)}expected the keys "
                f"{', '.join(FIELDS)}, with names of the table's columns"
            )
    return columns


def _joined(
    rows: list[Row],
    more: list[Row],
    columns: Mapping[str, str],
    where: str,
    path: Path,
) -> list[Row]:
    """Joins the rows with those of a further table on the same files."""
    key = [name for name in columns.values() if name in more[0]]

    def values(row: Row) -> tuple[str, ...]:
        """Normalises file and times for comparison."""
        return tuple(
            one_name(row[name]) if name == columns["file"] else _plain_time(row[name])
            for name in key
        )

    if columns["file"] not in key:
        raise CorpusError(
            f"{where} and {path} do not both have the column {columns['file']!r} of "
            f"files, which joins their rows: {', '.join(rows[0])} and "
            f"{', '.join(more[0])}"
        )
    further = {values(row): row for row in more}
    if len(further) < len(more):
        raise CorpusError(f"{path}: several rows of the same {' and '.join(key)}")
    keys = [values(row) for row in rows]
    absent = [" ".join(key) for key in keys if key not in further]
    if absent:
        raise CorpusError(f"{path}: no row for ({offenders(absent)})")
    return [further[key] | row for key, row in zip(keys, rows, strict=True)]


def _resolved(
    columns: Mapping[str, str | None],
    rows: list[Row],
    splits: Words,
    where: str,
    fields: Sequence[str] = FIELDS,
) -> dict[str, str]:
    """Resolves which column has which field; combines several columns in braces."""
    there = list(rows[0])
    by_form = {_form(name): name for name in reversed(there)}
    resolved: dict[str, str] = {}
    for field, name in columns.items():
        if name is None or field not in fields:
            continue
        name = normal(str(name))
        for column in _columns_of(name):
            meant = column if column in there else by_form.get(_form(column))
            if meant is None:
                raise CorpusError(
                    f"{where} has no column {column!r}; {did_you_mean(column, there)}"
                    f"it has {', '.join(there)}. Correct columns: {{{field}: …}}"
                )
            name = name.replace(f"{{{column}}}", f"{{{meant}}}")
            resolved[field] = name if "{" in name else meant
    taken = {column for name in resolved.values() for column in _columns_of(name)}
    free = [name for name in there if name not in taken]
    guessed: dict[str, str] = {}
    for field in fields:
        if field in columns:
            continue
        found = [name for name in free if name == field]
        found = found or [name for name in free if _form(name) == field]
        if not found:
            usual, _, doubtful = USUAL_NAMES[field].partition("|")
            found = [
                n
                for n in free
                if _form(n) in usual.split() and _fits(field, n, rows, splits)
            ] or [
                n
                for n in free
                if _form(n) in doubtful.split()
                and all(_looks_like(field, row[n]) for row in rows)
            ]
        if len(found) > 1:
            raise CorpusError(
                f"{where}: {' and '.join(found)} may both be the {field}. Say which: "
                f"columns: {{{field}: {found[0]}}}, or null for none"
            )
        if found:
            resolved[field] = found[0]
            guessed |= {field: found[0]} if found[0] != field else {}
    if "start" not in resolved and _form(guessed.get("end", "")) == "offset":
        raise CorpusError(
            f"{where}: {guessed['end']} may be where an utterance starts or ends. Say "
            f"which: columns: {{start: {guessed['end']}}}"
        )
    times = [name for name in free if _MILLISECONDS.fullmatch(_form(name))]
    if times and not {"start", "end"} & (resolved.keys() | columns.keys()):
        raise CorpusError(
            f"{where}: {' and '.join(times)} seem to be times in milliseconds, "
            "expected seconds: columns start and end. To use whole files all the same: "
            "columns: {start: null}"
        )
    if "start" not in resolved or "end" in resolved:
        for some in (resolved, guessed):
            some.pop("duration", None)
    if guessed and fields == FIELDS:
        told = ", ".join(f"{name!r} is the {field}" for field, name in guessed.items())
        logger.warning("%s: taken by their names: %s", where, told)
    lacking = [field for field in NEEDED if field in fields and field not in resolved]
    if lacking:
        example = ", ".join(f"{f}: {_guess(f, rows) or '…'}" for f in lacking)
        if any(Path(name).suffix.lower() in READABLE for name in there):
            raise CorpusError(
                f"{where}: the first line, {', '.join(there)}, names a file, expected "
                "the names of columns. Put a line with them above it, such as "
                "file,emotion,speaker"
            )
        ratings = [name for name in there if _form(name) in RATINGS]
        if lacking == ["emotion"] and ratings:
            raise CorpusError(
                f"{where} has no column emotion, but {', '.join(ratings)}, which are "
                "ratings and no classes. They can stand beside one, with "
                f"dimensions: {{{', '.join(f'{n}: {n}' for n in ratings)}}}; expected "
                "a column of emotions as well. Say which it is: columns: {emotion: …}"
            )
        one = len(there) == 1 and re.search(r"\w\s+\w", there[0])
        raise CorpusError(
            f"{where} has no column {' and none '.join(lacking)}; it has "
            f"{', '.join(there)}. "
            + (
                "Put a comma, semicolon, tab or bar between columns"
                if one
                else f"Say which it is: columns: {{{example}}}"
            )
        )
    return {field: resolved[field] for field in FIELDS if field in resolved}


def _form(name: str) -> str:
    """Returns a column's name in lower case, without blanks and underscores."""
    return re.sub(r"[\W_]+", "", normal(name).casefold())


def _fits(
    field: str, name: str, rows: list[Row], splits: Mapping[str, str | None] | None
) -> bool:
    """Returns whether the values of a column fit its usual name."""
    if field == "split":
        own = {str(word).lower() for word in splits or {}}
        return all(r[name].lower() in {*SPLIT_WORDS, *own, ""} for r in rows)
    if field in _TIMES:
        return all(_is_time(row[name]) for row in rows)
    return True


def _looks_like(field: str, cell: str) -> bool:
    """Returns whether the value may be an audio file name, or an emotion."""
    if field == "file":
        return Path(cell).suffix.lower() in READABLE
    return cell.lower() in EMOTION_WORDS


def _guess(field: str, rows: list[Row]) -> str | None:
    """Finds the column whose values look like audio file names, or like emotions."""
    some = rows[:100]
    share = {
        name: sum(_looks_like(field, row[name]) for row in some) for name in rows[0]
    }
    best = max(share, key=lambda name: share[name])
    return best if share[best] > len(some) / 2 else None


def _columns_of(name: str) -> list[str]:
    """Returns the names in braces, or the name itself."""
    return re.findall(r"\{(.*?)\}", name) or [name]


def _values(row: Row, columns: Mapping[str, str]) -> Row:
    """Reads the fields of a row; words such as "nan" count as empty."""
    values = {
        field: re.sub(r"\{(.*?)\}", lambda match: row[match[1]], name)
        if "{" in name
        else row[name]
        for field, name in columns.items()
    }
    return {
        field: ""
        if field not in NEEDED and value.lower() in NO_LABEL | {"nat"}
        else value
        for field, value in values.items()
    }


def _parts(said: list[Row], where: str) -> list[_Part]:
    """Adds start and end to the rows."""
    empty = [f"row {n}" for n, row in enumerate(said, start=1) if not row["file"]]
    if empty:
        raise CorpusError(f"{where}: rows that name no file ({offenders(empty)})")
    parts, wrong = [], []
    for n, row in enumerate(said, start=1):
        strange = [row[key] for key in _TIMES if not _is_time(row.get(key, ""))]
        if strange:
            wrong += [f"row {n}, {row['file']}: {text!r}" for text in strange]
            continue
        start, end, length = (_seconds(row.get(key, "")) for key in _TIMES)
        if length is not None:
            end = (start or 0.0) + length
        if end is not None and end <= (start or 0.0):
            wrong.append(f"row {n}, {row['file']}: end {end:g} is not after {start:g}")
        parts.append(_Part(n, row, start or 0.0, end))
    if wrong:
        raise CorpusError(
            f"{where}: start or end is no time ({offenders(wrong)}). Expected seconds, "
            "or 0:00:01.5, the end after the start"
        )
    return parts


def _emotions(
    parts: Sequence[_Part], labels: Words, where: str
) -> dict[str, str | None]:
    """Translates each word to an emotion."""
    numbers = {part.said["emotion"] for part in parts}
    numbers = {text for text in numbers if re.fullmatch(r"-?\d+([.,]\d+)?", text)}
    if len(numbers) > _MANY:
        raise CorpusError(
            f"{where}: {len(numbers)} different numbers, such as {min(numbers)}, are "
            "ratings and no names of emotions. Name a column of names, or make one of "
            "the numbers first"
        )
    return translate(
        (part.said["emotion"] for part in parts),
        labels,
        EMOTION_WORDS,
        what="emotion",
        key="labels",
        where=where,
    )


def _agreed(parts: list[_Part], raters: str | None, where: str) -> list[_Part]:
    """Joins the rows of each file or part by vote."""
    groups: dict[tuple[str, float, float | None], list[_Part]] = {}
    for part in parts:
        key = (str(part.path or part.file), part.start, part.end)
        groups.setdefault(key, []).append(part)
    several = [group for group in groups.values() if len(group) > 1]
    if several and raters is None:
        twice = {normal(group[0].said["file"]) for group in several}
        raise CorpusError(
            f"{where}: files in more than one row ({offenders(twice)}). If a row is "
            "one listener's, raters: plurality takes the emotion of the most; if rows "
            "are parts of a file, name the columns of start and end; else keep one row"
        )
    undecided = 0
    for first, *more in several:
        for other in more:
            for field in set(first.said) - {*NEEDED, *_TIMES}:
                if "." not in field and other.said[field] != first.said[field]:
                    raise CorpusError(
                        f"{where}: rows {first.row} and {other.row} of {first.file} "
                        f"have {field} {first.said[field]!r} and "
                        f"{other.said[field]!r}, expected the same"
                    )
        votes = Counter(part.emotion or "" for part in (first, *more))
        first.votes = dict(votes)
        first.dimensions = _means([first, *more]) or None
        (first.emotion, most), *others = votes.most_common(2)
        if others and others[0][1] == most:
            first.emotion = "other"
            undecided += 1
    if several:
        logger.warning(
            "%s: %d of %d by the votes of several rows; undecided, now other: %d",
            *(where, len(several), len(groups), undecided),
        )
    return [group[0] for group in groups.values()]


def _means(parts: Sequence[_Part]) -> dict[str, float]:
    """Averages each dimension over the rows that have it."""
    said: dict[str, list[float]] = {}
    for part in parts:
        for name, value in (part.dimensions or {}).items():
            said.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in said.items()}


def _asked(what: str, asked: Words, rows: Sequence[Row], where: str) -> dict[str, str]:
    """Returns the columns of an option, named ``option.name``."""
    if not isinstance(asked or {}, Mapping):
        raise CorpusError(
            f"{where}: {what} is {asked!r}, expected a column for each name: "
            f"{what}: {{name: column}}"
        )
    there, found = list(rows[0]), {}
    for name, column in (asked or {}).items():
        if column not in there:
            raise CorpusError(
                f"{where} has no column {column!r}; {did_you_mean(str(column), there)}"
                f"it has {', '.join(there)}. Correct {what}: {{{name}: …}}"
            )
        known = EMOTION_WORDS.get(name.lower(), name) if what == "votes" else name
        found[f"{what}.{known}"] = column
    return found


def _texts(part: _Part, what: str) -> dict[str, str]:
    return {
        key.partition(".")[2]: text
        for key, text in part.said.items()
        if key.startswith(f"{what}.") and text
    }


def _numbers(part: _Part, what: str, where: str) -> dict[str, float] | None:
    try:
        return numbers(_texts(part, what))
    except CorpusError as error:
        raise CorpusError(
            f"{where}: row {part.row}, {part.said['file']}: {what}: {error}"
        ) from None


def _check_found(parts: Sequence[_Part], root: Path, where: str) -> None:
    """Raises an error if none of the files exists; suggests where one is."""
    if not parts or any(part.path for part in parts):
        return
    name = one_name(parts[0].said["file"])
    stem = glob.escape(Path(name).stem)
    elsewhere = next((p for p in root.rglob(f"{stem}.*") if p.suffix in READABLE), None)
    hint = f"Set folder so that {root / name} is one of them"
    if elsewhere:
        hint = f"One of this name is {elsewhere}: correct the column, or set folder"
    raise CorpusError(
        f"{where}: none of its {len(parts)} files is there; the first would be "
        f"{root / name}. {hint}"
    )


def _is_time(text: str) -> bool:
    try:
        seconds = _seconds(text)
    except ValueError:
        return False
    return seconds is None or 0 <= seconds <= _LONGEST


def _seconds(text: str) -> float | None:
    """Reads ``1.5``, ``1,5``, ``0:00:01.5``, ``0 days 00:00:01.5``; None: no end."""
    text = text.strip().lower()
    if text in NO_LABEL or text == "nat":
        return None
    days, _, clock = text.rpartition("days")
    seconds = 0.0
    for number in (clock.strip() or "0").replace(",", ".").split(":"):
        seconds = 60 * seconds + float(number)
    seconds += 86400 * float(days or 0)
    return None if seconds == math.inf else seconds


def _plain_time(text: str) -> str:
    return repr(_seconds(text)) if _is_time(text) else text


def _cut(
    parts: Sequence[_Part],
    cut_into: str | Path | None,
    allow_missing: bool,
    where: str,
) -> list[Path | None]:
    """Writes the parts of files to which rows refer."""
    pieces = [
        Piece(f"row {part.row}", part.path, part.start, part.end)
        if part.path and part.is_cut
        else None
        for part in parts
    ]
    cut = cut_pieces(pieces, cut_into, allow_missing, where)
    return [
        path if piece else part.path
        for part, piece, path in zip(parts, pieces, cut, strict=True)
    ]
