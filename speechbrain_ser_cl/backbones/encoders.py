"""Pretrained encoders of transformers, seen through one small interface.

An encoder here has ``stages`` and ``hidden_states``. A stage is the list of modules
that one representation needs beyond the one before it: stage 0 is the convolutional
front end, stage 1 the position embedding and the first transformer layer, stage i
transformer layer i. ``hidden_states`` runs the stages and yields the input of the
first layer and the output of each, one at a time, so that nobody has to hold all.

The layers are run here and not by the models' own ``forward``, because that returns
a tuple of all hidden states, and Whisper's insists on 30 seconds. SpecAugment and
LayerDrop, which the ``forward`` brings along in training, are left out.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    FeatureExtractionMixin,
    HubertModel,
    PretrainedConfig,
    PreTrainedModel,
    Wav2Vec2Model,
    WavLMModel,
)
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoder

SAMPLE_RATE = 16000


def _steps_mask(counts: Tensor, n_steps: int) -> Tensor:
    """Mask (B, n_steps), True for the first ``counts`` steps of each row."""
    return torch.arange(n_steps, device=counts.device) < counts[:, None]


class WaveformEncoder(nn.Module):
    """wav2vec 2.0, HuBERT or WavLM, with padding made invisible.

    Each waveform is normalised to zero mean and unit variance over its own samples
    (if the model was trained so), frames of padding are set to 0 before the
    positional convolution and hidden from the attention.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        ``Wav2Vec2Model``, ``HubertModel`` or ``WavLMModel``.
    normalize : bool
        Whether the model wants normalised waveforms.

    Attributes
    ----------
    stages : list of list of torch.nn.Module
        Front end, then one stage per transformer layer.
    output_size : int
        Size of a frame.
    hop : int
        Samples from one frame to the next.
    receptive_field : int
        Samples that one frame needs.

    Example
    -------
    >>> encoder = load_encoder({"model_type": "hubert", "hidden_size": 24,
    ...     "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    ...     "conv_dim": [8] * 7, "num_conv_pos_embeddings": 16,
    ...     "num_conv_pos_embedding_groups": 2})
    >>> counts = torch.tensor([16000, 8000])
    >>> [x.shape for x in encoder.hidden_states(torch.randn(2, 16000), counts)][0]
    torch.Size([2, 49, 24])
    >>> encoder.n_frames(counts)
    tensor([49, 24])
    """

    def __init__(self, model: PreTrainedModel, normalize: bool) -> None:
        super().__init__()
        config = model.config
        self.model = model
        self.normalize = normalize
        self.output_size = config.hidden_size
        self.hop = 1
        self.receptive_field = 1
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            self.receptive_field += (kernel - 1) * self.hop
            self.hop *= stride

    @property
    def stages(self) -> list[list[nn.Module]]:
        """Modules of the front end, then of each transformer layer."""
        body = self.model.encoder
        stages = [[self.model.feature_extractor, self.model.feature_projection]]
        stages += [[layer] for layer in body.layers]
        stages[1] += [body.pos_conv_embed, body.dropout]
        if not self.model.config.do_stable_layer_norm:
            stages[1] += [body.layer_norm]
        return stages

    def n_frames(self, n_samples: Tensor) -> Tensor:
        """Number of frames that waveforms of so many samples have, at least 1."""
        return ((n_samples - self.receptive_field) // self.hop + 1).clamp(min=1)

    def hidden_states(self, wavs: Tensor, counts: Tensor) -> Iterator[Tensor]:
        """Yields the representations as transformers numbers them.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms (B, T), T at least ``receptive_field``.
        counts : torch.Tensor
            Number of valid samples of each (B,).

        Yields
        ------
        torch.Tensor
            Frames (B, T', D): input of the first layer, output of each layer. With
            ``do_stable_layer_norm`` the last is taken before the final LayerNorm,
            as in the ``hidden_states`` of transformers 5.
        """
        body = self.model.encoder
        wavs = self._waveform(wavs, counts)
        x = self.model.feature_extractor(wavs).transpose(1, 2)
        x = self.model.feature_projection(x)
        if isinstance(x, tuple):  # wav2vec2 and WavLM hand back their input as well
            x = x[0]

        mask = _steps_mask(self.n_frames(counts), x.shape[1])
        x = x.masked_fill(~mask.unsqueeze(-1), 0)
        x = x + body.pos_conv_embed(x)
        if not self.model.config.do_stable_layer_norm:
            x = body.layer_norm(x)
        x = body.dropout(x)
        yield x
        yield from self._run_layers(x, mask)

    def _waveform(self, wavs: Tensor, counts: Tensor) -> Tensor:
        """Zero padding and, if the model wants it, normalisation without it."""
        mask = _steps_mask(counts, wavs.shape[1])
        wavs = wavs.float().masked_fill(~mask, 0)
        if self.normalize:
            n = counts[:, None]
            mean = wavs.sum(dim=1, keepdim=True) / n
            centred = (wavs - mean).masked_fill(~mask, 0)
            variance = centred.square().sum(dim=1, keepdim=True) / n
            wavs = centred / (variance + 1e-7).sqrt()
        return wavs.to(self.model.dtype)

    def _run_layers(self, x: Tensor, mask: Tensor) -> Iterator[Tensor]:
        for layer in self.model.encoder.layers:
            x = layer(x, attention_mask=mask[:, None, None, :])
            yield x


class WavLMWaveformEncoder(WaveformEncoder):
    """WavLM, whose layers hand the relative position bias to each other.

    Its attention in transformers has no fused kernel: it is slower than the others.
    """

    def _run_layers(self, x: Tensor, mask: Tensor) -> Iterator[Tensor]:
        bias = None
        for layer in self.model.encoder.layers:
            x, bias = layer(x, attention_mask=mask, position_bias=bias)
            yield x


class WhisperLogMelEncoder(nn.Module):
    """Whisper's encoder at the length of the batch instead of 30 seconds.

    Mel frames of padding are set to 0 before each convolution and hidden from the
    attention, so that an utterance gets what it would get without padding. That
    is not what Whisper computes on 30 seconds, where speech attends to silence.

    Arguments
    ---------
    model : WhisperEncoder
        The encoder half of a Whisper model.

    Attributes
    ----------
    stages : list of list of torch.nn.Module
        Front end, then one stage per transformer layer.
    output_size : int
        Size of a frame.
    hop : int
        Samples from one frame to the next, 320.
    receptive_field : int
        Samples of one analysis window, 400.

    Example
    -------
    >>> encoder = load_encoder({"model_type": "whisper", "d_model": 16,
    ...     "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32})
    >>> counts = torch.tensor([16000, 8000])
    >>> [x.shape for x in encoder.hidden_states(torch.randn(2, 16000), counts)][0]
    torch.Size([2, 50, 16])
    """

    window_length = 400
    mel_hop = 160
    hop = 320
    receptive_field = window_length

    def __init__(self, model: WhisperEncoder) -> None:
        super().__init__()
        self.model = model
        self.output_size = model.config.d_model
        self.dropout = nn.Dropout(model.config.dropout)
        filters = mel_filter_bank(
            num_frequency_bins=self.window_length // 2 + 1,
            num_mel_filters=model.config.num_mel_bins,
            min_frequency=0.0,
            max_frequency=SAMPLE_RATE / 2,
            sampling_rate=SAMPLE_RATE,
            norm="slaney",
            mel_scale="slaney",
        )
        filters = torch.from_numpy(filters.T).float()
        self.register_buffer("filters", filters, persistent=False)
        window = torch.hann_window(self.window_length)
        self.register_buffer("window", window, persistent=False)

    @property
    def stages(self) -> list[list[nn.Module]]:
        """Modules of the front end, then of each transformer layer."""
        stages = [[self.model.conv1, self.model.conv2]]
        stages += [[layer] for layer in self.model.layers]
        stages[1] += [self.dropout]
        stages[-1] += [self.model.layer_norm]
        return stages

    def n_frames(self, n_samples: Tensor) -> Tensor:
        """Number of frames that waveforms of so many samples have, at least 1."""
        return (self._n_mel_frames(n_samples) + 1) // 2

    def _n_mel_frames(self, n_samples: Tensor) -> Tensor:
        return (n_samples // self.mel_hop).clamp(min=1)

    def log_mel(self, wavs: Tensor, counts: Tensor) -> Tensor:
        """Whisper's log-mel spectrogram, each utterance by itself.

        Equal to that of ``WhisperFeatureExtractor`` on the utterance's frames. The
        maximum, from which it keeps 8 powers of ten downwards, is that of the
        valid frames. Radford et al., arXiv:2212.04356, section 2.2.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms (B, T), T at least 400.
        counts : torch.Tensor
            Number of valid samples of each (B,).

        Returns
        -------
        torch.Tensor
            Spectrogram (B, mel bins, T // 160), float32, 0 in the padding.
        """
        with torch.autocast(wavs.device.type, enabled=False):
            wavs = wavs.float()
            wavs = wavs.masked_fill(~_steps_mask(counts, wavs.shape[1]), 0)
            # The start is mirrored, as in Whisper. The end is followed by zeros,
            # as it is in Whisper's 30 s, and so is the same in every batch.
            half = self.window_length // 2
            wavs = torch.cat([wavs[:, 1 : half + 1].flip(1), wavs], dim=1)
            spectrum = torch.stft(
                F.pad(wavs, (0, half)),
                self.window_length,
                self.mel_hop,
                window=self.window.float(),
                center=False,
                return_complex=True,
            )
            power = spectrum[..., :-1].abs().square()
            log_mel = (self.filters.float() @ power).clamp(min=1e-10).log10()

            padding = ~_steps_mask(self._n_mel_frames(counts), log_mel.shape[2])
            padding = padding.unsqueeze(1)
            loudest = log_mel.masked_fill(padding, -torch.inf).amax((1, 2), True)
            log_mel = (torch.maximum(log_mel, loudest - 8) + 4) / 4
            return log_mel.masked_fill(padding, 0)

    def hidden_states(self, wavs: Tensor, counts: Tensor) -> Iterator[Tensor]:
        """Yields the representations as transformers numbers them.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms (B, T), T at least ``receptive_field``.
        counts : torch.Tensor
            Number of valid samples of each (B,).

        Yields
        ------
        torch.Tensor
            Frames (B, T', D): input of the first layer, output of each layer, the
            last one after the final LayerNorm.

        Raises
        ------
        ValueError
            If the batch is longer than the position embedding (30 seconds).
        """
        model = self.model
        positions = model.embed_positions.weight
        longest = len(positions) * self.hop
        if wavs.shape[1] >= longest + self.mel_hop:
            raise ValueError(
                f"an utterance of {wavs.shape[1] / SAMPLE_RATE:.2f} s is too long for "
                f"this Whisper encoder, which takes {longest / SAMPLE_RATE:.2f} s at "
                "most: cut or leave out longer utterances"
            )
        x = self.log_mel(wavs, counts).to(model.dtype)
        padding = ~_steps_mask(self._n_mel_frames(counts), x.shape[2]).unsqueeze(1)
        x = F.gelu(model.conv1(x)).masked_fill(padding, 0)
        x = F.gelu(model.conv2(x)).transpose(1, 2)
        x = self.dropout(x + positions[: x.shape[1]])
        yield x

        mask = _steps_mask(self.n_frames(counts), x.shape[1])[:, None, None, :]
        for layer in model.layers[:-1]:
            x = layer(x, attention_mask=mask)
            yield x
        yield model.layer_norm(model.layers[-1](x, attention_mask=mask))


_MODELS = {
    "wav2vec2": Wav2Vec2Model,
    "hubert": HubertModel,
    "wavlm": WavLMModel,
    "whisper": WhisperEncoder,
}


def load_encoder(
    source: str | Path | Mapping,
    revision: str | None = None,
    save_path: str | Path | None = None,
) -> WaveformEncoder | WhisperLogMelEncoder:
    """Loads or builds a speech encoder, in float32.

    Whether waveforms are normalised is read from ``preprocessor_config.json``
    (``do_normalize``). Where there is none, as for a model built from a dict, models
    with ``feat_extract_norm: layer`` are given normalised waveforms and others not,
    which is how they were trained.

    Arguments
    ---------
    source : str or pathlib.Path or dict
        Hub id, local folder, or the configuration of a model to be initialised at
        random: ``model_type`` and whatever differs from that type's defaults.
    revision : str, optional
        Commit, tag or branch on the hub. Of no effect on the other two.
    save_path : str or pathlib.Path, optional
        Folder for downloads. None: the hub's own cache.

    Returns
    -------
    WaveformEncoder or WhisperLogMelEncoder
        In training mode, all parameters trainable. Of a full Whisper checkpoint
        the encoder only.

    Raises
    ------
    ValueError
        If the source cannot be found or read, the model type is none of wav2vec2,
        hubert, wavlm and whisper, or weights are missing in the checkpoint.

    Example
    -------
    >>> load_encoder({"model_type": "bert"})
    Traceback (most recent call last):
    ...
    ValueError: model type 'bert' is not supported; supported: wav2vec2, hubert, ...
    """
    if isinstance(source, Mapping):
        model_class = _model_class(source.get("model_type"))
        model = model_class(AutoConfig.for_model(**source))
        normalize = None
    else:
        model, normalize = _load_pretrained(source, revision, save_path)

    if model._supports_sdpa:
        # The boolean masks here are meant for it; eager attention would add them.
        model.set_attn_implementation("sdpa")
    if isinstance(model, WhisperEncoder):
        return WhisperLogMelEncoder(model)
    if normalize is None:
        normalize = model.config.feat_extract_norm == "layer"
    if isinstance(model, WavLMModel):
        return WavLMWaveformEncoder(model, normalize)
    return WaveformEncoder(model, normalize)


def _model_class(model_type: str | None) -> type[PreTrainedModel]:
    if model_type not in _MODELS:
        raise ValueError(
            f"model type {model_type!r} is not supported; supported: "
            + ", ".join(_MODELS)
        )
    return _MODELS[model_type]


def _load_pretrained(
    source: str | Path, revision: str | None, save_path: str | Path | None
) -> tuple[PreTrainedModel, bool | None]:
    """A pretrained model, and its ``do_normalize`` where it says so."""
    if _is_path(source):
        source = Path(source).expanduser()
        if not source.is_dir():
            raise ValueError(
                f"no folder {source}: give a folder with config.json and "
                "model.safetensors, or a hub id such as facebook/wav2vec2-base-960h"
            )
    hub = {"revision": revision or "main", "cache_dir": save_path}
    try:
        config, _ = PretrainedConfig.get_config_dict(source, **hub)
        if not config:
            raise OSError("no config.json")
        model_class = _model_class(config.get("model_type"))
        model, report = model_class.from_pretrained(
            source,
            dtype=torch.float32,
            # A full Whisper checkpoint calls its encoder's weights model.encoder.…
            key_mapping={r"^(model\.)?encoder\.": ""}
            if model_class is WhisperEncoder
            else None,
            output_loading_info=True,
            **hub,
        )
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"could not load {source}: {error}\nIf it is a hub id and this machine "
            "has no network, download it elsewhere and give the local folder, or set "
            "HF_HUB_OFFLINE=1 if it is in the cache already (save_path says where). If "
            "it is a folder, it needs config.json and model.safetensors"
        ) from error
    missing = sorted(set(report["missing_keys"]) - {"masked_spec_embed"})
    if missing:
        raise ValueError(
            f"the checkpoint {source} lacks {len(missing)} weights of a "
            f"{config['model_type']} encoder, among them {missing[:3]}: is it "
            "complete, and does its config.json belong to it?"
        )
    try:
        preprocessor, _ = FeatureExtractionMixin.get_feature_extractor_dict(
            source, **hub
        )
    except OSError:
        return model, None
    return model, preprocessor.get("do_normalize")


def _is_path(source: str | Path) -> bool:
    """Whether a source names a folder rather than a hub id."""
    text = str(source)
    looks_local = text.startswith((".", "/", "~")) or text.count("/") > 1
    return isinstance(source, Path) or looks_local or Path(text).is_dir()
