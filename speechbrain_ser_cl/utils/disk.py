"""Errors on full disks, with the disk, the file and the space needed."""

import errno
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from speechbrain_ser_cl.utils.errors import FileError

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Messages of libraries that do not say why writing failed.
_UNSAID = ("inline_container", "PytorchStreamWriter", "System error", "write failed")
_LITTLE = 2**22  # bytes; with less free space a disk counts as full


class DiskFullError(FileError):
    """A disk that is too full for a file.

    Example
    -------
    >>> issubclass(DiskFullError, ValueError)
    True
    """


@contextmanager
def full_disk_told(path: str | Path, needed: float | None = None) -> Iterator[None]:
    """Converts errors of writing on a full disk to a clear error.

    Other errors are not changed.

    Arguments
    ---------
    path : str or pathlib.Path
        File that is written.
    needed : float, optional
        Bytes needed, if known.

    Raises
    ------
    DiskFullError
        In place of an OSError, libsndfile's "System error" or torch's error.

    Example
    -------
    >>> with full_disk_told("save/model.ckpt", needed=3e9):
    ...     raise OSError(errno.ENOSPC, "No space left on device")
    Traceback (most recent call last):
    speechbrain_ser_cl.utils.disk.DiskFullError: save/model.ckpt: no room on the disk...
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        causes, cause = [], error
        while cause is not None and cause not in causes:
            causes.append(cause)
            cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
        full = any(isinstance(e, OSError) and e.errno in _FULL for e in causes)
        unsaid = any(word in str(e) for e in causes for word in _UNSAID)
        if full or unsaid and free_bytes(Path(path)) < max(needed or 0, _LITTLE):
            raise _no_room(Path(path), needed) from error
        raise


def refuse_small_disk(path: str | Path, needed: float) -> None:
    """Raises an error if a disk has less free space than needed.

    Arguments
    ---------
    path : str or pathlib.Path
        File or folder to be written; may not exist.
    needed : float
        Bytes needed.

    Raises
    ------
    DiskFullError
        Names the path, the disk and both numbers.

    Example
    -------
    >>> refuse_small_disk("results", needed=1)
    >>> refuse_small_disk("results", needed=1e18)
    Traceback (most recent call last):
    speechbrain_ser_cl.utils.disk.DiskFullError: results: no room on the disk ...
    """
    if free_bytes(Path(path)) < needed:
        raise _no_room(Path(path), needed)


def _there(path: Path) -> Path:
    """Returns the path, or its nearest existing parent."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def free_bytes(path: Path) -> int:
    """Returns the free bytes of the disk of a path, which may not exist.

    Example
    -------
    >>> free_bytes(Path("results")) > 0
    True
    """
    return shutil.disk_usage(_there(path)).free


def _no_room(path: Path, needed: float | None) -> DiskFullError:
    there = _there(path)
    mount = next(place for place in (there, *there.parents) if place.is_mount())
    least = path.stat().st_size if path.is_file() else 0
    wants = f"about {_size(needed)}" if needed else f"more than {_size(least)}"
    return DiskFullError(
        f"{path}: no room on the disk {mount}: it needs {wants}, "
        f"{_size(free_bytes(path))} are free. Delete what is not needed there, or "
        "choose a folder on another disk, then start again: what was finished is kept"
    )


def _size(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def human_size(n_bytes: float) -> str:
    """Formats a number of bytes with three digits.

    Example
    -------
    >>> human_size(79_872), human_size(2.5e10)
    ('79.9 kB', '25 GB')
    """
    power = min(4, int(math.log(max(n_bytes, 1), 1000)))
    return f"{n_bytes / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
