"""Convolutional encoder of log-mel spectrograms."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from speechbrain_ser_cl.backbones.features import LogMel
from speechbrain_ser_cl.backbones.masked_norm import InputNorm, MaskedBatchNorm
from speechbrain_ser_cl.backbones.spectrogram_encoder import SpectrogramEncoder
from speechbrain_ser_cl.nnet.lengths import steps_mask
from speechbrain_ser_cl.registry import BACKBONES


@BACKBONES.register("mel_cnn")
class MelCNN(SpectrogramEncoder):
    """Encodes log-mel spectrograms by three convolutions over time.

    The spectral view of Khaertdinov et al., "Exploring self-supervised multi-view
    contrastive learning for speech emotion recognition with limited annotations"
    (2024), section 3.2. The paper gives only "a CNN backbone with three layers" and, in
    Table 5, 0.035 M parameters. Our choices: 35 008 parameters in kernels of 3 frames
    with stride 2 and without bias, mel bands as input channels, each followed by batch
    normalisation and ReLU. The table's head, 0.026 M, fits no round number:
    ``ClassifierHead(128, 4, hidden_size=192)`` after a mean over time is close. The
    head of the paper's text is linear, ``ClassifierHead(128, 4)``.

    Each band is normalised: in training over the frames of the batch, in evaluation by
    the mean of these statistics over all batches. This adds no trained parameters.

    Padding does not change the frames of an utterance: it is 0 before each convolution,
    as beyond the border, and is not part of the statistics. Output frames of the
    padding are 0.

    Arguments
    ---------
    channels : sequence of int
        Output channels of each convolution.
    dropout : float
        Dropout probability before each convolution except the first.

    Attributes
    ----------
    features : LogMel
        Front end.
    output_size : int
        Size of a frame, 128.
    hop : int
        Samples between frames, 1280.

    Example
    -------
    >>> import torch
    >>> encoder = MelCNN()
    >>> sum(p.numel() for p in encoder.parameters())
    35008
    >>> wavs, lengths = torch.randn(2, 16000), torch.tensor([1.0, 0.5])
    >>> encoder(wavs, lengths).shape
    torch.Size([2, 13, 128])
    >>> encoder.frame_lengths(lengths, n_samples=16000) * 13
    tensor([13.,  6.])
    """

    def __init__(
        self, channels: tuple[int, ...] = (48, 48, 128), dropout: float = 0.0
    ) -> None:
        super().__init__(LogMel())
        n_bands = self.features.output_size
        self.input_norm = InputNorm(n_bands)
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        for n_in, n_out in zip((n_bands, *channels), channels, strict=False):
            self.convs.append(nn.Conv1d(n_in, n_out, 3, 2, padding=1, bias=False))
            self.norms.append(MaskedBatchNorm(n_out))
        self.dropout = nn.Dropout(dropout)
        self.output_size = channels[-1]
        self.hop = self.features.hop * 2 ** len(channels)

    def arguments(self) -> dict[str, Any]:
        """Returns keyword arguments that build a module like this one."""
        channels = [conv.out_channels for conv in self.convs]
        return {"channels": channels, "dropout": self.dropout.p}

    @override
    def encode_valid(self, x: Tensor, counts: Tensor, mask: Tensor) -> Tensor:
        # Statistics are in float32 for any stored type.
        x = self.input_norm(x.mT, mask).masked_fill(~mask.unsqueeze(1), 0)
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if i > 0:
                x = self.dropout(x)
            x = conv(x.to(conv.get_parameter("weight").dtype))
            counts = _halve(counts)
            mask = steps_mask(counts, x.shape[-1])
            x = F.relu(norm(x, mask)).masked_fill(~mask.unsqueeze(1), 0)
        frames: Tensor = x.mT
        return frames

    @override
    def n_steps(self, counts: Tensor) -> Tensor:
        for _ in self.convs:
            counts = _halve(counts)
        return counts


def _halve(counts: Tensor) -> Tensor:
    """Counts the steps after a convolution with kernel 3, stride 2 and padding 1."""
    return (counts + 1) // 2
