"""Masks spectrograms: sets a range of time and a range of frequencies to zero."""

import torch
from torch import Tensor


class SpectrogramMasking:
    """Sets a random range of time and a random range of frequencies to zero.

    Park et al., "SpecAugment", Interspeech 2019. Sizes are those of the NTUA thesis on
    contrastive losses for speech emotion recognition, section 4.4.2.4: up to 5 % of the
    time, up to 10 bins. Sizes and positions are drawn uniformly; a mask never leaves
    the spectrogram.

    Arguments
    ---------
    time_share : float
        Longest time mask, as a fraction of the frames, in [0, 1].
    frequency_bins : int
        Widest frequency mask, at least 0.

    Raises
    ------
    ValueError
        If a size is out of range.

    Example
    -------
    >>> masking = SpectrogramMasking(time_share=0.5, frequency_bins=2)
    >>> masked = masking(torch.ones(8, 4), seed=3)
    >>> masked.sum(dim=1).tolist()
    [0.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]
    """

    def __init__(self, time_share: float = 0.05, frequency_bins: int = 10) -> None:
        if not 0 <= time_share <= 1:
            raise ValueError(f"time_share must be in [0, 1], found {time_share}")
        if frequency_bins < 0:
            raise ValueError(
                f"frequency_bins must be at least 0, found {frequency_bins}"
            )
        self.time_share = time_share
        self.frequency_bins = frequency_bins

    def __call__(self, spectrogram: Tensor, seed: int) -> Tensor:
        """Masks one spectrogram.

        Arguments
        ---------
        spectrogram : torch.Tensor
            (T, ..., F), without padding. Not modified.
        seed : int
            Seed of sizes and positions.

        Returns
        -------
        torch.Tensor
            A masked copy.
        """
        masked = spectrogram.clone()
        rng = torch.Generator().manual_seed(seed)
        n_frames, n_bins = spectrogram.shape[0], spectrogram.shape[-1]
        start, end = _stretch(rng, n_frames, int(self.time_share * n_frames))
        masked[start:end] = 0
        start, end = _stretch(rng, n_bins, min(self.frequency_bins, n_bins))
        masked[..., start:end] = 0
        return masked


def _stretch(rng: torch.Generator, size: int, longest: int) -> tuple[int, int]:
    length = int(torch.randint(longest + 1, (), generator=rng))
    start = int(torch.randint(size - length + 1, (), generator=rng))
    return start, start + length
