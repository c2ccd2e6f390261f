"""``utterances.csv``: the utterances of each part of an experiment."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.data.manifest import FIELDS
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.utils.errors import FileError
from speechbrain_ser_cl.utils.files import read_csv, write_rows

_COLUMNS = ("id", "part", "label", *FIELDS, "wav")
# Columns that exist if any utterance has a value: parts of longer recordings, intended
# intensity, and listeners' answers as compact JSON.
_SEGMENT = ("recording", "start", "end")
_LISTENERS = "listeners"
_GROUPS = (_SEGMENT, ("intensity",), (_LISTENERS,))
_HEARD = ("dimensions", "votes", "groups")
_TIMES = ("duration", "start", "end")


def write_parts(path: str | Path, parts: Mapping[str, Sequence[Labelled]]) -> None:
    """Writes the parts of an experiment, one line per utterance.

    Columns: ``id``, ``part``, ``label`` (the class), the fields of ``Utterance`` and
    ``wav``, the absolute path of the audio; ``recording``, ``start`` and ``end`` if
    utterances are parts of longer recordings; ``intensity`` if a corpus has it;
    ``listeners`` if there are dimensions, votes or groups, as JSON:
    ``{"votes":{"happy":3}}``. None is an empty cell. Lines are sorted by part, in the
    given order, then by id. The file is written whole or not at all. Reports find the
    audio by ``wav``; empty this column before you publish the file.

    Arguments
    ---------
    path : str or pathlib.Path
        Output file; its folder must exist.
    parts : mapping
        Name of the part to its utterances.

    Example
    -------
    >>> path = getfixture("tmp_path") / "utterances.csv"
    >>> utterance = Utterance(id="a", path=path.with_name("a.wav"), duration=1.5,
    ...     corpus="c", speaker="s", session=None, gender=None, language="en",
    ...     text_id=None, emotion="sad")
    >>> write_parts(path, {"test": [Labelled(utterance, "negative")]})
    >>> read_parts(path)["test"] == [Labelled(utterance, "negative")]
    True
    """
    everything = [u for part in parts.values() for u, _ in part]
    there = (
        any(u.recording for u in everything),
        any(u.intensity for u in everything),
        any(u.dimensions or u.votes or u.groups for u in everything),
    )
    further = [name for group in compress(_GROUPS, there) for name in group]
    rows = (
        [
            *(u.id, part, label),
            *(getattr(u, name) for name in FIELDS),
            u.path.absolute(),
            *(_said(u) if name == _LISTENERS else getattr(u, name) for name in further),
        ]
        for part, items in parts.items()
        for u, label in sorted(items, key=lambda item: item.utterance.id)
    )
    write_rows(path, [*_COLUMNS, *further], rows)


def read_parts(path: str | Path) -> dict[str, list[Labelled]]:
    """Reads a file that ``write_parts`` wrote.

    Arguments
    ---------
    path : str or pathlib.Path
        An ``utterances.csv``.

    Returns
    -------
    dict
        Name of the part to its utterances, in the file's order.

    Raises
    ------
    FileError
        If a column is missing or a line cannot be read; the message has file and line.

    Example
    -------
    >>> path = getfixture("tmp_path") / "utterances.csv"
    >>> _ = path.write_text("id,part")
    >>> read_parts(path)
    Traceback (most recent call last):
    speechbrain_ser_cl.utils.errors.FileError: ...utterances.csv, line 1: ...
    """
    parts: dict[str, list[Labelled]] = {}
    rows = read_csv(path, _COLUMNS)
    _, columns = next(rows)
    more = columns[len(_COLUMNS) :]
    there = [set(group) <= set(more) for group in _GROUPS]
    if more != [name for group in compress(_GROUPS, there) for name in group]:
        raise FileError(
            f"{path}: the columns end with {', '.join(more)!r:.100}, expected, in this "
            f"order, {', '.join(_SEGMENT)}; intensity; {_LISTENERS}; or none of them"
        )
    listeners = there[-1]
    for where, cells in rows:
        row = dict(zip(columns, cells, strict=True))
        name, part, label = (row.pop(key) for key in ("id", "part", "label"))
        wav = Path(row.pop("wav"))
        try:
            heard = _heard(row.pop(_LISTENERS)) if listeners else {}
            times = {key: float(row.pop(key)) for key in _TIMES if row.get(key)}
            fields = {key: cell or None for key, cell in row.items()} | times
            if not all(map(math.isfinite, times.values())) or "duration" not in times:
                raise ValueError(f"the times are {times}, expected seconds")
            utterance = Utterance(id=name, path=wav, **fields, **heard)  # type: ignore[arg-type]
        except ValueError as error:
            raise FileError(f"{where}: {error!s:.300}") from None
        parts.setdefault(part, []).append(Labelled(utterance, label))
    return parts


def _said(utterance: Utterance) -> str:
    heard = {name: value for name in _HEARD if (value := getattr(utterance, name))}
    return json.dumps(heard, separators=(",", ":"), ensure_ascii=False) if heard else ""


def _heard(cell: str) -> dict[str, dict[str, Any]]:
    """Parses dimensions, votes and groups of a cell."""
    heard = json.loads(cell or "{}")
    if (
        not isinstance(heard, dict)
        or not heard.keys() <= set(_HEARD)
        or not all(
            isinstance(said, dict)
            and all(
                type(one) in ((str,) if name == "groups" else (int, float))
                for one in said.values()
            )
            for name, said in heard.items()
        )
    ):
        raise ValueError(f"{_LISTENERS} is {cell}, expected {', '.join(_HEARD)}")
    return heard
