"""Reads files, and writes them whole or not at all."""

import csv
import io
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO, Any

from speechbrain_ser_cl.utils.disk import full_disk_told
from speechbrain_ser_cl.utils.errors import FileError

BASELINE = "baseline"
"""Name of the subfolder of a run with its simple baseline."""


def without_links(paths: Iterable[str | Path]) -> list[str]:
    """Resolves symbolic links of many files, each folder once.

    Arguments
    ---------
    paths : iterable of str or pathlib.Path
        Files, which need not exist.

    Returns
    -------
    list of str
        Absolute paths without links, as from ``Path.resolve``.

    Example
    -------
    >>> folder = getfixture("tmp_path").resolve()
    >>> (folder / "link.wav").symlink_to("a.wav")
    >>> files = without_links([folder / "link.wav", folder / "b" / ".." / "a.wav"])
    >>> files == [str(folder / "a.wav")] * 2
    True
    """
    folders: dict[str, tuple[str, set[str]]] = {}
    files = []
    for path in paths:
        folder, mark, name = os.fspath(path).rpartition(os.sep)
        if folder not in folders:
            links: set[str] = set()
            try:
                with os.scandir(folder or mark or ".") as entries:
                    links = {entry.name for entry in entries if entry.is_symlink()}
            except OSError:
                pass  # the file may not exist
            real = os.path.realpath(folder or mark or ".")
            folders[folder] = (os.path.join(real, ""), links)
        real, links = folders[folder]
        file = real + name
        files.append(os.path.realpath(file) if name in links else file)
    return files


def walk(folder: str | Path) -> Iterator[str]:
    """Lists files at any depth, also in linked folders, without hidden files.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder to search. A folder that several links lead to, possibly in a cycle, is
        searched once.

    Yields
    ------
    str
        Absolute paths, sorted.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "wav").mkdir()
    >>> (folder / "wav" / "a.wav").touch()
    >>> (folder / "wav" / "up").symlink_to("..")
    >>> [os.path.relpath(path, folder) for path in walk(folder)]
    ['wav/a.wav']
    """
    top = os.path.abspath(folder)
    seen = {_identity(top)} if os.path.isdir(top) else set()
    for parent, folders, files in os.walk(top, followlinks=True):
        inside = []
        for name in sorted(folders):
            if not name.startswith("."):
                identity = _identity(f"{parent}/{name}")
                if identity not in seen:
                    seen.add(identity)
                    inside.append(name)
        folders[:] = inside
        for name in sorted(files):
            if not name.startswith("."):
                yield f"{parent}/{name}"


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Writes a file under a temporary name and renames it when it is complete.

    Arguments
    ---------
    path : pathlib.Path
        Final path of the file.

    Yields
    ------
    pathlib.Path
        Temporary path in the same folder.

    Raises
    ------
    DiskFullError
        If the disk is full.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.txt"
    >>> with replacing(path) as part:
    ...     _ = part.write_text("whole")
    >>> path.read_text()
    'whole'
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with full_disk_told(path):
            yield part
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def clear_unfinished(folder: str | Path, age: float = 600.0) -> None:
    """Deletes temporary files of ``replacing`` that killed processes left.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder of the files.
    age : float
        Seconds since the last write; younger files may belong to a running process.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / ".a.flac.999999999.part").touch()
    >>> clear_unfinished(folder, age=0)
    >>> list(folder.iterdir())
    []
    """
    with os.scandir(folder) as entries:
        left = [e for e in entries if re.fullmatch(r"\..+\.\d+\.part", e.name)]
    for entry in left:
        process = Path("/proc", entry.name.split(".")[-2])
        if not process.exists() and time.time() - entry.stat().st_mtime >= age:
            Path(entry.path).unlink(missing_ok=True)


def free_name(folder: str | Path) -> Path:
    """Suggests a name for a new folder.

    Arguments
    ---------
    folder : str or pathlib.Path
        Existing folder.

    Returns
    -------
    pathlib.Path
        Its path with a number at the end.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "run"
    >>> (folder.parent / "run-2").mkdir()
    >>> free_name(folder).name
    'run-3'
    """
    numbered = (Path(f"{os.fspath(folder).rstrip(os.sep)}-{n}") for n in count(2))
    return next(path for path in numbered if not path.exists())


_HELD: dict[Path, IO[str]] = {}


