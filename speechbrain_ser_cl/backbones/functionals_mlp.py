"""Encoders of functionals: one vector per utterance, without time."""

from typing import Any

from torch import Tensor, nn

from speechbrain_ser_cl.backbones.features import (
    EGeMAPS,
    Functionals,
    VocalFunctionals,
    check_input,
)
from speechbrain_ser_cl.backbones.masked_norm import InputNorm
from speechbrain_ser_cl.registry import BACKBONES


class FunctionalsMLP(nn.Module):
    """Encodes functionals by fully connected layers, each followed by ReLU.

    Functionals have units from Hz to dB, so each is normalised: in training over the
    utterances of the batch, in evaluation by the mean of these statistics over all
    batches. This adds no trained parameters.

    Arguments
    ---------
    features : Functionals
        Front end, such as :class:`EGeMAPS`: waveforms to functionals (B,
        ``features.output_size``).
    hidden_sizes : sequence of int
        Number of units of each layer.
    dropout : float
        Dropout probability before each layer except the first.

    Attributes
    ----------
    features : torch.nn.Module
        Front end.
    output_size : int
        Size of the vector.
    hop : None
        None, because there is one vector per utterance.
    """

    hop = None

    def __init__(
        self,
        features: Functionals,
        hidden_sizes: tuple[int, ...] = (128,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.hidden_sizes, self.dropout = list(hidden_sizes), dropout
        self.features = features
        n_functionals = self.features.output_size
        self.input_norm = InputNorm(n_functionals)
        layers: list[nn.Module] = []
        for n_in, n_out in zip(
            (n_functionals, *hidden_sizes), hidden_sizes, strict=False
        ):
            layers += [nn.Dropout(dropout), nn.Linear(n_in, n_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers[1:])
        self.output_size = hidden_sizes[-1]

    def arguments(self) -> dict[str, Any]:
        """Returns keyword arguments that build a module like this one."""
        return {"hidden_sizes": self.hidden_sizes, "dropout": self.dropout}

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
            One vector per utterance (B, output_size).

        Raises
        ------
        ValueError
            If a shape is wrong, or an utterance is too short for the front end.
        ImportError
            If a package of the front end is not installed.
        """
        return self.encode(self.features(wavs, lengths))

    def encode(self, functionals: Tensor) -> Tensor:
        """Encodes functionals that were computed before.

        Arguments
        ---------
        functionals : torch.Tensor
            (B, ``features.output_size``), in the order of the front end's ``names()``,
            of any floating-point type.

        Returns
        -------
        torch.Tensor
            One vector per utterance (B, output_size).

        Raises
        ------
        ValueError
            If the shape is wrong; in training, if B is 1.
        """
        size = self.features.output_size
        check_input(type(self).__name__, functionals, None, size)
        x = self.input_norm(functionals)
        y: Tensor = self.layers(x.to(self.layers[0].weight.dtype))
        return y


@BACKBONES.register("egemaps_mlp")
class EGeMAPSMLP(FunctionalsMLP):
    """Encodes the 88 functionals of eGeMAPS by fully connected layers.

    The eGeMAPS-88 view of Khaertdinov et al., "Exploring self-supervised multi-view
    contrastive learning for speech emotion recognition with limited annotations"
    (2024). Its Table 5 and its text disagree. The table's 0.011 M parameters fit one
    layer 88-128 (11 392), the default here. The 0.018 M of its head fit no round
    number; ``ClassifierHead(128, 4, hidden_size=136)`` is close. The text has two
    layers of 256 and 128 in section 3.2, ``hidden_sizes=(256, 128)`` (55 680), and a
    linear head in section 3.3, ``ClassifierHead(128, 4)``.

    Our choices: ReLU after each layer, and the normalisation of the functionals, see
    :class:`FunctionalsMLP`.

    Arguments
    ---------
    hidden_sizes : sequence of int
        Number of units of each layer.
    dropout : float
        Dropout probability before each layer except the first.

    Example
    -------
    >>> import torch
    >>> encoder = EGeMAPSMLP()
    >>> sum(p.numel() for p in encoder.parameters())
    11392
    >>> functionals = torch.randn(4, 88)  # computed before
    >>> encoder.encode(functionals).shape
    torch.Size([4, 128])
    """

    def __init__(
        self, hidden_sizes: tuple[int, ...] = (128,), dropout: float = 0.0
    ) -> None:
        super().__init__(EGeMAPS(), hidden_sizes, dropout)


@BACKBONES.register("vocal_mlp")
class VocalMLP(FunctionalsMLP):
    """Encodes functionals of SpeechBrain's vocal features by fully connected layers.

    An alternative to :class:`EGeMAPSMLP`, whose openSMILE is free for research only.

    Arguments
    ---------
    hidden_sizes : sequence of int
        Number of units of each layer.
    dropout : float
        Dropout probability before each layer except the first.

    Example
    -------
    >>> import torch
    >>> VocalMLP()(torch.randn(4, 8000)).shape
    torch.Size([4, 128])
    """

    def __init__(
        self, hidden_sizes: tuple[int, ...] = (128,), dropout: float = 0.0
    ) -> None:
        super().__init__(VocalFunctionals(), hidden_sizes, dropout)
