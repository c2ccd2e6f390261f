"""Whisper's encoder."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from typing_extensions import override

from speechbrain_ser_cl.backbones.packing import (
    Packing,
    dropout,
    recomputed,
    uncompiled,
)
from speechbrain_ser_cl.backbones.speech_encoder import (
    Bias,
    SpeechEncoder,
    at_least_one,
    masked_spans,
    run_dropout,
    self_attention,
)
from speechbrain_ser_cl.nnet.lengths import steps_mask
from speechbrain_ser_cl.utils.audio import SAMPLE_RATE


class WhisperLogMelEncoder(SpeechEncoder):
    """Whisper's encoder at the length of the batch instead of 30 seconds.

    Mel frames of padding are set to 0 before each convolution and masked in the
    attention, so padding does not change an utterance's output. The output differs from
    Whisper's on 30 seconds, where speech attends to silence.

    Arguments
    ---------
    model : WhisperEncoder
        Encoder of a Whisper model.

    Example
    -------
    >>> from speechbrain_ser_cl.backbones.loading import load_encoder
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
        super().__init__(model)
        self.window: Tensor
        self.filters: Tensor
        self.output_size = model.config.d_model
        self.max_seconds = model.config.max_source_positions * self.hop / SAMPLE_RATE
        self.dropout = nn.Dropout(model.config.dropout)
        n_bins = self.window_length // 2 + 1
        if model.config.num_mel_bins > n_bins:
            raise ValueError(
                f"num_mel_bins is {model.config.num_mel_bins}, expected at most the "
                f"{n_bins} frequencies of a window of {self.window_length} samples"
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
        self.register_buffer(
            "filters", torch.from_numpy(filters.T).float(), persistent=False
        )
        window = torch.hann_window(self.window_length)
        self.register_buffer("window", window, persistent=False)

    @property
    @override
    def stages(self) -> list[list[nn.Module]]:
        stages: list[list[nn.Module]] = [[self.model.conv1, self.model.conv2]]
        stages += [[layer] for layer in self.layers]
        stages[1] += [self.dropout]
        stages[-1] += [self.model.layer_norm]
        return stages

    @property
    @override
    def layers(self) -> Sequence[Any]:
        layers: Sequence[Any] = self.model.layers
        return layers

    @override
    def n_frames(self, n_samples: Any) -> Any:
        return (self._n_mel_frames(n_samples) + 1) // 2

    def _n_mel_frames(self, n_samples: Any) -> Any:
        return at_least_one(n_samples // self.mel_hop)

    def log_mel(self, wavs: Tensor, counts: Tensor) -> Tensor:
        """Computes Whisper's log-mel spectrogram, each utterance alone.

        Equal to ``WhisperFeatureExtractor`` on the utterance's frames. Values are
        limited to 8 powers of ten below the maximum, which is that of the valid frames.
        Radford et al., arXiv:2212.04356, section 2.2.

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
            # As in Whisper, the start is mirrored, and zeros follow the end (in Whisper
            # up to 30 s). So the result does not depend on the batch.
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

    @uncompiled
    @override
    def embed(self, wavs: Tensor, counts: Tensor) -> tuple[Tensor, Packing]:
        model = self.model
        positions = model.embed_positions.weight
        if wavs.shape[1] >= len(positions) * self.hop + self.mel_hop:
            raise ValueError(
                f"an utterance of {wavs.shape[1] / SAMPLE_RATE:.2f} s is too long for "
                f"this Whisper encoder, which takes {self.max_seconds:.2f} s at most: "
                "cut or leave out longer utterances"
            )
        packing = self._packing(wavs, counts, self.n_frames)
        counts = counts.to(wavs.device)
        x = self.log_mel(wavs, counts).to(model.dtype)
        n_mel_frames = self._n_mel_frames(counts)
        x = self._masked_spectrogram(x, n_mel_frames)
        padding = ~steps_mask(n_mel_frames, x.shape[2]).unsqueeze(1)
        x = F.gelu(model.conv1(x)).masked_fill(padding, 0)
        x = F.gelu(model.conv2(x)).transpose(1, 2)
        x = x + positions[: x.shape[1]]
        return run_dropout(self.dropout, packing.pack(x)), packing

    def _masked_spectrogram(self, x: Tensor, counts: Tensor) -> Tensor:
        """Applies SpecAugment by the configuration, if the front end is trained."""
        config = self.model.config
        if not (self.spec_augment and self.model.conv1.training):
            return x
        if config.mask_time_prob > 0:
            steps = masked_spans(config, "time", counts.tolist())
            steps = F.pad(steps, (0, x.shape[2] - steps.shape[1]))
            x = x.masked_fill(steps.to(x.device).unsqueeze(1), 0)
        if config.mask_feature_prob > 0:
            bins = masked_spans(config, "feature", [x.shape[1]] * len(x))
            x = x.masked_fill(bins.to(x.device).unsqueeze(2), 0)
        return x

    @override
    def _layer(
        self, number: int, x: Tensor, packing: Packing, biases: Sequence[Bias] | None
    ) -> Tensor:
        layer = self.layers[number]

        def second(y: Tensor) -> Tensor:
            y = layer.activation_fn(y)
            y = layer.fc2(dropout(y, layer.activation_dropout, layer.training))
            return y

        y = self_attention(layer.self_attn, layer.self_attn_layer_norm(x), packing)
        x = x + dropout(y, layer.dropout, layer.training)
        y = recomputed(second, layer.fc1(layer.final_layer_norm(x)))
        x = x + dropout(y, layer.dropout, layer.training)
        if number == len(self.layers) - 1:
            x = self.model.layer_norm(x)
        return x
