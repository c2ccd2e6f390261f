"""Bootstrap intervals of any measure over speakers, and tests between two settings."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ser_cl.metrics.classification import MIN_GROUPS

Floats = NDArray[np.float64]
# From indices of utterances to named values.
Measure = Callable[[NDArray[np.int64]], dict[str, float]]
Interval = tuple[float, float]


def members(units: Sequence[Hashable] | None, number: int) -> list[NDArray[np.int64]]:
    """Lists the utterances of each resampling unit.

    Arguments
    ---------
    units : sequence or None
        Unit (speaker) of each utterance. None: each utterance is a unit.
    number : int
        Number of utterances.

    Returns
    -------
    list of numpy.ndarray
        Indices of utterances, one array per unit, sorted by the units' names.

    Raises
    ------
    ValueError
        If the number of units differs from the number of utterances.

    Example
    -------
    >>> [m.tolist() for m in members("aba", 3)]
    [[0, 2], [1]]
    """
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
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """Computes percentile bootstrap intervals of a measure over utterances or speakers.

    Arguments
    ---------
    measure : callable
        From indices of utterances (with repetitions) to named values. NaN values are
        undefined for this resample and left out.
    number : int
        Number of utterances.
    units : sequence, optional
        Speaker of each utterance; speakers are resampled with all their utterances.
        None: utterances are resampled.
    n_resamples : int
        Number of resamples, at least 1.
    confidence : float
        In (0, 1).
    seed : int
        Seed of the resampling.

    Returns
    -------
    dict of str to (float, float) or None
        None with fewer than 5 units, or if no resample has a value.

    Raises
    ------
    ValueError
        If a value is out of range.

    Example
    -------
    >>> values = np.arange(100.0)
    >>> low, high = intervals(lambda i: {"mean": values[i].mean()}, 100)["mean"]
    >>> 40 < low < 49.5 < high < 60
    True
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected it in (0, 1)")
    if n_resamples < 1:
        raise ValueError(f"n_resamples is {n_resamples}, expected at least 1")
    names = list(measure(np.arange(number)))
    of_unit = members(units, number)
    if len(of_unit) < MIN_GROUPS:
        return dict.fromkeys(names)
    rng = np.random.default_rng(seed)
    values: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(n_resamples):
        drawn = rng.integers(0, len(of_unit), len(of_unit))
        sample = measure(np.concatenate([of_unit[i] for i in drawn]))
        for name in names:
            values[name].append(sample[name])
    tail = (1 - confidence) / 2
    found: dict[str, Interval | None] = {}
    for name, sampled in values.items():
        known = np.asarray(sampled)[~np.isnan(sampled)]
        bounds = np.quantile(known, [tail, 1 - tail]) if len(known) else None
        found[name] = None if bounds is None else (float(bounds[0]), float(bounds[1]))
    return found


def paired_test(
    measure: Callable[[Any], float],
    a: NDArray[Any],
    b: NDArray[Any],
    units: Sequence[Hashable],
    n_resamples: int = 999,
    seed: int = 0,
) -> float:
    """Tests two settings by exchanging their predictions, speaker by speaker.

    Like :func:`~.significance.speaker_permutation_test`, for any measure of
    predictions.

    Arguments
    ---------
    measure : callable
        From predictions in the shape of ``a`` to a number.
    a, b : numpy.ndarray
        Predictions of both settings for the same utterances (N, ...).
    units : sequence
        Speaker of each utterance.
    n_resamples : int
        At least 1. If there are at most this many exchanges, all are used.
    seed : int
        Seed of the exchanges.

    Returns
    -------
    float
        p in (0, 1], two-sided.

    Raises
    ------
    ValueError
        If the predictions are of different utterances.

    Example
    -------
    >>> labels = np.arange(12.0)
    >>> speakers = np.repeat(list("abcd"), 3)
    >>> def error(x):
    ...     return float(np.abs(x - labels).mean())
    >>> paired_test(error, labels + 1, labels + 2, speakers)
    0.125
    """
    if a.shape != b.shape:
        raise ValueError(
            f"the two settings were not tested on the same utterances: {a.shape} and "
            f"{b.shape}"
        )
    if n_resamples < 1:
        raise ValueError(f"n_resamples is {n_resamples}, expected at least 1")
    of_unit = members(units, len(a))
    n_units = len(of_unit)
    if 2**n_units <= n_resamples:
        swaps = np.arange(2**n_units)[:, None] >> np.arange(n_units) & 1
    else:
        rng = np.random.default_rng(seed)
        swaps = rng.integers(0, 2, (n_resamples, n_units))
        swaps[0] = 0  # the observed assignment is one of the exchanges
    differences = []
    swapped = np.empty(len(a), dtype=bool)
    for swap in swaps:
        for rows, exchange in zip(of_unit, swap, strict=True):
            swapped[rows] = exchange
        mask = swapped.reshape(-1, *[1] * (a.ndim - 1))
        first, second = np.where(mask, b, a), np.where(mask, a, b)
        differences.append(abs(measure(first) - measure(second)))
    # A small tolerance, because sums in another order differ in the last digit.
    return float((np.asarray(differences) >= differences[0] - 1e-12).mean())


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
    n_speakers, missing = None, "the speakers are not known"
    if speakers is not None:
        n_speakers, missing = len(set(speakers)), ""
        over_speakers = intervals(measure, number, speakers, n_resamples)
        if n_speakers < MIN_GROUPS:
            missing = f"{n_speakers} speakers, an interval needs {MIN_GROUPS}"
    found: dict[str, Any] = {
        name: {
            "value": None if np.isnan(value) else float(value),
            "interval": over[name],
            "interval_speakers": over_speakers[name],
        }
        for name, value in values.items()
    }
    return found | {
        "utterances": number,
        "speakers": n_speakers,
        "interval_speakers_missing": missing or None,
    }
