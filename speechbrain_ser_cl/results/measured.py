"""Measured files: the records of many runs in one small file, for a README.

A README's tables are written from the records of runs: ``results.json``,
``crossval.json``, ``few_labels.json``, ``alignment.json``. A measured file,
``<name>.json.xz``, contains copies of them under their paths; ``xzcat`` shows it::

    {"measured": 2, "records": {
    "labelled/0/results.json": {"seed": 0, "test": {"uar": {"value": 0.76}}},
    "labelled/1/results.json": {"seed": 1, "test": {"uar": {"value": 0.75}}}}}
"""

import json
import lzma
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from speechbrain_ser_cl.utils.files import read_bytes, replacing
from speechbrain_ser_cl.utils.records import Kind, RecordError, check, parse, read
from speechbrain_ser_cl.utils.schemas import (
    ALIGNMENT,
    CROSSVAL,
    FEW_LABELS,
    MEASURED,
    RESULTS,
)

_KINDS = (RESULTS, CROSSVAL, FEW_LABELS, ALIGNMENT)
KINDS: dict[str, Kind[Any]] = {kind.name: kind for kind in _KINDS}
SUFFIX = ".json.xz"
_LARGEST = 2**28  # bytes of JSON
_PRESET = 6 | lzma.PRESET_EXTREME
# Left out: values that follow from others, or that no table shows.
_LEFT_OUT = {
    "crossval.json": {"results"},
    "results.json": {"data", "files", "layer_weights", "calibration"},
}
# Same for the numbers of single runs; ``cost`` contains time and memory.
_NUMBERS_LEFT_OUT = re.compile(
    r"training_seconds|peak_memory_mb\..*|nonfinite_batches|valid\.macro_f1"
    r"|calibration\..*|probes\.(valid\..*|test\.(svm|classifier)\..*)"
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
    >>> write_measured(folder / "t.json.xz", {"a/results.json": {"uar": 0.5}})
    >>> [(p.parent.name, r) for p, r in find_records(folder, "results.json")]
    [('a', {'uar': 0.5})]
    """
    place = Path(place)
    for path in [place] if place.is_file() else sorted(_json_files(place)):
        if path.name.endswith(SUFFIX):
            for name, record in read_measured(path).items():
                if name.rpartition("/")[2] == kind:
                    yield path / name, check(record, KINDS[kind], path / name)
        elif path.name == kind or path == place:
            yield path, read(path, KINDS[kind])


def _json_files(folder: Path) -> Iterator[Path]:
    for where, inner, files in os.walk(folder):
        inner[:] = [name for name in inner if name not in _NOT_SEARCHED]
        suffixes = (".json", SUFFIX)
        yield from (Path(where, name) for name in files if name.endswith(suffixes))


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
        If a file is damaged, or if two files have a record of the same path.
    """
    place = Path(place)
    paths = [place] if place.is_file() else sorted(place.glob(f"*{SUFFIX}"))
    found: dict[str, Record] = {}
    owner: dict[str, Path] = {}
    for path in paths:
        for name, record in read_measured(path).items():
            if name in found:
                raise ValueError(
                    f"{owner[name]} and {path} both have {name}: name one of the files "
                    "in place of the folder"
                )
            found[name], owner[name] = record, path
    return found


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
    try:
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LARGEST)
        text = unpacker.decompress(read_bytes(path), _LARGEST)
        if not unpacker.eof:
            raise lzma.LZMAError(f"cut off, or more than {_LARGEST} bytes")
    except lzma.LZMAError as error:
        raise RecordError(
            f"{path}: not a {MEASURED.name} ({error}). {MEASURED.advice}"
        ) from None
    return parse(text, MEASURED, path)["records"]


def write_measured(path: str | Path, records: Mapping[str, Record]) -> None:
    """Writes a measured file.

    Arguments
    ---------
    path : str or pathlib.Path
        Output file, written whole or not at all.
    records : mapping
        Path of each record, with a name in ``KINDS``, to its contents. Left out are
        ``data``, ``layer_weights``, ``calibration`` and the intervals over utterances
        of a ``results.json``; of a ``crossval.json`` the ``results``, which follow from
        its counts, and time, memory, calibration and some probes of single runs.

    Raises
    ------
    ValueError
        For a record with another name.

    Example
    -------
    >>> path = getfixture("tmp_path") / "table.json.xz"
    >>> runs = [{"seed": 1, "uar": 0.5}, {"seed": 2, "uar": 0.5}]
    >>> records = {f"{k}/results.json": run for k, run in enumerate(runs)}
    >>> write_measured(path, records)
    >>> read_measured(path) == records
    True
    """
    lines = []
    for name, record in sorted(records.items()):
        kind = name.rpartition("/")[2]
        if kind not in KINDS:
            raise ValueError(f"{name}: expected one of {', '.join(KINDS)}")
        kept = json.dumps(_kept(kind, record), ensure_ascii=False, allow_nan=False)
        lines.append(f"{json.dumps(name)}: {kept}")
    text = '{"measured": 2, "records": {\n' + ",\n".join(lines) + "}}\n"
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_bytes(lzma.compress(text.encode(), preset=_PRESET))


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
