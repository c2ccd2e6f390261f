"""Agreement of listeners."""

from collections.abc import Iterable, Mapping

import numpy as np


def krippendorff_alpha(votes: Iterable[Mapping[str, float]]) -> float | None:
    """Compute Krippendorff's alpha of nominal labels.

    With n_uc votes for emotion c on utterance u of n_u votes, n_c votes for c and n in
    all (utterances with one vote left out)::

        alpha = 1 - (n - 1) sum_u [sum_c n_uc (n_u - n_uc) / (n_u - 1)]
                    / sum_c n_c (n - n_c)

    Arguments
    ---------
    votes : iterable of mapping
        Emotion to count, of each utterance; listeners may differ in number.

    Returns
    -------
    float or None
        At most 1; 0: as chance has it. None: no utterance with two votes, or all votes
        for one emotion.

    References
    ----------
    Krippendorff 2011: "Computing Krippendorff's alpha-reliability".

    Example
    -------
    >>> krippendorff_alpha([{"sad": 3}, {"happy": 3}])
    1.0
    >>> krippendorff_alpha([{"sad": 1, "happy": 1}, {"sad": 1, "happy": 1}])
    -0.5
    """
    disagreement, totals = 0.0, dict[str, float]()
    for one in votes:
        number = sum(one.values())
        if number > 1:
            apart = number**2 - sum(n**2 for n in one.values())
            disagreement += apart / (number - 1)
            for name, n in one.items():
                totals[name] = totals.get(name, 0) + n
    counts = np.array(list(totals.values()))
    total = counts.sum()
    by_chance = total**2 - (counts**2).sum()
    return float(1 - (total - 1) * disagreement / by_chance) if by_chance else None
