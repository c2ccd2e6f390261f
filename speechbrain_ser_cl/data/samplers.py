"""Samplers whose batches depend only on seed and position.

Samplers keep no random state that a checkpoint must save: batch ``k`` of a stream is
the same whether the stream is read from its start or from ``k``, so a resumed run
continues exactly.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from torch.utils.data import Sampler

# Relative jitter of the durations before sorting: it changes which utterances are in
# one batch. One percent of jitter adds about half a percent of padding.
_JITTER = 0.004


class Draw(NamedTuple):
    """One draw of an utterance: its index, and a number that no other draw has."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    number: int


class EpochSampler(Protocol):
    """A batch sampler that a resumed run can continue at any batch."""

    first_batch: int

    @property
    def phase_name(self) -> str:
        """Name of this epoch's batches, such as ``source``."""

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch (1, 2, …)."""


class LengthBucketedStream:
    """An endless stream of batches of utterances of similar length.

    Each pass contains every utterance. Durations are jittered and sorted, the sorted
    list is cut into batches, and the batches are shuffled. If the number of utterances
    is not a multiple of the batch size, neighbouring batches overlap so that every
    batch is full; the overlaps are drawn anew in each pass. No utterance occurs twice
    in a batch.

    Arguments
    ---------
    durations : sequence of float
        Duration of each utterance in seconds; utterance i is at position i.
    batch_size : int
        Utterances per batch, at least 1. Smaller data sets make batches of all
        utterances.
    seed : int
        Seed of the stream.

    Raises
    ------
    ValueError
        If there are no utterances or the batch size is below 1.

    Example
    -------
    >>> stream = LengthBucketedStream([1.0, 5.0, 1.1, 5.1], batch_size=2, seed=0)
    >>> sorted(sorted(stream.batch(k)) for k in range(2))
    [[0, 2], [1, 3]]
    """

    def __init__(self, durations: Sequence[float], batch_size: int, seed: int):
        if len(durations) == 0:
            raise ValueError(
                "A batch stream needs at least one utterance, found none. Check "
                "emotion_map and the split fractions."
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, found {batch_size}.")
        self.durations = np.asarray(durations, dtype=np.float64)
        self.batch_size = min(batch_size, len(self.durations))
        self.seed = seed
        self.batches_per_pass = -(-len(self.durations) // self.batch_size)
        self._pass_number = -1
        self._pass: list[list[int]] = []

    def batch(self, position: int) -> list[int]:
        """Returns the utterance indices of the batch at ``position`` (0, 1, …).

        Arguments
        ---------
        position : int
            Position in the stream, from 0.

        Returns
        -------
        list of int
            Indices into ``durations``.
        """
        pass_number, batch_in_pass = divmod(position, self.batches_per_pass)
        if pass_number != self._pass_number:
            self._pass = self._make_pass(pass_number)
            self._pass_number = pass_number
        return self._pass[batch_in_pass]

    def _make_pass(self, pass_number: int) -> list[list[int]]:
        rng = np.random.default_rng([self.seed, pass_number])
        count = len(self.durations)
        jitter = rng.uniform(1 - _JITTER, 1 + _JITTER, count)
        order = np.argsort(self.durations * jitter)
        starts = np.arange(self.batches_per_pass) * self.batch_size
        surplus = self.batches_per_pass * self.batch_size - count
        overlap = np.sort(rng.integers(surplus + 1, size=self.batches_per_pass))
        overlap[0], overlap[-1] = 0, surplus
        starts -= overlap
        return [
            rng.permutation(order[start : start + self.batch_size]).tolist()
            for start in rng.permutation(starts)
        ]


class Phase(NamedTuple):
    """A number of consecutive batches of one stream.

    Arguments
    ---------
    name : str
        Name for logs.
    indices : sequence of int
        Indices in the data set of the stream's utterances.
    stream : LengthBucketedStream
        Stream of batches.
    n_batches : int
        Batches per phase.
    """

    name: str
    indices: Sequence[int]
    stream: LengthBucketedStream
    n_batches: int


class AlternatingBatchSampler(Sampler[list[Draw]]):
    """Takes one phase per epoch, in turn.

    Epoch 1 takes its batches from the first phase, epoch 2 from the second, and so on.
    A phase's stream continues where it stopped in the previous round.

    An epoch can be resumed at any batch, and each rank of a distributed run takes its
    own batches.

    Arguments
    ---------
    phases : sequence of Phase
        Phases of a round, for example source and target.
    rank : int
        Number of this process, from 0.
    world_size : int
        Number of processes. Each takes ``n_batches`` batches of its own.

    Example
    -------
    >>> source = Phase("s", [0, 1], LengthBucketedStream([1.0, 1.0], 1, seed=0), 2)
    >>> target = Phase("t", [2], LengthBucketedStream([1.0], 1, seed=0), 1)
    >>> sampler = AlternatingBatchSampler([source, target])
    >>> sampler.set_epoch(2)
    >>> [[draw.index for draw in batch] for batch in sampler]
    [[2]]
    """

    def __init__(self, phases: Sequence[Phase], rank: int = 0, world_size: int = 1):
        if not phases:
            raise ValueError("AlternatingBatchSampler needs at least one phase.")
        self.phases = list(phases)
        self.rank = rank
        self.world_size = world_size
        self.first_batch = 0
        self.set_epoch(1)

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch (1, 2, …), which selects phase and round."""
        self.round, self.phase_index = divmod(epoch - 1, len(self.phases))

    @property
    def phase_name(self) -> str:
        """Name of this epoch's phase."""
        return self.phases[self.phase_index].name

    def __len__(self) -> int:
        return self.phases[self.phase_index].n_batches

    def __iter__(self) -> Iterator[list[Draw]]:
        _, indices, stream, n_batches = self.phases[self.phase_index]
        first, self.first_batch = self.first_batch, 0
        for k in range(first, n_batches):
            position = (self.round * n_batches + k) * self.world_size + self.rank
            number = (position * len(self.phases) + self.phase_index) << 20
            yield [
                Draw(indices[i], number + slot)
                for slot, i in enumerate(stream.batch(position))
            ]


class LengthSortedBatches(Sampler[list[int]]):
    """Gives every utterance once, in batches of similar length, for evaluation.

    Arguments
    ---------
    durations : sequence of float
        Duration of each utterance in seconds.
    batch_size : int
        Utterances per batch.

    Example
    -------
    >>> list(LengthSortedBatches([3.0, 1.0, 2.0], batch_size=2))
    [[1, 2], [0]]
    """

    def __init__(self, durations: Sequence[float], batch_size: int):
        self.order = np.argsort(np.asarray(durations), kind="stable").tolist()
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self.order), self.batch_size):
            yield self.order[start : start + self.batch_size]
