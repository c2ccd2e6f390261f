"""``utterances.csv``: which utterances were in which part of an experiment."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.data.manifest import FIELDS
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.utils.files import replacing

_COLUMNS = ("id", "part", "label", *FIELDS, "wav")
# There where utterances are parts of longer recordings.
_SEGMENT = ("recording", "start", "end")


def write_parts(path: str | Path, parts: Mapping[str, Sequence[Labelled]]) -> None:
    """Write the parts of an experiment, one line per utterance.

    Columns: ``id``, ``part``, ``label`` (the class), the fields of ``Utterance`` and
    ``wav``, the absolute path of the audio; ``recording``, ``start`` and ``end`` where
    utterances are parts of longer recordings. What is None is empty. Lines are sorted
    by part, in the given order, then by id. The file appears whole or not at all.

    Arguments
    ---------
    path : str or pathlib.Path
        The file; its folder has to be there.
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
    cut = any(u.recording for part in parts.values() for u, _ in part)
    segment = _SEGMENT if cut else ()
    with (
        replacing(Path(path)) as unfinished,
        open(unfinished, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*_COLUMNS, *segment])
        for part, items in parts.items():
            for utterance, label in sorted(items, key=lambda item: item.utterance.id):
                fields = [getattr(utterance, name) for name in FIELDS]
                more = [getattr(utterance, name) for name in segment]
                wav = utterance.path.absolute()
                writer.writerow([utterance.id, part, label, *fields, wav, *more])


def read_parts(path: str | Path) -> dict[str, list[Labelled]]:
    """Read what ``write_parts`` wrote.

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
    ValueError
        If a column is missing or a line cannot be read; with file and line.

    Example
    -------
    >>> path = getfixture("tmp_path") / "utterances.csv"
    >>> _ = path.write_text("id,part")
    >>> read_parts(path)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: ...utterances.csv: no column label, duration, ...
    """
    parts: dict[str, list[Labelled]] = {}
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path}: no column {', '.join(missing)}")
        for row in reader:
            try:
                fields = {name: row[name] or None for name in FIELDS}
                fields["duration"] = float(row["duration"])
                fields["recording"] = row.get("recording") or None
                for name in ("start", "end"):
                    fields[name] = float(row[name]) if row.get(name) else None
                utterance = Utterance(id=row["id"], path=Path(row["wav"]), **fields)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {reader.line_num}: {error}") from None
            parts.setdefault(row["part"], []).append(Labelled(utterance, row["label"]))
    return parts
