"""Finds and lists the folder of feature caches."""

import json
import os
from pathlib import Path
from typing import NamedTuple

VARIABLE = "SER_CL_CACHE"


def features_folder(folder: str | Path | None = None) -> Path:
    """Returns the folder of cached features, one for all runs of a user.

    Arguments
    ---------
    folder : str or pathlib.Path, optional
        Folder that a recipe or the command line names.

    Returns
    -------
    pathlib.Path
        ``folder``; else ``features`` in the folder of the environment variable
        SER_CL_CACHE; else in ``speechbrain_ser_cl`` of XDG_CACHE_HOME or ``~/.cache``.

    Example
    -------
    >>> features_folder("data/features").as_posix()
    'data/features'
    """
    if folder is not None:
        return Path(folder)
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named) / "features"
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(user) / "speechbrain_ser_cl" / "features"


class Kept(NamedTuple):
    """Contents of one cache.

    Arguments
    ---------
    folder : pathlib.Path
        Folder of the cache.
    about : dict
        Key of the cache.
    n_bytes : int
        Size on disk.

    Example
    -------
    >>> Kept(Path("features/0a"), {"features": "log-mel"}, 12).n_bytes
    12
    """

    folder: Path
    about: dict[str, object]
    n_bytes: int


def kept_features(folder: str | Path | None = None) -> list[Kept]:
    """Lists the caches in a folder, largest first.

    Arguments
    ---------
    folder : str or pathlib.Path, optional
        As for :func:`features_folder`.

    Returns
    -------
    list of Kept
        One per key; empty if the folder does not exist.

    Example
    -------
    >>> kept_features(getfixture("tmp_path"))
    []
    """
    found = []
    for about in features_folder(folder).glob("*/about.json"):
        try:
            key = json.loads(about.read_text(encoding="utf-8"))
            sizes = [path.stat().st_size for path in about.parent.iterdir()]
        except (OSError, ValueError):  # another process is writing here
            continue
        found.append(Kept(about.parent, key, sum(sizes)))
    return sorted(found, key=lambda kept: -kept.n_bytes)


def describe_kept(folder: str | Path | None = None) -> str:
    """Describes where features are stored and their size.

    Arguments
    ---------
    folder : str or pathlib.Path, optional
        As for :func:`features_folder`.

    Returns
    -------
    str
        One line.

    Example
    -------
    >>> describe_kept("data/features")
    'Feature cache: 0 sets, 0.00 GB in data/features'
    """
    kept = kept_features(folder)
    gigabytes = sum(one.n_bytes for one in kept) / 1e9
    where = features_folder(folder)
    return f"Feature cache: {len(kept)} sets, {gigabytes:.2f} GB in {where}"
