"""Base class of encoders of spectrograms."""

import torch
from torch import Tensor, nn

from speechbrain_ser_cl.backbones.features import ShortTimeSpectrum, check_input
from speechbrain_ser_cl.nnet.lengths import steps_mask, valid_counts


class SpectrogramEncoder(nn.Module):
    """Base class of encoders of spectrograms.

    A subclass has methods ``n_steps(counts)`` and ``encode_valid(x, counts, mask)``.

    Arguments
    ---------
    features : ShortTimeSpectrum
        Front end, waveforms to spectrograms.
    """

    def __init__(self, features: ShortTimeSpectrum) -> None:
        super().__init__()
        self.features = features

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
            If a shape is wrong.
        """
        spectrograms = self.features(wavs, lengths)
        if lengths is not None:
            lengths = self.features.frame_lengths(lengths, wavs.shape[1])
        return self.encode(spectrograms, lengths)

    def encode(self, spectrograms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encodes spectrograms that were computed before.

        Arguments
        ---------
        spectrograms : torch.Tensor
            Output of ``features`` (B, T, bins) in any floating-point type.
        lengths : torch.Tensor, optional
            Relative lengths in spectrogram frames (B,), in (0, 1]. None: no padding.

        Returns
        -------
        torch.Tensor
            Frames (B, T', output_size).

        Raises
        ------
        ValueError
            If a shape is wrong.
        """
        n_bins = self.features.output_size
        check_input(type(self).__name__, spectrograms, lengths, -1, n_bins)
        if lengths is None:
            lengths = torch.ones(len(spectrograms), device=spectrograms.device)
        counts = valid_counts(lengths, spectrograms.shape[1])
        mask = steps_mask(counts, spectrograms.shape[1])
        return self.encode_valid(spectrograms, counts, mask)

    def encode_valid(self, x: Tensor, counts: Tensor, mask: Tensor) -> Tensor:
        """Encodes spectrograms (B, T, bins) with counts (B,) and a mask (B, T)."""
        raise NotImplementedError

    def n_steps(self, counts: Tensor) -> Tensor:
        """Counts the output frames of spectrograms of this length."""
        raise NotImplementedError

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
        """
        n_frames = int(self.features.n_frames(torch.tensor(n_samples)))
        lengths = self.features.frame_lengths(lengths, n_samples)
        return self.encoded_lengths(lengths, n_frames)

    def encoded_lengths(self, lengths: Tensor, n_frames: int) -> Tensor:
        """Converts relative lengths from spectrogram frames to output frames.

        Arguments
        ---------
        lengths : torch.Tensor
            Relative lengths in spectrogram frames (B,), in (0, 1].
        n_frames : int
            Padded length T of the spectrograms.

        Returns
        -------
        torch.Tensor
            Number of valid frames divided by number of frames (B,), in (0, 1].
        """
        counts = valid_counts(lengths, n_frames)
        return self.n_steps(counts) / self.n_steps(torch.full_like(counts, n_frames))
