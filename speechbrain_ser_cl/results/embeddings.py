"""``embeddings.npz``: a model's embedding of each utterance."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from speechbrain_ser_cl.utils.errors import FileError
from speechbrain_ser_cl.utils.files import replacing

_FORMAT = 1
_TEXTS = ("ids", "labels", "speakers", "corpora")


@dataclass(frozen=True)
class Embeddings:
    """Contents of an ``embeddings.npz``.

    Arguments
    ---------
    embeddings : numpy.ndarray
        Float32, shape (N, D).
    ids, labels, speakers, corpora : list of str
        Id, class name, speaker and corpus name of each of N utterances.

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
    """Writes embeddings with the attributes of their utterances.

    The file contains the arrays ``embeddings`` (N, D) in half precision, ``format``,
    and ``ids``, ``labels``, ``speakers`` and ``corpora`` (N,) as text; ``numpy.load``
    reads it without pickle. It is written whole or not at all.

    Arguments
    ---------
    path : str or pathlib.Path
        Output file; its folder is created if needed.
    embeddings : array_like of float
        Shape (N, D), finite.
    ids, labels, speakers, corpora : sequence of str
        Id, class name, speaker and corpus name of each of N utterances.

    Raises
    ------
    ValueError
        If lengths differ, or a value is not finite in half precision.

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
    arrays: dict[str, Any] = {"embeddings": half, "format": np.array(_FORMAT)}
    for name, values in texts.items():
        arrays[name] = np.array(values, dtype=np.str_)
    with replacing(path) as part, open(part, "wb") as file:
        np.savez_compressed(file, **arrays)


def read_embeddings(path: str | Path) -> Embeddings:
    """Reads a file that ``write_embeddings`` wrote.

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
    FileError
        If the file is invalid.

    Example
    -------
    >>> path = getfixture("tmp_path") / "embeddings.npz"
    >>> np.savez(path, embeddings=np.zeros((2, 3)))
    >>> read_embeddings(path)
    Traceback (most recent call last):
    speechbrain_ser_cl.utils.errors.FileError: ...embeddings.npz: cannot read its ...
    """
    if not Path(path).is_file():
        raise FileError(f"{path}: there is no such file")
    arrays = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in ("embeddings", *_TEXTS):
                arrays[name] = file[name]
            version = int(file["format"]) if "format" in file else _FORMAT
    except Exception as error:  # exceptions of NumPy and zipfile are undocumented
        raise FileError(
            f"{path}: cannot read its arrays ({type(error).__name__}: {error!s:.200}), "
            f"expected embeddings, {', '.join(_TEXTS)}; the file is cut off or "
            "damaged. Run it again"
        ) from None
    if version != _FORMAT:
        advice = "Another version of speechbrain_ser_cl wrote it"
        raise FileError.at(path, "format", version, str(_FORMAT), advice)
    vectors = arrays.pop("embeddings")
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or not np.isfinite(vectors).all():
        raise FileError.at(
            path,
            "embeddings",
            f"{vectors.dtype} of shape {vectors.shape}",
            "finite numbers of shape (N, D)",
        )
    for name, texts in arrays.items():
        if texts.shape != vectors.shape[:1] or texts.dtype.kind != "U":
            raise FileError.at(
                path, name, f"{texts.dtype} of shape {texts.shape}", "N texts"
            )
    return Embeddings(
        vectors.astype(np.float32), **{key: a.tolist() for key, a in arrays.items()}
    )
