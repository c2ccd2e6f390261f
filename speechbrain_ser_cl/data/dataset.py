"""Utterances of an experiment as a data set: whole, in random parts, in views."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.data.samplers import Draw
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.utils.audio import SAMPLE_RATE, load_audio

UNLABELLED = -1
"""The label of an utterance without one."""

Read = Callable[[Utterance], Tensor]
"""What a model gets of an utterance, time first."""

Augment = Callable[[Tensor, int], Tensor | tuple[Tensor, int]]
"""``augment(speech, seed) -> view``, or the view and which pipeline made it."""


def waveform(utterance: Utterance) -> Tensor:
    """Reads the samples (T,) of an utterance, float32 at 16 kHz."""
    return load_audio(utterance.path)


class SpeechBatch(NamedTuple):
    """A batch of B utterances, in V views each.

    Arguments
    ---------
    id : list of str
        Of the utterances, B.
    row : torch.Tensor
        Their places in the data set (B,): ``dataset.items[row]`` has all that is
        known of them.
    label : torch.Tensor
        Their classes (B,); −1: not known.
    domain : torch.Tensor
        Numbers of their corpora (B,), as ``SpeechDataset.corpora`` counts them.
    speech : torch.Tensor
        (V B, T, …): the first view of all of them, then the second, and so on.
    lengths : torch.Tensor
        Relative lengths (V B,).
    pipeline : torch.Tensor
        Which pipeline made each view (V B,); −1: none.

    Example
    -------
    >>> item = {"id": "a", "row": 0, "label": 1, "domain": 0, "pipelines": [-1]}
    >>> batch = pad_to_longest([item | {"views": [torch.ones(2)]}])
    >>> batch.to("cpu").lengths
    tensor([1.])
    """

    id: list[str]
    row: Tensor
    label: Tensor
    domain: Tensor
    speech: Tensor
    lengths: Tensor
    pipeline: Tensor

    def to(self, device: str | torch.device) -> "SpeechBatch":
        """Moves the tensors to a device, the speech in float32."""
        moved: dict[str, Any] = {
            name: part.to(device, non_blocking=True)
            for name, part in self._asdict().items()
            if isinstance(part, Tensor)
        }
        return self._replace(**moved | {"speech": moved["speech"].float()})


class SpeechDataset(Dataset[dict[str, Any]]):
    """Gives what a model reads of each utterance, and what is known about it.

    An index gives the utterance whole and as it is. A :class:`~.samplers.Draw` gives
    ``views`` views: of each a random part of at most ``max_steps`` is taken and then
    augmented. That depends on nothing but the seed and the draw: it is the same in any
    worker, on any rank, and in a run that was killed and resumed. (Bit for bit with the
    same number of torch threads; a worker has one.)

    Arguments
    ---------
    items : sequence of Labelled
        The utterances. Without a label (None) they have the label −1.
    class_names : sequence of str
        Label k is ``class_names[k]``.
    read : callable, optional
        ``read(utterance) -> (T, …)``: its waveform, or features with time first. None:
        nothing is read here; the collate function reads, by the ``"id"``.
    views : int
        How many of each draw.
    augment : callable, optional
        ``augment(speech, seed) -> view``, or the view and the number of the pipeline
        that made it. None: views are parts.
    max_steps : int, optional
        Longest part, in samples or frames as ``read`` gives them. None: no limit.
    places : bool
        Whether each view of a draw gets a random place for
        :func:`crop_or_pad_to_mean`, which cuts it later.
    seed : int
        Of the parts, views and places.
    corpora : sequence of str, optional
        Corpus k has the domain k. None: those of the utterances, sorted.

    Attributes
    ----------
    labels : list of int
        Class of each utterance.
    domains : list of int
        Domain of each utterance.
    durations : list of float
        Seconds of each utterance.

    Raises
    ------
    ValueError
        If an utterance is of none of the classes or corpora.

    Example
    -------
    >>> utterance = Utterance(id="toy_1", path="1.wav", duration=1.0, corpus="toy",
    ...     speaker="toy_s1", session=None, gender=None, language="en", text_id=None,
    ...     emotion="sad")
    >>> items = [Labelled(utterance, "low")]
    >>> dataset = SpeechDataset(items, ["low"], lambda u: torch.arange(9), max_steps=3)
    >>> dataset[0]["views"][0].shape, dataset[0]["label"]
    (torch.Size([9]), 0)
    >>> dataset[Draw(index=0, number=1)]["views"]
    [tensor([3, 4, 5])]
    >>> dataset.items[dataset[0]["row"]].utterance.speaker
    'toy_s1'
    """

    def __init__(
        self,
        items: Sequence[Labelled],
        class_names: Sequence[str],
        read: Read | None = waveform,
        *,
        views: int = 1,
        augment: Augment | None = None,
        max_steps: int | None = None,
        places: bool = False,
        seed: int = 0,
        corpora: Sequence[str] | None = None,
    ) -> None:
        self.items = items
        self.class_names = list(class_names)
        self.corpora = list(corpora or sorted({i.utterance.corpus for i in items}))
        self.labels = _numbers(
            [item.label for item in items],
            {None: UNLABELLED} | {c: k for k, c in enumerate(class_names)},
            "class",
        )
        self.domains = _numbers(
            [item.utterance.corpus for item in items],
            {name: k for k, name in enumerate(self.corpora)},
            "corpus",
        )
        self.durations = [item.utterance.duration for item in items]
        self.read, self.views, self.augment = read, views, augment
        self.max_steps, self.places, self.seed = max_steps, places, seed

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, where: int | Draw) -> dict[str, Any]:
        index = where.index if isinstance(where, Draw) else where
        utterance = self.items[index].utterance
        item = {
            "id": utterance.id,
            "row": index,
            "label": self.labels[index],
            "domain": self.domains[index],
        }
        if self.read is None:
            return item
        speech = self.read(utterance)
        if not isinstance(where, Draw):
            return item | {"views": [speech], "pipelines": [-1]}
        rng = np.random.default_rng([self.seed, where.number])
        views, pipelines, places = [], [], []
        for _ in range(self.views):
            view, pipeline = self._part(speech, rng), -1
            if self.augment is not None:
                made = self.augment(view, int(rng.integers(2**31)))
                view, pipeline = made if isinstance(made, tuple) else (made, -1)
            views.append(view)
            pipelines.append(pipeline)
            if self.places:
                places.append(rng.random())
        return item | {"views": views, "pipelines": pipelines, "places": places}

    def _part(self, speech: Tensor, rng: np.random.Generator) -> Tensor:
        if self.max_steps is None or len(speech) <= self.max_steps:
            return speech
        start = int(rng.integers(len(speech) - self.max_steps + 1))
        return speech[start : start + self.max_steps]


def steps_of(max_seconds: float | None, hop: int = 1) -> int | None:
    """Counts the steps of some seconds, for ``max_steps``.

    Arguments
    ---------
    max_seconds : float or None
        None: no limit.
    hop : int
        Samples at 16 kHz per step: 1 for waveforms.

    Returns
    -------
    int or None

    Example
    -------
    >>> steps_of(1.5), steps_of(1.5, hop=320), steps_of(None)
    (24000, 75, None)
    """
    return None if max_seconds is None else round(max_seconds * SAMPLE_RATE / hop)


def middle(speech: Tensor, max_steps: int | None) -> Tensor:
    """Takes the middle of what is longer than so many steps; None: no limit.

    Example
    -------
    >>> middle(torch.arange(6), 3)
    tensor([1, 2, 3])
    """
    surplus = 0 if max_steps is None else max(0, len(speech) - max_steps)
    return speech[surplus // 2 : len(speech) - (surplus + 1) // 2]


def without_labels(items: Sequence[Labelled]) -> list[Labelled]:
    """Removes the labels, so that nothing later can use the class.

    Example
    -------
    >>> without_labels([])
    []
    """
    return [item._replace(label=None) for item in items]  # type: ignore[arg-type]


def pad_to_longest(items: Sequence[dict[str, Any]]) -> SpeechBatch:
    """Makes a batch that pads its views with zeros to the longest.

    Arguments
    ---------
    items : sequence of dict
        What :class:`SpeechDataset` gives.

    Returns
    -------
    SpeechBatch
        In the type that was read; ``to`` makes it float32.

    Example
    -------
    >>> about = {"id": "a", "row": 0, "label": 0, "domain": 0, "pipelines": [-1]}
    >>> items = [about | {"views": [torch.ones(n)]} for n in (2, 1)]
    >>> pad_to_longest(items).speech.tolist()
    [[1.0, 1.0], [1.0, 0.0]]
    """
    views = _by_view(items, "views")
    return _padded(items, views, max(map(len, views)))


def crop_or_pad_to_mean(
    items: Sequence[dict[str, Any]], max_steps: int | None = None
) -> SpeechBatch:
    """Makes a batch as long as its views are on average.

    Longer views are cut to a random part, shorter ones are padded with zeros (NTUA
    thesis, section 4.3.2.1).

    Arguments
    ---------
    items : sequence of dict
        What a :class:`SpeechDataset` with ``places`` gives for draws.
    max_steps : int, optional
        Longest batch. None: no limit.

    Returns
    -------
    SpeechBatch
        In the type that was read; ``to`` makes it float32.

    Example
    -------
    >>> about = {"id": "a", "row": 0, "label": 0, "domain": 0, "pipelines": [-1]}
    >>> batch = crop_or_pad_to_mean([
    ...     about | {"views": [torch.arange(1.0, 6.0)], "places": [0.5]},
    ...     about | {"views": [torch.ones(1)], "places": [0.9]},
    ... ])
    >>> batch.speech.tolist(), batch.lengths
    ([[2.0, 3.0, 4.0], [1.0, 0.0, 0.0]], tensor([1.0000, 0.3333]))
    """
    views, places = _by_view(items, "views"), _by_view(items, "places")
    n_steps = round(sum(map(len, views)) / len(views))
    if max_steps is not None:
        n_steps = min(n_steps, max_steps)
    cut = []
    for view, place in zip(views, places, strict=True):
        start = int(place * max(0, len(view) - n_steps + 1))
        cut.append(view[start : start + n_steps])
    return _padded(items, cut, n_steps)


def _numbers(
    names: Sequence[str | None], known: dict[str | None, int], what: str
) -> list[int]:
    unknown = sorted({str(name) for name in names if name not in known})
    if unknown:
        raise ValueError(
            f"utterances of {what} {', '.join(unknown)}, expected "
            f"{', '.join(filter(None, known))}"
        )
    return [known[name] for name in names]


def _by_view(items: Sequence[dict[str, Any]], key: str) -> list[Any]:
    """Orders views: the first of each item, then the second, and so on."""
    return [item[key][k] for k in range(len(items[0][key])) for item in items]


def _padded(
    items: Sequence[dict[str, Any]], views: list[Tensor], n_steps: int
) -> SpeechBatch:
    speech = views[0].new_zeros(len(views), n_steps, *views[0].shape[1:])
    for row, view in zip(speech, views, strict=True):
        row[: len(view)] = view
    about = {
        name: torch.tensor([item[name] for item in items])
        for name in ("row", "label", "domain")
    }
    return SpeechBatch(
        id=[item["id"] for item in items],
        speech=speech,
        lengths=torch.tensor([len(view) / n_steps for view in views]),
        pipeline=torch.tensor(_by_view(items, "pipelines")),
        **about,
    )
