"""Loads pretrained speech encoders from the hub, a folder, or a configuration."""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import (
    AutoConfig,
    Data2VecAudioModel,
    FeatureExtractionMixin,
    HubertModel,
    PretrainedConfig,
    PreTrainedModel,
    SEWModel,
    UniSpeechModel,
    UniSpeechSatModel,
    Wav2Vec2BertModel,
    Wav2Vec2Model,
    WavLMModel,
)
from transformers import __version__ as transformers_version
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from speechbrain_ser_cl.backbones.data2vec import Data2VecEncoder
from speechbrain_ser_cl.backbones.sew import SEWEncoder
from speechbrain_ser_cl.backbones.speech_encoder import SpeechEncoder
from speechbrain_ser_cl.backbones.wav2vec2 import WaveformEncoder
from speechbrain_ser_cl.backbones.wav2vec2_bert import FilterbankEncoder
from speechbrain_ser_cl.backbones.wavlm import WavLMEncoder
from speechbrain_ser_cl.backbones.whisper import WhisperLogMelEncoder
from speechbrain_ser_cl.utils.audio import SAMPLE_RATE
from speechbrain_ser_cl.utils.files import refuse_lfs_pointer

logger = logging.getLogger(__name__)


class _Family(NamedTuple):
    model: type[PreTrainedModel]
    encoder: type[SpeechEncoder]


_FAMILIES = {
    "wav2vec2": _Family(Wav2Vec2Model, WaveformEncoder),
    "hubert": _Family(HubertModel, WaveformEncoder),
    "wavlm": _Family(WavLMModel, WavLMEncoder),
    "whisper": _Family(WhisperEncoder, WhisperLogMelEncoder),
    "data2vec-audio": _Family(Data2VecAudioModel, Data2VecEncoder),
    "unispeech": _Family(UniSpeechModel, WaveformEncoder),
    "unispeech-sat": _Family(UniSpeechSatModel, WaveformEncoder),
    "sew": _Family(SEWModel, SEWEncoder),
    "wav2vec2-bert": _Family(Wav2Vec2BertModel, FilterbankEncoder),
}
# Limits for one second of speech, far above what published models need: XLS-R with
# 2 billion weights needs 1.1e11 products.
_MOST_PRODUCTS = 1e12
_MOST_VALUES = 2**26  # of one tensor; 256 MiB in float32
_MOST_POSITIONS = 2000  # frames in the convolution of the position embedding


def load_encoder(
    source: str | Path | Mapping[str, Any],
    revision: str | None = None,
    save_path: str | Path | None = None,
) -> SpeechEncoder:
    """Loads or builds a speech encoder in float32.

    ``preprocessor_config.json`` says whether waveforms are normalised
    (``do_normalize``). Without it, as for a model built from a dict, waveforms are
    normalised for models with ``feat_extract_norm: layer`` and data2vec, and not for
    others, as in their training.

    Parts of a checkpoint that are not the encoder, such as a decoder or a head for CTC
    or classification, are ignored, with a ``WARNING`` in the log.

    Arguments
    ---------
    source : str or pathlib.Path or dict
        Hub id, local folder, or the configuration of a randomly initialised model:
        ``model_type``, options that differ from that type's defaults, and
        ``do_normalize`` if it differs from the above.
    revision : str, optional
        Commit, tag or branch on the hub. Only used with a hub id.
    save_path : str or pathlib.Path, optional
        Folder for downloads. None: the hub's cache.

    Returns
    -------
    SpeechEncoder
        Encoder in training mode, all parameters trainable.

    Raises
    ------
    ValueError
        If the source cannot be found or read, the model type is not supported, one
        second of speech would need too much time or memory, or weights of the
        checkpoint are missing, have another size, or are not in the configuration.

    Example
    -------
    >>> load_encoder({"model_type": "bert"})
    Traceback (most recent call last):
    ...
    ValueError: model type 'bert' is not supported; supported: wav2vec2, hubert, ...
    """
    if isinstance(source, Mapping):
        described = dict(source)
        normalize = described.pop("do_normalize", None)
        family = _family(described.get("model_type"))
        try:
            config = AutoConfig.for_model(**described)
            _check_work(config)
            model = family.model(config)
        except Exception as error:  # a value of a wrong type may raise anything
            raise ValueError(_why_no_model(error)) from error
    else:
        model, normalize = _load_pretrained(source, revision, save_path)
        family = _family(model.config.model_type)
    if not issubclass(family.encoder, WaveformEncoder):
        return family.encoder(model)
    if normalize is None:
        normalize = getattr(model.config, "feat_extract_norm", "layer") == "layer"
    return family.encoder(model, normalize)


def _why_no_model(error: Exception) -> str:
    """Explains in one line why a configuration is invalid."""
    why = " ".join(str(error).split())
    if type(error) is ValueError:
        return why
    return f"the encoder's configuration is invalid ({type(error).__name__}: {why})"


