"""Kinds of results, with the sums over utterances that their metrics need.

Each metric in this file depends on sums over utterances. A pooled result, a bootstrap
resample and an exchange of a permutation test therefore cost a few additions per
speaker, for any number of utterances.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speechbrain_ser_cl.metrics.classification import MIN_GROUPS, metrics_of_confusion
from speechbrain_ser_cl.metrics.votes import vote_metrics

Array = NDArray[Any]
_VOTES = ("kl", "js", "cosine", "brier")


@dataclass(frozen=True)
class Kind:
    """A kind of model output, and how its results are measured.

    Arguments
    ---------
    name : str
        ``classes``, ``votes``, ``dimensions`` or ``emotions``.
    titles : mapping
        Metric to its title in tables, the most important first.
    percent : frozenset of str
        Metrics that are fractions, shown in percent.
    errors : frozenset of str
        Metrics for which smaller is better.
    measure : callable
        Converts sums (any leading dimensions) to each metric (with these dimensions).
    common : callable
        Converts sums to a value that is equal for two settings with the same test
        utterances.
    number : callable
        Converts sums to the number of utterances.

    Example
    -------
    >>> KINDS["dimensions"].first
    'ccc'
    >>> KINDS["votes"].write("kl", 0.4), KINDS["votes"].write("majority", 0.7)
    ('0.400', '70.0')
    """

    name: str
    titles: Mapping[str, str]
    percent: frozenset[str]
    errors: frozenset[str]
    measure: Callable[[Array], dict[str, Array]]
    common: Callable[[Array], Array]
    number: Callable[[Array], float]

    @property
    def first(self) -> str:
        """Default metric."""
        return next(iter(self.titles))

    def choose(self, metric: str) -> str:
        """Returns the metric, or for another kind's metric the default."""
        return metric if metric in self.titles else self.first

    def title(self, metric: str) -> str:
        """Returns the title of a metric with its unit."""
        return self.titles[metric] + (" %" if metric in self.percent else "")

    def write(self, metric: str, value: float | None) -> str:
        """Formats a value: percent, or three decimals; None is a dash."""
        if value is None or not np.isfinite(value):
            return "–"
        return f"{100 * value:.1f}" if metric in self.percent else f"{value:.3f}"

    def bounds(self, metric: str, interval: Sequence[float] | None) -> str:
        """Formats an interval; None is a dash."""
        if interval is None:
            return "–"
        return " to ".join(self.write(metric, bound) for bound in interval)


def _of_votes(sums: Array) -> dict[str, Array]:
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {name: sums[..., i] / sums[..., 4] for i, name in enumerate(_VOTES)}
        return found | {"majority": sums[..., 5] / sums[..., 6]}


def _of_dimensions(sums: Array) -> dict[str, Array]:
    """Computes means over the dimensions that have labels."""
    known = sums[..., 0] > 0
    with np.errstate(invalid="ignore"):
        return {
            name: np.where(known, values, 0).sum(-1) / known.sum(-1)
            for name, values in each_dimension(sums).items()
        }


def each_dimension(sums: Array) -> dict[str, Array]:
    """Computes the metrics of each dimension from sums.

    Arguments
    ---------
    sums : numpy.ndarray
        (..., K, 6), from :func:`dimension_sums`.

    Returns
    -------
    dict
        ``ccc``, ``pearson``, ``rmse``, each (..., K), as in
        :func:`~.dimensions.dimension_metrics`.

    Example
    -------
    >>> found = each_dimension(dimension_sums([1, 2, 3], [2, 3, 4]).sum(0))
    >>> {name: round(float(value[0]), 4) for name, value in found.items()}
    {'ccc': 0.5714, 'pearson': 1.0, 'rmse': 1.0}
    """
    n, y, x, yy, xx, xy = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_y, mean_x = y / n, x / n
        var_y, var_x = yy / n - mean_y**2, xx / n - mean_x**2
        # Differences of large numbers: for constant values only rounding errors remain.
        flat = (var_y <= 1e-12 * yy / n) | (var_x <= 1e-12 * xx / n)
        covariance = xy / n - mean_x * mean_y
        ccc = 2 * covariance / (var_y + var_x + (mean_x - mean_y) ** 2)
        pearson = covariance / np.sqrt(np.maximum(var_x * var_y, 0))
        rmse = np.sqrt(np.maximum(yy - 2 * xy + xx, 0) / n)
    ccc, pearson = (np.where(flat & (n > 0), 0.0, v) for v in (ccc, pearson))
    return {"ccc": ccc, "pearson": np.clip(pearson, -1, 1), "rmse": rmse}


def _of_emotions(sums: Array) -> dict[str, Array]:
    both, true, said = np.moveaxis(sums[..., :-1, :], -1, 0)
    f1 = 2 * both / np.maximum(true + said, 1)
    present = true > 0
    with np.errstate(invalid="ignore"):
        return {
            "macro_f1": np.where(present, f1, 0).sum(-1) / present.sum(-1),
            "micro_f1": 2 * both.sum(-1) / np.maximum((true + said).sum(-1), 1),
            "sample_f1": sums[..., -1, 0] / sums[..., -1, 1],
        }


