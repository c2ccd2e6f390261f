"""A corpus of one's own that a table describes: a row per file, or per part of a file.

Also what audformat writes as CSV: ``table: [db.emotion.csv, db.files.csv]``.
"""

import csv
import glob
import io
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from speechbrain_ser_cl.corpora.checks import (
    Candidate,
    CorpusError,
    below,
    finish,
    visible,
)
from speechbrain_ser_cl.corpora.folders import READABLE
from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.corpora.words import (
    EMOTION_WORDS,
    GENDER_WORDS,
    SPLIT_WORDS,
    names_to_leave_out,
    translate,
)
from speechbrain_ser_cl.registry import CORPORA
from speechbrain_ser_cl.utils.errors import did_you_mean, offenders

logger = logging.getLogger(__name__)

TABLES = (".csv", ".tsv", ".txt")
DELIMITERS = (",", ";", "\t", "|")
NEEDED = ("file", "emotion")
FIELDS = (
    *NEEDED,
    *("speaker", "session", "gender", "language", "text", "split", "start", "end"),
)


@CORPORA.register("table")
def read_table(
    folder: str | Path,
    allow_missing: bool = False,
    corpus: str = "table",
    table: str | Sequence[str] | None = None,
    columns: Mapping[str, str | None] | None = None,
    labels: Mapping[str, str | None] | None = None,
    splits: Mapping[str, str | None] | None = None,
    exclude: str | Path | Iterable[str] | None = None,
    cut_into: str | Path | None = None,
    language: str = "und",
    encoding: str = "utf-8",
) -> list[Utterance]:
    r"""Read a corpus of one's own: a CSV or TSV file with a row per utterance.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where the table is and where names of files begin; or the table itself.
    allow_missing : bool
        Whether missing and corrupt files become a warning.
    corpus : str
        A name for the corpus; ids and speakers begin with it.
    table : str or list of str, optional
        Name of the table in ``folder``; by default the only one there. Further ones
        say more about the files of the first: rows with the same file (and the same
        ``start`` and ``end`` if both have them) belong together.
    columns : mapping, optional
        Which column says what, where its name is not the same: ``{file: path, emotion:
        mood, speaker: agent}``. ``file`` and ``emotion`` are needed; ``speaker``,
        ``session``, ``gender``, ``language``, ``text``, ``split``, ``start`` and
        ``end`` are used if they are there. Several columns make one value as in
        ``{file: "wav/{take}_{number}.wav"}``. null: not this column.
    labels : mapping, optional
        What words for emotions mean, where they are not the usual ones:
        ``{Wut: angry}``; null leaves a word's rows out.
    splits : mapping, optional
        Likewise for words in the column of ``split``: ``{fold1: test}``.
    exclude : list of str or path, optional
        Ids or files to leave out, or a text file with them.
    cut_into : str or pathlib.Path, optional
        With ``start`` and ``end`` a row is part of a file: this folder gets the parts,
        once, as 16 kHz mono.
    language : str
        ISO 639 code of all rows, where no column says it.
    encoding : str
        Of the table.

    Returns
    -------
    list of Utterance
        Sorted by id. A speaker that the table does not say is None.

    Raises
    ------
    CorpusError
        For a table that is not there or not readable, columns that it does not have,
        rows that are too short or too long, words for emotions that are not known, a
        file in several rows; unless ``allow_missing``, for files that are missing or
        corrupt.

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
    root, paths = _find(Path(folder), table, corpus)
    columns = _known_fields(columns, corpus)
    rows = _read(paths[0], encoding)
    where = f"{corpus}: {paths[0]}"
    for path in paths[1:]:
        rows = _joined(rows, _read(path, encoding), columns, where, path)
    columns = _resolved(columns, rows, where)
    said = [_values(row, columns) for row in rows]
    _check_rows(said, where)
    said = _without(said, names_to_leave_out(exclude), root, corpus)

    emotions = translate(
        (row["emotion"] for row in said),
        labels,
        EMOTION_WORDS,
        what="emotion",
        key="labels",
        where=f"{where}, column {columns['emotion']}",
    )
    parts = translate(
        (row["split"] for row in said if row.get("split")),
        splits,
        SPLIT_WORDS,
        what="part of a split",
        key="splits",
        where=f"{where}, column {columns.get('split')}",
    )
    kept = [
        row
        for row in said
        if emotions[row["emotion"]] and parts.get(row.get("split"), "any")
    ]
    if len(kept) < len(rows):
        logger.info(
            "%s: %d of %d rows left out, as labels, splits and exclude say",
            corpus,
            len(rows) - len(kept),
            len(rows),
        )
    files = [_locate(root, row["file"]) for row in kept]
    _check_found(kept, files, root, columns, where)
    names = [_name(root, row) for row in kept]
    segmented = any(row.get("start") or row.get("end") for row in kept)
    if segmented:
        files = _cut(kept, files, cut_into, allow_missing, where)
    return finish(
        (
            Candidate(
                name=name,
                path=path,
                speaker=row.get("speaker") or None,
                emotion=emotions[row["emotion"]],
                session=row.get("session") or None,
                gender=GENDER_WORDS.get(row.get("gender", "").lower()),
                text_id=row.get("text") or None,
                language=row.get("language") or None,
                split=parts.get(row.get("split")),
                recording=_file_name(root, row) if segmented else None,
                start=_seconds(row.get("start") or "0") if segmented else None,
                end=_seconds(row["end"]) if row.get("end") else None,
            )
            for name, path, row in zip(names, files, kept, strict=True)
        ),
        corpus=corpus,
        language=language,
        folder=root,
        expected={},
        allow_missing=allow_missing,
    )


def _below(folder: Path) -> list[str]:
    """Up to three tables in folders of the folder, for an error."""
    found = (
        path.relative_to(folder).as_posix()
        for path in visible(folder, "**/*")
        if path.suffix.lower() in (".csv", ".tsv")
    )
    return list(islice(found, 3))


def _find(
    folder: Path, table: str | Sequence[str] | None, corpus: str
) -> tuple[Path, list[Path]]:
    """The folder that names of files begin at, and the tables."""
    if folder.is_file():
        if table is not None:
            raise CorpusError(
                f"{corpus}: folder {folder} is a file; give its folder, or no table"
            )
        folder, table = folder.parent, folder.name
    if not folder.is_dir():
        raise CorpusError(f"{corpus}: there is no folder {folder}")
    there = [path for path in visible(folder, "*") if path.suffix.lower() in TABLES]
    if table is None:
        tables = [path for path in there if path.suffix.lower() != ".txt"]
        if len(tables) != 1:
            names = [path.name for path in tables]
            deeper = [] if names else _below(folder)
            found = ", ".join(names) or "none"
            found += f" but, in its folders, {', '.join(deeper)}" if deeper else ""
            raise CorpusError(
                f"{corpus}: expected one table in {folder}, found {found}. Say which: "
                f"table: {(names or deeper or ['labels.csv'])[0]}"
            )
        return folder, tables
    paths = [folder / name for name in ([table] if isinstance(table, str) else table)]
    for path in paths:
        if not path.is_file():
            names = [other.name for other in there]
            raise CorpusError(
                f"{corpus}: there is no table {path}; "
                f"{did_you_mean(path.name, names)}tables there: "
                f"{', '.join(names) or 'none'}"
            )
        if path.suffix.lower() not in TABLES:
            raise CorpusError(
                f"{corpus}: {path} is not one of {', '.join(TABLES)}. Save it as CSV"
            )
    return folder, paths


def _known_fields(columns: Mapping | None, corpus: str) -> dict[str, str | None]:
    """The user's columns; whether the table has them is found out later."""
    if not isinstance(columns or {}, Mapping):
        raise CorpusError(
            f"{corpus}: columns is {columns!r}, expected what each is called: "
            "{file: path, emotion: mood}"
        )
    columns = dict(columns or {})
    for field in columns:
        if field not in FIELDS:
            raise CorpusError(
                f"{corpus}: columns has the unknown {field!r}; "
                f"{did_you_mean(field, FIELDS)}at the left of a colon stand "
                f"{', '.join(FIELDS)}, at the right the table's own names"
            )
    return columns


