"""A data set of utterances: whole, as random parts, or as several views."""

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
"""Label of an utterance without a class."""

Read = Callable[[Utterance], Tensor]
"""Input of a model for one utterance: a tensor, time first."""

Augment = Callable[[Tensor, int], Tensor | tuple[Tensor, int]]
"""``augment(speech, seed) -> view``, or the view and the number of its pipeline."""


def waveform(utterance: Utterance) -> Tensor:
    """Reads the samples (T,) of an utterance, float32 at 16 kHz."""
    return load_audio(utterance.path)


class SpeechBatch(NamedTuple):
    """A batch of B utterances with V views each.

    Arguments
    ---------
    id : list of str
        Ids of the B utterances.
    row : torch.Tensor
        Indices into the data set (B,): ``dataset.items[row]`` has all facts about them.
    label : torch.Tensor
        Classes (B,); −1: unknown.
    domain : torch.Tensor
        Numbers of the corpora (B,): indices into ``SpeechDataset.corpora``.
    speech : torch.Tensor
        (V B, T, …): first view of all utterances, then second view, and so on.
    lengths : torch.Tensor
        Relative lengths (V B,).
    pipeline : torch.Tensor
        Number of the pipeline of each view (V B,); −1: none.

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
        """Moves the tensors to a device and converts the speech to float32."""
        moved: dict[str, Any] = {
            name: part.to(device, non_blocking=True)
            for name, part in self._asdict().items()
            if isinstance(part, Tensor)
        }
        return self._replace(**moved | {"speech": moved["speech"].float()})


class SpeechDataset(Dataset[dict[str, Any]]):
    """Returns the model input of each utterance, with its label, domain and id.

    An index returns the whole utterance, not augmented. A :class:`~.samplers.Draw`
    returns ``views`` views: each is a random part of at most ``max_steps``, then
    augmented. Views depend only on the seed and the draw, so they are the same in any
    worker, on any rank, and in a resumed run (bit for bit with the same number of torch
    threads; a worker has one).

    Arguments
    ---------
    items : sequence of Labelled
        Utterances. A label of None becomes −1.
    class_names : sequence of str
        Name of class k is ``class_names[k]``.
    read : callable, optional
        ``read(utterance) -> (T, …)``: waveform or features, time first. None: the data
        set reads nothing, and the collate function reads by ``"id"``.
    views : int
        Number of views per draw.
    augment : callable, optional
        ``augment(speech, seed) -> view``, or the view and the number of the pipeline.
        None: views are not augmented.
    max_steps : int, optional
        Longest part, in samples or frames of ``read``. None: no limit.
    places : bool
        Whether each view of a draw has a random position, for
        :func:`crop_or_pad_to_mean`, which cuts the view.
    seed : int
        Seed of parts, views and positions.
    corpora : sequence of str, optional
        Corpus k has domain k. None: the corpora of the utterances, sorted.

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
        If an utterance has another class or corpus.

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
    """Converts seconds to steps, for ``max_steps``.

    Arguments
    ---------
    max_seconds : float or None
        None: no limit.
    hop : int
        Samples at 16 kHz per step; 1 for waveforms.

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
    """Returns the middle part of speech longer than a limit; None: no limit.

    Example
    -------
    >>> middle(torch.arange(6), 3)
    tensor([1, 2, 3])
    """
    surplus = 0 if max_steps is None else max(0, len(speech) - max_steps)
    return speech[surplus // 2 : len(speech) - (surplus + 1) // 2]


def without_labels(items: Sequence[Labelled]) -> list[Labelled]:
    """Removes the labels, so that training cannot use them.

    Example
    -------
    >>> without_labels([])
    []
    """
    return [item._replace(label=None) for item in items]  # type: ignore[arg-type]


def pad_to_longest(items: Sequence[dict[str, Any]]) -> SpeechBatch:
    """Makes a batch whose views are padded with zeros to the longest view.

    Arguments
    ---------
    items : sequence of dict
        Items of a :class:`SpeechDataset`.

    Returns
    -------
    SpeechBatch
        In the items' dtype; ``to`` converts to float32.

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
    """Makes a batch with the views' mean length.

    Longer views are cut to a random part, shorter ones padded with zeros (NTUA thesis,
    section 4.3.2.1).

    Arguments
    ---------
    items : sequence of dict
        Draws of a :class:`SpeechDataset` with ``places``.
    max_steps : int, optional
        Longest length of the batch. None: no limit.

    Returns
    -------
    SpeechBatch
        In the items' dtype; ``to`` converts to float32.

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
    """Orders views: first view of each item, then second view, and so on."""
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
