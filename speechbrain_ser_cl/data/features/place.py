"""Finds and lists the folder of feature caches, and estimates what they will hold."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from speechbrain_ser_cl.utils.disk import free_bytes, human_size

VARIABLE = "SER_CL_CACHE"

# Number and size of the representations of WavLM base, and without an encoder.
_BASE = (13, 768)
_OTHERS = {"log_mel": (1, 64), "egemaps": (1, 44), "compare": (1, 3187)}
_FRAMES_PER_SECOND = 50


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


class Estimate(NamedTuple):
    """Size of the features of a frozen encoder, before they are computed.

    Arguments
    ---------
    folder : str
        Folder of all caches.
    layers, width : int
        Number of the encoder's representations (layers and input), and their size.
    statistics_bytes : int
        Size of mean and standard deviation over time of all representations, float32.
    frames_bytes : int
        Size of the frames of one representation, 50 per second, float16.
    free_bytes : int
        Free space there.

    Example
    -------
    >>> estimate = Estimate("features", 13, 768, 79_872_000, 384_000_000, 10**11)
    >>> print(estimate)
    features of a frozen encoder (13 layers of 768): about 79.9 MB for mean and \
    standard deviation, 384 MB for the frames of a layer; in features, free: 100 GB
    """

    folder: str
    layers: int
    width: int
    statistics_bytes: int
    frames_bytes: int
    free_bytes: int

    def __str__(self) -> str:
        return (
            f"features of a frozen encoder ({self.layers} layers of {self.width}): "
            f"about {human_size(self.statistics_bytes)} for mean and standard "
            f"deviation, {human_size(self.frames_bytes)} for the frames of a layer; in "
            f"{self.folder}, free: {human_size(self.free_bytes)}"
        )


def estimate_features(
    durations: Iterable[float],
    source: str | Path | Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
) -> Estimate:
    """Estimates the size of the features of a frozen encoder.

    Arguments
    ---------
    durations : iterable of float
        Seconds of each utterance.
    source : str or pathlib.Path or mapping, optional
        The encoder: folder, hub id or configuration. It is not loaded; one that is not
        on this computer is taken for one of base size (12 layers of 768).
    folder : str or pathlib.Path, optional
        As for :func:`features_folder`.

    Returns
    -------
    Estimate
        Place and sizes.

    Example
    -------
    >>> tiny = {"d_model": 384, "encoder_layers": 4}
    >>> estimate = estimate_features([2.0] * 1000, tiny)
    >>> estimate.layers, estimate.width, estimate.statistics_bytes
    (5, 384, 15360000)
    """
    durations = list(durations)
    layers, width = _shape(source)
    where = features_folder(folder)
    return Estimate(
        str(where),
        layers,
        width,
        len(durations) * layers * 2 * width * 4,
        int(sum(durations) * _FRAMES_PER_SECOND * width * 2),
        free_bytes(where),
    )


def _shape(source: str | Path | Mapping[str, Any] | None) -> tuple[int, int]:
    """Reads number and size of an encoder's representations from its configuration."""
    if isinstance(source, Mapping):
        found: Mapping[str, Any] = source
    elif source is None:
        return _BASE
    else:
        if source in _OTHERS:
            return _OTHERS[str(source)]
        home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
        name = "models--" + str(source).replace("/", "--")
        snapshots = Path(home, "hub", name, "snapshots").glob("*/config.json")
        path = min(snapshots, default=Path(source, "config.json"))
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return _BASE
    if not isinstance(found, Mapping):
        return _BASE
    layers = found.get("encoder_layers") or found.get("num_hidden_layers")
    width = found.get("d_model") or found.get("hidden_size")
    if isinstance(layers, int) and isinstance(width, int):
        return layers + 1, width
    return _BASE