def _read(path: Path, encoding: str) -> list[dict[str, str]]:
    """The rows of a table by column, blanks around values taken away."""
    try:
        text = path.read_text(encoding=encoding).removeprefix("\ufeff")
    except (UnicodeDecodeError, LookupError) as error:
        raise CorpusError(
            f"{path}: not in the encoding {encoding} ({error}). Save it as UTF-8, or "
            "say which it is: encoding: cp1252 (Excel in Western Europe), utf-16, …"
        ) from error
    if not text.strip():
        raise CorpusError(f"{path}: the table is empty")
    readers = [csv.reader(io.StringIO(text), delimiter=mark) for mark in DELIMITERS]
    header, reader = max(((next(r), r) for r in readers), key=lambda pair: len(pair[0]))
    header = [name.strip() for name in header]
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise CorpusError(f"{path}: columns of the same name ({offenders(twice)})")
    rows, wrong = [], []
    for row in reader:
        if len(row) == len(header):
            cells = (cell.strip() for cell in row)
            rows.append(dict(zip(header, cells, strict=True)))
        elif any(cell.strip() for cell in row):
            wrong.append(f"line {reader.line_num} has {len(row)}")
    if wrong:
        raise CorpusError(
            f"{path}: the header has {len(header)} columns, other lines do not "
            f"({offenders(wrong)}). Put quotes around values that hold the delimiter"
        )
    if not rows:
        raise CorpusError(f"{path}: the table has a header and no rows")
    return rows


