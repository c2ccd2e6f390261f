"""Reads the rows of a table: CSV of any kind, Excel, JSON lines, Parquet."""

import codecs
import csv
import io
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from speechbrain_ser_cl.corpora.checks import CorpusError
from speechbrain_ser_cl.corpora.utterance import normal
from speechbrain_ser_cl.utils.errors import offenders, repeated
from speechbrain_ser_cl.utils.files import each_key_once, read_bytes

logger = logging.getLogger(__name__)

TEXTS = (".csv", ".tsv", ".txt")
_DELIMITERS = (",", ";", "\t", "|")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # starts with the bytes of the next one
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LETTERS = re.compile("[^\\W\\d_]+")
# Western European letters and typographic signs.
_WESTERN = re.compile("[\\x00-\\x7fß-öø-ÿÀ-ÖØ-ÞŒœŠšŽžŸ–—‘’‚“”„…€«»°§\\xa0]*")

Row = dict[str, str]


def read_rows(path: Path, encoding: str | None = None) -> list[Row]:
    r"""Reads the rows of a table, with blanks around values removed.

    Arguments
    ---------
    path : pathlib.Path
        ``.csv``, ``.tsv`` or ``.txt`` with comma, semicolon, tab or bar; ``.xlsx``,
        ``.parquet``; ``.jsonl`` or ``.ndjson`` with one object per line.
    encoding : str, optional
        Encoding of text. Default: UTF-8, UTF-16, or cp1252 (Excel in Western Europe) if
        the text then looks Western European.

    Returns
    -------
    list of dict
        Column to value, in Unicode form NFC. Empty cells are ``""``.

    Raises
    ------
    CorpusError
        If the file is not a table; the message names file and line.
    ImportError
        For Excel or Parquet if the extra ``tables`` is not installed.

    Example
    -------
    >>> path = getfixture("tmp_path") / "calls.csv"
    >>> _ = path.write_text("sep=;\n# made by hand\nfile ; emotion;\na.wav;joy;\n")
    >>> read_rows(path)
    [{'file': 'a.wav', 'emotion': 'joy'}]
    """
    read: Callable[[Path], Iterator[tuple[int, Sequence[str]]]]
    if path.suffix.lower() in TEXTS:
        read = _csv_reader(encoding)
    else:
        read = READERS[path.suffix.lower()]
    lines = read(path)
    header = [normal(name) for name in next(lines, (0, []))[1]]
    if not any(header):
        raise CorpusError(f"{path}: the table is empty")
    named = [name for name in header if name]
    if twice := repeated(named):
        raise CorpusError(f"{path}: columns of the same name ({offenders(twice)})")
    width, rows, wrong = len(header), [], []
    for number, cells in lines:
        # A delimiter at the end of each row.
        if len(cells) == width + 1 and not cells[-1]:
            cells = cells[:-1]
        if len(cells) == width:
            row = dict(zip(header, map(normal, cells), strict=True))
            row.pop("", None)  # such as the row numbers of pandas
            rows.append(row)
        else:
            wrong.append(f"line {number} has {len(cells)}")
    if wrong:
        raise CorpusError(
            f"{path}: the header has {len(named)} columns, other lines do not "
            f"({offenders(wrong)}). Put quotes around values that hold the delimiter"
        )
    if not rows:
        raise CorpusError(f"{path}: the table has a header and no rows")
    return rows


def _decoded(path: Path, encoding: object) -> str:
    """Decodes the text of a file; an error names the line that does not fit."""
    data = read_bytes(path)
    if not isinstance(encoding, str | None):
        raise CorpusError(f"encoding is {encoding!r}, expected a name such as utf-8")
    marked = [name for mark, name in _MARKS if data.startswith(mark)]
    if b"\0" in data[:2]:  # UTF-16 without a byte order mark
        marked.append("utf-16-be" if data[:1] == b"\0" else "utf-16-le")
    chosen = encoding or next(iter(marked), "utf-8")
    try:
        return data.decode(chosen).removeprefix("\ufeff")
    except (UnicodeError, LookupError) as error:
        if encoding is None and not marked:
            text = data.decode("cp1252", "replace")
            if _is_western(text):
                logger.warning("%s: not UTF-8, read as cp1252", path)
                return text
        line = data.count(b"\n", 0, getattr(error, "start", 0)) + 1
        raise CorpusError(
            f"{path}, line {line}: not in the encoding {chosen} ({error}). Save it as "
            "UTF-8, or say which it is: encoding: cp1252 (Excel in Western Europe), "
            "utf-16, …"
        ) from None


def _is_western(text: str) -> bool:
    """Returns whether text looks Western European: mostly plain letters."""
    return bool(_WESTERN.fullmatch(text)) and all(
        2 * len(re.findall("[A-Za-z]", word)) >= len(word)
        for word in set(_LETTERS.findall(text))
    )


