"""Test results of a run as sums by speaker and by group of speakers."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.metrics import kinds
from speechbrain_ser_cl.metrics.kinds import KINDS, group_summary
from speechbrain_ser_cl.results.numbers import read_numbers
from speechbrain_ser_cl.results.predictions import read_predictions
from speechbrain_ser_cl.results.utterances import read_parts
from speechbrain_ser_cl.utils.errors import offenders
from speechbrain_ser_cl.utils.schemas import check_kind

UNKNOWN = "unknown"
"""Name for unknown speakers, which are too few for intervals and tests."""
_COLUMNS = ("gender", "language", "intensity")
_FEW, _MOST = 6, 20
_ROWS: dict[str, Callable[[Any, Any], NDArray[Any]]] = {
    "votes": kinds.vote_sums,
    "dimensions": kinds.dimension_sums,
    "emotions": lambda labels, said: kinds.emotion_sums(labels, said > 0.5),
}

Array = NDArray[Any]
OfCorpora = dict[str, dict[str, Array]]
OfGroups = dict[str, dict[str, dict[tuple[str, Hashable], Array]]]


class RunSums(NamedTuple):
    """Sums of a run's test.

    Arguments
    ---------
    kind : str
        Kind of the results, see ``metrics.kinds``.
    names : list of str
        Names of the classes or dimensions.
    counts : dict
        Kind to corpus to speaker to sums: first the run's kind, then ``votes``, if
        compared.
    groups : dict
        Kind to corpus to column to (group, speaker) to sums.

    Example
    -------
    >>> RunSums("classes", ["sad", "happy"], {}, {}).kind
    'classes'
    """

    kind: str
    names: list[str]
    counts: dict[str, OfCorpora]
    groups: dict[str, OfGroups]


def read_sums(folder: str | Path, record: Mapping[str, Any]) -> RunSums:
    """Reads a finished run's predictions as sums.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder with ``utterances.csv`` and ``predictions.csv``, or the file of another
        kind.
    record : mapping
        Contents of ``results.json``.

    Returns
    -------
    RunSums

    Raises
    ------
    ValueError
        If a file is missing or damaged, or the files do not fit together.
    """
    folder = Path(folder)
    kind = check_kind(folder / "results.json", record)
    file_of = {kind: "predictions.csv" if kind == "classes" else f"{kind}.csv"}
    if (folder / "votes.csv").exists():
        file_of["votes"] = "votes.csv"
    for name in ("utterances.csv", *file_of.values()):
        if not (folder / name).exists():
            raise ValueError(f"{folder}: a results.json without {name} beside it")
    parts = read_parts(folder / "utterances.csv")
    utterances = {i.utterance.id: i.utterance for part in parts.values() for i in part}
    columns = group_columns(list(utterances.values()))
    names: list[str] = []
    counts: dict[str, OfCorpora] = {}
    groups: dict[str, OfGroups] = {}
    for one, name in file_of.items():
        own, ids, add = _tested(folder / name, one)
        names = names or own
        unknown = set(ids) - set(utterances)
        if unknown:
            raise ValueError(
                f"{folder}: utterances of {name} that are not in utterances.csv "
                f"({offenders(unknown)})"
            )
        tested = [utterances[i] for i in ids]
        who = [(u.corpus, u.speaker or UNKNOWN) for u in tested]
        counts[one] = {}
        for (corpus, speaker), sums in _summed(who, add).items():
            counts[one].setdefault(corpus, {})[speaker] = sums
        groups[one] = {}
        for column, of in columns.items():
            keys = [
                (corpus, (of[i], speaker)) if i in of else None
                for i, (corpus, speaker) in zip(ids, who, strict=True)
            ]
            for (corpus, unit), sums in _summed(keys, add).items():
                own_columns = groups[one].setdefault(corpus, {})
                own_columns.setdefault(column, {})[unit] = sums
    return RunSums(kind, names, counts, groups)


def group_columns(utterances: Sequence[Utterance]) -> dict[str, dict[str, str]]:
    """Finds the variables by which utterances can be grouped.

    Gender, language, intensity and the corpus' ``groups``. If a variable has more than
    6 different numbers, such as ages, they become bands of ten.

    Arguments
    ---------
    utterances : sequence of Utterance
        All utterances of an experiment.

    Returns
    -------
    dict
        Column to id to group, for each column with 2 to 20 groups.

    Example
    -------
    >>> from dataclasses import replace
    >>> one = Utterance("a", Path("a.wav"), 1.0, "toy", "s", None, "male", "en", None,
    ...     "sad", groups={"age": "34"})
    >>> group_columns([one, replace(one, id="b", gender="female")])
    {'gender': {'a': 'male', 'b': 'female'}}
    """
    found: dict[str, dict[str, str]] = {}
    for utterance in utterances:
        said = {name: getattr(utterance, name) for name in _COLUMNS}
        for column, value in (said | dict(utterance.groups or {})).items():
            if value:
                found.setdefault(column, {})[utterance.id] = str(value)
    bands = {column: _bands(set(of.values())) for column, of in found.items()}
    return {
        column: {name: bands[column][value] for name, value in of.items()}
        for column, of in found.items()
        if 2 <= len(set(bands[column].values())) <= _MOST
    }


def _bands(values: set[str]) -> dict[str, str]:
    """Returns each value unchanged, or bands of ten for many numbers."""
    try:
        numbers = {value: float(value) for value in values}
    except ValueError:
        numbers = {}
    if len(numbers) <= _FEW or not np.isfinite(list(numbers.values())).all():
        return {value: value for value in values}
    tens = {value: int(number // 10 * 10) for value, number in numbers.items()}
    return {value: f"{low} to {low + 9}" for value, low in tens.items()}


def summarise_groups(
    runs: Iterable[RunSums],
) -> dict[str, dict[str, dict[str, Any]]]:
    """Pools runs and computes each group's result by the first metric of its kind.

    Arguments
    ---------
    runs : iterable of RunSums
        Runs of one setting.

    Returns
    -------
    dict
        Kind to corpus to column to the result of
        :func:`~speechbrain_ser_cl.metrics.kinds.group_summary`.
    """
    pooled: dict[tuple[str, str, str], dict[tuple[str, Hashable], Array]] = {}
    for run in runs:
        for kind, of_corpora in run.groups.items():
            for corpus, of_columns in of_corpora.items():
                for column, sums in of_columns.items():
                    own = pooled.setdefault((kind, corpus, column), {})
                    for unit, one in sums.items():
                        own[unit] = own.get(unit, 0) + one
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for (name, corpus, column), sums in pooled.items():
        if len({group for group, _ in sums}) > 1:
            summary = group_summary(KINDS[name], KINDS[name].first, sums)
            found.setdefault(name, {}).setdefault(corpus, {})[column] = summary
    return found


def _tested(
    path: Path, kind: str
) -> tuple[list[str], list[str], Callable[[Array, Array, int], Array]]:
    """Returns names, ids, and the function ``add(rows, unit of each, units)``."""
    if kind == "classes":
        found = read_predictions(path)
        n = len(found.class_names)

        def count(rows: Array, index: Array, size: int) -> Array:
            total = np.zeros((size, n, n), np.int64)
            cells = (index, found.labels[rows], found.predictions[rows])
            np.add.at(total, cells, 1)
            return total

        return found.class_names, found.ids, count
    numbers = read_numbers(path)
    table = _ROWS[kind](numbers.labels, numbers.predictions)

    def add(rows: Array, index: Array, size: int) -> Array:
        total = np.zeros((size, *table.shape[1:]))
        np.add.at(total, index, table[rows])
        return total

    return numbers.names, numbers.ids, add


def _summed(
    keys: Sequence[Any], add: Callable[[Array, Array, int], Array]
) -> dict[Any, Array]:
    """Sums the rows with each key; rows with key None are left out."""
    place: dict[Any, int] = {}
    rows = [i for i, key in enumerate(keys) if key is not None]
    index = np.array([place.setdefault(keys[i], len(place)) for i in rows], int)
    sums = add(np.array(rows, int), index, len(place))
    return dict(zip(place, sums, strict=True))