def _joined(
    rows: list[dict],
    more: list[dict],
    columns: Mapping[str, str | None],
    where: str,
    path: Path,
) -> list[dict]:
    """The rows with what a further table says about the same files."""
    own = {field: columns.get(field) or field for field in ("file", "start", "end")}
    key = [name for name in own.values() if name in rows[0] and name in more[0]]
    if own["file"] not in key:
        raise CorpusError(
            f"{where} and {path} do not both have the column {own['file']!r} of files, "
            f"by which rows are put together: {', '.join(rows[0])} and "
            f"{', '.join(more[0])}"
        )
    further = {tuple(row[name] for name in key): row for row in more}
    if len(further) < len(more):
        raise CorpusError(f"{path}: several rows of the same {' and '.join(key)}")
    keys = [tuple(row[name] for name in key) for row in rows]
    absent = [" ".join(key) for key in keys if key not in further]
    if absent:
        raise CorpusError(f"{path}: no row for ({offenders(absent)})")
    return [further[key] | row for key, row in zip(keys, rows, strict=True)]


def _resolved(
    columns: Mapping[str, str | None], rows: list[dict], where: str
) -> dict[str, str]:
    """Which column says what; several in braces make one value."""
    there = list(rows[0])
    resolved = {}
    for field in FIELDS:
        name = columns.get(field, field)
        if name is None or (field not in columns and name not in there):
            continue
        name = str(name)
        for column in _columns_of(name):
            if column not in there:
                raise CorpusError(
                    f"{where} has no column {column!r}; {did_you_mean(column, there)}"
                    f"it has {', '.join(there)}. Correct columns: {{{field}: …}}"
                )
        resolved[field] = name
    lacking = [field for field in NEEDED if field not in resolved]
    if lacking:
        example = ", ".join(f"{f}: {_guess(f, rows) or '…'}" for f in lacking)
        raise CorpusError(
            f"{where} has no column {' and none '.join(lacking)}; it has "
            f"{', '.join(there)}. Say which it is: columns: {{{example}}}"
        )
    return resolved


def _guess(field: str, rows: list[dict]) -> str | None:
    """The column that looks like names of audio files, or like emotions."""

    def fits(cell: str) -> bool:
        if field == "file":
            return Path(cell).suffix.lower() in READABLE
        return cell.lower() in EMOTION_WORDS

    some = rows[:100]
    share = {name: sum(fits(row[name]) for row in some) for name in rows[0]}
    best = max(share, key=share.get)
    return best if share[best] > len(some) / 2 else None


def _columns_of(name: str) -> list[str]:
    """What stands in braces, or the name itself."""
    return re.findall(r"\{(.*?)\}", name) or [name]


def _values(row: Mapping[str, str], columns: Mapping[str, str]) -> dict[str, str]:
    """What a row says, by field."""
    values = {
        field: re.sub(r"\{(.*?)\}", lambda match: row[match[1]], name)
        if "{" in name
        else row[name]
        for field, name in columns.items()
    }
    # audformat's word for the end of the file.
    return values | ({"end": ""} if values.get("end") == "NaT" else {})


def _check_rows(said: list[dict[str, str]], where: str) -> None:
    empty = [f"row {n}" for n, row in enumerate(said, start=1) if not row["file"]]
    if empty:
        raise CorpusError(f"{where}: rows that name no file ({offenders(empty)})")
    wrong = [
        f"{row['file']}: {row[key]!r}"
        for row in said
        for key in ("start", "end")
        if row.get(key) and not _is_time(row[key])
    ]
    if wrong:
        raise CorpusError(
            f"{where}: start or end is no time ({offenders(wrong)}). Expected seconds, "
            "or 0:00:01.5"
        )
    keys = Counter((r["file"], r.get("start"), r.get("end")) for r in said)
    twice = {key[0] for key, count in keys.items() if count > 1}
    if twice:
        raise CorpusError(
            f"{where}: files in more than one row ({offenders(twice)}). Keep one row "
            "of each: agree on one label, or name the columns of start and end if rows "
            "are parts of a file"
        )


