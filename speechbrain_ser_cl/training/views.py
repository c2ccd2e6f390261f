"""Views of an utterance: features computed once, and what is trained on them.

A view is an encoder in two parts, as those of ``speechbrain_ser_cl.backbones`` are:

- ``encoder.features``, the front end, a module that is called with waveforms (1, T) and
  gives features (1, …, T', D), or (1, D) for a whole utterance; it does not change;
- ``encoder.encode(features)``, which is trained: frames (B, T'', output_size), or, if
  ``encoder.hop`` is None, vectors (B, output_size). An encoder whose frames see their
  neighbours takes relative lengths too, and has ``encoded_lengths(lengths, n_steps)``,
  those of what it gives.

Anything else with these can be a view.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.data.features.cache import FeatureCache, weights_hash
from speechbrain_ser_cl.data.quality.audio_facts import SILENT_PEAK
from speechbrain_ser_cl.nnet import MeanPooling
from speechbrain_ser_cl.utils.audio import SAMPLE_RATE
from speechbrain_ser_cl.utils.errors import offenders

logger = logging.getLogger(__name__)

UNUSABLE = ("silent", "too short", "failed")
# What openSMILE needs for one value of each functional.
_SHORTEST = round(0.06 * SAMPLE_RATE)
# With fewer utterances, starting more processes takes longer than they save.
_MANY = 500


class View(nn.Module):
    """The trained part of a view, from features to one vector per utterance.

    Arguments
    ---------
    encoder : torch.nn.Module
        See the module's docstring. A front end with weights is taken out of it, so
        that it is in no copy and no checkpoint; :meth:`whole` puts it back.

    Attributes
    ----------
    output_size : int
        Size D of the vector.

    Example
    -------
    >>> from speechbrain_ser_cl.backbones import MelCNN
    >>> view = View(MelCNN())
    >>> view(torch.randn(4, 100, 64), torch.tensor([1.0, 0.5, 0.7, 1.0])).shape
    torch.Size([4, 128])
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = cast(Any, encoder)
        self.pooling = MeanPooling()
        self.output_size = self.encoder.output_size
        front_end = self.encoder.features
        if front_end is not None and any(True for _ in front_end.parameters()):
            self.encoder.features = None

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encodes and pools.

        Arguments
        ---------
        features : torch.Tensor
            (B, …, T, D), or (B, D).
        lengths : torch.Tensor, optional
            Relative lengths in steps of the features (B,). None: no padding.

        Returns
        -------
        torch.Tensor
            (B, output_size).
        """
        encode: Callable[..., Tensor] = self.encoder.encode
        pool: Callable[..., Tensor] = self.pooling
        if self.encoder.hop is None:
            return encode(features)
        if not hasattr(self.encoder, "encoded_lengths"):
            return pool(encode(features), lengths)
        if lengths is None:
            lengths = torch.ones(len(features), device=features.device)
        frames = encode(features, lengths)
        lengths = self.encoder.encoded_lengths(lengths, features.shape[-2])
        return pool(frames, lengths)

    def whole(self, front_end: nn.Module) -> tuple[nn.Module, nn.Module | None]:
        """Backbone and pooling that classify waveforms, for a model to be exported.

        Arguments
        ---------
        front_end : torch.nn.Module
            What the encoder had as ``features``.

        Returns
        -------
        backbone : torch.nn.Module
            The encoder, this object's own, with its front end.
        pooling : torch.nn.Module or None
            None where the encoder gives vectors.
        """
        self.encoder.features = front_end
        return self.encoder, None if self.encoder.hop is None else self.pooling


class ViewFeatures:
    """The features of a view, in a :class:`FeatureCache`.

    Utterances that are silent, shorter than 60 ms, or of which the front end finds no
    features, are noted in the cache as such, and not tried again.

    Arguments
    ---------
    front_end : torch.nn.Module
        Waveforms (1, T) to features.
    folder : str or pathlib.Path
        Folder of all caches.
    max_seconds : float, optional
        Longer utterances are cut at their end.
    dtype : str
        How frames are stored; functionals are always in float32.

    Attributes
    ----------
    unusable : dict
        Id to one of ``UNUSABLE``, of those given to :meth:`fill`.

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
        self.max_samples = round(max_seconds * SAMPLE_RATE) if max_seconds else None
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
            How many compute functionals. None: as many as there are cores, if there
            is much to do. Frames are computed in one, on all cores or on a GPU.
        device : str or torch.device
            Where frames are computed.

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
        told = (
            f"{type(self.front_end).__name__}: no features of {len(self.unusable)} of "
            f"{len(utterances)} utterances: {_counted(self.unusable.values())} "
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
            B ids of usable utterances.
        device : str or torch.device
            Where to.
        """
        features, lengths = self.cache.batch(ids)
        return features.to(device, non_blocking=True), lengths.to(device)


def take_unusable(
    views: Mapping[str, ViewFeatures], utterances: Iterable[Utterance]
) -> dict[str, str]:
    """Finds utterances of which some view has no features.

    Arguments
    ---------
    views : mapping of str to ViewFeatures
        By name, filled.
    utterances : iterable of Utterance
        Which.

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
    """Features of one utterance; a single number says why there are none."""
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


def _counted(reasons: Iterable[str]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in sorted(Counter(reasons).items()))
