"""Views of an utterance: stored features, and the encoders trained on them.

A view is an encoder with two parts, as in ``speechbrain_ser_cl.backbones``:

- ``encoder.features``, the front end, a module from waveforms (1, T) to features (1, …,
T', D), or (1, D) for a whole utterance; it is not trained;
- ``encoder.encode(features)``, which is trained and returns frames (B, T'',
output_size), or, if ``encoder.hop`` is None, vectors (B, output_size). An encoder whose
frames depend on neighbouring frames also takes relative lengths, and has
``encoded_lengths(lengths, n_steps)``, the relative lengths of its output.

Any module with these parts can be a view.
"""

import copy
import importlib.util
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.data.features.cache import FeatureCache, weights_hash
from speechbrain_ser_cl.data.quality.audio_facts import SILENT_PEAK
from speechbrain_ser_cl.nnet import EmotionClassifier, MeanPooling, UtteranceEncoder
from speechbrain_ser_cl.utils.audio import SAMPLE_RATE
from speechbrain_ser_cl.utils.errors import offenders

logger = logging.getLogger(__name__)

UNUSABLE = ("silent", "too short", "failed")
# Duration that openSMILE needs for all functionals.
_SHORTEST = round(0.06 * SAMPLE_RATE)
# With fewer utterances, starting processes takes longer than they save.
_MANY = 500

Read = Callable[[Sequence[str]], tuple[Tensor, Tensor | None]]
"""Converts ids to a model's input: a padded batch and relative lengths."""


def choose_views(
    wanted: Sequence[str], needs: Mapping[str, Mapping[str, str]]
) -> tuple[list[str], dict[str, str]]:
    """Replaces views whose package is not installed, with a warning.

    Arguments
    ---------
    wanted : sequence of str
        Names of views.
    needs : mapping
        Name of a view to ``module``, the package it needs, and ``else``, the view that
        replaces it.

    Returns
    -------
    names : list of str
        Names of the views to use.
    replaced : dict
        Name of each replaced view to the reason.

    Raises
    ------
    ValueError
        If there are fewer than two views, or one is repeated.

    Example
    -------
    >>> needs = {"egemaps": {"module": "no_such_module", "else": "vocal"}}
    >>> choose_views(["mel", "egemaps"], needs)
    (['mel', 'vocal'], {'egemaps': 'vocal in its place: no no_such_module here'})
    """
    if len(wanted) < 2:
        raise ValueError(f"views is {list(wanted)}: two or more are needed")
    names, replaced = [], {}
    for name in wanted:
        need = needs.get(name)
        if need is not None and importlib.util.find_spec(need["module"]) is None:
            replaced[name] = f"{need['else']} in its place: no {need['module']} here"
            print(f"View {name}: {replaced[name]}.", file=sys.stderr)
            name = need["else"]
        names.append(name)
    if len(set(names)) < len(names):
        raise ValueError(f"views: found {', '.join(names)}, expected each once")
    return names, replaced


def view_encoder(backbone: Any) -> UtteranceEncoder:
    """Makes the trained part of a view, from features to one vector per utterance.

    A front end with weights is removed from the backbone, so that copies and
    checkpoints do not contain it; :meth:`ViewFeatures.complete` adds it again.

    Arguments
    ---------
    backbone : torch.nn.Module
        Encoder as in the module's docstring.

    Returns
    -------
    UtteranceEncoder
        Encoder of features; frames are averaged over time.

    Example
    -------
    >>> from speechbrain_ser_cl.backbones import MelCNN
    >>> encoder = view_encoder(MelCNN())
    >>> encoder(torch.randn(4, 100, 64), torch.tensor([1.0, 0.5, 0.7, 1.0])).shape
    torch.Size([4, 128])
    """
    pooling = None if backbone.hop is None else MeanPooling()
    encoder = UtteranceEncoder(backbone, pooling)
    encoder.reads = "features"
    front_end = encoder.backbone.features
    if front_end is not None and any(True for _ in front_end.parameters()):
        encoder.backbone.features = None
    return encoder


def from_scratch(encoder: UtteranceEncoder) -> UtteranceEncoder:
    """Copies an encoder and gives the copy new random weights.

    Arguments
    ---------
    encoder : UtteranceEncoder
        From :func:`view_encoder`.

    Returns
    -------
    UtteranceEncoder
        On the same device; the weights depend only on torch's random state.
    """
    encoder = copy.deepcopy(encoder)
    for module in encoder.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()  # type: ignore[operator]
    return encoder


