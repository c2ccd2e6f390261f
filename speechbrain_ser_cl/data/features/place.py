"""Where feature caches lie, and what is in them."""

import json
import os
from pathlib import Path
from typing import NamedTuple

VARIABLE = "SER_CL_CACHE"


def features_folder(folder: str | Path | None = None) -> Path:
    """Give the folder of cached features, one for all runs of a user.

    Arguments
    ---------
    folder : str or pathlib.Path, optional
        The place, where a recipe or the command line names one.

    Returns
    -------
    pathlib.Path
        ``folder``; else ``features`` in the folder that the environment variable
        SER_CL_CACHE names; else in ``speechbrain_ser_cl`` of XDG_CACHE_HOME or
        ``~/.cache``.

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
    """The contents of one cache.

    Arguments
    ---------
    folder : pathlib.Path
        Where.
    about : dict
        Its key.
    n_bytes : int
        Its size on the disk.

    Example
    -------
    >>> Kept(Path("features/0a"), {"features": "log-mel"}, 12).n_bytes
    12
    """

    folder: Path
    about: dict[str, object]
    n_bytes: int


def kept_features(folder: str | Path | None = None) -> list[Kept]:
    """List the caches in a folder, the largest first.

    Arguments
    ---------
    folder : str or pathlib.Path, optional
        As for :func:`features_folder`.

    Returns
    -------
    list of Kept
        One for each key; none where there is no such folder.

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
        except (OSError, ValueError):  # another process is writing there
            continue
        found.append(Kept(about.parent, key, sum(sizes)))
    return sorted(found, key=lambda kept: -kept.n_bytes)


def describe_kept(folder: str | Path | None = None) -> str:
    """Tell where features are kept and how much there is.

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
