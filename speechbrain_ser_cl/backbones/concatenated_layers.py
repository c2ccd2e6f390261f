"""Several layers of a frozen speech encoder side by side."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_ser_cl.backbones.loading import check_arguments
from speechbrain_ser_cl.backbones.weighted_ssl import WeightedSSL
from speechbrain_ser_cl.registry import BACKBONES


@BACKBONES.register("concatenated_layers")
class ConcatenatedLayers(nn.Module):
    """Concatenates the frames of some layers of a frozen encoder.

    A linear classifier on them has weights of its own for each layer. Layers above the
    highest of ``layers`` do not run.

    Arguments
    ---------
    source : str or pathlib.Path or dict
        The encoder, as for :class:`WeightedSSL`.
    layers : sequence of int
        K numbers of its representations, as for :class:`WeightedSSL`.
    revision : str, optional
        Revision of a model on the hub.
    padded_group_norm : bool
        As for :class:`WeightedSSL`.

    Attributes
    ----------
    ssl : WeightedSSL
        Frozen encoder. Its layer weights are not used.
    layers : list of int
        Numbers of the representations, sorted.
    output_size : int
        Size K D of a frame.
    hop : int
        Samples between frames.
    max_seconds : float or None
        Longest utterance that the encoder accepts. None: no limit.

    Raises
    ------
    ValueError
        From :class:`WeightedSSL`.

    Example
    -------
    >>> config = {"model_type": "whisper", "d_model": 16, "encoder_layers": 2,
    ...     "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    >>> ConcatenatedLayers(config, layers=[1, 2])(torch.randn(2, 8000)).shape
    torch.Size([2, 25, 32])
    """

    def __init__(
        self,
        source: str | Path | Mapping[str, Any],
        layers: Sequence[int],
        revision: str | None = None,
        padded_group_norm: bool = False,
    ) -> None:
        super().__init__()
        self.ssl = WeightedSSL(
            source,
            revision,
            freeze="all",
            layers=layers,
            padded_group_norm=padded_group_norm,
        ).requires_grad_(False)
        self.layers = self.ssl.layers
        self.output_size = len(self.layers) * self.ssl.output_size
        self.hop, self.max_seconds = self.ssl.hop, self.ssl.max_seconds

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments that build a module like this one, with other weights."""
        told = self.ssl.arguments()
        return {name: value for name, value in told.items() if name != "freeze"}

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> "ConcatenatedLayers":
        """Builds a module only from what :meth:`arguments` returned.

        Arguments
        ---------
        arguments : mapping
            Not trusted: may come with a model from elsewhere.

        Returns
        -------
        ConcatenatedLayers
            Module with random weights.

        Raises
        ------
        ValueError
            As for ``WeightedSSL.from_arguments``.
        """
        check_arguments(arguments, {"source", "layers", "padded_group_norm"})
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
            Frames (B, T', K D), the lowest layer first. :meth:`frame_lengths` gives the
            number of valid frames; the others are meaningless.

        Raises
        ------
        ValueError
            If a shape is wrong, or a Whisper model gets more than 30 s.
        """
        states = islice(self.ssl.hidden_states(wavs, lengths), self.layers[-1] + 1)
        chosen = [state for n, state in enumerate(states) if n in self.layers]
        return torch.cat(chosen, dim=-1)

    def frame_lengths(self, lengths: Tensor, n_samples: int) -> Tensor:
        """Converts relative lengths of T samples to relative lengths in frames (B,)."""
        return self.ssl.frame_lengths(lengths, n_samples)
