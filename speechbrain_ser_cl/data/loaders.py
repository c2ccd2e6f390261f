"""Makes loaders of a :class:`~.dataset.SpeechDataset`."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from speechbrain.utils.distributed import get_rank
from torch.utils.data import DataLoader

from speechbrain_ser_cl.data.dataset import SpeechBatch, SpeechDataset, pad_to_longest
from speechbrain_ser_cl.data.samplers import (
    AlternatingBatchSampler,
    Draw,
    LengthBucketedStream,
    LengthSortedBatches,
    Phase,
)


def rank_and_world_size() -> tuple[int, int]:
    """Returns the number of this process and the number of processes.

    Example
    -------
    >>> rank_and_world_size()
    (0, 1)
    """
    return get_rank() or 0, int(os.environ.get("WORLD_SIZE", 1))


def make_phase(
    dataset: SpeechDataset,
    batch_size: int,
    seed: int,
    n_batches: int | None = None,
    *,
    name: str = "train",
    indices: Sequence[int] | None = None,
    bucketing: bool = False,
    max_seconds: float | None = None,
) -> Phase:
    """Makes a phase: the batches of an epoch from a data set, or from a part of it.

    Arguments
    ---------
    dataset : SpeechDataset
        The data set.
    batch_size : int
        Utterances per batch.
    seed : int
        Seed of the batches.
    n_batches : int, optional
        Batches per epoch and process. None: as many as pass once through the data.
    name : str
        Name for logs.
    indices : sequence of int, optional
        Utterances of the phase. None: all.
    bucketing : bool
        True: batches of similar length. False: random batches.
    max_seconds : float, optional
        Longer utterances are cut to this length, which also determines their bucket.

    Returns
    -------
    Phase

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import Utterance
    >>> from speechbrain_ser_cl.data.splits import Labelled
    >>> items = [Labelled(Utterance(id=f"toy_{n}", path="1.wav", duration=1.0,
    ...     corpus="toy", speaker=None, session=None, gender=None, language="en",
    ...     text_id=None, emotion="sad"), "low") for n in range(5)]
    >>> make_phase(SpeechDataset(items, ["low"]), batch_size=2, seed=0).n_batches
    3
    """
    indices = range(len(dataset)) if indices is None else indices
    # Equal lengths: batches are random.
    seconds = [1.0] * len(indices)
    if bucketing:
        longest = float("inf") if max_seconds is None else max_seconds
        seconds = [min(dataset.durations[i], longest) for i in indices]
    stream = LengthBucketedStream(seconds, batch_size, seed)
    _, world_size = rank_and_world_size()
    n_batches = n_batches or -(-stream.batches_per_pass // world_size)
    return Phase(name, indices, stream, n_batches)


def make_loader(
    dataset: SpeechDataset,
    batches: Iterable[Sequence[Any]],
    options: Mapping[str, Any],
    collate: Callable[[list[dict[str, Any]]], Any] = pad_to_longest,
) -> DataLoader[Any]:
    """Makes a loader of the batches of a sampler or list.

    Arguments
    ---------
    dataset : SpeechDataset
        The data set.
    batches : iterable
        Batches of indices or draws.
    options : mapping
        Options of ``DataLoader``, the YAML's ``loader_options``.
    collate : callable
        Makes a batch of items.

    Returns
    -------
    DataLoader

    Example
    -------
    >>> items = [{"id": "a", "row": 0, "label": 0, "domain": 0,
    ...     "views": [__import__("torch").ones(3)], "pipelines": [-1]}]
    >>> [batch.id for batch in make_loader(items, [[0]], {"num_workers": 0})]
    [['a']]
    """
    return DataLoader(
        dataset,
        batch_sampler=batches,  # type: ignore[arg-type]
        collate_fn=collate,
        **options,
    )


def training_loader(
    dataset: SpeechDataset,
    phases: Phase | Sequence[Phase],
    options: Mapping[str, Any],
    collate: Callable[[list[dict[str, Any]]], Any] = pad_to_longest,
) -> DataLoader[Any]:
    """Makes a training loader that takes one phase per epoch, in turn.

    Each process takes its own batches.

    Arguments
    ---------
    dataset : SpeechDataset
        The data set.
    phases : Phase or sequence of Phase
        From :func:`make_phase`.
    options, collate
        As for :func:`make_loader`.

    Returns
    -------
    DataLoader
        Its ``batch_sampler`` is the ``sampler`` of ``SERBrain``.

    Example
    -------
    ``training_loader(data, make_phase(data, 16, seed), hparams["loader_options"])``
    """
    phases = [phases] if isinstance(phases, Phase) else phases
    sampler = AlternatingBatchSampler(phases, *rank_and_world_size())
    return make_loader(dataset, sampler, options, collate)


def whole_loader(
    dataset: SpeechDataset,
    batch_size: int,
    options: Mapping[str, Any],
    collate: Callable[[list[dict[str, Any]]], Any] = pad_to_longest,
) -> DataLoader[Any]:
    """Makes a loader of all utterances, whole, in batches of similar length.

    Arguments
    ---------
    dataset : SpeechDataset
        The data set.
    batch_size : int
        Utterances per batch.
    options, collate
        As for :func:`make_loader`.

    Returns
    -------
    DataLoader

    Example
    -------
    ``whole_loader(SpeechDataset(parts["test"], classes), 32, {"num_workers": 2})``
    """
    sampler = LengthSortedBatches(dataset.durations, batch_size)
    return make_loader(dataset, sampler, options, collate)


def fixed_loader(
    dataset: SpeechDataset, batch_size: int, seed: int, options: Mapping[str, Any]
) -> DataLoader[Any]:
    """Makes a loader with the same views and random batches in each epoch.

    This makes validation losses comparable between epochs.

    Arguments
    ---------
    dataset : SpeechDataset
        The data set; utterance i has draw number i.
    batch_size : int
        Approximate number of utterances per batch; batches have nearly equal sizes.
    seed : int
        Seed of the batches.
    options : mapping
        As for :func:`make_loader`.

    Returns
    -------
    DataLoader

    Example
    -------
    ``fixed_loader(SpeechDataset(parts["valid"], classes, views=2), 32, seed, options)``
    """
    order = np.random.default_rng(seed).permutation(len(dataset))
    some = np.array_split(order, max(1, round(len(order) / batch_size)))
    batches = [[Draw(int(i), int(i)) for i in rows] for rows in some]
    return make_loader(dataset, batches, options)


def domain_loaders(
    dataset: SpeechDataset, most: int
) -> dict[int, Iterator[SpeechBatch]]:
    """Selects evenly spaced utterances of each domain, in batches of one.

    Arguments
    ---------
    dataset : SpeechDataset
        The data set.
    most : int
        Maximum per domain.

    Returns
    -------
    dict
        Domain to its batches, for ``SERBrain.calibrate``.

    Example
    -------
    ``brain.calibrate(encoder, domain_loaders(train.dataset, most=256))``
    """
    rows: dict[int, list[int]] = {n: [] for n in range(len(dataset.corpora))}
    for i, domain in enumerate(dataset.domains):
        rows[domain].append(i)
    return {
        n: (pad_to_longest([dataset[i]]) for i in some[:: -(-len(some) // most)])
        for n, some in rows.items()
        if some
    }