def vote_sums(votes: ArrayLike, probabilities: ArrayLike) -> Array:
    """Computes the sums of :func:`~.votes.vote_metrics`.

    Arguments
    ---------
    votes, probabilities : array_like
        (N, C), as for :func:`~.votes.vote_metrics`.

    Returns
    -------
    numpy.ndarray
        (N, 7): KL, JS, cosine, Brier, 1, agreement, whether there is a majority.

    Example
    -------
    >>> vote_sums([[3, 1]], [[0.75, 0.25]]).round(3).tolist()
    [[0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0]]
    """
    found = vote_metrics(votes, probabilities)
    agrees = found["majority"]
    known = ~np.isnan(agrees)
    columns = [found[name] for name in _VOTES]
    columns += [np.ones(len(agrees)), np.where(known, agrees, 0), known.astype(float)]
    return np.stack(columns, 1)


def dimension_sums(labels: ArrayLike, predictions: ArrayLike) -> Array:
    """Computes the sums of dimensions: number, values, squares and products.

    Arguments
    ---------
    labels, predictions : array_like of float
        (N, K), or (N,) for one dimension; NaN labels are unknown.

    Returns
    -------
    numpy.ndarray
        (N, K, 6).

    Example
    -------
    >>> dimension_sums([2.0], [3.0]).tolist()
    [[[1.0, 2.0, 3.0, 4.0, 9.0, 6.0]]]
    """
    y, x = (np.asarray(v, dtype=np.float64) for v in (labels, predictions))
    y, x = y.reshape(len(y), -1), x.reshape(len(x), -1)
    known = ~np.isnan(y)
    y, x = np.where(known, y, 0), np.where(known, x, 0)
    return np.stack([known.astype(float), y, x, y * y, x * x, x * y], -1)


def emotion_sums(labels: ArrayLike, predictions: ArrayLike) -> Array:
    """Computes the sums of multi-label results.

    Arguments
    ---------
    labels, predictions : array_like of bool
        (N, C): emotions of each utterance.

    Returns
    -------
    numpy.ndarray
        (N, C + 1, 3): for each emotion whether it is both true and predicted, true,
        predicted; in the last row the utterance's F1 and 1.

    Example
    -------
    >>> emotion_sums([[1, 0]], [[1, 1]])[0, -1].round(2).tolist()
    [0.67, 1.0, 0.0]
    """
    true, said = (np.asarray(v).astype(bool) for v in (labels, predictions))
    both = true & said
    sizes = true.sum(1) + said.sum(1)
    f1 = np.where(sizes, 2 * both.sum(1) / np.maximum(sizes, 1), 1.0)
    of_row = np.stack([f1, np.ones(len(f1)), np.zeros(len(f1))], -1)
    each = np.stack([both, true, said], -1).astype(float)
    return np.concatenate([each, of_row[:, None]], 1)


_F1 = {"macro_f1": "macro-F1", "micro_f1": "micro-F1", "sample_f1": "sample-F1"}
_CLASSES = {"uar": "UAR", "wa": "WA", "macro_f1": "macro-F1"}
KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "classes",
            _CLASSES,
            frozenset(_CLASSES),
            frozenset(),
            metrics_of_confusion,
            lambda sums: sums.sum(-1),
            lambda sums: float(sums.sum()),
        ),
        Kind(
            "votes",
            {
                "kl": "KL to the votes",
                "js": "JS",
                "cosine": "cosine",
                "brier": "Brier",
                "majority": "agreement",
            },
            frozenset({"majority"}),
            frozenset({"kl", "js", "brier"}),
            _of_votes,
            lambda sums: sums[..., (4, 6)],
            lambda sums: float(sums[4]),
        ),
        Kind(
            "dimensions",
            {"ccc": "CCC", "pearson": "Pearson", "rmse": "RMSE"},
            frozenset(),
            frozenset({"rmse"}),
            _of_dimensions,
            lambda sums: sums[..., (0, 1, 3)],
            lambda sums: float(sums[:, 0].max()),
        ),
        Kind(
            "emotions",
            _F1,
            frozenset(_F1),
            frozenset(),
            _of_emotions,
            lambda sums: sums[..., 1],
            lambda sums: float(sums[-1, 1]),
        ),
    )
}
"""Kinds of results by name."""
MEASURES = tuple(dict.fromkeys(n for kind in KINDS.values() for n in kind.titles))
"""Measures that can be pooled and tested, of any kind."""


