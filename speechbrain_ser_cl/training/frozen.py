"""Caches the output of frozen layers, so that they do not run in every epoch."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.distributed import if_main_process
from torch import Tensor, nn

from speechbrain_ser_cl.backbones import WeightedSSL
from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.data.dataset import Read, middle, steps_of, waveform
from speechbrain_ser_cl.data.features.cache import FeatureCache, weights_hash
from speechbrain_ser_cl.data.features.place import features_folder
from speechbrain_ser_cl.nnet import EmotionClassifier, MeanPooling
from speechbrain_ser_cl.training.brain import unwrap
from speechbrain_ser_cl.training.utterance_features import keep_pooled

_NO_CONTEXT = nullcontext()


def encode(
    backbone: nn.Module, speech: Tensor, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Runs an encoder on waveforms, or on outputs of its frozen layers.

    Arguments
    ---------
    backbone : torch.nn.Module
        A ``WeightedSSL``, possibly in ``DistributedDataParallel``.
    speech : torch.Tensor
        Waveforms (B, T), or states (B, T', K, D) from :func:`keep_states`.
    lengths : torch.Tensor, optional
        Relative lengths (B,), in samples or in frames. None: no padding.

    Returns
    -------
    frames : torch.Tensor
        (B, T', D).
    lengths : torch.Tensor or None
        Relative lengths in frames (B,); None if no lengths were given.

    Example
    -------
    >>> backbone = WeightedSSL({"model_type": "whisper", "d_model": 16,
    ...     "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32})
    >>> frames, lengths = encode(backbone, torch.randn(2, 8000), torch.ones(2))
    >>> frames.shape, lengths
    (torch.Size([2, 25, 16]), tensor([1., 1.]))
    """
    if speech.dim() == 4:
        return backbone(speech.transpose(1, 2), lengths), lengths
    frames = backbone(speech, lengths)
    if lengths is not None:
        inner: Any = unwrap(backbone)
        lengths = inner.frame_lengths(lengths, speech.shape[1])
    return frames, lengths


def keep_states(
    backbone: WeightedSSL,
    utterances: Iterable[Utterance],
    folder: str | Path,
    precision: str = "fp32",
    context: AbstractContextManager[Any] = _NO_CONTEXT,
    dtype: str = "float16",
) -> Read:
    """Computes the outputs of an encoder's frozen layers once.

    The layers above can then be trained on them. Augmentation is not possible.

    Arguments
    ---------
    backbone : WeightedSSL
        Encoder that is partly or fully frozen.
    utterances : iterable of Utterance
        All utterances that will be read. If an utterance is longer than the encoder
        accepts, its middle part is used.
    folder : str or pathlib.Path
        Folder of the feature cache. Runs with the same frozen layers share it.
    precision : str
        Name of the precision that ``context`` sets; part of the cache key.
    context : context manager
        Context of the computation, such as the ``evaluation_ctx`` of a Brain.
    dtype : str
        Type of the stored values: ``"float16"``, ``"bfloat16"`` or ``"float32"``.

    Returns
    -------
    callable
        ``read(utterance)``: states (T', K, D) of the backbone's ``kept``
        representations; the waveform (T,) if no layer is frozen.
    """
    if not backbone.kept:
        return waveform
    frozen = {n: p for n, p in backbone.named_parameters() if not p.requires_grad}
    key = {
        "features": f"frozen states {backbone.kept}",
        "weights": weights_hash(frozen),
        "architecture": backbone.arguments()["source"],
        "precision": precision,
    }
    cache = FeatureCache(folder, key, dtype)

    device = backbone.layer_weights.device

    def states(wav: Tensor) -> Tensor:
        wav = middle(wav, steps_of(backbone.max_seconds))
        with context:
            return backbone.frozen_states(wav[None].to(device))[0]

    cache.fill(utterances, states)
    return partial(_time_first, cache)


def is_frozen(backbone: nn.Module) -> bool:
    """Returns whether only the layer weights of an encoder are trained.

    Arguments
    ---------
    backbone : torch.nn.Module
        Any encoder; only a ``WeightedSSL`` can be frozen.

    Returns
    -------
    bool
        True if its stages are frozen.
    """
    return isinstance(backbone, WeightedSSL) and not any(
        p.requires_grad for p in backbone.encoder.parameters()
    )


