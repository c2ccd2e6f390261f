"""Convolutional recurrent encoder of spectrograms."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from typing_extensions import override

from speechbrain_ser_cl.backbones.features import LogSpectrogram
from speechbrain_ser_cl.backbones.masked_norm import MaskedBatchNorm
from speechbrain_ser_cl.backbones.spectral_conv import strided_conv
from speechbrain_ser_cl.backbones.spectrogram_encoder import SpectrogramEncoder
from speechbrain_ser_cl.nnet.lengths import steps_mask
from speechbrain_ser_cl.registry import BACKBONES


@BACKBONES.register("spectrogram_crnn")
class SpectrogramCRNN(SpectrogramEncoder):
    """Encodes spectrograms by two convolutions, two GRU layers and a transformer layer.

    The sequence encoder of the NTUA thesis on contrastive losses for speech emotion
    recognition, section 4.3.2, after Li et al., "Improved end-to-end speech emotion
    recognition using self attention mechanism and multitask learning", Interspeech
    2019: Conv2d(64, (41, 21), stride 2), batch normalisation, Hardtanh(0, 20),
    Conv2d(64, (21, 11), stride 2), batch normalisation, Hardtanh(0, 20), 2 x BiGRU(128,
    dropout 0.2), TransformerEncoderLayer(256, feed-forward 512, 8 heads). Kernels are
    frequency x time. The output is frames; the thesis gives neither the pooling nor the
    number of parameters.

    Our choices, from PyTorch's defaults: no padding of the convolutions, and a dropout
    of 0.1 in the transformer layer.

    Padding does not change the frames of an utterance: an output frame depends on valid
    frames only, the backward GRU starts at the utterance's end, and the batch
    normalisation's statistics ignore padding. An utterance shorter than 41 spectrogram
    frames (0.425 s) is padded with zeros to one output frame.

    Arguments
    ---------
    dropout : float
        Dropout probability between the GRU layers.
    transformer_dropout : float
        Dropout probability in the transformer layer.

    Attributes
    ----------
    features : LogSpectrogram
        Front end.
    output_size : int
        Size of a frame, 256.
    hop : int
        Samples between frames, 640.

    Example
    -------
    >>> encoder = SpectrogramCRNN()
    >>> sum(p.numel() for p in encoder.parameters())
    4136896
    >>> wavs, lengths = torch.randn(2, 16000), torch.tensor([1.0, 0.5])
    >>> encoder(wavs, lengths).shape
    torch.Size([2, 15, 256])
    >>> encoder.frame_lengths(lengths, n_samples=16000) * 15
    tensor([15.,  2.])
    >>> spectrograms = encoder.features(wavs, lengths)  # may be kept and used again
    >>> lengths = encoder.features.frame_lengths(lengths, n_samples=16000)
    >>> encoder.encode(spectrograms, lengths).shape
    torch.Size([2, 15, 256])
    """

    def __init__(self, dropout: float = 0.2, transformer_dropout: float = 0.1) -> None:
        super().__init__(LogSpectrogram())
        self.conv1 = nn.Conv2d(1, 64, (41, 21), stride=2)
        self.norm1 = MaskedBatchNorm(64)
        self.conv2 = nn.Conv2d(64, 64, (21, 11), stride=2)
        self.norm2 = MaskedBatchNorm(64)
        n_bins = self.features.output_size
        for conv in (self.conv1, self.conv2):
            n_bins = (n_bins - conv.kernel_size[0]) // 2 + 1
        self.gru = nn.GRU(
            64 * n_bins,
            128,
            num_layers=2,
            dropout=dropout,
            bidirectional=True,
            batch_first=True,
        )
        self.transformer = nn.TransformerEncoderLayer(
            256, 8, 512, transformer_dropout, batch_first=True
        )
        self.output_size = 256
        self.hop = 4 * self.features.hop
        # Number of spectrogram frames per output frame.
        self.receptive_field = self.conv1.kernel_size[1]
        self.receptive_field += 2 * (self.conv2.kernel_size[1] - 1)

    def arguments(self) -> dict[str, Any]:
        """Returns keyword arguments that build a module like this one."""
        return {
            "dropout": self.gru.dropout,
            "transformer_dropout": self.transformer.dropout.p,
        }

    @override
    def encode_valid(self, x: Tensor, counts: Tensor, mask: Tensor) -> Tensor:
        x = x.masked_fill(~mask.unsqueeze(-1), 0).to(self.conv1.weight.dtype)
        counts = counts.clamp(min=self.receptive_field)
        x = F.pad(x, (0, 0, 0, max(0, self.receptive_field - x.shape[1])))

        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            x, mask = self._convolutions_on_cpu(x, counts)
        else:
            x, mask = self._convolutions(x, counts)
        counts = self.n_steps(counts)
        # Autocast does not support the GRU in every type.
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(next(self.gru.parameters()).dtype)
            packed = pack_padded_sequence(x, counts.cpu(), True, enforce_sorted=False)
            x, _ = pad_packed_sequence(
                self.gru(packed)[0], True, total_length=x.shape[1]
            )
        y: Tensor = self.transformer(x, src_key_padding_mask=~mask)
        return y

    def _convolutions(self, x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Convolves (B, T, F) to (B, T', 64 F'); also returns the valid frames."""
        x = x.mT.unsqueeze(1)
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            x, counts = conv(x), _n_steps(conv, counts)
            mask = steps_mask(counts, x.shape[-1])
            x = F.hardtanh(norm(x, mask), 0, 20)
        return x.permute(0, 3, 1, 2).flatten(2), mask

    def _convolutions_on_cpu(self, x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the same by matrix products, several times faster on a CPU."""
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.get_autocast_dtype("cpu"))
        x = x.permute(2, 1, 0).unsqueeze(-1)  # frequency, time, batch, channel
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            x, counts = strided_conv(x, conv.weight), _n_steps(conv, counts)
            mask = steps_mask(counts, x.shape[1])
            bins, shape = x.flatten(1, 2), x.shape
            valid = None
            if self.training and not mask.all():
                valid = mask.T.flatten().nonzero().squeeze(1)
                bins = _Take.apply(bins, valid)  # type: ignore[no-untyped-call]
            frames = norm(bins.flatten(0, 1) + conv.get_parameter("bias").to(x.dtype))
            x = F.hardtanh(frames, 0, 20).view(bins.shape)
            if valid is not None:
                x = _Put.apply(x, valid, shape[1] * shape[2])  # type: ignore[no-untyped-call]
            x = x.view(shape)
        return x.permute(2, 1, 3, 0).flatten(2), mask

    @override
    def n_steps(self, counts: Tensor) -> Tensor:
        counts = counts.clamp(min=self.receptive_field)
        return _n_steps(self.conv2, _n_steps(self.conv1, counts))


def _n_steps(conv: nn.Conv2d, counts: Tensor) -> Tensor:
    """Counts the steps in time after a convolution."""
    return (counts - conv.kernel_size[1]) // conv.stride[1] + 1


class _Take(torch.autograd.Function):
    """Selects rows of the second dimension, each at most once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        """Selects M of N rows: (F, N, C) to (F, M, C)."""
        ctx.rows, ctx.count = rows, x.shape[1]
        return x.index_select(1, rows)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None]:
        """Writes each gradient to the row that it came from."""
        return _Put.apply(outer, ctx.rows, ctx.count), None  # type: ignore[no-untyped-call]


class _Put(torch.autograd.Function):
    """Writes rows to their positions among zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, count: int) -> Tensor:
        """Writes M rows to N: (F, M, C) to (F, N, C)."""
        ctx.rows = rows
        whole = x.new_zeros(len(x), count, x.shape[2])
        whole.index_copy_(1, rows, x)
        # Compiled, a tensor that was changed in place would have a gradient of 0 here.
        return whole.view(whole.shape)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        """Selects the gradients of the M rows."""
        return _Take.apply(outer, ctx.rows), None, None  # type: ignore[no-untyped-call]
