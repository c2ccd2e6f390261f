"""JSON files with a schema, which is checked on writing and on reading.

``utils.schemas`` defines the kinds. pydantic checks them, because its errors give key
and value. Numbers that are not finite are written as null.
"""

import contextlib
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from speechbrain_ser_cl.utils.errors import FileError, did_you_mean
from speechbrain_ser_cl.utils.files import each_key_once, read_bytes, replacing

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class RecordError(FileError):
    """A file that is damaged, or of another kind than expected."""


@dataclass(frozen=True)
class Kind(Generic[T_co]):
    """A kind of file.

    Arguments
    ---------
    name : str
        Name for messages.
    schema : type
        Type of the contents.
    advice : str
        What to do with a file that cannot be read.
    format : int or None
        Version, if the file contains it.

    Example
    -------
    >>> from speechbrain_ser_cl.utils.schemas import FEW_LABELS
    >>> path = getfixture("tmp_path") / "few_labels.json"
    >>> _ = path.write_text('{"about": 3}')
    >>> read(path, FEW_LABELS)
    Traceback (most recent call last):
    speechbrain_ser_cl.utils.records.RecordError: ...few_labels.json: about is 3, \
expected an object. ...
    """

    name: str
    schema: Any
    advice: str
    format: int | None = 1

    @cached_property
    def checker(self) -> "TypeAdapter[T_co]":
        """pydantic's validator of the schema."""
        return TypeAdapter(self.schema)


def read(path: str | Path, kind: Kind[T]) -> T:
    """Reads a file of a kind.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    kind : Kind
        Expected kind.

    Returns
    -------
    dict or list
        Contents, checked.

    Raises
    ------
    RecordError
        The message has the file, the path of the key, what was found and expected, and
        what to do.
    OSError
        If the file does not exist.

    Example
    -------
    >>> from speechbrain_ser_cl.utils.schemas import HISTORY
    >>> path = getfixture("tmp_path") / "history.json"
    >>> write(path, HISTORY, [{"epoch": 1, "train": {"loss": float("nan")}}])
    >>> read(path, HISTORY)
    [{'epoch': 1, 'train': {'loss': None}}]
    """
    return parse(read_bytes(path), kind, path)


def parse(text: str | bytes, kind: Kind[T], where: str | Path) -> T:
    """Parses the text of a file of a kind.

    Arguments
    ---------
    text : str or bytes
        JSON text.
    kind : Kind
        Expected kind.
    where : str or pathlib.Path
        Name of the file, for the message.

    Returns
    -------
    dict or list
        Contents, checked.

    Raises
    ------
    RecordError
        As in ``read``.
    """
    try:
        value = _validated(text, kind, where)
    except RecordError:
        _refuse_keys_twice(text, kind, where)  # which may be the reason
        raise
    if not _surely_each_key_once(text, value):
        _refuse_keys_twice(text, kind, where)
    return value


def _surely_each_key_once(text: str | bytes, value: Any) -> bool:
    """Counts the keys of a flat table; False if the text is not simple enough."""
    odd = (b"\\", b"\t", b"\r", b" :", b"\n:")  # without them '":' ends each key
    if isinstance(text, str) or not isinstance(value, dict):
        return False
    rows = [row for row in value.values() if isinstance(row, dict)]
    keys = len(value) + sum(map(len, rows))
    if text.count(b":") == keys:  # each colon ends a key
        return True
    return text.count(b'":') == keys and not any(sign in text for sign in odd)


def _refuse_keys_twice(text: str | bytes, kind: Kind[T], where: str | Path) -> None:
    with contextlib.suppress(RecursionError, UnicodeDecodeError, json.JSONDecodeError):
        try:
            json.loads(text, object_pairs_hook=_no_key_twice)
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise  # pydantic reports the error
        except ValueError as error:
            raise RecordError(
                f"{where}: {error}, expected once. {kind.advice}"
            ) from None


def _no_key_twice(pairs: list[tuple[str, Any]]) -> None:
    """Returns nothing, which is fast; a repeated key raises an error."""
    if len(dict(pairs)) < len(pairs):
        each_key_once(pairs)


def _validated(text: str | bytes, kind: Kind[T], where: str | Path) -> T:
    try:
        return kind.checker.validate_json(text)
    except ValidationError as error:
        raise _error(error, kind, where) from None


def check(value: Any, kind: Kind[T], where: str | Path) -> T:
    """Checks a value that was read elsewhere.

    Arguments
    ---------
    value : object
        JSON value.
    kind : Kind
        Expected kind.
    where : str or pathlib.Path
        Name of the file, for the message.

    Returns
    -------
    dict or list
        The value, checked.

    Raises
    ------
    RecordError
        As in ``read``.
    """
    try:
        return kind.checker.validate_python(value)
    except ValidationError as error:
        raise _error(error, kind, where) from None