def _csv_reader(encoding: str | None) -> Callable[..., Iterator[tuple[int, list[str]]]]:
    def read(path: Path) -> Iterator[tuple[int, list[str]]]:
        lines = io.StringIO(_decoded(path, encoding), newline="").readlines()
        first, delimiter = 0, None
        while first < len(lines):
            line = lines[first].strip()
            if told := re.fullmatch('"?sep=(.)"?', lines[first].strip("\r\n")):
                delimiter = told[1]
            elif line.strip(",;|") and not line.startswith("#"):
                break
            first += 1
        rest = lines[first:]
        if not rest:
            return
        marks = [delimiter] if delimiter else _DELIMITERS
        header = {mark: next(csv.reader(rest[:1], delimiter=mark)) for mark in marks}
        reader = csv.reader(rest, delimiter=max(marks, key=lambda m: len(header[m])))
        begun, ended = 1, 0
        try:
            for cells in reader:
                begun, ended = ended + 1, reader.line_num
                cells = [cell.strip() for cell in cells]
                if ended == len(rest) and _is_open(rest[begun - 1 :], reader.dialect):
                    raise csv.Error
                if any(cells):
                    yield first + begun, cells
        except csv.Error:
            begun = first + (begun if ended == len(rest) else ended + 1)
            raise CorpusError(
                f"{path}, line {begun}: a quote is opened and never closed, or this is "
                "no CSV. Close or remove it"
            ) from None

    return read


def _is_open(lines: list[str], dialect: Any) -> bool:
    """Returns whether the last record of these lines ends within quotes."""
    if len(lines) < 2 and '"' not in lines[0]:
        return False
    try:
        list(csv.reader(lines, delimiter=dialect.delimiter, strict=True))
    except csv.Error as error:
        return "end of data" in str(error)
    return False


def _cell(value: object) -> str:
    """Converts a value of Excel, JSON or Parquet to text, as in CSV."""
    if value is None or value != value:  # NaN and pandas' NaT are unequal to themselves
        return ""
    if isinstance(value, timedelta):
        return repr(value.total_seconds())
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _excel(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        from openpyxl import load_workbook  # type: ignore[import-untyped]
    except ImportError as error:
        raise _lacking(path, "openpyxl") from error
    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # errors of zip and XML, and openpyxl's own
        raise CorpusError(f"{path}: no Excel table ({error!s:.200})") from None
    sheets = [sheet for sheet in book.worksheets if sheet.max_row]
    if len(sheets) > 1:
        others = ", ".join(sheet.title for sheet in sheets[1:])
        logger.warning(
            "%s: the sheet %s is read, not %s", path, sheets[0].title, others
        )
    for sheet in sheets[:1]:
        width = 0
        for number, values in enumerate(sheet.iter_rows(values_only=True), start=1):
            cells = [_cell(value) for value in values]
            if any(cells):
                width = width or max(n for n, cell in enumerate(cells, 1) if cell)
                more = cells[width:] if any(cells[width:]) else []
                padded = cells[:width] + [""] * (width - len(cells))
                yield number, padded + more
    book.close()


def _json_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    objects = []
    for number, line in enumerate(_decoded(path, None).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line, object_pairs_hook=each_key_once)
        except ValueError as error:
            raise CorpusError(
                f"{path}, line {number}: no JSON table ({error})"
            ) from None
        if not isinstance(found, dict) or any(
            isinstance(value, dict | list) for value in found.values()
        ):
            raise CorpusError(
                f"{path}, line {number}: expected an object of plain values, such as "
                '{"file": "a.wav", "emotion": "joy"}'
            )
        objects.append((number, found))
    header = list(dict.fromkeys(key for _, found in objects for key in found))
    yield 1, [name.strip() for name in header]
    for number, found in objects:
        yield number, [_cell(found.get(key)) for key in header]


def _parquet(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        from pyarrow import ArrowException  # type: ignore[import-untyped]
        from pyarrow.parquet import read_table  # type: ignore[import-untyped]
    except ImportError as error:
        raise _lacking(path, "pyarrow") from error
    try:
        table = read_table(path)
    except (ArrowException, OSError) as error:
        raise CorpusError(f"{path}: no Parquet table ({error!s:.200})") from None
    yield 0, [str(name).strip() for name in table.column_names]
    columns = [
        [_cell(value) for value in _seconds_of(column).to_pylist()]
        for column in table.columns
    ]
    for number, cells in enumerate(zip(*columns, strict=True), start=1):
        yield number, list(cells)


def _seconds_of(column: Any) -> Any:
    """Converts durations in nanoseconds, which Python does not have, to seconds."""
    import pyarrow

    if not pyarrow.types.is_duration(column.type):
        return column
    whole = column.cast(pyarrow.duration("ns")).cast(pyarrow.int64())
    return pyarrow.compute.divide(whole.cast(pyarrow.float64()), 1e9)


def _lacking(path: Path, package: str) -> ImportError:
    return ImportError(
        f"{path}: reading it needs {package}: pip install "
        "'speechbrain_ser_cl[tables]'; or save it as CSV"
    )


READERS: dict[str, Callable[[Path], Iterator[tuple[int, list[str]]]]] = {
    ".xlsx": _excel,
    ".parquet": _parquet,
    **dict.fromkeys((".jsonl", ".ndjson"), _json_lines),
}


def tables_in(folder: Path, pattern: str = "*") -> Iterator[Path]:
    """Yields a folder's tables, without hidden, text and Excel lock files.

    Arguments
    ---------
    folder : pathlib.Path
        Folder to search.
    pattern : str
        Glob pattern.

    Yields
    ------
    pathlib.Path
        Sorted.

    Example
    -------
    >>> for name in ("a.csv", "notes.txt", "~$b.xlsx"):
    ...     (getfixture("tmp_path") / name).touch()
    >>> [path.name for path in tables_in(getfixture("tmp_path"))]
    ['a.csv']
    """
    for path in sorted(folder.glob(pattern)):
        known = path.suffix.lower() in (".csv", ".tsv", *READERS)
        if known and not path.name.startswith((".", "~$")) and path.is_file():
            yield path
