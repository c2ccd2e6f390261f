"""wav2vec 2.0, HuBERT, UniSpeech, UniSpeech-SAT and MMS: encoders of waveforms."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from typing_extensions import override

from speechbrain_ser_cl.backbones.packing import (
    Packing,
    masked_group_norm,
    recomputed,
    uncompiled,
)
from speechbrain_ser_cl.backbones.speech_encoder import (
    Bias,
    SpeechEncoder,
    at_least_one,
    feed_forward,
    run_dropout,
    self_attention,
)
from speechbrain_ser_cl.nnet.lengths import steps_mask


class WaveformEncoder(SpeechEncoder):
    """wav2vec 2.0, and models that differ from it in their training only.

    Each waveform is normalised to zero mean and unit variance over its own samples (if
    the model was trained so), and so is the first layer of models with
    ``feat_extract_norm: group``. Padding is not computed. The last representation of
    models with ``do_stable_layer_norm`` is that before the final LayerNorm, as in
    transformers.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        ``Wav2Vec2Model``, ``HubertModel``, ``UniSpeechModel``, ``UniSpeechSatModel``
        or, for subclasses, another.
    normalize : bool
        Whether the model needs normalised waveforms.

    Example
    -------
    >>> from speechbrain_ser_cl.backbones.loading import load_encoder
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

    def __init__(self, model: nn.Module, normalize: bool) -> None:
        super().__init__(model, normalize)
        config = self.model.config
        self.output_size = config.hidden_size
        self.hop = self.receptive_field = 1
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            self.receptive_field += (kernel - 1) * self.hop
            self.hop *= stride
        self.norm_first = getattr(config, "do_stable_layer_norm", False)

    @property
    @override
    def stages(self) -> list[list[nn.Module]]:
        body = self.model.encoder
        stages = [self._front_end(), *([layer] for layer in body.layers)]
        stages[1] += [body.pos_conv_embed, body.dropout]
        if not self.norm_first:
            stages[1] += [body.layer_norm]
        return stages

    def _front_end(self) -> list[nn.Module]:
        return [self.model.feature_extractor, self.model.feature_projection]

    @override
    def n_frames(self, n_samples: Any) -> Any:
        return self._n_convolved(n_samples)

    def _n_convolved(self, n_samples: Any) -> Any:
        """Counts the frames after the convolutions."""
        return at_least_one((n_samples - self.receptive_field) // self.hop + 1)

    @uncompiled
    @override
    def embed(self, wavs: Tensor, counts: Tensor) -> tuple[Tensor, Packing]:
        body = self.model.encoder
        wavs = self._waveform(wavs, counts.to(wavs.device))
        # Shorter waveforms were padded with zeros to one frame.
        counts = counts.clamp(min=self.receptive_field)
        packing = self._packing(wavs, counts, self._n_convolved)
        x = self._projected(self._convolved(wavs, counts, packing))
        x = self._masked(x, packing)
        x, packing = self._positioned(x, packing)
        if not self.norm_first:
            x = body.layer_norm(x)
        return run_dropout(body.dropout, x), packing

    def _waveform(self, wavs: Tensor, counts: Tensor) -> Tensor:
        """Sets padding to 0 and, if the model needs it, normalises valid samples."""
        mask = steps_mask(counts, wavs.shape[1])
        wavs = wavs.float().masked_fill(~mask, 0)
        if self.normalize:
            n = counts[:, None]
            mean = wavs.sum(dim=1, keepdim=True) / n
            centred = (wavs - mean).masked_fill(~mask, 0)
            variance = centred.square().sum(dim=1, keepdim=True) / n
            wavs = centred / (variance + 1e-7).sqrt()
        return wavs.to(self.model.dtype)

    def _projected(self, x: Tensor) -> Tensor:
        """Projects frames of the convolutions, (N, D') to (N, D)."""
        y: Tensor | tuple[Tensor, ...] = self.model.feature_projection(x)
        return y[0] if isinstance(y, tuple) else y  # most models return their input too

    def _positioned(self, x: Tensor, packing: Packing) -> tuple[Tensor, Packing]:
        """Adds the position embedding, a convolution over the frames."""
        with parametrize.cached():  # weights of the convolution, for all groups
            return x + packing.map_padded(self.model.encoder.pos_conv_embed, x), packing

    def _convolved(self, wavs: Tensor, counts: Tensor, packing: Packing) -> Tensor:
        """Runs the convolutions on the waveforms: (N, D')."""
        if self.padded_group_norm or torch.compiler.is_exporting():
            return packing.pack(self._convolutions(wavs, None))
        parts = []
        for group in packing.groups:
            n_samples = counts[group.rows]
            part = wavs[group.rows, : int(n_samples.max())]
            same = bool((n_samples == part.shape[1]).all())
            valid = None if same else n_samples.to(wavs.device)
            parts.append(group.valid(self._convolutions(part, valid)))
        return torch.cat(parts)

    def _convolutions(self, wavs: Tensor, counts: Tensor | None) -> Tensor:
        """Convolves (n, T) to (n, t, D'); with counts (n,) padding has no influence."""
        layers = self.model.feature_extractor.conv_layers
        x = wavs
        # Of two convolutions only the output of the lower one is stored. Of the first,
        # which is fast but has the largest output, only the waveform is.
        for number, layer in enumerate(layers[1:]):
            x = recomputed(self._next_convolution, layer, number, x, counts)
        return self._activated(len(layers) - 1, x, counts).transpose(1, 2)

    def _next_convolution(
        self, layer: Any, number: int, x: Tensor, counts: Tensor | None
    ) -> Tensor:
        y: Tensor = layer.conv(self._activated(number, x, counts))
        return y

    def _activated(self, number: int, x: Tensor, counts: Tensor | None) -> Tensor:
        """Normalises and activates the output of a convolution."""
        layer = self.model.feature_extractor.conv_layers[number]
        if number == 0:
            x = layer.conv(x.unsqueeze(1))
        norm = getattr(layer, "layer_norm", None)
        if isinstance(norm, nn.LayerNorm):
            x = norm(x.transpose(1, 2)).transpose(1, 2)
        elif norm is not None and counts is None:
            x = norm(x)
        elif norm is not None and counts is not None:
            config = self.model.config
            counts = (counts - config.conv_kernel[0]) // config.conv_stride[0] + 1
            x = masked_group_norm(x, counts, norm)
        y: Tensor = layer.activation(x)
        return y

    @override
    def _layer(
        self, number: int, x: Tensor, packing: Packing, biases: Sequence[Bias] | None
    ) -> Tensor:
        layer = self.layers[number]
        y = layer.layer_norm(x) if self.norm_first else x
        gates = None if biases is None else self._gates(layer.attention, y)
        y = self_attention(layer.attention, y, packing, gates, biases)
        x = x + run_dropout(layer.dropout, y)
        if not self.norm_first:
            x = layer.layer_norm(x)
            x = layer.final_layer_norm(x + feed_forward(layer.feed_forward, x))
            return x
        x = x + feed_forward(layer.feed_forward, layer.final_layer_norm(x))
        adapter = getattr(layer, "adapter_layer", None)
        return x if adapter is None else x + adapter(x)

    def _gates(self, attention: Any, x: Tensor) -> Tensor:
        """Computes the value of each query for the attention bias (N, H, …)."""
        raise NotImplementedError
