"""Pointwise convolutions over the layers of a frozen speech encoder."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_ser_cl.backbones.features import check_input
from speechbrain_ser_cl.backbones.loading import architecture, check_architecture
from speechbrain_ser_cl.backbones.masked_norm import MaskedBatchNorm
from speechbrain_ser_cl.backbones.weighted_ssl import WeightedSSL
from speechbrain_ser_cl.nnet.lengths import length_mask, steps_mask, valid_counts
from speechbrain_ser_cl.registry import BACKBONES


class AllLayers(nn.Module):
    """Computes the representations of all layers of a frozen encoder.

    Arguments
    ---------
    source : str or pathlib.Path or dict
        The encoder, as for :class:`WeightedSSL`.
    revision : str, optional
        Revision of a model on the hub.
    average : int
        Number of consecutive frames that are averaged; the last mean of an utterance
        may have fewer. 1: no averaging. Emotions change slowly, and means over some
        tenths of a second need much less work.

    Attributes
    ----------
    ssl : WeightedSSL
        Frozen encoder.
    output_size : int
        Size D of a frame.
    n_layers : int
        Number L of the encoder's transformer layers.
    hop : int
        Samples between frames.

    Example
    -------
    >>> config = {"model_type": "whisper", "d_model": 16, "encoder_layers": 2,
    ...     "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    >>> layers = AllLayers(config, average=10)
    >>> layers(torch.randn(2, 8000)).shape  # 25 frames
    torch.Size([2, 3, 3, 16])
    """

    def __init__(
        self,
        source: str | Path | Mapping[str, Any],
        revision: str | None = None,
        average: int = 1,
    ) -> None:
        super().__init__()
        if average < 1:
            raise ValueError(f"average is {average}, expected at least 1 frame")
        self.ssl = WeightedSSL(source, revision=revision, freeze="all")
        self.ssl.requires_grad_(False)
        self.average = average
        self.output_size, self.n_layers = self.ssl.output_size, self.ssl.n_layers
        self.hop = self.ssl.hop * average

    def arguments(self) -> dict[str, Any]:
        """Returns the options of the front end, without the encoder's weights."""
        return {"source": architecture(self.ssl.encoder), "average": self.average}

    def forward(self, wavs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encodes waveforms.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms (B, T), 16 kHz.
        lengths : torch.Tensor, optional
            Relative lengths in samples (B,), in (0, 1]. None: no padding.

        Returns
        -------
        torch.Tensor
            (B, n_layers + 1, T', D).
        """
        return torch.stack(list(self.each(wavs, lengths)), dim=1)

    def each(self, wavs: Tensor, lengths: Tensor | None = None) -> Iterator[Tensor]:
        """Yields the representations (B, T', D) one at a time, to use less memory.

        Arguments
        ---------
        wavs, lengths : torch.Tensor
            As for :meth:`forward`.
        """
        states = self.ssl.hidden_states(wavs, lengths)
        if self.average == 1:
            yield from states
            return
        if lengths is None:
            lengths = torch.ones(len(wavs), device=wavs.device)
        lengths = self.ssl.frame_lengths(lengths, wavs.shape[1])
        for state in states:
            mask = steps_mask(valid_counts(lengths, state.shape[1]), state.shape[1])
            mask = _groups(mask.unsqueeze(-1).to(state.dtype), self.average)
            # Means of valid frames; groups without valid frames become 0.
            total = (_groups(state, self.average) * mask).sum(dim=2)
            yield total / mask.sum(dim=2).clamp(min=1)

    def frame_lengths(self, lengths: Tensor, n_samples: int) -> Tensor:
        """Converts relative lengths of T samples to relative lengths in frames (B,)."""
        counts = valid_counts(lengths, n_samples)
        every = torch.full_like(counts, n_samples)
        n_frames = self.ssl.encoder.n_frames
        frames: Tensor = -(-n_frames(counts) // self.average)
        longest: Tensor = -(-n_frames(every) // self.average)
        return frames / longest


def _groups(x: Tensor, size: int) -> Tensor:
    """Groups frames: (B, T, D) to (B, ceil(T / size), size, D), padded with 0."""
    x = nn.functional.pad(x, (0, 0, 0, -x.shape[1] % size))
    return x.view(len(x), -1, size, x.shape[2])


@BACKBONES.register("pointwise_cnn")
class PointwiseCNN(nn.Module):
    r"""Encodes a learned sum of frozen layers by two pointwise convolutions.

    .. math::
        x = \sum_{l=0}^{L} \mathrm{softmax}(w)_l \, h_l, \qquad
        y = \mathrm{ReLU}(W_2 \, \mathrm{ReLU}(W_1 x + b_1) + b_2)

    The wav2vec 2.0 view of Khaertdinov et al., "Exploring self-supervised multi-view
    contrastive learning for speech emotion recognition with limited annotations"
    (2024), section 3.2, after Pepino et al., "Emotion recognition from speech using
    wav2vec 2.0 embeddings", Interspeech 2021. With a base model's 13 representations of
    size 768 it has 114 957 trained parameters, the 0.115 M of the paper's Table 5. The
    table's head, 0.017 M, is ``ClassifierHead(128, 4, hidden_size=128)`` after a mean
    over time; the head of the paper's text is linear, ``ClassifierHead(128, 4)``.

    Our choices: 128 channels in the first convolution too (the only round number that
    fits the table), ReLU after both, and a softmax for the weights of the sum (Pepino
    et al. divide by the sum of the weights).

    An output frame depends only on its own input frame, so padding does not change it
    unless it changes the encoder's frames, see :class:`WeightedSSL`. With
    ``batch_norm`` the statistics ignore padding.

    Arguments
    ---------
    source : str or pathlib.Path or dict, optional
        Frozen encoder, as for :class:`WeightedSSL`. None: no encoder; use
        :meth:`encode` with stored representations.
    input_size : int
        Size D of the encoder's frames. Taken from ``source`` if given.
    n_layers : int
        Number L of the encoder's transformer layers. Taken from ``source`` if given.
    channels : sequence of int
        Output channels of each convolution.
    dropout : float
        Dropout probability before each convolution.
    revision : str, optional
        Revision of a source on the hub.
    average : int
        With a source: number of consecutive frames that are averaged.
    batch_norm : bool
        Whether to standardise the sum first, by a batch normalisation without trained
        parameters (not in the paper). It helps with encoders such as Whisper, whose
        frames are nearly equal for all utterances: their mean is much larger than
        their differences.

    Attributes
    ----------
    features : AllLayers or None
        Front end.
    ssl : WeightedSSL or None
        Frozen encoder in the front end. Its own layer weights are not used.
    layer_weights : torch.nn.Parameter
        w (L + 1,), before the softmax.
    output_size : int
        Size of a frame, 128.
    hop : int or None
        Samples between frames; None without a source.

    Example
    -------
    >>> encoder = PointwiseCNN()
    >>> sum(p.numel() for p in encoder.parameters())
    114957
    >>> hidden_states = torch.randn(2, 13, 49, 768)  # computed before
    >>> encoder.encode(hidden_states).shape
    torch.Size([2, 49, 128])
    """

    def __init__(
        self,
        source: str | Path | Mapping[str, Any] | None = None,
        input_size: int = 768,
        n_layers: int = 12,
        channels: tuple[int, ...] = (128, 128),
        dropout: float = 0.0,
        revision: str | None = None,
        average: int = 1,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.features = None
        self.hop = None
        if source is not None:
            self.features = AllLayers(source, revision, average)
            self.hop = self.features.hop
            input_size = self.features.output_size
            n_layers = self.features.n_layers
        self.input_size = input_size
        self.output_size = channels[-1]
        self.layer_weights = nn.Parameter(torch.zeros(n_layers + 1))
        self.norm = MaskedBatchNorm(input_size, affine=False) if batch_norm else None
        # A convolution with kernel 1 is a linear layer on each frame.
        layers = []
        for n_in, n_out in zip((input_size, *channels), channels, strict=False):
            layers += [nn.Dropout(dropout), nn.Linear(n_in, n_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    @property
    def ssl(self) -> WeightedSSL | None:
        """Frozen encoder, if there is one."""
        return None if self.features is None else self.features.ssl

    @property
    def weights(self) -> Tensor:
        """Weights of the representations in the sum (n_layers + 1,), with sum 1."""
        return self.layer_weights.softmax(dim=0)

    def arguments(self) -> dict[str, Any]:
        """Returns keyword arguments, see :meth:`WeightedSSL.arguments`."""
        linear = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        front = {"source": None} if self.features is None else self.features.arguments()
        return {
            **front,
            "input_size": self.input_size,
            "n_layers": len(self.layer_weights) - 1,
            "channels": [layer.out_features for layer in linear],
            "dropout": self.layers[0].p,
            "batch_norm": self.norm is not None,
        }

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> "PointwiseCNN":
        """Builds a module from :meth:`arguments`, which are not trusted.

        Raises
        ------
        ValueError
            If ``source`` is a model to load instead of an architecture.
        """
        source = arguments.get("source")
        if source is not None:
            check_architecture(source)
        return cls(**arguments)

    def forward(self, wavs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encodes waveforms.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms (B, T), 16 kHz.
        lengths : torch.Tensor, optional
            Relative lengths in samples (B,), in (0, 1]. None: no padding.

        Returns
        -------
        torch.Tensor
            Frames (B, T', output_size). :meth:`frame_lengths` gives the number of valid
            frames; the others are meaningless.

        Raises
        ------
        ValueError
            If a shape is wrong, or there is no source.
        """
        hidden_states = self._source().each(wavs, lengths)
        if lengths is not None:
            lengths = self.frame_lengths(lengths, wavs.shape[1])
        return self.encode(hidden_states, lengths)

    def encode(
        self, hidden_states: Tensor | Iterable[Tensor], lengths: Tensor | None = None
    ) -> Tensor:
        """Encodes the representations of the frozen encoder.

        Arguments
        ---------
        hidden_states : torch.Tensor or iterable of torch.Tensor
            All n_layers + 1 representations: (B, n_layers + 1, T', D), or an iterable
            of (B, T', D), of any floating-point type.
        lengths : torch.Tensor, optional
            Relative lengths in frames (B,), used only with ``batch_norm``. None: no
            padding.

        Returns
        -------
        torch.Tensor
            Frames (B, T', output_size).

        Raises
        ------
        ValueError
            If a shape is wrong.
        """
        weights = self.weights
        if isinstance(hidden_states, Tensor):
            shape = (len(weights), -1, self.input_size)
            check_input("PointwiseCNN", hidden_states, None, *shape)
            hidden_states = hidden_states.to(weights.dtype)
            # One product, without a copy per layer.
            x = (weights @ hidden_states.flatten(2)).view_as(hidden_states[:, 0])
        else:
            layers = zip(weights, hidden_states, strict=True)
            x = sum(weight * hidden.to(weight.dtype) for weight, hidden in layers)
        if self.norm is not None:
            mask = None if lengths is None else length_mask(lengths, x.shape[1])
            x = self.norm(x.mT, mask).mT
        y: Tensor = self.layers(x)
        return y

    def encoded_lengths(self, lengths: Tensor, n_steps: int) -> Tensor:
        """Returns the relative lengths of the output of :meth:`encode`, the same."""
        return lengths

    def frame_lengths(self, lengths: Tensor, n_samples: int) -> Tensor:
        """Converts relative lengths from samples to output frames, for a pooling.

        Arguments
        ---------
        lengths : torch.Tensor
            Relative lengths in samples (B,), in (0, 1].
        n_samples : int
            Padded length T of the waveforms.

        Returns
        -------
        torch.Tensor
            Number of valid frames divided by number of frames (B,), in (0, 1].

        Raises
        ------
        ValueError
            If there is no source.
        """
        return self._source().frame_lengths(lengths, n_samples)

    def _source(self) -> AllLayers:
        if self.features is None:
            raise ValueError(
                "this PointwiseCNN has no encoder for waveforms: give it a source, or "
                "hidden states to encode()"
            )
        return self.features