def architecture(encoder: SpeechEncoder) -> dict[str, Any]:
    """Describes an encoder so that :func:`load_encoder` builds an untrained copy.

    Arguments
    ---------
    encoder : SpeechEncoder
        Encoder from :func:`load_encoder`.

    Returns
    -------
    dict
        Plain JSON values: ``model_type`` and the options of its architecture.

    Example
    -------
    >>> config = {"model_type": "whisper", "d_model": 16, "encoder_layers": 2,
    ...     "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    >>> architecture(load_encoder(config))["d_model"]
    16
    """
    config = encoder.model.config.to_dict()
    model_type = config["model_type"]
    described = {key: config[key] for key in sorted(_architecture_keys(model_type))}
    if isinstance(encoder, WaveformEncoder):
        described["do_normalize"] = encoder.normalize
    return {"model_type": model_type} | described


def check_arguments(arguments: Mapping[str, Any], expected: set[str]) -> None:
    """Refuses arguments with other keys, or a ``source`` that is no architecture.

    Arguments
    ---------
    arguments : mapping
        Not trusted: may come with a model from elsewhere.
    expected : set of str
        All keys.

    Raises
    ------
    ValueError
        For other keys, and from :func:`check_architecture`.

    Example
    -------
    >>> check_arguments({"source": "x/y", "code": 1}, {"source"})
    Traceback (most recent call last):
    ValueError: expected source, found code, source
    """
    if set(arguments) != expected:
        raise ValueError(
            f"expected {', '.join(sorted(expected))}, found "
            f"{', '.join(sorted(arguments))}"
        )
    check_architecture(arguments["source"])


def check_architecture(config: object) -> None:
    """Refuses a configuration that contains more than the architecture of an encoder.

    Call this before building a model from an untrusted description: other keys can make
    transformers download and run code.

    Arguments
    ---------
    config : mapping
        As returned by :func:`architecture`.

    Raises
    ------
    ValueError
        For an unknown model type or key, or if it is not a mapping but, for example,
        the name of a model to load.

    Example
    -------
    >>> check_architecture({"model_type": "hubert", "attn_implementation": "x/y"})
    Traceback (most recent call last):
    ...
    ValueError: not part of the architecture of a hubert encoder: attn_implementation...
    """
    if not isinstance(config, Mapping):
        raise ValueError(
            f"expected a 'source' that is the configuration of an encoder, found "
            f"{config!r:.60}"
        )
    model_type = config.get("model_type")
    _family(model_type)
    allowed = _architecture_keys(model_type) | {"model_type", "do_normalize"}
    unknown = sorted(set(config) - allowed)
    if unknown:
        raise ValueError(
            f"not part of the architecture of a {model_type} encoder: "
            f"{', '.join(unknown)} (transformers {transformers_version})"
        )


def _architecture_keys(model_type: Any) -> set[str]:
    """Lists the configuration keys of a model type that are not common to all types."""
    return set(AutoConfig.for_model(model_type).to_dict()) - set(
        PretrainedConfig().to_dict()
    )


def _family(model_type: object) -> _Family:
    """Returns the classes of a model type; raises a ValueError if it is unsupported."""
    if not isinstance(model_type, str) or model_type not in _FAMILIES:
        raise ValueError(
            f"model type {model_type!r:.60} is not supported; supported: "
            + ", ".join(_FAMILIES)
        )
    return _FAMILIES[model_type]


def _check_work(config: Any) -> None:
    """Refuses a configuration with which a second of speech needs too much work."""
    steps, products, largest = SAMPLE_RATE, 0, 0
    if hasattr(config, "conv_kernel"):
        field = hop = size = 1
        for kernel, stride, channels in zip(
            config.conv_kernel, config.conv_stride, config.conv_dim, strict=True
        ):
            if min(kernel, stride, channels) < 1:
                raise ValueError(
                    "conv_kernel, conv_stride and conv_dim must be at least 1"
                )
            field, hop = field + (kernel - 1) * hop, hop * stride
            steps = -(-steps // stride)
            products += steps * kernel * size * channels
            largest = max(largest, steps * channels)
            size = channels
        if field > SAMPLE_RATE:
            raise ValueError(
                f"conv_kernel and conv_stride: a frame would need {field} samples, "
                f"expected at most one second ({SAMPLE_RATE})"
            )
        positions = getattr(config, "conv_pos_kernel_size", None)
        positions = positions or config.num_conv_pos_embeddings
        if not 0 < positions <= _MOST_POSITIONS:
            raise ValueError(
                f"the position embedding's convolution is over {positions} frames, "
                f"expected 1 to {_MOST_POSITIONS}"
            )
        products += (
            steps
            * positions
            * config.hidden_size**2
            // (config.num_conv_pos_embedding_groups or 1)
        )
    else:  # log-mel spectrograms with steps of 10 ms, two per frame
        steps = SAMPLE_RATE // 320
    for key, value in config.to_dict().items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key} is {value}, expected a finite number")
    if min(config.num_hidden_layers, config.num_attention_heads) < 1:
        raise ValueError("expected at least one layer and one attention head")
    size, wide = config.hidden_size, getattr(config, "intermediate_size", None)
    wide = wide or config.encoder_ffn_dim
    per_layer = steps * (4 * size**2 + 2 * size * wide) + 2 * steps**2 * size
    products += config.num_hidden_layers * per_layer
    largest = max(largest, steps**2 * config.num_attention_heads, steps * wide)
    if products > _MOST_PRODUCTS or largest > _MOST_VALUES:
        raise ValueError(
            f"this {config.model_type} configuration makes {steps} frames of a second "
            f"of speech, with {products:.1e} products and tensors of {largest:.1e} "
            f"values; expected at most {_MOST_PRODUCTS:.0e} and {_MOST_VALUES:.1e}: "
            "are its strides and sizes right?"
        )