@torch.no_grad()
def embed(
    encoder: UtteranceEncoder, read: Read, ids: Sequence[str], batch_size: int = 64
) -> Tensor:
    """Embeds utterances; sets the encoder to evaluation mode.

    Arguments
    ---------
    encoder : UtteranceEncoder
        From :func:`view_encoder`.
    read : callable
        Returns the encoder's input for utterances.
    ids : sequence of str
        N ids.
    batch_size : int
        Utterances per batch.

    Returns
    -------
    torch.Tensor
        (N, D), in float32 on the CPU.
    """
    encoder.eval()
    batches = (ids[i : i + batch_size] for i in range(0, len(ids), batch_size))
    return torch.cat([encoder(*read(batch)).float().cpu() for batch in batches])


def keep_vectors(encoder: UtteranceEncoder, read: Read, ids: Sequence[str]) -> Read:
    """Freezes an encoder and computes its output once, in memory.

    Arguments
    ---------
    encoder : UtteranceEncoder
        Encoder; reads vectors afterwards.
    read : callable
        Returns its previous input for utterances.
    ids : sequence of str
        All utterances that will be read.

    Returns
    -------
    callable
        Returns its new input: its own vectors.
    """
    encoder.requires_grad_(False)
    vectors = embed(encoder, read, ids).to(next(encoder.parameters()).device)
    rows = {name: row for row, name in enumerate(ids)}
    encoder.reads = "vectors"
    return lambda some: (vectors[[rows[name] for name in some]], None)


@torch.no_grad()
def take_statistics(
    encoder: UtteranceEncoder, read: Read, ids: Sequence[str], batch_size: int = 64
) -> None:
    """Computes the batch normalisation statistics of an encoder that is not trained.

    Arguments
    ---------
    encoder, read, ids, batch_size
        As for :func:`embed`. A last batch with one utterance has no variance and is
        left out.
    """
    encoder.train()
    for start in range(0, len(ids) - 1, batch_size):
        encoder(*read(ids[start : start + batch_size]))


