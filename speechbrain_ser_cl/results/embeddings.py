"""``embeddings.npz``: what a model makes of each utterance, for plots and probes."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from speechbrain_ser_cl.utils.files import replacing

_TEXTS = ("ids", "labels", "speakers", "corpora")


@dataclass(frozen=True)
class Embeddings:
    """What an ``embeddings.npz`` holds.

    Arguments
    ---------
    embeddings : numpy.ndarray
        Float32, shape (N, D).
    ids, labels, speakers, corpora : list of str
        Of each utterance its id, the name of its class, who speaks and the name of
        its corpus; N each.

    Example
    -------
    >>> found = Embeddings(np.eye(2), ["a", "b"], ["sad", "sad"], ["s", "t"], ["c"] * 2)
    >>> found.embeddings.shape
    (2, 2)
    """

    embeddings: np.ndarray
    ids: list[str]
    labels: list[str]
    speakers: list[str]
    corpora: list[str]


def write_embeddings(
    path: str | Path,
    embeddings: ArrayLike,
    ids: Sequence[str],
    labels: Sequence[str],
    speakers: Sequence[str],
    corpora: Sequence[str],
) -> None:
    """Write embeddings with what is known of the utterances.

    The file has the arrays ``embeddings`` (N, D) in half precision, and ``ids``,
    ``labels``, ``speakers`` and ``corpora`` (N,) of text: ``numpy.load`` reads it
    without pickle. It appears whole or not at all.

    Arguments
    ---------
    path : str or pathlib.Path
        The file; its folder is made if it is not there.
    embeddings : array_like of float
        Shape (N, D), finite.
    ids, labels, speakers, corpora : sequence of str
        Of each utterance its id, the name of its class, who speaks and the name of
        its corpus; N each.

    Raises
    ------
    ValueError
        If they are not equally many, or a value is not finite in half precision.

    Example
    -------
    >>> path = getfixture("tmp_path") / "embeddings.npz"
    >>> write_embeddings(path, [[0.5, 1.0]], ["a"], ["sad"], ["s1"], ["toy"])
    >>> read_embeddings(path).embeddings
    array([[0.5, 1. ]], dtype=float32)
    """
    path = Path(path)
    with np.errstate(over="ignore"):
        half = np.asarray(embeddings).astype(np.float16)
    texts = dict(zip(_TEXTS, (ids, labels, speakers, corpora), strict=True))
    sizes = {name: len(values) for name, values in texts.items()}
    if half.ndim != 2 or set(sizes.values()) != {len(half)}:
        raise ValueError(
            f"{path.name}: embeddings of shape {half.shape} do not fit "
            + ", ".join(f"{size} {name}" for name, size in sizes.items())
        )
    if not np.isfinite(half).all():
        raise ValueError(f"{path.name}: embeddings are not finite in half precision")
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.array(values, dtype=np.str_) for name, values in texts.items()}
    with replacing(path) as part, open(part, "wb") as file:
        np.savez_compressed(file, embeddings=half, **arrays)


def read_embeddings(path: str | Path) -> Embeddings:
    """Read what ``write_embeddings`` wrote.

    Arguments
    ---------
    path : str or pathlib.Path
        An ``embeddings.npz``.

    Returns
    -------
    Embeddings
        Its contents.

    Raises
    ------
    ValueError
        If it is no such file.

    Example
    -------
    >>> path = getfixture("tmp_path") / "embeddings.npz"
    >>> np.savez(path, embeddings=np.zeros((2, 3)))
    >>> read_embeddings(path)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: ...embeddings.npz: not an embeddings file (no array ids, labels, ...
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in _TEXTS if name not in file]
            if missing or "embeddings" not in file:
                raise ValueError(f"no array {', '.join(missing or ['embeddings'])}")
            texts = {name: file[name].tolist() for name in _TEXTS}
            embeddings = file["embeddings"].astype(np.float32)
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not an embeddings file ({error})") from error
    if {len(values) for values in texts.values()} != {len(embeddings)}:
        raise ValueError(f"{path}: not an embeddings file (unequal lengths)")
    return Embeddings(embeddings, **texts)
