"""``predictions.csv``: a model's prediction of each utterance."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from speechbrain_ser_cl.utils.errors import FileError, offenders, repeated
from speechbrain_ser_cl.utils.files import read_csv, write_rows

_FIRST = ["id", "label", "prediction"]


@dataclass(frozen=True)
class Predictions:
    """Contents of a ``predictions.csv``.

    Arguments
    ---------
    ids : list of str
        Ids of the N utterances.
    labels : numpy.ndarray
        True classes as indices into ``class_names``, shape (N,).
    predictions : numpy.ndarray
        Predicted classes, shape (N,).
    probabilities : numpy.ndarray
        Shape (N, C).
    class_names : list of str
        Names of the C classes.

    Example
    -------
    >>> found = Predictions(["a"], np.array([0]), np.array([1]), np.eye(2), ["x", "y"])
    >>> found.class_names[found.predictions[0]]
    'y'
    """

    ids: list[str]
    labels: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray
    class_names: list[str]


def write_predictions(
    path: str | Path,
    ids: Sequence[str],
    labels: ArrayLike,
    predictions: ArrayLike,
    probabilities: ArrayLike,
    class_names: Sequence[str],
) -> None:
    """Writes ``predictions.csv``, whole or not at all.

    One line per utterance: ``id``, ``label`` and ``prediction`` as class names, and one
    probability per class in the column ``p_<class>``.

    Arguments
    ---------
    path : str or Path
        Output file, replaced if it exists; its folder is created if needed.
    ids : sequence of str
        Ids of the N utterances, each once.
    labels : array_like of int
        True classes as indices into ``class_names``, shape (N,).
    predictions : array_like of int
        Predicted classes, shape (N,).
    probabilities : array_like of float
        Shape (N, C). Rounded to six decimals.
    class_names : sequence of str
        Names of the C classes.

    Raises
    ------
    ValueError
        If lengths differ, an id is repeated or a class does not exist.

    Example
    -------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "predictions.csv")
    >>> names = ["positive", "negative"]
    >>> write_predictions(path, ["03a01Fa"], [0], [1], [[0.25, 0.75]], names)
    >>> print(path.read_text())
    id,label,prediction,p_positive,p_negative
    03a01Fa,positive,negative,0.250000,0.750000
    <BLANKLINE>
    """
    path = Path(path)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    true, said = np.asarray(labels).tolist(), np.asarray(predictions).tolist()
    sizes = (len(ids), len(true), len(said))
    if set(sizes) != {len(ids)} or probabilities.shape != (len(ids), len(class_names)):
        raise ValueError(
            f"{path.name}: {sizes[0]} ids, {sizes[1]} labels, {sizes[2]} predictions, "
            f"{len(class_names)} classes and probabilities of shape "
            f"{probabilities.shape} do not fit each other"
        )
    if twice := repeated(ids):
        raise ValueError(
            f"{path.name}: ids that occur more than once ({offenders(twice)})"
        )
    outside = {int(c) for c in (*true, *said)} - set(range(len(class_names)))
    if outside:
        raise ValueError(
            f"{path.name}: found class indices {sorted(outside)}, expected them in "
            f"[0, {len(class_names)})"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = (
        [name, class_names[label], class_names[prediction]]
        + [f"{share:.6f}" for share in shares]
        for name, label, prediction, shares in zip(
            ids, true, said, probabilities, strict=True
        )
    )
    write_rows(path, _FIRST + [f"p_{name}" for name in class_names], rows)


def read_predictions(path: str | Path) -> Predictions:
    """Reads a file that ``write_predictions`` wrote.

    Arguments
    ---------
    path : str or Path
        A ``predictions.csv``.

    Returns
    -------
    predictions : Predictions
        Classes in the order of the file's columns.

    Raises
    ------
    FileError
        If a column is missing, or a line has an unknown class, a missing value, a
        repeated id or a probability outside [0, 1]; the message has file and line.

    Example
    -------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "predictions.csv")
    >>> names = ["positive", "negative"]
    >>> write_predictions(path, ["03a01Fa"], [0], [1], [[0.25, 0.75]], names)
    >>> read_predictions(path).probabilities
    array([[0.25, 0.75]])
    """
    rows = read_csv(path, _FIRST)
    _, header = next(rows)
    columns = header[len(_FIRST) :]
    class_names = [column.removeprefix("p_") for column in columns]
    index = {name: i for i, name in enumerate(class_names)}
    if not index or [f"p_{name}" for name in index] != columns:
        raise FileError(
            f"{path}: the columns after {_FIRST[-1]} are {', '.join(columns)!r:.100}, "
            "expected one p_<class> for each class"
        )
    ids, labels, predictions, probabilities = [], [], [], []
    seen: set[str] = set()
    for where, (name, label, prediction, *cells) in rows:
        for value in (label, prediction):
            if value not in index:
                raise FileError(
                    f"{where}: unknown class {value!r}; expected one of "
                    f"{', '.join(class_names)}"
                )
        try:
            shares = [float(cell) for cell in cells]
        except ValueError:
            shares = [-1.0]
        if not all(0 <= share <= 1 for share in shares):
            raise FileError(
                f"{where}: {', '.join(cells)}, expected {len(index)} probabilities in "
                "[0, 1]"
            )
        if name in seen:
            raise FileError(f"{where}: the id {name!r} occurs more than once")
        seen.add(name)
        ids.append(name)
        labels.append(index[label])
        predictions.append(index[prediction])
        probabilities.append(shares)
    return Predictions(
        ids,
        np.array(labels, dtype=np.int64),
        np.array(predictions, dtype=np.int64),
        np.array(probabilities, dtype=np.float64).reshape(-1, len(class_names)),
        class_names,
    )