def _without(
    said: list[dict[str, str]], unwanted: set[str], root: Path, corpus: str
) -> list[dict[str, str]]:
    if not unwanted:
        return said
    return [
        row
        for row in said
        if not unwanted & {row["file"], (name := _name(root, row)), f"{corpus}_{name}"}
    ]


def _name(root: Path, row: Mapping[str, str]) -> str:
    """A row's name: its file without suffix, and which part of it."""
    name = _file_name(root, row)
    bounds = [f"{_seconds(row[key]):.3f}" for key in ("start", "end") if row.get(key)]
    return "_".join([name, "-".join(bounds)]) if bounds else name


def _file_name(root: Path, row: Mapping[str, str]) -> str:
    """Its file without suffix."""
    path = root / row["file"].replace("\\", "/")
    known = path.suffix.lower() in READABLE
    return below(root, path.with_suffix("") if known else path)


def _locate(root: Path, name: str) -> Path | None:
    """The file of this name, its suffix left out or not; None if there is none."""
    path = root / name.replace("\\", "/")
    if path.is_file():
        return path
    suffixes = [] if path.suffix.lower() in READABLE else sorted(READABLE)
    beside = (path.with_name(path.name + suffix) for suffix in suffixes)
    return next((other for other in beside if other.is_file()), None)


def _check_found(
    rows: list[dict[str, str]],
    files: list[Path | None],
    root: Path,
    columns: Mapping[str, str],
    where: str,
) -> None:
    """If no file at all is where the table says, tell where one is."""
    if not rows or any(files):
        return
    name = rows[0]["file"]
    stem = glob.escape(Path(name.replace("\\", "/")).stem)
    elsewhere = next((p for p in root.rglob(f"{stem}.*") if p.suffix in READABLE), None)
    column = columns["file"] if "{" in columns["file"] else f"{{{columns['file']}}}"
    hint = f"Set folder so that {root / name} is one of them"
    if elsewhere:
        hint = (
            f"One of this name is {elsewhere}: set folder, or columns: {{file: "
            f'"{below(root, elsewhere.parent)}/{column}"}}'
        )
    raise CorpusError(
        f"{where}: none of its {len(rows)} files is there; the first would be "
        f"{root / name}. {hint}"
    )


def _is_time(text: str) -> bool:
    try:
        return _seconds(text) >= 0
    except ValueError:
        return False


def _seconds(text: str) -> float:
    """Seconds of ``1.5``, ``1,5``, ``0:00:01.5`` or ``0 days 00:00:01.5``."""
    days, _, clock = text.rpartition("days")
    seconds = 0.0
    for number in clock.strip().replace(",", ".").split(":"):
        seconds = 60 * seconds + float(number)
    return seconds + 86400 * float(days or 0)


def _cut(
    rows: list[dict[str, str]],
    files: list[Path | None],
    cut_into: str | Path | None,
    allow_missing: bool,
    where: str,
) -> list[Path | None]:
    """Writes the parts of files that rows are about."""
    from speechbrain_ser_cl.utils.audio import AudioError, cut_audio

    if cut_into is None:
        raise CorpusError(
            f"{where}: rows are parts of files, by their start and end. Say where the "
            "parts are to be written: cut_into: /data/parts"
        )

    def cut(row: Mapping[str, str], path: Path | None) -> Path | str | None:
        if path is None:
            return None
        try:
            start = _seconds(row.get("start") or "0")
            end = _seconds(row["end"]) if row.get("end") else None
            return cut_audio(path, start, end, cut_into)
        except AudioError as error:
            return str(error)

    Path(cut_into).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as pool:
        results = list(
            tqdm(
                pool.map(cut, rows, files),
                total=len(rows),
                desc="cutting utterances",
                disable=None,
            )
        )
    wrong = [result for result in results if isinstance(result, str)]
    if wrong and not allow_missing:
        raise CorpusError(
            f"{where}: parts that cannot be cut ({offenders(wrong)}). Correct them, or "
            "set allow_missing: True to do without"
        )
    return [None if isinstance(result, str) else result for result in results]
