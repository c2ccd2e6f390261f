"""``dimensions.csv``, ``emotions.csv``, ``votes.csv``: labels and predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speechbrain_ser_cl.utils.errors import FileError
from speechbrain_ser_cl.utils.files import read_csv, write_rows

_LABEL, _PREDICTION = "label_", "prediction_"


@dataclass(frozen=True)
class Numbers:
    """Labels and predictions of N utterances.

    Arguments
    ---------
    ids : list of str
        Ids of the utterances.
    names : list of str
        Names of the K dimensions or classes.
    labels, predictions : numpy.ndarray
        (N, K); NaN: unknown.

    Example
    -------
    >>> Numbers(["a"], ["arousal"], np.ones((1, 1)), np.ones((1, 1))).names
    ['arousal']
    """

    ids: list[str]
    names: list[str]
    labels: NDArray[np.float64]
    predictions: NDArray[np.float64]


def write_numbers(
    path: str | Path,
    ids: Sequence[str],
    names: Sequence[str],
    labels: ArrayLike,
    predictions: ArrayLike,
) -> None:
    """Writes a line per utterance: ``id``, ``label_<name>`` and ``prediction_<name>``.

    Arguments
    ---------
    path : str or pathlib.Path
        Output file, written whole or not at all.
    ids, names, labels, predictions
        See :class:`Numbers`.

    Example
    -------
    >>> path = getfixture("tmp_path") / "dimensions.csv"
    >>> write_numbers(path, ["a"], ["arousal"], [[0.5]], [[0.25]])
    >>> read_numbers(path).predictions.tolist()
    [[0.25]]
    """
    header = [f"{what}{name}" for what in (_LABEL, _PREDICTION) for name in names]
    table = np.hstack([np.asarray(labels), np.asarray(predictions)])
    rows = (
        [name, *(f"{number:.9g}" for number in row)]
        for name, row in zip(ids, table, strict=True)
    )
    write_rows(path, ["id", *header], rows)


def read_numbers(path: str | Path) -> Numbers:
    """Reads a file that :func:`write_numbers` wrote.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    Numbers

    Raises
    ------
    FileError
        If the file is invalid; the message names file and line.

    Example
    -------
    >>> path = getfixture("tmp_path") / "dimensions.csv"
    >>> _ = path.write_text("id,label_a,prediction_b")
    >>> read_numbers(path)
    Traceback (most recent call last):
    speechbrain_ser_cl.utils.errors.FileError: ...dimensions.csv, line 1: ...
    """
    rows = read_csv(path, ("id",))
    where, columns = next(rows)
    half = (len(columns) - 1) // 2
    names = [column.removeprefix(_LABEL) for column in columns[1 : half + 1]]
    known = [f"{what}{name}" for what in (_LABEL, _PREDICTION) for name in names]
    if columns != ["id", *known] or not names:
        raise FileError(
            f"{where}: the columns are {', '.join(columns)!s:.200}, expected id, then "
            "label_<name> and prediction_<name> of each name"
        )
    ids, table = [], []
    for where, (name, *cells) in rows:
        try:
            table.append([float(cell) for cell in cells])
        except ValueError as error:
            raise FileError(f"{where}: {error!s:.100}, expected a number") from None
        ids.append(name)
    values = np.array(table, dtype=np.float64).reshape(len(ids), 2 * half)
    return Numbers(ids, names, values[:, :half], values[:, half:])
