"""Assigns groups of utterances, such as speakers, to folds.

All counts are integers, and ties are broken by a hash of seed and names, so the folds
are the same on every machine and for any order of the input.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ser_cl.data.splits import Labelled, random_rank

Whole = NDArray[np.int64]

# Variations are integers in units of 2^-_BITS; a class missing in a fold adds 2^_LACK.
_BITS, _LACK = 26, 44
# Most exchanges that are tried, and most starting points.
_MOST_LOOKS, _MOST_STARTS = 200_000, 8


def deal_cards(
    groups: Iterable[str], n_folds: int, seed: int, stratum: Callable[[str], Any]
) -> dict[str, int]:
    """Assigns groups in random order to folds in turn, one stratum after another.

    Arguments
    ---------
    groups : iterable of str
        Names of the groups.
    n_folds : int
        Number of folds, at least 1.
    seed : int
        Seed of the order.
    stratum : callable
        Returns the stratum of a group name; folds get equally many groups of each
        stratum.

    Returns
    -------
    dict
        Name of each group to the number of its fold.

    Example
    -------
    >>> sorted(deal_cards(["Anna", "Eva", "Hans", "Otto"], 2, 0, stratum=len).items())
    [('Anna', 0), ('Eva', 0), ('Hans', 1), ('Otto', 1)]
    """
    names = sorted(groups, key=lambda name: (stratum(name), random_rank(seed, name)))
    return {name: place % n_folds for place, name in enumerate(names)}


def deal_fairly(
    groups: Mapping[str, Sequence[Labelled]], n_folds: int, seed: int
) -> dict[str, int]:
    r"""Assigns groups to folds that are as similar as possible.

    First, each fold gets each class, if possible. Then the variation of the folds'
    shares of each class, of women and men and of all utterances is minimised. For a
    class with :math:`n_k` of its :math:`N` utterances in fold k, the variation is the
    standard deviation of :math:`n_k/N` over the folds, as in scikit-learn's
    ``StratifiedGroupKFold``. Groups are assigned by scikit-learn's greedy rule, then
    exchanged as long as this reduces the variation; the mean variation of classes is
    never larger than by the greedy rule.

    Arguments
    ---------
    groups : mapping
        Name of each group to its utterances.
    n_folds : int
        Number of folds, from 1 to the number of groups.
    seed : int
        Seed for ties and for the numbers of the folds.

    Returns
    -------
    dict
        Name of each group to the number of its fold; no fold is empty.

    Raises
    ------
    ValueError
        If there are more folds than groups.
    """
    if not 0 < n_folds <= len(groups):
        raise ValueError(
            f"n_folds is {n_folds}, expected 1 to {len(groups)}, the number of groups"
        )
    names = sorted(groups, key=lambda name: random_rank(seed, name))
    table = _Table([groups[name] for name in names], n_folds)
    deals = [_Deal(table, order) for order in table.orders()]
    limit = min(deal.variations()[0] for deal in deals)
    looks = _MOST_LOOKS
    for deal in deals:
        looks -= deal.exchange(limit, looks)
    best = min(deals, key=lambda deal: deal.rank(limit))
    folds = best.fold.tolist()
    number = {fold: k for k, fold in enumerate(dict.fromkeys(folds))}
    return {name: number[fold] for name, fold in zip(names, folds, strict=True)}


class _Table:
    """Number of utterances per group: of each class, in total, of each gender."""

    def __init__(self, groups: Sequence[Sequence[Labelled]], n_folds: int) -> None:
        labels = [Counter(item.label for item in group) for group in groups]
        genders = [Counter(i.utterance.gender for i in group) for group in groups]
        classes = sorted(set().union(*labels))
        known = [g for g in ("female", "male") if any(c[g] for c in genders)]
        self.n_folds, self.n_classes, self.n_genders = n_folds, len(classes), len(known)
        self.counts = np.array(
            [
                [*(of[c] for c in classes), of.total(), *(sexes[g] for g in known)]
                for of, sexes in zip(labels, genders, strict=True)
            ],
            dtype=np.int64,
        )
        self.total = self.counts.sum(axis=0)

    def orders(self) -> Iterator[list[int]]:
        """Orders in which groups are assigned."""
        counts, n_groups = self.counts[:, : self.n_classes], len(self.counts)
        # Decreasing variance over classes, as in scikit-learn.
        variance = self.n_classes * (counts**2).sum(1) - counts.sum(1) ** 2
        yield np.argsort(-variance, kind="stable").tolist()
        # First groups with classes that few groups have.
        rarest = np.where(counts > 0, (counts > 0).sum(0), n_groups + 1).min(1)
        yield np.lexsort((-variance, rarest)).tolist()
        for start in range(min(_MOST_STARTS, 4000 // n_groups) - 2):
            yield sorted(range(n_groups), key=lambda g: random_rank(start, str(g)))

    def variations(self, squares: Whole, dealt: Whole) -> tuple[Whole, Whole]:
        """Returns variations of classes and of all, times ``n_folds * 2**_BITS``."""
        n = self.n_classes
        spread = np.sqrt((self.n_folds * squares - dealt**2).astype(np.float64))
        whole = np.floor(spread * 2.0**_BITS / self.total).astype(np.int64)
        classes = whole[..., :n].sum(-1)
        everything = classes // n + whole[..., n]
        if self.n_genders:
            everything += whole[..., n + 1 :].sum(-1) // self.n_genders
        return classes, everything


class _Deal:
    """The fold of each group, and counts of the folds."""

    def __init__(self, table: _Table, order: Sequence[int]) -> None:
        """Assigns each group to the fold that then varies least in its classes."""
        self.table = table
        self.fold = np.zeros(len(table.counts), dtype=np.int64)
        self.held = np.zeros((table.n_folds, len(table.total)), dtype=np.int64)
        dealt = np.zeros_like(table.total)
        for group in order:
            row = table.counts[group]
            dealt += row
            squares = (self.held**2).sum(0) + (2 * self.held + row) * row
            classes, _ = table.variations(squares, dealt)
            fold = np.lexsort((self.held[:, table.n_classes], classes))[0]
            self.held[fold] += row
            self.fold[group] = fold

    def variations(self) -> tuple[int, int]:
        """Returns the variations of classes and of all."""
        total = self.table.total
        classes, everything = self.table.variations((self.held**2).sum(0), total)
        return int(classes), int(everything)

    def rank(self, limit: int) -> tuple[int, int]:
        """Returns the cost: missing classes, then excess over ``limit`` of classes."""
        classes, everything = self.variations()
        lacking = int((self.held[:, : self.table.n_classes + 1] == 0).sum())
        return (lacking << _LACK) + max(0, classes - limit), everything

    def exchange(self, limit: int, looks: int) -> int:
        """Exchanges or moves groups while this helps; returns the number of tries."""
        table, n = self.table, self.table.n_classes + 1
        n_groups, taken, unchanged, group = len(self.fold), 0, 0, 0
        # An empty group per fold: exchanging with it moves a group.
        counts = np.pad(table.counts, ((0, table.n_folds), (0, 0)))
        fold = np.concatenate([self.fold, np.arange(table.n_folds)])
        rank = self.rank(limit)
        while unchanged < n_groups and taken < looks:
            taken += len(counts)
            here = self.held[fold[group]]
            there, gain = self.held[fold], counts - counts[group]
            squares = (self.held**2).sum(0) + 2 * gain * (here - there + gain)
            classes, everything = table.variations(squares, table.total)
            lacking = (self.held[:, :n] == 0).sum() + (
                ((here + gain)[:, :n] == 0).astype(np.int64)
                + ((there - gain)[:, :n] == 0)
                - (here[:n] == 0)
                - (there[:, :n] == 0)
            ).sum(1)
            first = (lacking << _LACK) + np.maximum(0, classes - limit)
            first[fold == fold[group]] = np.iinfo(np.int64).max
            other = int(np.lexsort((everything, first))[0])
            found = int(first[other]), int(everything[other])
            unchanged += 1
            if found < rank:
                rank, unchanged = found, 0
                self.held[fold[group]] += gain[other]
                self.held[fold[other]] -= gain[other]
                new = fold[other]
                if other < n_groups:
                    fold[other] = fold[group]
                fold[group] = new
            group = (group + 1) % n_groups
        self.fold = fold[:n_groups]
        return taken
