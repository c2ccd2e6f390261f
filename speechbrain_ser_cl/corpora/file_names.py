"""Finds the files that a table names."""

import logging
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from speechbrain_ser_cl.corpora.checks import READABLE, CorpusError, one_name
from speechbrain_ser_cl.corpora.utterance import normal
from speechbrain_ser_cl.utils.files import walk

logger = logging.getLogger(__name__)

_TO_TRY = 200  # paths of another machine that are compared with files here


class Found(NamedTuple):
    """A file that a table names.

    Arguments
    ---------
    path : pathlib.Path or None
        None if there is no such file.
    name : str
        Path relative to the corpus folder, without suffix; never an absolute path.

    Example
    -------
    >>> Found(None, "wav/a").name
    'wav/a'
    """

    path: Path | None
    name: str


def find_files(root: Path, written: Iterable[str], where: str) -> list[Found]:
    r"""Finds the files that a table names.

    A name may lack its suffix, differ in Unicode form or case from the file on disk,
    have ``\`` between folders, or be an absolute path from another machine that ends in
    a path below the corpus folder. If no name is that of a file in the corpus folder,
    each may be the end of one path in its subfolders.

    Arguments
    ---------
    root : pathlib.Path
        Folder that names are relative to.
    written : iterable of str
        Names as in the table.
    where : str
        Name of the table, for messages.

    Returns
    -------
    list of Found
        In the given order.

    Raises
    ------
    CorpusError
        If paths from another machine, or names of files in subfolders, fit the corpus
        folder in several ways.

    Example
    -------
    >>> root = getfixture("tmp_path")
    >>> (root / "wav").mkdir()
    >>> (root / "wav" / "a.wav").touch()
    >>> names = ["wav\\a", "./wav/a.wav", "C:\\data\\wav\\a.wav", "b.wav"]
    >>> [found.name for found in find_files(root, names, "calls.csv")]
    ['wav/a', 'wav/a', 'wav/a', 'b']
    """
    texts = [one_name(text) for text in written]
    disk = _Disk(root)
    paths = {text: disk.find(text) for text in dict.fromkeys(texts)}
    foreign = [text for text, path in paths.items() if not path and _is_absolute(text)]
    moved = _by_tails(disk, foreign, where) if foreign else {}
    if not foreign and not any(paths.values()):
        moved = _in_subfolders(disk, list(paths), where)
    paths |= {text: disk.find(ours) for text, ours in moved.items()}
    tops = [f"{one_name(top(root))}/" for top in (os.path.abspath, os.path.realpath)]
    names: dict[str, str] = {}
    outside: dict[str, str] = {}
    for text, path in paths.items():
        ours = moved.get(text, text)
        whole = ours if _is_absolute(ours) and not path else str(path or root / ours)
        if not _is_absolute(whole):
            whole = os.path.abspath(whole)
        whole = _stem(one_name(whole))
        inside = [whole[len(top) :] for top in tops if whole.startswith(top)]
        if _is_absolute(ours) and not inside:
            outside[text] = whole
        else:
            names[text] = inside[0] if inside else _stem(ours)
    folders = {os.path.dirname(whole) for whole in outside.values()}
    common = os.path.commonprefix([f"{folder}/".split("/") for folder in folders])
    start = len("/".join(common).rstrip("/")) + bool(common)
    names |= {text: whole[start:] for text, whole in outside.items()}
    return [Found(paths[text], names[text]) for text in texts]


def _is_absolute(text: str) -> bool:
    return text.startswith("/") or bool(re.match("[A-Za-z]:/", text))


def _stem(text: str) -> str:
    """Removes an audio suffix from a name."""
    stem, suffix = posixpath.splitext(text)
    return stem if suffix.lower() in READABLE else text


