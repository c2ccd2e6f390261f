"""Files of JSON with a schema: checked when they are written and when they are read.

``utils.schemas`` has the kinds. pydantic checks them, for it tells where a value stands
and what it is; numbers that are not finite are written as null.
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
    """A file that is damaged, or is not of the kind that it should be."""


@dataclass(frozen=True)
class Kind(Generic[T_co]):
    """A kind of file.

    Arguments
    ---------
    name : str
        What it is called in messages.
    schema : type
        What it holds.
    advice : str
        What to do with one that cannot be read.
    format : int or None
        Its version, if the file carries it.

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
        """What checks a value."""
        return TypeAdapter(self.schema)


def read(path: str | Path, kind: Kind[T]) -> T:
    """Read a file of a kind.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    kind : Kind
        What it should be.

    Returns
    -------
    dict or list
        Its contents, checked.

    Raises
    ------
    RecordError
        With the file, the path of the key, what was found and expected, what to do.
    OSError
        If it is not there.

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
    """Parse the text of a file of a kind.

    Arguments
    ---------
    text : str or bytes
        JSON.
    kind : Kind
        What it should be.
    where : str or pathlib.Path
        For the message.

    Returns
    -------
    dict or list
        Its contents, checked.

    Raises
    ------
    RecordError
        As ``read`` does.
    """
    with contextlib.suppress(RecursionError, UnicodeDecodeError, json.JSONDecodeError):
        try:
            json.loads(text, object_pairs_hook=_no_key_twice)
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise  # pydantic tells it
        except ValueError as error:
            raise RecordError(
                f"{where}: {error}, expected once. {kind.advice}"
            ) from None
    try:
        return kind.checker.validate_json(text)
    except ValidationError as error:
        raise _error(error, kind, where) from None


def _no_key_twice(pairs: list[tuple[str, Any]]) -> None:
    """Keep nothing, which is soon done and small."""
    each_key_once(pairs)


def check(value: Any, kind: Kind[T], where: str | Path) -> T:
    """Check a value that was read in another way.

    Arguments
    ---------
    value : object
        Of JSON.
    kind : Kind
        What it should be.
    where : str or pathlib.Path
        For the message.

    Returns
    -------
    dict or list
        The same, checked.

    Raises
    ------
    RecordError
        As ``read`` does.
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
    """Write a file of a kind, whole or not at all.

    Arguments
    ---------
    path : str or pathlib.Path
        The file; its folder is made if it is not there.
    kind : Kind
        What it is.
    record : mapping or list
        Its contents; ``format`` is added. Numbers that are not finite become null.
    rows : str
        A key whose list has a line per entry, and comes last.

    Raises
    ------
    RecordError
        If it is not of the kind.
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
    parse(text, kind, path)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_bytes(text)


def finite(value: Any) -> Any:
    """Replace numbers that are not finite by None, as JSON has no others.

    Arguments
    ---------
    value : object
        Mappings, sequences, numbers, texts, in each other.

    Returns
    -------
    object
        A copy in dictionaries and lists.

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
    """Compute the SHA-256 of a file.

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
    """Refuse files of a run that were changed after it wrote them.

    Arguments
    ---------
    folder : str or pathlib.Path
        The run's folder.
    known : mapping
        Name to checksum: ``files`` of its ``results.json``. What is not in it, as of
        earlier versions, is not checked.
    names : sequence of str
        Files that are about to be read; missing ones are ignored.

    Raises
    ------
    RecordError
        With the file's name.
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
    """The first thing that is wrong, in the package's form."""
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