def keep_frozen(
    model: EmotionClassifier, utterances: Sequence[Utterance], folder: str | None
) -> tuple[Read, int | None]:
    """Computes the output of frozen layers once for all epochs, folds and runs.

    Arguments
    ---------
    model : EmotionClassifier
        Model; its ``reads`` is set.
    utterances : sequence of Utterance
        All utterances that will be read.
    folder : str or None
        Folder of the features. None: the user's default folder.

    Returns
    -------
    read : callable
        Returns the model's input for an utterance.
    hop : int or None
        Samples per step of this input. None: it has no time dimension.
    """
    encoder, backbone = model.encoder, model.encoder.backbone
    if not isinstance(backbone, WeightedSSL):
        _tell("the user's own encoder is trained")
        return waveform, 1
    read = keep_pooled(encoder, utterances, folder)
    if read is not None:
        return read, None
    if not backbone.kept:
        _tell(f"freeze is {backbone.freeze!r}, so that the lowest layer is trained")
        return waveform, 1
    encoder.reads = "states"
    return keep_states(backbone, utterances, features_folder(folder)), backbone.hop


def _tell(why: str) -> None:
    if if_main_process():
        print(f"Features are not kept, but computed in every epoch: {why}", flush=True)


def trained_parts(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Selects the parts of a model for checkpoints, without a frozen encoder.

    Arguments
    ---------
    modules : mapping
        Name to module; ``model`` is an ``EmotionClassifier``.

    Returns
    -------
    dict
        The same, or with the model's trained parts in its place.
    """
    model: Any = modules["model"]
    encoder = model.encoder
    if not is_frozen(encoder.backbone):
        return dict(modules)
    weights = nn.ParameterList([encoder.backbone.layer_weights])
    parts = {"model": model.head, "pooling": encoder.pooling, "layer_weights": weights}
    return {**modules, **parts}


def keep_frames(
    backbone: WeightedSSL,
    utterances: Iterable[Utterance],
    folder: str | Path,
    read: Read = waveform,
    precision: str = "fp32",
    context: AbstractContextManager[Any] = _NO_CONTEXT,
    dtype: str = "float16",
) -> Read:
    """Computes the outputs of a trained encoder once.

    Arguments
    ---------
    backbone : WeightedSSL
        Encoder; set to evaluation mode.
    utterances, folder, precision, context, dtype
        As for :func:`keep_states`.
    read : callable
        Returns the encoder's input: waveforms, or the states of :func:`keep_states`.

    Returns
    -------
    callable
        ``read(utterance)``: frames (T', D).
    """
    backbone.eval()
    key = {
        "features": f"frames, weighted sum of {backbone.layers}",
        "weights": weights_hash(backbone),
        "architecture": backbone.arguments()["source"],
        "from": "waveforms" if read is waveform else f"states {backbone.kept}",
        "precision": precision,
    }
    cache = FeatureCache(folder, key, dtype)

    device = backbone.layer_weights.device

    def frames(speech: Tensor) -> Tensor:
        with context:
            return encode(backbone, speech[None].to(device))[0][0]

    cache.fill(utterances, frames, read=read)
    return partial(_as_it_is, cache)


def keep_features(
    front_end: nn.Module,
    utterances: Iterable[Utterance],
    folder: str | Path,
    name: str,
    dtype: str = "float16",
) -> Read:
    """Computes the outputs of a front end without parameters once.

    Arguments
    ---------
    front_end : torch.nn.Module
        Waveforms (1, T) to features (1, T', D).
    utterances, folder, dtype
        As for :func:`keep_states`.
    name : str
        Name of the features, including everything that determines them.

    Returns
    -------
    callable
        ``read(utterance)``: features (T', D).
    """
    cache = FeatureCache(folder, {"features": name}, dtype)
    cache.fill(utterances, lambda wav: front_end(wav[None])[0])
    return partial(_as_it_is, cache)


def _time_first(cache: FeatureCache, utterance: Utterance) -> Tensor:
    return cache[utterance.id].transpose(0, 1)


def _as_it_is(cache: FeatureCache, utterance: Utterance) -> Tensor:
    return cache[utterance.id]


class FrozenSSL(nn.Module):
    r"""Mixes and pools cached layers of a frozen encoder.

    The encoder's output is cached; the learned parts (layer weights, pooling) are
    computed here. With :class:`~speechbrain_ser_cl.nnet.MeanPooling` directly after the
    weighted sum, only the means of the layers are needed,

    .. math::
        \frac{1}{T} \sum_t \sum_l w_l h_{l,t} = \sum_l w_l \frac{1}{T} \sum_t h_{l,t}

    and the cache contains L + 1 vectors per utterance in float32. Otherwise it contains
    the frames of all layers in float16, T times as many numbers of half the size. Each
    utterance is encoded alone: without padding and without augmentation.

    Arguments
    ---------
    backbone : WeightedSSL
        Encoder with ``freeze="all"``. Its layer weights are shared, not copied: after
        training, ``pooling(backbone(wavs))`` gives the same result.
    pooling : torch.nn.Module, optional
        Masked pooling, ``pooling(frames, lengths)``. None: :meth:`forward` returns
        frames.

    Attributes
    ----------
    pooled : bool
        Whether means are cached instead of frames.

    Raises
    ------
    ValueError
        If the backbone is not frozen.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
    >>> config = {"model_type": "whisper", "d_model": 16, "encoder_layers": 2,
    ...     "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    >>> frozen = FrozenSSL(WeightedSSL(config, freeze="all"), MeanPooling())
    >>> folder = getfixture("tmp_path")
    >>> utterances = read_synthetic(write_synthetic(
    ...     folder / "demo", "synthetic_source", n_speakers=2, utterances_per_speaker=4
    ... ))
    >>> cache = frozen.cache(folder / "cache")
    >>> cache.fill(utterances, frozen.extract)
    8
    >>> layers, lengths = cache.batch([u.id for u in utterances])
    >>> layers.shape
    torch.Size([8, 3, 16])
    >>> frozen(layers, lengths).shape
    torch.Size([8, 16])
    """

    def __init__(self, backbone: WeightedSSL, pooling: nn.Module | None = None) -> None:
        super().__init__()
        trained = [n for n, p in backbone.encoder.named_parameters() if p.requires_grad]
        if trained:
            raise ValueError(
                f"{len(trained)} weights of the encoder are trained (such as "
                f"{trained[0]}), so that its output cannot be cached; set "
                "freeze='all'"
            )
        # In a tuple, so that it is not a submodule: checkpoints then do not contain the
        # encoder.
        self._backbone = (backbone,)
        self.layer_weights = backbone.layer_weights
        self.pooling = pooling
        # A subclass could process the frames differently.
        self.pooled = type(pooling) is MeanPooling

    def cache(self, folder: str | Path, revision: str | None = None) -> FeatureCache:
        """Returns the cache of this encoder's features; :meth:`extract` computes them.

        Arguments
        ---------
        folder : str or pathlib.Path
            Folder of all caches.
        revision : str, optional
            Revision of the pretrained model; part of the key.

        Returns
        -------
        FeatureCache
            Its key contains the encoder's weights and configuration and whether frames
            or means are stored. Layer weights and pooling do not affect the stored
            values and are not part of the key.
        """
        encoder = self._backbone[0].encoder
        config = encoder.model.config.to_dict()
        for name in ("_name_or_path", "transformers_version", "dtype"):
            config.pop(name, None)
        key = {
            "features": "mean over time, per layer"
            if self.pooled
            else "frames, per layer",
            "weights": weights_hash(encoder),
            "revision": revision,
            "layers": self._backbone[0].layers,
            "normalize": getattr(encoder, "normalize", None),
            "config": config,
        }
        return FeatureCache(folder, key, "float32" if self.pooled else "float16")

    def extract(self, wav: Tensor) -> Tensor:
        """Computes the cached features of an utterance.

        Arguments
        ---------
        wav : torch.Tensor
            Waveform (T,), 16 kHz.

        Returns
        -------
        torch.Tensor
            For each of the backbone's ``layers``: (L + 1, D) if pooled, else (L + 1,
            T', D), if the backbone sums all layers.
        """
        backbone = self._backbone[0]
        layers = backbone.frozen_states(wav[None].to(backbone.layer_weights.device))[0]
        return layers.mean(dim=1) if self.pooled else layers

    def forward(self, layers: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mixes the layers and pools.

        Arguments
        ---------
        layers : torch.Tensor
            Batch of features from :meth:`extract`: (B, L + 1, D) if pooled, else (B, L
            + 1, T', D).
        lengths : torch.Tensor, optional
            Relative lengths in frames (B,). None: no padding. Not used if pooled.

        Returns
        -------
        torch.Tensor
            Pooled vectors (B, D'), or frames (B, T', D) without a pooling.

        Raises
        ------
        ValueError
            If the shape is wrong.
        """
        n_dims, n_layers = 3 if self.pooled else 4, len(self.layer_weights)
        if layers.dim() != n_dims or layers.shape[1] != n_layers:
            expected = (
                f"(B, {n_layers}, D)" if self.pooled else f"(B, {n_layers}, T, D)"
            )
            raise ValueError(f"expected layers {expected}, found {tuple(layers.shape)}")
        weights = self.layer_weights.softmax(dim=0)
        mixed = torch.einsum("l,bl...->b...", weights, layers.to(weights.dtype))
        if self.pooled or self.pooling is None:
            return mixed
        pooled: Tensor = self.pooling(mixed, lengths)
        return pooled