class _Disk:
    """Finds files below a folder; lists each subfolder at most once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[Path, dict[str, set[str]]] = {}

    def find(self, text: str) -> Path | None:
        """Finds the file with this name; suffix, Unicode form and case may differ."""
        path = self.root / text
        if path.is_file():
            return path
        suffixes = ["", *sorted(READABLE)]
        if path.suffix.lower() in READABLE:
            suffixes = [""]
        for suffix in suffixes[1:]:
            if (beside := path.with_name(path.name + suffix)).is_file():
                return beside
        if _is_absolute(text):
            return None
        folder = self.root
        *folders, last = text.split("/")
        for part in folders:
            name = part if part == ".." else self._look(folder, part)
            if name is None:
                return None
            folder = folder / name
        found = (self._look(folder, last + suffix) for suffix in suffixes)
        files = [folder / name for name in found if name is not None]
        return next((file for file in files if file.is_file()), None)

    def _look(self, folder: Path, name: str) -> str | None:
        """Returns the entries of a folder that match a name."""
        if folder not in self._listed:
            there: dict[str, set[str]] = {}
            for one in os.listdir(folder) if folder.is_dir() else []:
                for form in (normal(one), normal(one).casefold()):
                    there.setdefault(form, set()).add(one)
            self._listed[folder] = there
        there = self._listed[folder]
        names = there.get(normal(name)) or there.get(normal(name).casefold()) or ()
        return next(iter(names)) if len(names) == 1 else None


def _in_subfolders(disk: _Disk, names: Sequence[str], where: str) -> dict[str, str]:
    """Finds files in subfolders whose paths end in these names."""
    ends: dict[str, list[str]] = {name.casefold(): [] for name in map(_stem, names)}
    for path in walk(disk.root):
        if posixpath.splitext(path)[1].lower() in READABLE:
            inside = one_name(os.path.relpath(path, disk.root))
            parts = _stem(inside).casefold().split("/")
            for start in range(len(parts)):
                if (end := "/".join(parts[start:])) in ends:
                    ends[end].append(inside)
    found = {name: ends[_stem(name).casefold()] for name in names}
    for name, files in found.items():
        if len(files) > 1:
            raise CorpusError(
                f"{where}: {name} may be {disk.root / files[0]} or "
                f"{disk.root / files[1]}; set folder to that of its files"
            )
    moved = {name: files[0] for name, files in found.items() if files}
    if moved:
        name, file = next(iter(moved.items()))
        logger.warning(
            "%s: its files are in subfolders: %s is %s", where, name, disk.root / file
        )
    return moved


def _by_tails(disk: _Disk, foreign: Sequence[str], where: str) -> dict[str, str]:
    """Finds the files of another machine's paths, all by the same rule."""
    there: dict[str, list[list[str]]] = {}
    for path in walk(disk.root):
        if posixpath.splitext(path)[1].lower() in READABLE:
            parts = one_name(os.path.relpath(path, disk.root)).split("/")
            there.setdefault(_stem(parts[-1]).casefold(), []).append(parts)
    votes: Counter[tuple[str, str]] = Counter()
    for text in foreign[:: max(len(foreign) // _TO_TRY, 1)]:
        parts = text.split("/")
        fitting: dict[int, list[list[str]]] = {}
        for other in there.get(_stem(parts[-1]).casefold(), []):
            pairs = zip(reversed(parts[:-1]), reversed(other[:-1]), strict=False)
            alike = [one.casefold() == two.casefold() for one, two in pairs]
            length = alike.index(False) if False in alike else len(alike)
            fitting.setdefault(length, []).append(other)
        longest = max(fitting, default=0)
        for other in fitting.get(longest, []):
            base = other[: len(other) - 1 - longest]
            votes["/".join(parts[: len(parts) - 1 - longest]), "/".join(base)] += 1
    if not votes:
        return {}
    # If two rules fit equally many files, the one that changes less of the path.
    best = sorted(votes, key=lambda pair: (-votes[pair], len(pair[0]), pair))
    (theirs, ours), *others = best
    for rule in others:
        if votes[rule] == votes[best[0]] and rule[0] == theirs:
            raise CorpusError(
                f"{where}: paths of another machine, such as {foreign[0]}, fit files "
                f"in {disk.root / ours} and in {disk.root / rule[1]}; set folder to "
                "one of them"
            )
    logger.warning(
        "%s: paths of another machine: %s there is %s here",
        *(where, theirs, disk.root / ours),
    )
    return {
        text: one_name(f"{ours}/{text[len(theirs) + 1 :]}".lstrip("/"))
        for text in foreign
        if text.casefold().startswith(f"{theirs}/".casefold())
    }
