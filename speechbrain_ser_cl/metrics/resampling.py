"""Bootstrap intervals of any measure, over utterances and over speakers."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ser_cl.metrics.classification import MIN_GROUPS, about_speakers

Floats = NDArray[np.float64]
# From indices of utterances to named values.
Measure = Callable[[NDArray[np.int64]], dict[str, float]]
Interval = tuple[float, float]


def _members(units: Sequence[Hashable] | None, number: int) -> list[NDArray[np.int64]]:
    """Lists the utterances of each unit; without units each utterance is one."""
    if units is None:
        return list(np.arange(number)[:, None])
    if len(units) != number:
        raise ValueError(
            f"{len(units)} groups but {number} labels; expected one group for each "
            "label"
        )
    _, index = np.unique(np.asarray(list(units)), return_inverse=True)
    order = np.argsort(index, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(index[order])) + 1)


def intervals(
    measure: Measure,
    number: int,
    units: Sequence[Hashable] | None = None,
    n_resamples: int = 1000,
) -> dict[str, Interval | None]:
    """Computes 95 % percentile bootstrap intervals over utterances or speakers.

    Arguments
    ---------
    measure : callable
        From indices of utterances (with repetitions) to named values. NaN: the value
        is not defined for this resample, which is then left out.
    number : int
        Number of utterances.
    units : sequence, optional
        Speaker of each utterance; speakers are resampled with all their utterances.
        None: utterances are resampled.
    n_resamples : int
        Number of resamples, at least 1. They are the same in every call.

    Returns
    -------
    dict of str to (float, float) or None
        None with fewer than 5 units, or if no resample has a value.

    Raises
    ------
    ValueError
        If ``n_resamples`` is below 1, or the number of units is wrong.

    Example
    -------
    >>> values = np.arange(100.0)
    >>> low, high = intervals(lambda i: {"mean": values[i].mean()}, 100)["mean"]
    >>> 40 < low < 49.5 < high < 60
    True
    """
    if n_resamples < 1:
        raise ValueError(f"n_resamples is {n_resamples}, expected at least 1")
    names = list(measure(np.arange(number)))
    of_unit = _members(units, number)
    if len(of_unit) < MIN_GROUPS:
        return dict.fromkeys(names)
    rng = np.random.default_rng(0)
    values: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(n_resamples):
        drawn = rng.integers(0, len(of_unit), len(of_unit))
        sample = measure(np.concatenate([of_unit[i] for i in drawn]))
        for name in names:
            values[name].append(sample[name])
    found: dict[str, Interval | None] = {}
    for name, sampled in values.items():
        known = np.asarray(sampled)[~np.isnan(sampled)]
        bounds = np.quantile(known, [0.025, 0.975]) if len(known) else None
        found[name] = None if bounds is None else (float(bounds[0]), float(bounds[1]))
    return found


def entries(
    measure: Measure,
    number: int,
    speakers: Sequence[Hashable] | None,
    n_resamples: int = 1000,
) -> dict[str, Any]:
    """Makes the entries of ``results.json`` for each value of a measure.

    Arguments
    ---------
    measure : callable
        As in :func:`intervals`.
    number : int
        Number of utterances.
    speakers : sequence or None
        Speaker of each utterance. None: unknown.
    n_resamples : int
        Number of resamples of each bootstrap.

    Returns
    -------
    dict
        For each name ``value`` (None if undefined), 95 % ``interval`` over utterances
        and ``interval_speakers``; ``utterances``, ``speakers`` (counts) and
        ``interval_speakers_missing``: why there is no interval over speakers, or None.
        Same form as :func:`~.classification.summary`.

    Example
    -------
    >>> found = entries(lambda i: {"mean": float(i.mean())}, 10, None)
    >>> found["mean"]["value"], found["interval_speakers_missing"]
    (4.5, 'the speakers are not known')
    """
    values = measure(np.arange(number))
    over = intervals(measure, number, None, n_resamples)
    over_speakers: dict[str, Interval | None] = dict.fromkeys(values)
    if speakers is not None:
        over_speakers = intervals(measure, number, speakers, n_resamples)
    found: dict[str, Any] = {
        name: {
            "value": None if np.isnan(value) else float(value),
            "interval": over[name],
            "interval_speakers": over_speakers[name],
        }
        for name, value in values.items()
    }
    return found | {"utterances": number} | about_speakers(speakers)
