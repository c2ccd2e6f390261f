"""Batches around one emotion, for contrast between corpora."""

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

import numpy as np
from torch.utils.data import Sampler

from speechbrain_ser_cl.data.samplers import Draw


class EmotionBatchSampler(Sampler[list[Draw]]):
    """Samples batches: one half has one emotion, the other half other emotions.

    For each batch an emotion e is drawn uniformly. N/2 positives have e, equally many
    from each corpus that has e: N/4 from each of two corpora, or N/2 from one. N/2
    negatives have other emotions, equally many from each corpus. Remainders go to
    corpora drawn for that batch. Figures 2 and 3 of the paper on cross-corpus speech
    emotion recognition by supervised contrastive learning (IEMOCAP and CASIA).

    Utterances are drawn without repetition until all were used, across epochs:
    positives per corpus and emotion, negatives per corpus (utterances with e are
    skipped). No utterance occurs twice in a step, that is, in the batches of all ranks
    at the same time. An epoch depends only on the arguments and its number, and can be
    resumed at any batch.

    Arguments
    ---------
    emotions : sequence of str
        Emotion of each utterance; utterance i is at position i.
    corpora : sequence of str
        Corpus of each utterance. Corpora may have different emotions.
    batch_size : int
        N, a multiple of 4, because a margin loss splits the positives into halves.
    n_batches : int
        Batches per epoch and rank.
    seed : int
        Seed of the batches.
    replacement : bool
        What to do if a corpus has fewer utterances of an emotion than a step needs.
        False: raise an error. True: repeat them in the step, as evenly as possible.
    rank : int
        Number of this process, from 0.
    world_size : int
        Number of processes.

    Attributes
    ----------
    first_batch : int
        First batch of the next epoch, for resuming.

    Raises
    ------
    ValueError
        If the batch size is not a multiple of 4, there are fewer than two emotions, or,
        without replacement, too few utterances. The message names corpus, emotion and
        numbers.

    Example
    -------
    >>> emotions = ["sad", "happy", "angry", "sad", "happy", "sad", "happy", "happy"]
    >>> corpora = ["a", "a", "a", "a", "b", "b", "b", "b"]
    >>> sampler = EmotionBatchSampler(
    ...     emotions, corpora, batch_size=4, n_batches=2, seed=1, replacement=True
    ... )
    >>> for batch in sampler:
    ...     print([emotions[draw.index] for draw in batch])
    ['happy', 'happy', 'sad', 'sad']
    ['sad', 'sad', 'happy', 'happy']
    """

    phase_name = "contrast"

    def __init__(
        self,
        emotions: Sequence[str],
        corpora: Sequence[str],
        batch_size: int,
        n_batches: int,
        seed: int,
        replacement: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ):
        if batch_size < 4 or batch_size % 4:
            raise ValueError(
                f"batch_size is {batch_size}, expected a multiple of 4: half of the "
                "batch are positives, and these are split into two halves."
            )
        self.emotions = list(emotions)
        # Indices of utterances by corpus, and by corpus and emotion.
        self._pools: dict[str | tuple[str, str], list[int]] = defaultdict(list)
        for i, (corpus, emotion) in enumerate(zip(corpora, emotions, strict=True)):
            self._pools[corpus].append(i)
            self._pools[corpus, emotion].append(i)
        self.emotion_names = sorted(set(emotions))
        if len(self.emotion_names) < 2:
            raise ValueError(
                "Contrast needs at least two emotions, found "
                f"{', '.join(self.emotion_names) or 'no utterance'}. Check emotion_map."
            )
        names = sorted(set(corpora))
        self._having = {
            e: [c for c in names if (c, e) in self._pools] for e in self.emotion_names
        }
        self._having_others = {
            e: [c for c in names if self._others(c, e)] for e in self.emotion_names
        }
        self.batch_size = batch_size
        self.n_batches = n_batches
        self.seed = seed
        self.replacement = replacement
        self.rank = rank
        self.world_size = world_size
        self._short = self._too_few()
        if self._short and not replacement:
            raise ValueError(
                f"Too few utterances for batches of {batch_size}"
                + f" on {world_size} processes" * (world_size > 1)
                + f": {'; '.join(self._short.values())}. Lower batch_size, or set "
                "replacement: True to take some more than once."
            )
        self.first_batch = 0
        self._dealt_epochs = -1  # _start is not called yet
        self.set_epoch(1)

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch (1, 2, …)."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[list[Draw]]:
        first, self.first_batch = self.first_batch, 0
        steps = self._epoch_steps()
        for k in range(first, self.n_batches):
            position = (self.epoch - 1) * self.n_batches + k
            number = (position * self.world_size + self.rank) << 20
            yield [
                Draw(int(index), number + slot)
                for slot, index in enumerate(steps[k][self.rank])
            ]

    def _epoch_steps(self) -> list[list[list[int]]]:
        """Returns, for each step of the epoch, the batches of all ranks."""
        if not 0 <= self._dealt_epochs <= self.epoch:
            self._start()
        while self._dealt_epochs < self.epoch:
            self._steps = [self._deal_step() for _ in range(self.n_batches)]
            self._dealt_epochs += 1
        return self._steps

    def _start(self) -> None:
        """Shuffles all decks: positives by corpus and emotion, negatives by corpus."""
        self._rng = np.random.default_rng(self.seed)
        self._decks = {
            key: _Deck(cards, self._rng) for key, cards in self._pools.items()
        }
        self._dealt_epochs = 0

    def _deal_step(self) -> list[list[int]]:
        """Draws a batch for each rank: positives of all ranks first, then negatives."""
        drawn = [
            self.emotion_names[self._rng.integers(len(self.emotion_names))]
            for _ in range(self.world_size)
        ]
        used: set[int] = set()
        batches = []
        for emotion in drawn:
            positives = []
            for corpus, count in self._shares(self._having[emotion]):
                scarce = (corpus, emotion) in self._short
                deck = self._decks[corpus, emotion]
                positives += deck.deal(count, None if scarce else used)
            batches.append(self._rng.permutation(positives).tolist())
            used.update(positives)
        for emotion, batch in zip(drawn, batches, strict=True):
            negatives = []
            for corpus, count in self._shares(self._having_others[emotion]):
                scarce = (corpus, f"not {emotion}") in self._short
                negatives += self._decks[corpus].deal(
                    count,
                    None if scarce else used,
                    partial(self._is_other, emotion),
                )
            batch += self._rng.permutation(negatives).tolist()
            used.update(negatives)
        return batches

    def _shares(self, corpora: Sequence[str]) -> list[tuple[str, int]]:
        """Divides half a batch among the corpora."""
        each, rest = divmod(self.batch_size // 2, len(corpora))
        order = self._rng.permutation(len(corpora))
        return [
            (corpus, each + int(place < rest))
            for corpus, place in zip(corpora, order, strict=True)
        ]

    def _is_other(self, emotion: str, card: int) -> bool:
        return self.emotions[card] != emotion

    def _others(self, corpus: str, emotion: str) -> int:
        """Counts the utterances of a corpus without an emotion."""
        return len(self._pools[corpus]) - len(self._pools.get((corpus, emotion), ()))

    def _too_few(self) -> dict[tuple[str, str], str]:
        """Finds groups that are too small for a step."""
        half, ranks = self.batch_size // 2, self.world_size
        short = {}
        for emotion in self.emotion_names:
            having, others = self._having[emotion], self._having_others[emotion]
            positives, negatives = -(-half // len(having)), -(-half // len(others))
            # Worst case: all ranks draw this emotion, or the other ranks draw other
            # emotions whose positives are then missing as negatives.
            pools = [
                (c, emotion, len(self._pools[c, emotion]), ranks * positives)
                for c in having
            ]
            pools += [
                (
                    c,
                    f"not {emotion}",
                    self._others(c, emotion),
                    ranks * negatives + (ranks - 1) * half,
                )
                for c in others
            ]
            for corpus, what, found, least in pools:
                if found < least:
                    short[corpus, what] = (
                        f"{corpus} has {found} that are {what}, a step may take {least}"
                    )
        return short


class _Deck:
    """Indices in random order; each is dealt once before any repeats."""

    def __init__(self, cards: Sequence[int], rng: np.random.Generator):
        self.cards = cards
        self.rng = rng
        self.pile: deque[int] = deque()

    def deal(
        self,
        count: int,
        used: Collection[int] | None,
        wanted: Callable[[int], bool] = lambda card: True,
    ) -> list[int]:
        """Deals the next wanted cards not in ``used`` (None: repeats are allowed)."""
        dealt: list[int] = []
        kept: list[int] = []
        while len(dealt) < count:
            if not self.pile:
                self.pile.extend(self.rng.permutation(self.cards).tolist())
            card = self.pile.popleft()
            again = used is not None and (card in used or card in dealt)
            (kept if again or not wanted(card) else dealt).append(card)
        self.pile.extendleft(reversed(kept))
        return dealt