class ViewFeatures:
    """Stores the features of a view in a :class:`FeatureCache`.

    Utterances that are silent, shorter than 60 ms, or for which the front end fails are
    marked in the cache and not tried again.

    Arguments
    ---------
    front_end : torch.nn.Module
        From waveforms (1, T) to features.
    folder : str or pathlib.Path
        Folder of all caches.
    max_seconds : float, optional
        Longer utterances are cut at their end.
    dtype : str
        Type of stored frames; functionals are always in float32.

    Attributes
    ----------
    unusable : dict
        Id to one of ``UNUSABLE``, for utterances given to :meth:`fill`.

    Example
    -------
    >>> from speechbrain_ser_cl.backbones import MelCNN
    >>> from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
    >>> folder = getfixture("tmp_path")
    >>> utterances = read_synthetic(write_synthetic(
    ...     folder / "demo", "synthetic_source", n_speakers=1, utterances_per_speaker=2
    ... ))
    >>> features = ViewFeatures(MelCNN().features, folder / "cache")
    >>> features.fill(utterances)
    >>> x, lengths = features.batch([u.id for u in utterances])
    >>> x.dtype, features.unusable
    (torch.float16, {})
    """

    def __init__(
        self,
        front_end: nn.Module,
        folder: str | Path,
        max_seconds: float | None = None,
        dtype: str = "float16",
    ) -> None:
        self.front_end = front_end.eval()
        self.per_utterance = getattr(front_end, "hop", None) is None
        self.max_samples = None
        if max_seconds is not None:
            self.max_samples = round(max_seconds * SAMPLE_RATE)
        kind = type(front_end)
        key: dict[str, Any] = {
            "features": f"{kind.__module__}.{kind.__qualname__}",
            "arguments": getattr(front_end, "arguments", dict)(),
            "weights": weights_hash(front_end),
            "max_seconds": max_seconds,
        }
        if self.per_utterance:
            key["versions"] = {p: _version(p) for p in ("speechbrain", "opensmile")}
        self.cache = FeatureCache(
            folder, key, "float32" if self.per_utterance else dtype
        )
        self.unusable: dict[str, str] = {}

    def fill(
        self,
        utterances: Sequence[Utterance],
        processes: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        """Computes missing features, with a progress bar.

        Arguments
        ---------
        utterances : sequence of Utterance
            In any order.
        processes : int, optional
            Number of processes for functionals. None: number of cores, if there is
            enough work. Frames are computed in one process, on all cores or on a GPU.
        device : str or torch.device
            Device for frames.

        Raises
        ------
        ValueError
            If most utterances are unusable.
        """
        if not self.per_utterance:
            self.front_end.to(device)
            processes = 1
        elif processes is None:
            processes = (os.cpu_count() or 1) if len(utterances) >= _MANY else 1
        extract = partial(_extract, self.front_end, self.max_samples)
        self.cache.fill(utterances, extract, processes)
        marks = {u.id: self.cache[u.id] for u in utterances}
        self.unusable = {
            name: UNUSABLE[int(mark)] for name, mark in marks.items() if mark.dim() == 0
        }
        if not self.unusable:
            return
        counts = sorted(Counter(self.unusable.values()).items())
        told = (
            f"{type(self.front_end).__name__}: no features of {len(self.unusable)} of "
            f"{len(utterances)} utterances: "
            f"{', '.join(f'{number} {reason}' for reason, number in counts)} "
            f"({offenders(self.unusable)})"
        )
        if 2 * len(self.unusable) > len(utterances):
            raise ValueError(f"{told}; is this the right corpus, or view?")
        logger.warning("%s; they are left out", told)

    def batch(
        self, ids: Sequence[str], device: str | torch.device = "cpu"
    ) -> tuple[Tensor, Tensor]:
        """Loads padded features of some utterances and their relative lengths.

        Arguments
        ---------
        ids : sequence of str
            Ids of B usable utterances.
        device : str or torch.device
            Device of the result.
        """
        features, lengths = self.cache.batch(ids)
        return features.to(device, non_blocking=True), lengths.to(device)

    def complete(self, model: EmotionClassifier) -> EmotionClassifier:
        """Adds the front end to a model of this view, which then reads waveforms.

        Arguments
        ---------
        model : EmotionClassifier
            Model whose encoder is like those of :func:`view_encoder`.

        Returns
        -------
        EmotionClassifier
            The same model.
        """
        model.encoder.backbone.features = self.front_end
        model.encoder.reads = "waveform"
        return model


def collate_views(
    features: Mapping[str, ViewFeatures], items: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Makes a batch of all views, for a loader: ``partial(collate_views, features)``.

    Arguments
    ---------
    features : mapping of str to ViewFeatures
        View name to its filled features.
    items : sequence of mapping
        Items of a ``SpeechDataset`` that reads nothing.

    Returns
    -------
    dict
        View name to features and lengths.
    """
    ids = [item["id"] for item in items]
    return {name: one.batch(ids) for name, one in features.items()}


def take_unusable(
    views: Mapping[str, ViewFeatures], utterances: Iterable[Utterance]
) -> dict[str, str]:
    """Finds utterances for which a view has no features.

    Arguments
    ---------
    views : mapping of str to ViewFeatures
        View name to its filled features.
    utterances : iterable of Utterance
        Utterances to check.

    Returns
    -------
    dict
        Id to the reason, with the name of the view: ``"egemaps: failed"``.
    """
    found = {}
    for utterance in utterances:
        for name, features in views.items():
            if utterance.id in features.unusable:
                reason = features.unusable[utterance.id]
                found[utterance.id] = f"{name}: {reason}"
    return found


def _extract(front_end: nn.Module, max_samples: int | None, wav: Tensor) -> Tensor:
    """Computes the features of one utterance, or a number: why there are none."""
    if (wav - wav.mean()).abs().max() < SILENT_PEAK:
        return torch.tensor(float(UNUSABLE.index("silent")))
    if len(wav) < _SHORTEST:
        return torch.tensor(float(UNUSABLE.index("too short")))
    parameters = [*front_end.parameters(), *front_end.buffers()]
    device = parameters[0].device if parameters else "cpu"
    try:
        features: Tensor = front_end(wav[None, :max_samples].to(device))[0]
    except ValueError as error:
        logger.warning("%s", error)
        return torch.tensor(float(UNUSABLE.index("failed")))
    if not features.isfinite().all():
        return torch.tensor(float(UNUSABLE.index("failed")))
    return features


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