def look_up(metric: str) -> tuple[str, bool] | None:
    """Looks up a measure of any kind of results.

    Arguments
    ---------
    metric : str
        Its name, such as ``uar``, ``kl``, ``ccc``; ``ccc.arousal`` is that of one
        dimension.

    Returns
    -------
    tuple of (str, bool), or None
        Its title, and whether it is written in percent; None where no kind has it.

    Example
    -------
    >>> look_up("majority"), look_up("ccc.arousal"), look_up("valid.uar")
    (('agreement', True), ('CCC arousal', False), None)
    """
    name, _, dimension = metric.partition(".")
    for kind in KINDS.values():
        if name in kind.titles and (kind.name == "dimensions" or not dimension):
            return f"{kind.titles[name]} {dimension}".strip(), name in kind.percent
    return None


def sum_intervals(kind: Kind, sums: Array) -> dict[str, tuple[float, float] | None]:
    """Computes 95 % percentile bootstrap intervals over speakers, from their sums.

    Arguments
    ---------
    kind : Kind
        Kind of the results.
    sums : numpy.ndarray
        Sums of each speaker (S, ...).

    Returns
    -------
    dict
        Metric to its bounds. None if there are fewer than 5 speakers or no resample has
        a value.

    Example
    -------
    >>> sums = dimension_sums(np.arange(9.0), np.arange(9.0) + 1)
    >>> low, high = sum_intervals(KINDS["dimensions"], sums)["rmse"]
    >>> round(low, 6), round(high, 6)
    (1.0, 1.0)
    """
    if len(sums) < MIN_GROUPS:
        return dict.fromkeys(kind.titles)
    values = kind.measure(np.tensordot(_draws(len(sums), 1000), sums, 1))
    return {name: _middle(value) for name, value in values.items()}


def _draws(n_speakers: int, n_resamples: int) -> NDArray[np.int64]:
    """Draws how often each speaker is in each resample (R, S); always the same."""
    rng = np.random.default_rng(0)
    return rng.multinomial(n_speakers, [1 / n_speakers] * n_speakers, size=n_resamples)


def _middle(values: Array) -> tuple[float, float] | None:
    """Returns the middle 95 % of the values that are not NaN."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def group_summary(
    kind: Kind,
    metric: str,
    sums: Mapping[tuple[str, Hashable], Array],
    n_resamples: int = 1000,
) -> dict[str, Any]:
    """Computes a metric for each group of utterances, the worst group and the gap.

    Arguments
    ---------
    kind : Kind
        Kind of the results.
    metric : str
        Name of one of its metrics.
    sums : mapping
        (group, speaker) to the sums of the speaker's utterances in that group.
    n_resamples : int
        Number of bootstrap resamples over speakers.

    Returns
    -------
    dict
        Plain values for JSON: ``metric``; ``groups``: for each its ``value``, 95 %
        ``interval`` over speakers (None with fewer than 5), ``utterances`` and
        ``speakers``; ``worst``: name of the worst group; ``gap``: best minus worst
        value, with its interval.

    Raises
    ------
    ValueError
        If there is no group, or the metric is of another kind.

    Example
    -------
    >>> good, poor = np.array([[4, 0], [0, 4]]), np.array([[1, 3], [0, 4]])
    >>> sums = {("f", 1): good, ("m", 2): poor}
    >>> found = group_summary(KINDS["classes"], "uar", sums)
    >>> found["worst"], found["gap"]
    ('m', {'value': 0.375, 'interval': None})
    """
    if not sums:
        raise ValueError("groups: expected at least one utterance with a group")
    if metric not in kind.titles:
        raise ValueError(f"{metric!r} is none of {', '.join(kind.titles)}")
    speakers = sorted({speaker for _, speaker in sums}, key=str)
    draws = _draws(len(speakers), n_resamples)
    found: dict[str, Any] = {}
    resampled = []
    for group in sorted({group for group, _ in sums}):
        own = {speaker: part for (name, speaker), part in sums.items() if name == group}
        whole = np.sum(list(own.values()), axis=0)
        weights = draws[:, [speakers.index(speaker) for speaker in own]]
        with np.errstate(invalid="ignore", divide="ignore"):
            totals = np.tensordot(weights, np.stack(list(own.values())), 1)
            values = np.asarray(kind.measure(totals)[metric], dtype=float)
            value = float(kind.measure(whole)[metric])
        # A resample without speakers of the group has no value.
        values[weights.sum(1) == 0] = np.nan
        resampled.append(values)
        found[group] = {
            "value": value,
            "interval": _middle(values) if len(own) >= MIN_GROUPS else None,
            "utterances": int(kind.number(whole)),
            "speakers": len(own),
        }
    sign = -1 if metric in kind.errors else 1
    known = [one["value"] for one in found.values()]
    spread = np.max(resampled, axis=0) - np.min(resampled, axis=0)
    enough = all(one["interval"] for one in found.values())
    return {
        "metric": metric,
        "groups": found,
        "worst": min(found, key=lambda group: sign * found[group]["value"]),
        "gap": {
            "value": max(known) - min(known),
            "interval": _middle(spread) if enough else None,
        },
    }
