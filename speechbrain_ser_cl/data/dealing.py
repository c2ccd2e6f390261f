"""Deals groups of utterances, such as speakers, to folds.

All is counted in whole numbers and ties are settled by a hash of seed and names, so
that the same folds come out on every machine, whatever the order of the input.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ser_cl.data.splits import Labelled, random_rank

Whole = NDArray[np.int64]

# Variations are whole numbers of 2^-_BITS; each class that a fold lacks counts 2^_LACK.
_BITS, _LACK = 26, 44
# How many exchanges are looked at, and from how many beginnings, at most.
_MOST_LOOKS, _MOST_STARTS = 200_000, 8


def deal_cards(
    groups: Iterable[str], n_folds: int, seed: int, stratum: Callable[[str], Any]
) -> dict[str, int]:
    """Deal groups like cards, in random order, one stratum after the other.

    Arguments
    ---------
    groups : iterable of str
        Names of the groups.
    n_folds : int
        How many folds, at least 1.
    seed : int
        Another seed is another order.
    stratum : callable
        Of the name of a group: what folds get equally many groups of.

    Returns
    -------
    dict
        Name of each group to its fold.

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
    r"""Deal groups so that folds are as alike as can be found.

    First, each fold gets each class, if that is possible. Then the folds' shares of
    each class, of women and men and of all utterances vary as little as can be found:
    for a class with :math:`n_k` of its :math:`N` utterances in fold k, the variation is
    the standard deviation of :math:`n_k/N` over the folds, which is what scikit-learn's
    ``StratifiedGroupKFold`` goes by. Groups are dealt by its greedy rule, and then
    exchanged as long as that makes the folds more alike; the mean variation of classes
    never gets larger than by the greedy rule.

    Arguments
    ---------
    groups : mapping
        Name of each group to its utterances.
    n_folds : int
        How many folds, from 1 to the number of groups.
    seed : int
        Another seed settles ties otherwise and numbers the folds otherwise.

    Returns
    -------
    dict
        Name of each group to its fold; none is empty.

    Raises
    ------
    ValueError
        For more folds than groups.
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
    """How many utterances each group has: of each class, in all, of each gender."""

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
        """Orders in which groups are dealt."""
        counts, n_groups = self.counts[:, : self.n_classes], len(self.counts)
        # By descending variance over classes, as scikit-learn does.
        variance = self.n_classes * (counts**2).sum(1) - counts.sum(1) ** 2
        yield np.argsort(-variance, kind="stable").tolist()
        # Groups with classes that few groups have first.
        rarest = np.where(counts > 0, (counts > 0).sum(0), n_groups + 1).min(1)
        yield np.lexsort((-variance, rarest)).tolist()
        for start in range(min(_MOST_STARTS, 4000 // n_groups) - 2):
            yield sorted(range(n_groups), key=lambda g: random_rank(start, str(g)))

    def variations(self, squares: Whole, dealt: Whole) -> tuple[Whole, Whole]:
        """Sum of variations over classes, and of all, in ``2**-_BITS / n_folds``.

        Of the sums of squares of the folds' counts, (..., traits). What IEEE 754 rounds
        alike everywhere is cut to whole numbers before anything is summed.
        """
        n = self.n_classes
        spread = np.sqrt((self.n_folds * squares - dealt**2).astype(np.float64))
        whole = np.floor(spread * 2.0**_BITS / self.total).astype(np.int64)
        classes = whole[..., :n].sum(-1)
        everything = classes // n + whole[..., n]
        if self.n_genders:
            everything += whole[..., n + 1 :].sum(-1) // self.n_genders
        return classes, everything


class _Deal:
    """The fold of each group, and what folds hold."""

    def __init__(self, table: _Table, order: Sequence[int]) -> None:
        """Deals each group to the fold after which classes vary least."""
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
        """Of classes, and of all."""
        total = self.table.total
        classes, everything = self.table.variations((self.held**2).sum(0), total)
        return int(classes), int(everything)

    def rank(self, limit: int) -> tuple[int, int]:
        """The smaller, the better; classes should not vary more than ``limit``.

        First come classes that folds lack, then how far the limit is passed.
        """
        classes, everything = self.variations()
        lacking = int((self.held[:, : self.table.n_classes + 1] == 0).sum())
        return (lacking << _LACK) + max(0, classes - limit), everything

    def exchange(self, limit: int, looks: int) -> int:
        """Exchange groups, or move them, while that helps; returns the looks taken."""
        table, n = self.table, self.table.n_classes + 1
        n_groups, taken, unchanged, group = len(self.fold), 0, 0, 0
        # A group of nobody in each fold: what is exchanged with it is moved.
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
