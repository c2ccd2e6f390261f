"""Convolutional encoder of log-mel spectrograms."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechbrain_ser_cl.backbones.features import LogMel, check_input
from speechbrain_ser_cl.backbones.masked_norm import InputNorm, MaskedBatchNorm
from speechbrain_ser_cl.nnet.lengths import steps_mask, valid_counts
from speechbrain_ser_cl.registry import BACKBONES


@BACKBONES.register("mel_cnn")
class MelCNN(nn.Module):
    """Three convolutions over the time of a log-mel spectrogram.

    The spectral view of Khaertdinov et al., "Exploring self-supervised multi-view
    contrastive learning for speech emotion recognition with limited annotations"
    (2024), section 3.2. "A CNN backbone with three layers" and the 0.035 M parameters
    of its Table 5 are all that is printed of it. Ours: 35 008 parameters in kernels
    of 3 frames with stride 2 and no bias, mel bands as the first one's channels,
    each followed by batch normalisation and ReLU. That table's head, 0.026 M, has no
    round number to fit: ``ClassifierHead(128, 4, hidden_size=192)`` after a mean over
    time is near it; the text's is linear, ``ClassifierHead(128, 4)``.

    Each band is normalised over the frames of the batch in training, by the mean of
    those statistics over all batches afterwards; it adds no parameters.

    Padding does not change the frames of an utterance: it is 0 before each
    convolution, as the border is, and in training left out of the statistics.

    Arguments
    ---------
    channels : sequence of int
        Outputs of each convolution.
    dropout : float
        Before each convolution but the first.

    Attributes
    ----------
    features : LogMel
        The front end.
    output_size : int
        Size of a frame, 128.
    hop : int
        Samples from one frame to the next, 1280.

    Example
    -------
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
        super().__init__()
        self.features = LogMel()
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
        """Keyword arguments that build another one like this."""
        channels = [conv.out_channels for conv in self.convs]
        return {"channels": channels, "dropout": self.dropout.p}

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
            Frames (B, T', output_size), 0 in the padding.

        Raises
        ------
        ValueError
            If a shape is not as above.
        """
        mels = self.features(wavs, lengths)
        if lengths is not None:
            lengths = self.features.frame_lengths(lengths, wavs.shape[1])
        return self.encode(mels, lengths)

    def encode(self, mels: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encodes log-mel spectrograms, for instance computed before.

        Arguments
        ---------
        mels : torch.Tensor
            Log-mel spectrograms (B, T, 64) of any floating-point type.
        lengths : torch.Tensor, optional
            Relative lengths in spectrogram frames (B,), in (0, 1]. None: no padding.

        Returns
        -------
        torch.Tensor
            Frames (B, T', output_size), 0 in the padding.

        Raises
        ------
        ValueError
            If a shape is not as above.
        """
        check_input("MelCNN", mels, lengths, -1, self.features.output_size)
        if lengths is None:
            lengths = torch.ones(len(mels), device=mels.device)
        counts = valid_counts(lengths, mels.shape[1])
        mask = steps_mask(counts, mels.shape[1])
        # Whatever was stored, the statistics are of float32.
        x = self.input_norm(mels.mT, mask).masked_fill(~mask.unsqueeze(1), 0)
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if i > 0:
                x = self.dropout(x)
            x = conv(x.to(self.convs[0].weight.dtype))
            counts = _halve(counts)
            mask = steps_mask(counts, x.shape[-1])
            x = F.relu(norm(x, mask)).masked_fill(~mask.unsqueeze(1), 0)
        frames: Tensor = x.mT
        return frames

    def frame_lengths(self, lengths: Tensor, n_samples: int) -> Tensor:
        """Converts relative lengths to frames, for a pooling over the output.

        Arguments
        ---------
        lengths : torch.Tensor
            Relative lengths in samples (B,), in (0, 1].
        n_samples : int
            Padded length T of the waveforms.

        Returns
        -------
        torch.Tensor
            Valid frames over all frames (B,), in (0, 1].
        """
        n_steps = int(self.features.n_frames(torch.tensor(n_samples)))
        lengths = self.features.frame_lengths(lengths, n_samples)
        return self.encoded_lengths(lengths, n_steps)

    def encoded_lengths(self, lengths: Tensor, n_steps: int) -> Tensor:
        """Gives the relative lengths of the output of :meth:`encode`.

        Arguments
        ---------
        lengths : torch.Tensor
            Relative lengths in spectrogram frames (B,), in (0, 1].
        n_steps : int
            Padded length T of the spectrograms.

        Returns
        -------
        torch.Tensor
            Valid frames over all frames (B,), in (0, 1].
        """
        counts = valid_counts(lengths, n_steps)
        longest = torch.full_like(counts, n_steps)
        for _ in self.convs:
            counts, longest = _halve(counts), _halve(longest)
        return counts / longest


def _halve(counts: Tensor) -> Tensor:
    """Steps after a convolution with stride 2 that looks one step to each side."""
    return (counts + 1) // 2
