"""Views of features, in batches of the mean length of their utterances."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.data.samplers import Draw
from speechbrain_ser_cl.data.splits import Labelled


class FeatureBatch(NamedTuple):
    """A batch of B utterances, in V views each.

    Arguments
    ---------
    id : list of str
        Of the utterances, B.
    label : torch.Tensor
        Their classes (B,).
    features : torch.Tensor
        (V B, T, ...): the first view of all of them, then the second.
    lengths : torch.Tensor
        Relative lengths (V B,).
    """

    id: list[str]
    label: Tensor
    features: Tensor
    lengths: Tensor


class FeatureViews(Dataset[dict[str, Any]]):
    """Features of utterances, as they are or in augmented views.

    An index gives the features as they are. A :class:`~.samplers.Draw` gives ``views``
    views, each augmented on its own, from a random state that depends on nothing but
    the seed and the draw: the same in any worker, on any rank, and in a run that was
    killed and resumed.

    Arguments
    ---------
    items : sequence of Labelled
        The utterances.
    class_names : sequence of str
        Label k is ``class_names[k]``.
    read : callable
        ``read(utterance) -> (T, ...)``: features with time first.
    views : int
        How many of each draw.
    augment : callable, optional
        ``augment(features, seed) -> features``, of whatever length. None: views differ
        only in what :func:`crop_or_pad_to_mean` takes of them.
    seed : int
        Of all views.

    Example
    -------
    >>> utterance = Utterance(id="toy_1", path="1.wav", duration=1.0, corpus="toy",
    ...     speaker="toy_s1", session=None, gender=None, language="en", text_id=None,
    ...     emotion="sad")
    >>> dataset = FeatureViews(
    ...     [Labelled(utterance, "low")], ["low"], lambda u: torch.ones(5), views=2,
    ...     augment=lambda x, seed: x * (seed % 10),
    ... )
    >>> [view.tolist() for view in dataset[Draw(0, number=7)]["views"]]
    [[6.0, 6.0, 6.0, 6.0, 6.0], [5.0, 5.0, 5.0, 5.0, 5.0]]
    >>> len(dataset[0]["views"])
    1
    """

    def __init__(
        self,
        items: Sequence[Labelled],
        class_names: Sequence[str],
        read: Callable[[Utterance], Tensor],
        views: int = 1,
        augment: Callable[[Tensor, int], Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        self.items = items
        self.labels = [list(class_names).index(item.label) for item in items]
        self.read = read
        self.views = views
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, where: int | Draw) -> dict[str, Any]:
        index = where.index if isinstance(where, Draw) else where
        utterance = self.items[index].utterance
        item = {"id": utterance.id, "label": self.labels[index]}
        features = self.read(utterance)
        if not isinstance(where, Draw):
            return item | {"views": [features]}
        rng = np.random.default_rng([self.seed, where.number])
        views, places = [], []
        for _ in range(self.views):
            if self.augment is None:
                views.append(features)
            else:
                views.append(self.augment(features, int(rng.integers(2**31))))
            places.append(rng.random())
        return item | {"views": views, "places": places}

    @property
    def durations(self) -> list[float]:
        """Seconds of each utterance."""
        return [item.utterance.duration for item in self.items]


def crop_or_pad_to_mean(
    items: Sequence[dict[str, Any]], max_steps: int | None = None
) -> FeatureBatch:
    """Makes a batch as long as its views are on average.

    Longer views are cut to a random part, shorter ones are padded with zeros (NTUA
    thesis, section 4.3.2.1).

    Arguments
    ---------
    items : sequence of dict
        What :class:`FeatureViews` gives for draws.
    max_steps : int, optional
        Longest batch. None: no limit.

    Returns
    -------
    FeatureBatch
        Its features are float32.

    Example
    -------
    >>> items = [
    ...     {"id": "a", "label": 0, "views": [torch.arange(1.0, 6.0)], "places": [0.5]},
    ...     {"id": "b", "label": 1, "views": [torch.ones(1)], "places": [0.9]},
    ... ]
    >>> batch = crop_or_pad_to_mean(items)
    >>> batch.features.tolist(), batch.lengths
    ([[2.0, 3.0, 4.0], [1.0, 0.0, 0.0]], tensor([1.0000, 0.3333]))
    """
    views = [view for k in range(len(items[0]["views"])) for view in _nth(items, k)]
    places = [
        item["places"][k] for k in range(len(items[0]["views"])) for item in items
    ]
    n_steps = round(sum(map(len, views)) / len(views))
    if max_steps is not None:
        n_steps = min(n_steps, max_steps)
    cut = []
    for view, place in zip(views, places, strict=True):
        start = int(place * max(0, len(view) - n_steps + 1))
        cut.append(view[start : start + n_steps])
    return _padded(items, cut, n_steps)


def pad_to_longest(items: Sequence[dict[str, Any]]) -> FeatureBatch:
    """Makes a batch of whole utterances.

    Arguments
    ---------
    items : sequence of dict
        What :class:`FeatureViews` gives.

    Returns
    -------
    FeatureBatch
        Its features are float32.

    Example
    -------
    >>> items = [{"id": "a", "label": 0, "views": [torch.ones(2)]},
    ...     {"id": "b", "label": 1, "views": [torch.ones(1)]}]
    >>> pad_to_longest(items).features.tolist()
    [[1.0, 1.0], [1.0, 0.0]]
    """
    views = [view for k in range(len(items[0]["views"])) for view in _nth(items, k)]
    return _padded(items, views, max(map(len, views)))


def _nth(items: Sequence[dict[str, Any]], k: int) -> list[Tensor]:
    return [item["views"][k] for item in items]


def _padded(
    items: Sequence[dict[str, Any]], views: list[Tensor], n_steps: int
) -> FeatureBatch:
    features = torch.zeros(len(views), n_steps, *views[0].shape[1:])
    for row, view in zip(features, views, strict=True):
        row[: len(view)] = view
    return FeatureBatch(
        id=[item["id"] for item in items],
        label=torch.tensor([item["label"] for item in items]),
        features=features,
        lengths=torch.tensor([len(view) / n_steps for view in views]),
    )