def hold_folder(folder: str | Path) -> None:
    """Locks a folder for this process until the process ends.

    Arguments
    ---------
    folder : str or pathlib.Path
        Created if needed. Its file ``.lock`` names the process.

    Raises
    ------
    FileError
        If another process has locked it.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> hold_folder(folder)
    >>> (folder / ".lock").read_text() == str(os.getpid())
    True
    """
    import fcntl  # Linux and macOS only

    path = Path(folder).absolute() / ".lock"
    if path in _HELD:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115, held to the end
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        with file:
            file.seek(0)
            other = file.read().strip()
        raise FileError(
            f"{folder}: process {other} is running in this folder. Wait for its end, "
            "or choose another --output_folder"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    _HELD[path] = file


def read_bytes(path: str | Path) -> bytes:
    """Reads a file, which must be a regular file.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    bytes
        Its contents.

    Raises
    ------
    FileError
        For a folder, and for a pipe or device, which might never end.
    OSError
        If the file does not exist or may not be read.

    Example
    -------
    >>> read_bytes(getfixture("tmp_path"))
    Traceback (most recent call last):
    speechbrain_ser_cl.utils.errors.FileError: ...: is a folder, expected a file
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        found = "is a folder" if path.is_dir() else "is a pipe or a device"
        raise FileError(f"{path}: {found}, expected a file")
    return path.read_bytes()


def read_text(path: str | Path) -> str:
    r"""Reads a regular file of UTF-8 text.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    str
        Its contents.

    Raises
    ------
    FileError
        As in ``read_bytes``, and for bytes that are not UTF-8.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.txt"
    >>> _ = path.write_bytes(b"M\xfcller")
    >>> read_text(path)
    Traceback (most recent call last):
    speechbrain_ser_cl.utils.errors.FileError: ...a.txt: byte 2 is not UTF-8 text. ...
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(
            f"{path}: byte {error.start + 1} is not UTF-8 text. Save the file as "
            "UTF-8, or write it again if it is damaged"
        ) from None


def each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes a JSON object of its pairs, for ``object_pairs_hook`` of ``json.loads``.

    Arguments
    ---------
    pairs : list
        Keys and values.

    Returns
    -------
    dict
        Key to value.

    Raises
    ------
    ValueError
        For a repeated key; json itself would use the last value.

    Example
    -------
    >>> each_key_once([("a", 1), ("a", 2)])
    Traceback (most recent call last):
    ValueError: the key 'a' occurs twice in one object
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r:.80} occurs twice in one object")
    return found


_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def refuse_lfs_pointer(path: Path) -> None:
    """Raises an error if a file is a Git LFS pointer instead of the content.

    Arguments
    ---------
    path : pathlib.Path
        The file; a file that cannot be read is not checked.

    Raises
    ------
    FileError
        The message has the command to run.

    Example
    -------
    >>> path = getfixture("tmp_path") / "model.safetensors"
    >>> _ = path.write_text("version https://git-lfs.github.com/spec/v1")
    >>> refuse_lfs_pointer(path)
    Traceback (most recent call last):
        ...
    speechbrain_ser_cl.utils.errors.FileError: ...: a Git LFS pointer and not ...
    """
    if not path.is_file():  # opening a pipe would wait for a writer
        return
    try:
        with open(path, "rb") as file:
            start = file.read(len(_LFS_POINTER))
    except OSError:
        return
    if start == _LFS_POINTER:
        raise FileError(
            f"{path}: a Git LFS pointer and not the file itself; run `git lfs install` "
            "and `git lfs pull` in the repository that it is in"
        )


def write_rows(
    path: str | Path, header: Sequence[str], rows: Iterable[Iterable[object]]
) -> None:
    r"""Writes a CSV file, whole or not at all.

    Arguments
    ---------
    path : str or pathlib.Path
        Output file; its folder must exist.
    header : sequence of str
        Names of the columns.
    rows : iterable
        Cells of each row; None becomes an empty cell.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.csv"
    >>> write_rows(path, ["id", "label"], [["a", "sad"], ["b", None]])
    >>> path.read_text()
    'id,label\na,sad\nb,\n'
    """
    with (
        replacing(Path(path)) as part,
        open(part, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def read_csv(
    path: str | Path, columns: Sequence[str]
) -> Iterator[tuple[str, list[str]]]:
    r"""Reads a CSV file whose first columns are known, row by row.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    columns : sequence of str
        Names of the first columns, in order.

    Yields
    ------
    where : str
        File and line, for messages; first those of the header.
    row : list of str
        Cells; first the header.

    Raises
    ------
    FileError
        For other columns, a row of another length, and files that are not CSV.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.csv"
    >>> _ = path.write_text("id,label\na,sad\nb\n")
    >>> for where, row in read_csv(path, ["id"]):
    ...     print(row)
    Traceback (most recent call last):
    speechbrain_ser_cl.utils.errors.FileError: ...a.csv, line 3: 1 cells, expected 2 ...
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    header: list[str] = []
    try:
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if not header and row[: len(columns)] != list(columns):
                raise FileError(
                    f"{where}: the columns are {', '.join(row):.100}, expected "
                    f"{', '.join(columns)} and what may follow"
                )
            header = header or row
            if len(row) != len(header):
                raise FileError(
                    f"{where}: {len(row)} cells, expected {len(header)} as in the "
                    "first line; the file is cut off or damaged"
                )
            yield where, row
    except csv.Error as error:
        raise FileError(
            f"{path}, line {reader.line_num}: not CSV ({error}); the file is cut off "
            "or damaged"
        ) from None
    if not header:
        raise FileError(
            f"{path}: the file is empty, expected the columns {', '.join(columns)}"
        )
