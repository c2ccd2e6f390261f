"""Caches the output of frozen layers, so that they do not run in every epoch."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from speechbrain.utils.distributed import if_main_process
from torch import Tensor, nn

from speechbrain_ser_cl.backbones import WeightedSSL
from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.data.dataset import Read, middle, steps_of, waveform
from speechbrain_ser_cl.data.features.cache import FeatureCache, weights_hash
from speechbrain_ser_cl.data.features.place import features_folder
from speechbrain_ser_cl.nnet import EmotionClassifier
from speechbrain_ser_cl.training.utterance_features import keep_pooled

_NO_CONTEXT = nullcontext()


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
        Type of stored values: ``"float16"``, ``"bfloat16"`` or ``"float32"``.

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
        False for an encoder of which a part is trained.
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
        The same modules; the trained parts in place of a model with a frozen encoder.
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
        x = speech if speech.dim() == 1 else speech.transpose(0, 1)
        with context:
            found: Tensor = backbone(x[None].to(device))[0]
        return found

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
