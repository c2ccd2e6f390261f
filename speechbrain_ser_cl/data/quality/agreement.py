"""Agreement of listeners."""

from collections.abc import Iterable, Mapping

import numpy as np


def krippendorff_alpha(votes: Iterable[Mapping[str, float]]) -> float | None:
    """Computes Krippendorff's alpha of nominal labels.

    n_uc: votes for emotion c on utterance u; n_u: votes on u; n_c: votes for c; n: all
    votes (utterances with one vote are left out)::

        alpha = 1 - (n - 1) sum_u [sum_c n_uc (n_u - n_uc) / (n_u - 1)]
                    / sum_c n_c (n - n_c)

    Arguments
    ---------
    votes : iterable of mapping
        Emotion to number of votes, for each utterance; numbers of listeners may differ.

    Returns
    -------
    float or None
        At most 1; 0: agreement by chance. None: no utterance has two votes, or all
        votes are for one emotion.

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
