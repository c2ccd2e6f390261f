"""Pretrained encoders of transformers, seen through one small interface.

An encoder here has ``stages``, ``embed`` and ``layers_above``. A stage is the list of
modules that one representation needs beyond the one before it: stage 0 is the
convolutional front end, stage 1 the position embedding and the first transformer layer,
stage i transformer layer i. ``embed`` gives the input of the first layer,
``layers_above`` yields the output of each, one at a time, so that nobody has to hold
all. Representations are the valid frames of all utterances one after the other, (N, D),
which a :class:`~speechbrain_ser_cl.backbones.packing.Packing` makes a batch of.

Weights and modules are those of transformers; what runs them is here. The models' own
``forward`` computes the padding too, returns all hidden states in a tuple, has no fused
attention for WavLM and wants 30 seconds for Whisper. SpecAugment and LayerDrop, which
it brings along in training, are left out.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from transformers import (
    AutoConfig,
    FeatureExtractionMixin,
    HubertModel,
    PretrainedConfig,
    PreTrainedModel,
    Wav2Vec2Model,
    WavLMModel,
)
from transformers import __version__ as transformers_version
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from speechbrain_ser_cl.backbones.packing import (
    Packing,
    dropout,
    masked_group_norm,
    recomputed,
)
from speechbrain_ser_cl.nnet.lengths import steps_mask

SAMPLE_RATE = 16000


class WaveformEncoder(nn.Module):
    """wav2vec 2.0, HuBERT or WavLM, with padding made invisible.

    Each waveform is normalised to zero mean and unit variance over its own samples
    (if the model was trained so), and so is the first layer of models with
    ``feat_extract_norm: group``. Padding is left out of what is computed.

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
    max_seconds : None
        There is no limit to an utterance's length.
    padded_group_norm : bool
        Whether the GroupNorm of the first layer counts padding, as in transformers.

    Example
    -------
    >>> encoder = load_encoder({"model_type": "hubert", "hidden_size": 24,
    ...     "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    ...     "conv_dim": [8] * 7, "num_conv_pos_embeddings": 16,
    ...     "num_conv_pos_embedding_groups": 2})
    >>> counts = torch.tensor([16000, 8000])
    >>> x, packing = encoder.embed(torch.randn(2, 16000), counts)
    >>> encoder.n_frames(counts), x.shape
    (tensor([49, 24]), torch.Size([73, 24]))
    >>> [packing.unpack(x).shape for x in encoder.layers_above(0, x, packing)]
    [torch.Size([2, 49, 24]), torch.Size([2, 49, 24])]
    """

    max_seconds = None

    def __init__(self, model: PreTrainedModel, normalize: bool) -> None:
        super().__init__()
        config = model.config
        self.model = model
        self.normalize = normalize
        self.padded_group_norm = False
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
        return _at_least_one((n_samples - self.receptive_field) // self.hop + 1)

    @torch.compiler.disable  # groups of utterances are of another number each time
    def embed(self, wavs: Tensor, counts: Tensor) -> tuple[Tensor, Packing]:
        """The input of the first transformer layer.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms (B, T), T at least ``receptive_field``.
        counts : torch.Tensor
            Number of valid samples of each (B,), on the CPU.

        Returns
        -------
        torch.Tensor
            Frames (N, D).
        Packing
            Whose frames they are.
        """
        body = self.model.encoder
        wavs = self._waveform(wavs, counts.to(wavs.device))
        # What is shorter has been given zeros, of which one frame is made.
        counts = counts.clamp(min=self.receptive_field)
        packing = _packing(self, wavs, counts)
        x = self.model.feature_projection(self._front_end(wavs, counts, packing))
        if isinstance(x, tuple):  # wav2vec2 and WavLM hand back their input as well
            x = x[0]
        with parametrize.cached():  # the weights of the convolution, for all groups
            x = x + packing.map_padded(body.pos_conv_embed, x)
        if not self.model.config.do_stable_layer_norm:
            x = body.layer_norm(x)
        return _dropped(body.dropout, x), packing

    def layers_above(
        self, number: int, x: Tensor, packing: Packing
    ) -> Iterator[Tensor]:
        """Yields the representations that come after one.

        Arguments
        ---------
        number : int
            Number of that representation, from 0.
        x : torch.Tensor
            The representation (N, D).
        packing : Packing
            Whose frames they are.

        Yields
        ------
        torch.Tensor
            Frames (N, D) of representation ``number`` + 1 and all others above. With
            ``do_stable_layer_norm`` the last is taken before the final LayerNorm, as
            in the ``hidden_states`` of transformers 5.
        """
        biases = self._position_biases(packing)
        for layer in self.model.encoder.layers[number:]:
            x = self._layer(layer, x, packing, biases)
            yield x

    def _waveform(self, wavs: Tensor, counts: Tensor) -> Tensor:
        """Zero padding and, if the model wants it, normalisation without it."""
        mask = steps_mask(counts, wavs.shape[1])
        wavs = wavs.float().masked_fill(~mask, 0)
        if self.normalize:
            n = counts[:, None]
            mean = wavs.sum(dim=1, keepdim=True) / n
            centred = (wavs - mean).masked_fill(~mask, 0)
            variance = centred.square().sum(dim=1, keepdim=True) / n
            wavs = centred / (variance + 1e-7).sqrt()
        return wavs.to(self.model.dtype)

    def _front_end(self, wavs: Tensor, counts: Tensor, packing: Packing) -> Tensor:
        """What the convolutions make of the waveforms (N, D')."""
        if self.padded_group_norm or torch.compiler.is_exporting():
            return packing.pack(self._convolutions(wavs, None))
        parts = []
        for group in packing.groups:
            n_samples = counts[group.rows]
            part = wavs[group.rows, : n_samples.max()]
            same = bool((n_samples == part.shape[1]).all())
            n_samples = None if same else n_samples.to(wavs.device)
            parts.append(group.valid(self._convolutions(part, n_samples)))
        return torch.cat(parts)

    def _convolutions(self, wavs: Tensor, counts: Tensor | None) -> Tensor:
        """(n, T) to (n, t, D'); counts (n,) where the padding is to be invisible."""
        layers = self.model.feature_extractor.conv_layers
        x = wavs
        # Of all that is between two convolutions only the first one's output is kept,
        # and of the first, which is cheap but has the largest output, the waveform.
        for number, layer in enumerate(layers[1:]):
            x = recomputed(self._next_convolution, layer, number, x, counts)
        return self._activated(len(layers) - 1, x, counts).transpose(1, 2)

    def _next_convolution(
        self, layer: nn.Module, number: int, x: Tensor, counts: Tensor | None
    ) -> Tensor:
        return layer.conv(self._activated(number, x, counts))

    def _activated(self, number: int, x: Tensor, counts: Tensor | None) -> Tensor:
        """Normalisation and activation that follow a convolution; the first's too."""
        layer = self.model.feature_extractor.conv_layers[number]
        if number == 0:
            x = layer.conv(x.unsqueeze(1))
        norm = getattr(layer, "layer_norm", None)
        if isinstance(norm, nn.LayerNorm):
            x = norm(x.transpose(1, 2)).transpose(1, 2)
        elif norm is not None and counts is None:
            x = norm(x)
        elif norm is not None:
            config = self.model.config
            counts = (counts - config.conv_kernel[0]) // config.conv_stride[0] + 1
            x = masked_group_norm(x, counts, norm)
        return layer.activation(x)

    def _layer(
        self, layer: nn.Module, x: Tensor, packing: Packing, biases: list[Tensor] | None
    ) -> Tensor:
        """A transformer layer, its normalisations before or after its two halves."""
        before = self.model.config.do_stable_layer_norm
        y = layer.layer_norm(x) if before else x
        y = self._attention(layer.attention, y, packing, biases)
        x = x + _dropped(layer.dropout, y)
        if not before:
            x = layer.layer_norm(x)
            return layer.final_layer_norm(x + _feed_forward(layer.feed_forward, x))
        x = x + _feed_forward(layer.feed_forward, layer.final_layer_norm(x))
        adapter = getattr(layer, "adapter_layer", None)
        return x if adapter is None else x + adapter(x)

    def _attention(
        self,
        attention: nn.Module,
        x: Tensor,
        packing: Packing,
        biases: list[Tensor] | None,
    ) -> Tensor:
        gates = None if biases is None else self._gates(attention, x)
        return _self_attention(attention, x, packing, gates, biases)

    def _position_biases(self, packing: Packing) -> list[Tensor] | None:
        """What is added to the scores of each group (H, t, t), before its gates."""
        return None


class WavLMWaveformEncoder(WaveformEncoder):
    r"""WavLM, whose attention adds a gated bias of relative positions to its scores.

    .. math::
        s_{ij} = \frac{q_i \cdot k_j}{\sqrt{d}} + g_i \, b_{j - i}

    b is the same in all layers, the gates are of each. Chen et al., "WavLM", IEEE
    JSTSP 2022, section III-A. transformers computes and keeps all scores; here they are
    added within a fused kernel.
    """

    def _position_biases(self, packing: Packing) -> list[Tensor]:
        attention = self.model.encoder.layers[0].attention
        return [
            attention.compute_bias(group.n_steps, group.n_steps)
            for group in packing.groups
        ]

    def _gates(self, attention: nn.Module, x: Tensor) -> Tensor:
        """One per frame and head (N, H)."""
        x = attention.gru_rel_pos_linear(x.unflatten(-1, (attention.num_heads, -1)))
        first, second = x.unflatten(-1, (2, 4)).sum(-1).sigmoid().unbind(-1)
        scale = attention.gru_rel_pos_const.flatten()
        return first * (second * scale - 1) + 2


def _at_least_one(n_steps: Tensor | int) -> Tensor | int:
    """Of counts; an int is a length in an exported graph, and has steps."""
    return n_steps.clamp(min=1) if isinstance(n_steps, Tensor) else n_steps


def _packing(
    encoder: "WaveformEncoder | WhisperLogMelEncoder", wavs: Tensor, counts: Tensor
) -> Packing:
    """Where the frames of the waveforms are."""
    if torch.compiler.is_exporting():
        # A graph is of one utterance, whose length it must not take for a constant.
        n_steps = encoder.n_frames(wavs.shape[1])
        return Packing([n_steps], n_steps, wavs.device)
    counts = torch.cat([counts, torch.tensor([wavs.shape[1]])])
    *counts, n_steps = encoder.n_frames(counts).tolist()
    return Packing(counts, n_steps, wavs.device)


def _self_attention(
    attention: nn.Module,
    x: Tensor,
    packing: Packing,
    gates: Tensor | None = None,
    biases: list[Tensor] | None = None,
) -> Tensor:
    """Attention of transformers' modules, (N, D) to (N, D)."""
    projected = [
        projection(x).unflatten(-1, (attention.num_heads, -1))
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    ]
    p = attention.dropout if attention.training else 0.0
    y = packing.attention(*projected, p, gates, biases)
    return attention.out_proj(y)


def _feed_forward(module: nn.Module, x: Tensor) -> Tensor:
    """The second half of a layer; of what is wide only one tensor is kept."""

    def second(x: Tensor) -> Tensor:
        x = _dropped(module.intermediate_dropout, module.intermediate_act_fn(x))
        return module.output_dense(x)

    x = recomputed(second, module.intermediate_dense(x))
    return _dropped(module.output_dropout, x)


def _dropped(module: nn.Dropout, x: Tensor) -> Tensor:
    return dropout(x, module.p, module.training)


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
    max_seconds : float
        Length of the position embedding, 30 for published models.

    Example
    -------
    >>> encoder = load_encoder({"model_type": "whisper", "d_model": 16,
    ...     "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32})
    >>> counts = torch.tensor([16000, 8000])
    >>> x, packing = encoder.embed(torch.randn(2, 16000), counts)
    >>> packing.unpack(x).shape
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
        self.max_seconds = model.config.max_source_positions * self.hop / SAMPLE_RATE
        self.dropout = nn.Dropout(model.config.dropout)
        n_bins = self.window_length // 2 + 1
        if model.config.num_mel_bins > n_bins:
            raise ValueError(
                f"num_mel_bins is {model.config.num_mel_bins}, and windows of "
                f"{self.window_length} samples have {n_bins} frequencies only"
            )
        filters = mel_filter_bank(
            num_frequency_bins=n_bins,
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
        return _at_least_one(n_samples // self.mel_hop)

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
            wavs = wavs.masked_fill(~steps_mask(counts, wavs.shape[1]), 0)
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

            padding = ~steps_mask(self._n_mel_frames(counts), log_mel.shape[2])
            padding = padding.unsqueeze(1)
            loudest = log_mel.masked_fill(padding, -torch.inf).amax((1, 2), True)
            log_mel = (torch.maximum(log_mel, loudest - 8) + 4) / 4
            return log_mel.masked_fill(padding, 0)

    @torch.compiler.disable  # groups of utterances are of another number each time
    def embed(self, wavs: Tensor, counts: Tensor) -> tuple[Tensor, Packing]:
        """The input of the first transformer layer.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms (B, T), T at least ``receptive_field``.
        counts : torch.Tensor
            Number of valid samples of each (B,), on the CPU.

        Returns
        -------
        torch.Tensor
            Frames (N, D).
        Packing
            Whose frames they are.

        Raises
        ------
        ValueError
            If the batch is longer than the position embedding (30 seconds).
        """
        model = self.model
        positions = model.embed_positions.weight
        if wavs.shape[1] >= len(positions) * self.hop + self.mel_hop:
            raise ValueError(
                f"an utterance of {wavs.shape[1] / SAMPLE_RATE:.2f} s is too long for "
                f"this Whisper encoder, which takes {self.max_seconds:.2f} s at most: "
                "cut or leave out longer utterances"
            )
        packing = _packing(self, wavs, counts)
        counts = counts.to(wavs.device)
        x = self.log_mel(wavs, counts).to(model.dtype)
        padding = ~steps_mask(self._n_mel_frames(counts), x.shape[2]).unsqueeze(1)
        x = F.gelu(model.conv1(x)).masked_fill(padding, 0)
        x = F.gelu(model.conv2(x)).transpose(1, 2)
        x = x + positions[: x.shape[1]]
        return _dropped(self.dropout, packing.pack(x)), packing

    def layers_above(
        self, number: int, x: Tensor, packing: Packing
    ) -> Iterator[Tensor]:
        """Yields the representations that come after one.

        Arguments
        ---------
        number : int
            Number of that representation, from 0.
        x : torch.Tensor
            The representation (N, D).
        packing : Packing
            Whose frames they are.

        Yields
        ------
        torch.Tensor
            Frames (N, D) of representation ``number`` + 1 and all others above, the
            last one after the final LayerNorm.
        """
        model = self.model
        for layer in model.layers[number:-1]:
            x = self._layer(layer, x, packing)
            yield x
        if number < len(model.layers):
            yield model.layer_norm(self._layer(model.layers[-1], x, packing))

    def _layer(self, layer: nn.Module, x: Tensor, packing: Packing) -> Tensor:
        def second(y: Tensor) -> Tensor:
            y = layer.activation_fn(y)
            return layer.fc2(dropout(y, layer.activation_dropout, layer.training))

        y = _self_attention(layer.self_attn, layer.self_attn_layer_norm(x), packing)
        x = x + dropout(y, layer.dropout, layer.training)
        y = recomputed(second, layer.fc1(layer.final_layer_norm(x)))
        return x + dropout(y, layer.dropout, layer.training)


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
        random: ``model_type``, whatever differs from that type's defaults, and
        ``do_normalize`` where that differs from the above.
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
        config = dict(source)
        normalize = config.pop("do_normalize", None)
        model_class = _model_class(config.get("model_type"))
        model = model_class(AutoConfig.for_model(**config))
    else:
        model, normalize = _load_pretrained(source, revision, save_path)

    if isinstance(model, WhisperEncoder):
        return WhisperLogMelEncoder(model)
    if normalize is None:
        normalize = model.config.feat_extract_norm == "layer"
    if isinstance(model, WavLMModel):
        return WavLMWaveformEncoder(model, normalize)
    return WaveformEncoder(model, normalize)


def architecture(encoder: WaveformEncoder | WhisperLogMelEncoder) -> dict:
    """The configuration from which :func:`load_encoder` builds the same, untrained.

    Arguments
    ---------
    encoder : WaveformEncoder or WhisperLogMelEncoder
        Built or loaded by :func:`load_encoder`.

    Returns
    -------
    dict
        Of plain JSON values: ``model_type`` and all that belongs to its architecture.

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


def check_architecture(config: Mapping) -> None:
    """Refuses a configuration that says more than what the encoder's shape is.

    Whoever builds a model from somebody else's description calls this first: keys
    outside the architecture can make transformers fetch and run code.

    Arguments
    ---------
    config : mapping
        As :func:`architecture` gives it.

    Raises
    ------
    ValueError
        For an unknown model type or key, or if it is no mapping but, for instance, the
        name of a place to load from.

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
    _model_class(model_type)
    allowed = _architecture_keys(model_type) | {"model_type", "do_normalize"}
    unknown = sorted(set(config) - allowed)
    if unknown:
        raise ValueError(
            f"not part of the architecture of a {model_type} encoder: "
            f"{', '.join(unknown)} (transformers {transformers_version})"
        )


def _architecture_keys(model_type: str) -> set[str]:
    """What this type's configuration has beyond what all of transformers' have."""
    return set(AutoConfig.for_model(model_type).to_dict()) - set(
        PretrainedConfig().to_dict()
    )


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