def _load_pretrained(
    source: str | Path, revision: str | None, save_path: str | Path | None
) -> tuple[PreTrainedModel, bool | None]:
    """Loads a pretrained model, and its ``do_normalize`` if given."""
    if _is_path(source):
        source = Path(source).expanduser()
        if not source.is_dir():
            raise ValueError(
                f"no folder {source}: give a folder with config.json and "
                "model.safetensors, or a hub id such as facebook/wav2vec2-base-960h"
            )
        for path in source.iterdir():
            if path.suffix in {".json", ".safetensors", ".bin"}:
                refuse_lfs_pointer(path)
    hub: dict[str, Any] = {"revision": revision or "main", "cache_dir": save_path}
    try:
        config, _ = PretrainedConfig.get_config_dict(source, **hub)
        if not config:
            raise OSError("no config.json")
    except (OSError, ValueError) as error:
        raise _not_loaded(source, error) from error
    model_class = _family(config.get("model_type")).model
    try:
        _check_work(AutoConfig.for_model(**config))
    except Exception as error:
        raise ValueError(f"{source}: {_why_no_model(error)}") from error
    try:
        with _without_load_report():
            loaded: Any = model_class.from_pretrained(
                source,
                dtype=torch.float32,
                # Names of the encoder's weights in a full Whisper checkpoint:
                # model.encoder.…
                key_mapping={r"^(model\.)?encoder\.": ""}
                if model_class is WhisperEncoder
                else None,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **hub,
            )
    except Exception as error:  # damaged files may raise anything
        raise _not_loaded(source, error) from error
    model, report = loaded
    _check_report(source, model, report)
    try:
        preprocessor, _ = FeatureExtractionMixin.get_feature_extractor_dict(
            source, **hub
        )
    except OSError:
        return model, None
    return model, preprocessor.get("do_normalize")


def _not_loaded(source: str | Path, error: Exception) -> ValueError:
    """Returns the error for a source that cannot be read."""
    return ValueError(
        f"could not load {source}: {error}\nIf it is a hub id and this machine "
        "has no network, download it elsewhere and give the local folder, or set "
        "HF_HUB_OFFLINE=1 if it is in the cache already (save_path says where). If "
        "it is a folder, it needs config.json and model.safetensors"
    )


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Keeps transformers from printing a table of unused weights."""

    def is_other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    theirs = logging.getLogger("transformers.modeling_utils")
    theirs.addFilter(is_other)
    try:
        yield
    finally:
        theirs.removeFilter(is_other)


def _check_report(
    source: str | Path, model: PreTrainedModel, report: Mapping[str, Any]
) -> None:
    """Refuses weights that do not fit the configuration; logs what is ignored."""
    model_type = model.config.model_type
    hint = "does its config.json belong to it?"
    for name, found, expected in sorted(report["mismatched_keys"])[:1]:
        raise ValueError(
            f"the checkpoint {source} is of another size than its config.json says: "
            f"{name} has shape {list(found)}, and by the configuration of this "
            f"{model_type} encoder {list(expected)} "
            f"({len(report['mismatched_keys'])} such weights); {hint}"
        )
    missing = sorted(set(report["missing_keys"]) - {"masked_spec_embed"})
    if missing:
        raise ValueError(
            f"the checkpoint {source} lacks {len(missing)} weights of a "
            f"{model_type} encoder, among them {missing[:3]}: is it "
            f"complete, and {hint}"
        )
    own, other = f"{model.base_model_prefix}.", []
    modules = {name for name, _ in model.named_children()}
    for name in sorted(report["unexpected_keys"]):
        # An x-vector model's head has a linear layer with this name.
        is_head = name.rpartition(".")[0] == "feature_extractor"
        if name.removeprefix(own).split(".")[0] in modules and not is_head:
            raise ValueError(
                f"the checkpoint {source} has more weights than a {model_type} encoder "
                f"of its configuration, {name} among them: {hint}"
            )
        other.append(name)
    if other:
        parts = {
            part: len(list(names))
            for part, names in groupby(
                other, lambda name: name.removeprefix(own).split(".")[0]
            )
        }
        logger.warning(
            "%s: the encoder is used; left out: %s",
            source,
            ", ".join(f"{part} ({n} tensors)" for part, n in parts.items()),
        )


def _is_path(source: str | Path) -> bool:
    """Returns whether a source is a folder and not a hub id."""
    text = str(source)
    looks_local = text.startswith((".", "/", "~")) or text.count("/") > 1
    return isinstance(source, Path) or looks_local or Path(text).is_dir()
