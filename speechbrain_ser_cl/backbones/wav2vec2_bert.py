"""wav2vec2-BERT: a conformer on log-mel filterbanks."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank, window_function
from typing_extensions import override

from speechbrain_ser_cl.backbones.packing import Packing, uncompiled
from speechbrain_ser_cl.backbones.speech_encoder import (
    Bias,
    SpeechEncoder,
    at_least_one,
    feed_forward,
    run_dropout,
)
from speechbrain_ser_cl.nnet.lengths import steps_mask
from speechbrain_ser_cl.utils.audio import SAMPLE_RATE


class FilterbankEncoder(SpeechEncoder):
    """wav2vec2-BERT: log-mel filterbanks as in Kaldi, then conformer layers.

    Each mel bin is normalised over the utterance's own frames; two frames of 10 ms are
    joined to one. The convolutions of the layers are causal, so padding has no
    influence. Barrault et al., "Seamless", arXiv:2312.05187, section 3.2.1.

    Arguments
    ---------
    model : Wav2Vec2BertModel
        Model with position embeddings of type ``relative_key``, as published, or
        without.

    Raises
    ------
    ValueError
        If its position embeddings have another type.

    Example
    -------
    >>> from speechbrain_ser_cl.backbones.loading import load_encoder
    >>> encoder = load_encoder({"model_type": "wav2vec2-bert", "hidden_size": 16,
    ...     "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32})
    >>> counts = torch.tensor([16000, 8000])
    >>> x, packing = encoder.embed(torch.randn(2, 16000), counts)
    >>> packing.unpack(x).shape
    torch.Size([2, 49, 16])
    """

    window_length = 400
    mel_hop = 160
    hop = 320
    receptive_field = window_length + mel_hop

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        config = self.model.config
        if config.position_embeddings_type not in {"relative_key", None}:
            raise ValueError(
                f"position_embeddings_type is {config.position_embeddings_type!r}; "
                "supported: relative_key (that of facebook/w2v-bert-2.0) and null"
            )
        self.output_size = config.hidden_size
        self.n_bins = config.feature_projection_input_dim // 2
        filters = mel_filter_bank(
            num_frequency_bins=257,
            num_mel_filters=self.n_bins,
            min_frequency=20.0,
            max_frequency=SAMPLE_RATE / 2,
            sampling_rate=SAMPLE_RATE,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
        self.filters: Tensor
        self.window: Tensor
        self.register_buffer("filters", torch.from_numpy(filters.T), persistent=False)
        window = window_function(self.window_length, "povey", periodic=False)
        self.register_buffer("window", torch.from_numpy(window), persistent=False)

    @property
    @override
    def stages(self) -> list[list[nn.Module]]:
        stages: list[list[nn.Module]] = [[self.model.feature_projection]]
        stages += [[layer] for layer in self.layers]
        stages[1] += [self.model.encoder.dropout]
        return stages

    @override
    def n_frames(self, n_samples: Any) -> Any:
        return at_least_one(self._n_mel_frames(n_samples) // 2)

    def _n_mel_frames(self, n_samples: Any) -> Any:
        return (n_samples - self.window_length) // self.mel_hop + 1

    def filterbanks(self, wavs: Tensor, counts: Tensor) -> Tensor:
        """Computes the normalised log-mel filterbanks, each utterance alone.

        Equal to ``SeamlessM4TFeatureExtractor``, computed in float64.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms (B, T), T at least 560.
        counts : torch.Tensor
            Number of valid samples of each (B,).

        Returns
        -------
        torch.Tensor
            (B, frames of 20 ms, 2 × mel bins), float32, 0 in the padding.
        """
        with torch.autocast(wavs.device.type, enabled=False):
            wavs = wavs.double().masked_fill(~steps_mask(counts, wavs.shape[1]), 0)
            frames = 2**15 * wavs.unfold(1, self.window_length, self.mel_hop)
            frames = frames - frames.mean(-1, keepdim=True)
            before = F.pad(frames, (1, 0), mode="replicate")[..., :-1]
            frames = (frames - 0.97 * before) * self.window.double()
            power = torch.fft.rfft(frames, 512).abs().square()
            mel = (power @ self.filters.double().T).clamp(min=2**-23).log()
            n = self._n_mel_frames(counts).clamp(min=2)
            padding = ~steps_mask(n, mel.shape[1]).unsqueeze(-1)
            n = n[:, None, None]
            mean = mel.masked_fill(padding, 0).sum(1, keepdim=True) / n
            mel = (mel - mean).masked_fill(padding, 0)
            variance = mel.square().sum(1, keepdim=True) / (n - 1)
            mel = mel / (variance + 1e-7).sqrt()
            n_pairs = mel.shape[1] // 2
            pairs: Tensor = mel[:, : 2 * n_pairs].reshape(len(mel), n_pairs, -1)
            return pairs.float()

    @uncompiled
    @override
    def embed(self, wavs: Tensor, counts: Tensor) -> tuple[Tensor, Packing]:
        packing = self._packing(wavs, counts, self.n_frames)
        mask = steps_mask(counts.to(wavs.device), wavs.shape[1])
        wavs = wavs.masked_fill(~mask, 0)
        # Shorter waveforms were padded with zeros to one frame.
        counts = counts.clamp(min=self.receptive_field).to(wavs.device)
        x = packing.pack(self.filterbanks(wavs, counts).to(self.model.dtype))
        x, _ = self.model.feature_projection(x)
        x = self._masked(x, packing)
        return run_dropout(self.model.encoder.dropout, x), packing

    @override
    def _position_biases(self, packing: Packing) -> Sequence[Bias] | None:
        config = self.model.config
        if config.position_embeddings_type is None:
            return None
        left, right = (
            config.left_max_position_embeddings,
            config.right_max_position_embeddings,
        )
        biases = []
        for group in packing.groups:
            places = torch.arange(group.n_steps, device=self.window.device)
            distances = (places - places[:, None]).clamp(-left, right) + left
            biases.append(partial(_of_distances, distances))
        return biases

    @override
    def _layer(
        self, number: int, x: Tensor, packing: Packing, biases: Sequence[Bias] | None
    ) -> Tensor:
        layer = self.layers[number]
        x = x + 0.5 * feed_forward(layer.ffn1, layer.ffn1_layer_norm(x))
        attended = self._attention(layer, x, packing, biases)
        x = x + run_dropout(layer.self_attn_dropout, attended)
        x = x + packing.map_padded(layer.conv_module, x)
        x = x + 0.5 * feed_forward(layer.ffn2, layer.ffn2_layer_norm(x))
        x = layer.final_layer_norm(x)
        return x

    def _attention(
        self, layer: Any, x: Tensor, packing: Packing, biases: Sequence[Bias] | None
    ) -> Tensor:
        attention, x = layer.self_attn, layer.self_attn_layer_norm(x)
        queries, keys, values = (
            projection(x).unflatten(-1, (attention.num_heads, -1))
            for projection in (
                attention.linear_q,
                attention.linear_k,
                attention.linear_v,
            )
        )
        gates = None
        if biases is not None:  # scores of a query for every distance
            gates = queries @ attention.distance_embedding.weight.T * attention.scaling
        p = attention.dropout.p if attention.training else 0.0
        y: Tensor = attention.linear_out(
            packing.attention(queries, keys, values, p, gates, biases)
        )
        return y


def _of_distances(distances: Tensor, gates: Tensor) -> Tensor:
    """Looks up scores by distance: (t, t) and (n, t, H, distances) to (n, H, t, t)."""
    gates = gates.transpose(1, 2)
    return gates.gather(-1, distances.expand(*gates.shape[:2], *distances.shape))