def write(
    path: str | Path,
    kind: Kind[T],
    record: Mapping[str, Any] | list[Any],
    rows: str = "",
) -> None:
    """Writes a file of a kind, whole or not at all.

    Arguments
    ---------
    path : str or pathlib.Path
        Output file; its folder is created if needed.
    kind : Kind
        Kind of the file.
    record : mapping or list
        Contents; ``format`` is added. Numbers that are not finite become null.
    rows : str
        Key of a list that is written last, with one line per entry.

    Raises
    ------
    RecordError
        If the contents are not of the kind.
    """
    if kind.format is not None and isinstance(record, Mapping):
        record = {"format": kind.format, **record}
    if rows:
        contents = finite(record)
        lines = [
            json.dumps(row, ensure_ascii=False, separators=(",", ":"))
            for row in contents.pop(rows)
        ]
        head = json.dumps(contents, indent=1, ensure_ascii=False)[:-2]
        told = f'{head},\n "{rows}": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"
        text = told.encode()
    else:
        text = to_json(record, indent=1, inf_nan_mode="null") + b"\n"
    try:
        kind.checker.validate_python(record)  # faster than the text
    except ValidationError:
        _validated(text, kind, path)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_bytes(text)


def finite(value: Any) -> Any:
    """Replaces numbers that are not finite by None, because JSON has none.

    Arguments
    ---------
    value : object
        Nested mappings, sequences, numbers and texts.

    Returns
    -------
    object
        Copy made of dictionaries and lists.

    Example
    -------
    >>> finite({"loss": [0.5, float("inf")]})
    {'loss': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def checksum(path: str | Path) -> str:
    """Computes the SHA-256 hash of a file.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    str
        64 hexadecimal digits.

    Example
    -------
    >>> path = getfixture("tmp_path") / "empty"
    >>> path.touch()
    >>> checksum(path)[:8]
    'e3b0c442'
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def check_files(
    folder: str | Path, known: Mapping[str, str], names: Sequence[str]
) -> None:
    """Refuses files of a run that were changed after the run wrote them.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder of the run.
    known : mapping
        Name to checksum: ``files`` of the run's ``results.json``. Files without a
        checksum (earlier versions) are not checked.
    names : sequence of str
        Files that will be read; missing files are ignored.

    Raises
    ------
    RecordError
        The message names the file.
    """
    for name in names:
        path = Path(folder) / name
        if name in known and path.is_file() and checksum(path) != known[name]:
            raise RecordError(
                f"{path}: is not the file that the run wrote (files.{name} of "
                "results.json has another checksum): it is cut off, damaged or edited. "
                "Run it again, or take the file from a copy"
            )


def _error(error: ValidationError, kind: Kind[Any], where: str | Path) -> RecordError:
    """Makes the error for the first problem, in the package's form."""
    all_wrong = error.errors(include_url=False)
    first = all_wrong[0]
    reason, found = first["type"], first["input"]
    loc = [part for part in first["loc"] if not str(part).startswith("function-")]
    key = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part:.60}" for part in loc
    ).lstrip(".")
    if reason == "json_invalid":
        return RecordError(
            f"{where}: not valid JSON ({first['ctx']['error']}); the {kind.name} is "
            f"cut off or damaged. {kind.advice}"
        )
    if reason == "missing":
        absent = [
            str(one["loc"][-1])
            for one in all_wrong
            if one["type"] == "missing" and one["loc"][:-1] == first["loc"][:-1]
        ]
        key = key.removesuffix(absent[0]) + ", ".join(absent)
        return RecordError(f"{where}: no {key} in this {kind.name}. {kind.advice}")
    if reason == "extra_forbidden":
        known = list(getattr(kind.schema, "__annotations__", ()))
        hint = did_you_mean(str(loc[-1]), known) if len(loc) == 1 else ""
        return RecordError(
            f"{where}: unknown key {key} in this {kind.name}. {hint}{kind.advice}"
        )
    expected = first["msg"].removeprefix("Input should be ")
    expected = expected.removeprefix("Value error, ")
    limits = first.get("ctx", {})
    if "actual_length" in limits:
        bound = ("at least", "min") if "min_length" in limits else ("at most", "max")
        expected = f"{bound[0]} {limits[f'{bound[1]}_length']} values"
    advice = kind.advice
    if key == "format" and isinstance(found, int):
        advice = f"Another version of speechbrain_ser_cl wrote this {kind.name}"
    key = key or f"the {kind.name}"
    return RecordError.at(where, key, found, expected, advice)
