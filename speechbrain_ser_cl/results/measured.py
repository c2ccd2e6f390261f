"""Measured files: the records of many runs in one small file, for a README.

A README's tables are written from the records of runs: ``results.json``,
``crossval.json``, ``few_labels.json``, ``alignment.json``. A measured file contains
copies of them under their paths; for each kind, values that all records share
(``shared``) are written once::

    {"measured": 1,
     "results.json": {
      "shared": {"source": "emodb", "seed": {}, "test": {"chance": 0.5, "uar": {}}},
      "records": {
       "labelled/0": {"seed": 0, "test": {"uar": {"value": 0.76}}},
       "labelled/1": {"seed": 1, "test": {"uar": {"value": 0.75}}}}}}

In ``shared``, ``{}`` marks values that differ. A list of mappings with equal keys is
written as a mapping of lists: ``{"[]": {"fold": [0, 1], "seed": [7, 7]}}``. A square
matrix of counts is a text with rows between bars and zeros left out:
``"#13,,1|,9|,2,5"``. Numbers are not changed.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from speechbrain_ser_cl.utils.files import replacing
from speechbrain_ser_cl.utils.records import Kind, check, read
from speechbrain_ser_cl.utils.schemas import (
    ALIGNMENT,
    CROSSVAL,
    FEW_LABELS,
    MEASURED,
    RESULTS,
)

_KINDS = (RESULTS, CROSSVAL, FEW_LABELS, ALIGNMENT)
KINDS: dict[str, Kind[Any]] = {kind.name: kind for kind in _KINDS}
_HEAD = '{"measured":1'
_COLUMNS, _COUNTS = "[]", "#"
# Left out: values that follow from others, or that no table shows.
_LEFT_OUT = {
    "crossval.json": {"results"},
    "results.json": {"data", "files", "layer_weights"},
}
# Same for the numbers of single runs; ``cost`` contains time and memory.
_NUMBERS_LEFT_OUT = re.compile(
    r"training_seconds|peak_memory_mb\..*|nonfinite_batches|valid\.macro_f1"
    r"|probes\.(valid\..*|test\.(svm|classifier)\..*)"
)
# Parts of a run's folder: checkpoints, audio and folds.
_NOT_SEARCHED = {"save", "data", "splits"}

Record = dict[str, Any]


def find_records(place: str | Path, kind: str) -> Iterator[tuple[Path, Record]]:
    """Yields all records of one kind from a folder (at any depth) or a measured file.

    Arguments
    ---------
    place : str or pathlib.Path
        Folder, measured file, or a file of the kind.
    kind : str
        File name in ``KINDS``.

    Yields
    ------
    path : pathlib.Path
        Path of the record; for a record in a measured file, the file's path and the
        record's path.
    record : dict
        Contents of the record.

    Raises
    ------
    ValueError
        If a file is damaged; the message names it.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> write_measured(folder / "t.json", {"a/results.json": {"uar": 0.5}})
    >>> [(p.parent.name, r) for p, r in find_records(folder, "results.json")]
    [('a', {'uar': 0.5})]
    """
    place = Path(place)
    for path in [place] if place.is_file() else sorted(_json_files(place)):
        if _is_measured(path):
            for name, record in read_measured(path).items():
                if name.rpartition("/")[2] == kind:
                    yield path / name, check(record, KINDS[kind], path / name)
        elif path.name == kind or path == place:
            yield path, read(path, KINDS[kind])


def _json_files(folder: Path) -> Iterator[Path]:
    for where, inner, files in os.walk(folder):
        inner[:] = [name for name in inner if name not in _NOT_SEARCHED]
        yield from (Path(where, name) for name in files if name.endswith(".json"))


def _is_measured(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(_HEAD)) == _HEAD.encode()


def measured_records(place: str | Path) -> dict[str, Record]:
    """Reads a measured file, or all measured files in a folder.

    Arguments
    ---------
    place : str or pathlib.Path
        File or folder; subfolders are not searched.

    Returns
    -------
    dict
        As in :func:`read_measured`; empty if there is no file.

    Raises
    ------
    ValueError
        If a file is damaged.
    """
    place = Path(place)
    paths = [place] if place.is_file() else sorted(place.glob("*.json"))
    records: dict[str, Record] = {}
    for path in filter(_is_measured, paths):
        records |= read_measured(path)
    return records


def read_measured(path: str | Path) -> dict[str, Record]:
    """Reads a measured file.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    dict
        Path of each record, such as ``labelled/0/results.json``, to its contents.

    Raises
    ------
    ValueError
        If the file is invalid.
    """
    contents: dict[str, Any] = {**read(path, MEASURED)}
    try:
        contents.pop("measured")
        return {
            f"{folder}/{kind}".removeprefix("./"): _merged(packed["shared"], own)
            for kind, packed in contents.items()
            for folder, own in packed["records"].items()
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path}: not a file of measured results "
            f"({type(error).__name__}: {error}); expected what --measured writes"
        ) from None


def write_measured(path: str | Path, records: Mapping[str, Record]) -> None:
    """Writes a measured file.

    Arguments
    ---------
    path : str or pathlib.Path
        Output file, written whole or not at all.
    records : mapping
        Path of each record, with a name in ``KINDS``, to its contents. Left out are
        ``data``, ``layer_weights`` and the intervals over utterances of a
        ``results.json``; of a ``crossval.json`` the ``results``, which follow from its
        counts, and time, memory and some probes of single runs.

    Raises
    ------
    ValueError
        For a record with another name.

    Example
    -------
    >>> path = getfixture("tmp_path") / "table.json"
    >>> runs = [{"seed": 1, "uar": 0.5}, {"seed": 2, "uar": 0.5}]
    >>> records = {f"{k}/results.json": run for k, run in enumerate(runs)}
    >>> write_measured(path, records)
    >>> read_measured(path) == records
    True
    """
    kinds: dict[str, dict[str, Record]] = {}
    for name, record in sorted(records.items()):
        folder, _, kind = name.rpartition("/")
        if kind not in KINDS:
            raise ValueError(f"{name}: expected one of {', '.join(KINDS)}")
        kinds.setdefault(kind, {})[folder or "."] = _packed(_kept(kind, record))
    blocks = [_HEAD]
    for kind, same in kinds.items():
        shared = _shared(list(same.values()))
        lines = [
            f"{json.dumps(name)}:{_compact(_own(shared, record))}"
            for name, record in same.items()
        ]
        blocks.append(
            f'\n"{kind}":{{"shared":{_compact(shared)},\n"records":{{\n'
            + ",\n".join(lines)
            + "}}"
        )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(",".join(blocks) + "}\n", encoding="utf-8")


def add_measured(path: str | Path, records: Mapping[str, Record]) -> None:
    """Adds records to a measured file; replaces those with the same paths.

    Arguments
    ---------
    path : str or pathlib.Path
        Measured file; created if needed.
    records : mapping
        See :func:`write_measured`.

    Raises
    ------
    ValueError
        If the file is invalid.
    """
    earlier = read_measured(path) if Path(path).exists() else {}
    write_measured(path, earlier | dict(records))


def _kept(kind: str, record: Record) -> Record:
    left_out = _LEFT_OUT.get(kind, set())
    record = {key: value for key, value in record.items() if key not in left_out}
    if kind == "results.json" and isinstance(record.get("test"), Mapping):
        record["test"] = {
            name: {k: v for k, v in value.items() if k != "interval"}
            if isinstance(value, Mapping)
            else value
            for name, value in record["test"].items()
        }
    if kind == "crossval.json":
        record["runs"] = [
            run
            | {
                "numbers": {
                    name: value
                    for name, value in run.get("numbers", {}).items()
                    if not _NUMBERS_LEFT_OUT.fullmatch(name)
                }
            }
            for run in record["runs"]
        ]
    return record


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _packed(value: Any) -> Any:
    """Converts matrices of counts to text, lists of mappings to mappings of lists."""
    if isinstance(value, Mapping):
        if _COLUMNS in value:
            raise ValueError(f"a key {_COLUMNS} cannot be kept")
        return {key: _packed(inner) for key, inner in value.items()}
    if isinstance(value, str) and value.startswith(_COUNTS):
        raise ValueError(f"a text that begins with {_COUNTS} cannot be kept: {value}")
    if not isinstance(value, list):
        return value
    keys = [tuple(inner) if isinstance(inner, Mapping) else () for inner in value]
    if keys and keys[0] and len(set(keys)) == 1:
        columns = {key: [inner[key] for inner in value] for key in keys[0]}
        return {_COLUMNS: _packed(columns)}
    if len(value) > 1 and all(_is_counts(row, len(value)) for row in value):
        rows = [",".join(str(n or "") for n in row).rstrip(",") for row in value]
        return _COUNTS + "|".join(rows)
    return [_packed(inner) for inner in value]


def _is_counts(row: Any, length: int) -> bool:
    return (
        isinstance(row, list)
        and len(row) == length
        and all(type(n) is int and n >= 0 for n in row)
    )


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(inner) for inner in value]
    if isinstance(value, str) and value.startswith(_COUNTS):
        rows = [row.split(",") for row in value[1:].split("|")]
        filled = [row + [""] * (len(rows) - len(row)) for row in rows]
        return [[int(n or 0) for n in row] for row in filled]
    if not isinstance(value, Mapping):
        return value
    if _COLUMNS not in value:
        return {key: _unpacked(inner) for key, inner in value.items()}
    columns = {key: _unpacked(inner) for key, inner in value[_COLUMNS].items()}
    lines = zip(*columns.values(), strict=True)
    return [dict(zip(columns, line, strict=True)) for line in lines]


def _shared(records: Sequence[Mapping[str, Any]]) -> Record:
    """Returns what all records share, with keys in the order of the first."""
    shared: Record = {}
    for key, value in records[0].items():
        if not all(key in record for record in records):
            continue
        values = [record[key] for record in records]
        if all(isinstance(inner, Mapping) for inner in values):
            shared[key] = _shared(values)
        else:  # here 1, 1.0 and True differ
            same = len({json.dumps(inner) for inner in values}) == 1
            shared[key] = value if same else {}
    return shared


def _own(shared: Mapping[str, Any], record: Mapping[str, Any]) -> Record:
    """Returns the part of a record that is not shared."""
    own: Record = {}
    for key, value in record.items():
        template = shared.get(key, {})
        if not isinstance(template, Mapping):
            continue
        if isinstance(value, Mapping):
            value = _own(template, value)
            if not value and key in shared:
                continue
        own[key] = value
    if list(dict.fromkeys([*shared, *own])) != list(record):
        own = {key: own.get(key, {}) for key in record}  # to keep the order
    return own


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> Record:
    def filled(shared: Mapping[str, Any], own: Mapping[str, Any]) -> Record:
        record: Record = {}
        ordered = own if shared.keys() <= own.keys() else dict.fromkeys([*shared, *own])
        for key in ordered:
            template, value = shared.get(key, {}), own.get(key, {})
            if isinstance(template, Mapping) and isinstance(value, Mapping):
                record[key] = filled(template, value)
            else:
                record[key] = template if value == {} else value
        return record

    merged: Record = _unpacked(filled(shared, own))
    return merged
