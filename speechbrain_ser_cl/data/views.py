"""Augmented views of the utterances of a dataset."""

from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import Dataset

from speechbrain_ser_cl.data.samplers import Draw


class AugmentedViews(Dataset):
    """Two augmented views of each utterance drawn from a dataset.

    Every view is made before padding, on the utterance alone, from a random state
    that depends on nothing but the seed and the draw: the same draw gives the same
    views in any worker, on any rank, and in a run that was killed and resumed. (Bit
    for bit with the same number of torch threads; a worker has one.)

    Arguments
    ---------
    dataset : Dataset
        Gives for an index a dict with ``"sig"``, the waveform (T,) at 16 kHz.
    augment : callable
        ``augment(wav, seed) -> (view, pipeline)``: a view of the waveform of the same
        length and which pipeline (int) made it.
    seed : int
        Seed of all views.
    max_seconds : float, optional
        Views are made from a random part of this length where the utterance is longer,
        each view from its own part. None takes the whole utterance.

    Example
    -------
    >>> views = AugmentedViews(
    ...     [{"id": "a", "sig": torch.ones(8)}], lambda wav, seed: (-wav, 3), seed=0
    ... )
    >>> item = views[Draw(index=0, number=17)]
    >>> item["view_b"].sum(), item["pipeline_b"]
    (tensor(-8.), 3)
    """

    def __init__(
        self,
        dataset: Dataset,
        augment: Callable[[torch.Tensor, int], tuple[torch.Tensor, int]],
        seed: int,
        max_seconds: float | None = None,
    ):
        self.dataset = dataset
        self.augment = augment
        self.seed = seed
        self.max_samples = None if max_seconds is None else round(max_seconds * 16000)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw) -> dict:
        item = dict(self.dataset[draw.index])
        wav = item.pop("sig")
        rng = np.random.default_rng([self.seed, draw.number])
        for view in ("a", "b"):
            part = self._random_part(wav, rng)
            item[f"view_{view}"], item[f"pipeline_{view}"] = self.augment(
                part, int(rng.integers(2**31))
            )
        return item

    def _random_part(self, wav: torch.Tensor, rng: np.random.Generator):
        if self.max_samples is None or len(wav) <= self.max_samples:
            return wav
        start = rng.integers(len(wav) - self.max_samples + 1)
        return wav[start : start + self.max_samples]
