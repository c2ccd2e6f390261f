"""Results by group: the worst one, and how far apart they are."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ser_cl.metrics.resampling import Measure, entries


def group_summary(
    measure: Measure,
    groups: Sequence[Hashable | None],
    name: str,
    speakers: Sequence[Hashable] | None = None,
    higher_is_better: bool = True,
    n_resamples: int = 1000,
) -> dict[str, Any]:
    """Compute a measure by group, with intervals over speakers.

    Arguments
    ---------
    measure : callable
        Takes indices of utterances, gives named values, such as
        ``lambda i: classification_metrics(labels[i], predictions[i], 4)``.
    groups : sequence
        Gender, age band, language, … of each utterance; None where unknown: left out.
    name : str
        Of the value, such as ``"uar"``.
    speakers : sequence, optional
        One per utterance.
    higher_is_better : bool
        False for errors.
    n_resamples : int
        Of the bootstrap.

    Returns
    -------
    dict
        Ready for JSON: ``groups``: for each group (as text) its ``value``,
        ``interval``, ``interval_speakers``, ``utterances`` and ``speakers``;
        ``worst``: the name of the worst; ``gap``: best minus worst, with intervals of
        its own; ``unknown``: how many utterances have no group.

    Raises
    ------
    ValueError
        If there is no group, the lists do not fit, or the value has another name.

    Example
    -------
    >>> right = np.array([1, 1, 1, 0, 0, 1])
    >>> found = group_summary(lambda i: {"wa": right[i].mean()}, "fffmmm", "wa")
    >>> found["worst"], round(found["gap"]["value"], 4)
    ('m', 0.6667)
    """
    known = np.array([group is not None for group in groups], dtype=bool)
    rows = np.flatnonzero(known)
    named = np.array([str(groups[int(i)]) for i in rows])
    if not len(rows):
        raise ValueError("groups: expected at least one utterance with a group")
    if speakers is not None and len(speakers) != len(groups):
        raise ValueError(f"{len(speakers)} speakers but {len(groups)} groups")
    if name not in measure(rows):
        raise ValueError(f"{name!r} is none of {', '.join(measure(rows))}")
    names = sorted(set(named.tolist()))

    def of(chosen: NDArray[np.int64]) -> dict[str, float]:
        return {name: measure(chosen)[name]}

    def spread(sample: NDArray[np.int64]) -> dict[str, float]:
        values = [
            of(part)[name]
            for group in names
            if len(part := rows[sample[named[sample] == group]])
        ]
        whole = len(values) == len(names)
        return {"gap": max(values) - min(values) if whole else float("nan")}

    def who(chosen: NDArray[np.int64]) -> list[Hashable] | None:
        return None if speakers is None else [speakers[int(i)] for i in chosen]

    found = {}
    for group in names:
        own = rows[named == group]
        report = entries(lambda i, own=own: of(own[i]), len(own), who(own), n_resamples)  # type: ignore[misc]
        found[group] = report[name] | {
            "utterances": report["utterances"],
            "speakers": report["speakers"],
        }
    sign = 1 if higher_is_better else -1
    return {
        "groups": found,
        "worst": min(names, key=lambda g: sign * found[g]["value"]),
        "gap": entries(spread, len(rows), who(rows), n_resamples)["gap"],
        "unknown": int((~known).sum()),
    }
