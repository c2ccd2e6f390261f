"""Utterances of an experiment as a dataset, whole or in random parts."""

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.data.samplers import Draw
from speechbrain_ser_cl.data.splits import Labelled


class LabelledSpeech(Dataset):
    """What a model reads of each utterance, and the class of the utterance.

    An index gives the whole utterance. A :class:`~.samplers.Draw` gives a random part
    of at most ``max_steps``, which depends on nothing but the seed and the draw: it is
    the same in any worker, on any rank, and in a run that was killed and resumed.

    Arguments
    ---------
    items : sequence of Labelled
        The utterances.
    class_names : sequence of str
        Label k is ``class_names[k]``.
    read : callable
        ``read(utterance) -> (T, ...)``: its waveform, or features with time first.
    max_steps : int, optional
        Longest part, in samples or frames as ``read`` gives them. None: no limit.
    seed : int
        Of the parts.

    Raises
    ------
    ValueError
        If an utterance is of none of the classes.

    Example
    -------
    >>> import torch
    >>> from speechbrain_ser_cl.corpora import Utterance
    >>> utterance = Utterance(id="toy_1", path="1.wav", duration=1.0, corpus="toy",
    ...     speaker="toy_s1", session=None, gender=None, language="en", text_id=None,
    ...     emotion="sad")
    >>> items = [Labelled(utterance, "low")]
    >>> dataset = LabelledSpeech(
    ...     items, ["low"], lambda u: torch.arange(9), max_steps=3
    ... )
    >>> dataset[0]["speech"].shape, dataset[0]["label"]
    (torch.Size([9]), 0)
    >>> dataset[Draw(index=0, number=1)]["speech"]
    tensor([3, 4, 5])
    """

    def __init__(
        self,
        items: Sequence[Labelled],
        class_names: Sequence[str],
        read: Callable[[Utterance], Tensor],
        max_steps: int | None = None,
        seed: int = 0,
    ):
        self.items = items
        index = {name: k for k, name in enumerate(class_names)}
        unknown = sorted({item.label for item in items} - set(index))
        if unknown:
            raise ValueError(
                f"utterances of class {', '.join(unknown)}, expected "
                f"{', '.join(class_names)}"
            )
        self.labels = [index[item.label] for item in items]
        self.read = read
        self.max_steps = max_steps
        self.seed = seed

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, where: int | Draw) -> dict:
        drawn = isinstance(where, Draw)
        index = where.index if drawn else where
        utterance = self.items[index].utterance
        speech = self.read(utterance)
        if drawn and self.max_steps is not None and len(speech) > self.max_steps:
            rng = np.random.default_rng([self.seed, where.number])
            start = rng.integers(len(speech) - self.max_steps + 1)
            speech = speech[start : start + self.max_steps]
        return {
            "id": utterance.id,
            "speech": speech,
            "label": self.labels[index],
            "corpus": utterance.corpus,
        }

    @property
    def corpora(self) -> list[str]:
        """Corpus of each utterance."""
        return [item.utterance.corpus for item in self.items]

    @property
    def durations(self) -> list[float]:
        """Seconds of each utterance."""
        return [item.utterance.duration for item in self.items]
