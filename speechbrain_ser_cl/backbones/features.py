"""Front ends of the small encoders: waveforms to the encoders' input.

Each front end has ``forward(wavs, lengths=None)`` like a backbone. The encoders'
``encode`` takes features that were computed before.
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from speechbrain_ser_cl.nnet.lengths import steps_mask, valid_counts
from speechbrain_ser_cl.utils.audio import SAMPLE_RATE


def check_input(name: str, x: Tensor, lengths: Tensor | None, *shape: int) -> None:
    """Raises an error unless a batch has the shape that an encoder needs.

    Arguments
    ---------
    name : str
        Name of the encoder, for the message.
    x : torch.Tensor
        Batch to check.
    lengths : torch.Tensor or None
        Expected shape (B,).
    *shape : int
        Expected dimensions of one utterance, -1 for time.

    Raises
    ------
    ValueError
        If a shape is wrong, or the batch is empty.

    Example
    -------
    >>> check_input("LogMel", torch.ones(16000), None, -1)
    Traceback (most recent call last):
    ...
    ValueError: LogMel expects a batch (B, time) and relative lengths (B,), found ...
    """
    fits = x.dim() == len(shape) + 1 and x.numel() > 0
    fits = fits and all(s in (-1, n) for s, n in zip(shape, x.shape[1:], strict=True))
    if not fits or (lengths is not None and lengths.shape != x.shape[:1]):
        expected = ", ".join(["B", *("time" if s < 0 else str(s) for s in shape)])
        found = None if lengths is None else tuple(lengths.shape)
        raise ValueError(
            f"{name} expects a batch ({expected}) and relative lengths (B,), found "
            f"{tuple(x.shape)} and {found}"
        )


class ShortTimeSpectrum(nn.Module):
    """Base class of the two spectrograms.

    Windows of 25 ms every 10 ms (Hann, periodic), Fourier transform of 512 points.
    Frame t covers the samples 160 t to 160 t + 399. Ends are not mirrored, so no valid
    frame contains padding. Utterances shorter than one window are padded with zeros.

    Attributes
    ----------
    output_size : int
        Size of a frame.
    hop : int
        Samples between frames, 160.
    receptive_field : int
        Samples of a window, 400.
    """

    hop = 160
    receptive_field = 400
    fft_size = 512
    output_size = fft_size // 2 + 1
    floor = 1e-10

    def __init__(self) -> None:
        super().__init__()
        window = torch.hann_window(self.receptive_field)
        self.window: Tensor
        self.register_buffer("window", window, persistent=False)

    def n_frames(self, n_samples: Tensor) -> Tensor:
        """Counts the frames of waveforms of this length, at least 1."""
        return ((n_samples - self.receptive_field) // self.hop + 1).clamp(min=1)

    def frame_lengths(self, lengths: Tensor, n_samples: int) -> Tensor:
        """Converts relative lengths from samples to frames.

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
        counts = valid_counts(lengths, n_samples)
        return self.n_frames(counts) / self.n_frames(torch.full_like(counts, n_samples))

    def forward(self, wavs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Computes the spectrogram of a batch.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms (B, T), 16 kHz.
        lengths : torch.Tensor, optional
            Relative lengths in samples (B,), in (0, 1]. None: no padding.

        Returns
        -------
        torch.Tensor
            Natural logarithm (B, T', output_size), float32, 0 in the padding.

        Raises
        ------
        ValueError
            If a shape is wrong.
        """
        check_input(type(self).__name__, wavs, lengths, -1)
        if lengths is None:
            lengths = torch.ones(len(wavs), device=wavs.device)
        counts = valid_counts(lengths, wavs.shape[1])
        with torch.autocast(wavs.device.type, enabled=False):
            wavs = wavs.float().masked_fill(~steps_mask(counts, wavs.shape[1]), 0)
            wavs = F.pad(wavs, (0, max(0, self.receptive_field - wavs.shape[1])))
            windows = wavs.unfold(1, self.receptive_field, self.hop)
            windows = windows * self.window.float()
            spectrum = torch.fft.rfft(windows, n=self.fft_size)
            power = spectrum.real.square() + spectrum.imag.square()
            frames = self.bands(power).clamp(min=self.floor).log()
            padding = ~steps_mask(self.n_frames(counts), frames.shape[1])
            return frames.masked_fill(padding.unsqueeze(-1), 0)

    def bands(self, power: Tensor) -> Tensor:
        """Computes the values whose logarithm is returned.

        Arguments
        ---------
        power : torch.Tensor
            Squared magnitudes (B, T', 257).

        Returns
        -------
        torch.Tensor
            (B, T', output_size).
        """
        return power


class LogSpectrogram(ShortTimeSpectrum):
    """Computes the log-spectrogram of the NTUA thesis on contrastive losses.

    The thesis, section 4.3.1, has windows of 25 ms every 10 ms, 512 points and no
    normalisation. Our choices: Hann window, and the natural logarithm of the power, at
    least 1e-10, which is below 16-bit noise. The logarithm of the magnitude would be
    half as large, a difference that the encoder's batch normalisation removes.

    Example
    -------
    >>> features = LogSpectrogram()
    >>> lengths = torch.tensor([1.0, 0.5])
    >>> features(torch.randn(2, 16000), lengths).shape
    torch.Size([2, 98, 257])
    >>> features.frame_lengths(lengths, n_samples=16000) * 98
    tensor([98., 48.])
    """


class LogMel(ShortTimeSpectrum):
    """Computes the log-mel spectrogram of Khaertdinov et al., section 3.2.

    64 bands from 60 to 7800 Hz, windows of 25 ms every 10 ms ("Exploring
    self-supervised multi-view contrastive learning for speech emotion recognition with
    limited annotations", 2024). Our choices: Hann window, 512 points, triangles of
    height 1 that are linear in Hz with corners evenly spaced on HTK's mel scale, 2595
    log10(1 + f / 700), and the natural logarithm of the power, at least 1e-10.

    Example
    -------
    >>> LogMel()(torch.randn(2, 16000)).shape
    torch.Size([2, 98, 64])
    """

    output_size = 64
    lowest, highest = 60.0, 7800.0

    def __init__(self) -> None:
        super().__init__()
        first, last = (math.log(1 + f / 700) for f in (self.lowest, self.highest))
        double = torch.float64
        corners = torch.linspace(first, last, self.output_size + 2, dtype=double)
        corners = 700 * (corners.exp() - 1)
        left, centre, right = corners[:-2], corners[1:-1], corners[2:]
        n_bins = self.fft_size // 2 + 1
        bins = torch.linspace(0, SAMPLE_RATE / 2, n_bins, dtype=double)[:, None]
        rising = (bins - left) / (centre - left)
        falling = (right - bins) / (right - centre)
        filters = torch.minimum(rising, falling).clamp(min=0).float()
        self.filters: Tensor
        self.register_buffer("filters", filters, persistent=False)

    def bands(self, power: Tensor) -> Tensor:
        """Computes the energy in each mel band.

        Arguments
        ---------
        power : torch.Tensor
            Squared magnitudes (B, T', 257).

        Returns
        -------
        torch.Tensor
            (B, T', 64).
        """
        return power @ self.filters.float()


class Functionals(nn.Module):
    """Base class of front ends that return one vector per utterance.

    Attributes
    ----------
    output_size : int
        Number of functionals.
    """

    output_size: int

    def forward(self, wavs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Computes the functionals of a batch.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms (B, T), 16 kHz.
        lengths : torch.Tensor, optional
            Relative lengths in samples (B,), in (0, 1]. None: no padding.

        Returns
        -------
        torch.Tensor
            Functionals (B, output_size), float32, in the order of ``names()``.

        Raises
        ------
        ValueError
            If a shape is wrong, or an utterance has no functionals, for example because
            it is shorter than a window.
        ImportError
            If a package that the front end needs is not installed.
        """
        name = type(self).__name__
        check_input(name, wavs, lengths, -1)
        if lengths is None:
            lengths = torch.ones(len(wavs), device=wavs.device)
        counts = valid_counts(lengths, wavs.shape[1]).tolist()
        x = self.to_device(wavs.detach().float())
        rows = [self.of_utterance(x[i, :count]) for i, count in enumerate(counts)]
        found = torch.stack(rows)
        broken = (~found.isfinite().all(dim=1)).nonzero().flatten().tolist()
        if broken:
            raise ValueError(
                f"{name} finds no functionals of utterance {broken[0]} of the batch, "
                f"{counts[broken[0]]} samples: leave it out"
            )
        return found.to(wavs.device)

    def to_device(self, wavs: Tensor) -> Tensor:
        """Moves a batch to where the functionals are computed."""
        return wavs

    def of_utterance(self, wav: Tensor) -> Tensor:
        """Computes the functionals of one waveform (T,); NaN if it has none."""
        raise NotImplementedError


class EGeMAPS(Functionals):
    """Computes the 88 functionals of eGeMAPS v02 per utterance, by openSMILE.

    Eyben et al., "The Geneva minimalistic acoustic parameter set (GeMAPS) for voice
    research and affective computing", IEEE Transactions on Affective Computing 7(2),
    2016. Runs on the CPU, one utterance at a time, without gradient: for training,
    compute them once and pass them to ``EGeMAPSMLP.encode``.

    Needs the extra ``egemaps``; openSMILE is free for research only.
    """

    output_size = 88

    @override
    def to_device(self, wavs: Tensor) -> Tensor:
        return wavs.cpu()

    @override
    def of_utterance(self, wav: Tensor) -> Tensor:
        table = _smile().process_signal(wav.numpy(), SAMPLE_RATE)
        return torch.from_numpy(table.to_numpy(dtype="float32")[0].copy())

    @staticmethod
    def names() -> list[str]:
        """Returns openSMILE's names of the functionals.

        Returns
        -------
        list of str
            88 names.

        Raises
        ------
        ImportError
            If openSMILE is not installed.
        """
        return list(_smile().feature_names)


@functools.cache
def _smile() -> Any:
    try:
        import opensmile
    except ImportError as error:
        raise ImportError(
            "eGeMAPS needs openSMILE, which is free for research only: "
            "pip install 'speechbrain_ser_cl[egemaps]'"
        ) from error
    return opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.Functionals,
    )


class VocalFunctionals(Functionals):
    """Computes statistics of SpeechBrain's vocal features per utterance.

    An alternative to :class:`EGeMAPS` without licence restrictions; its values and
    results differ. Every 10 ms it computes pitch, harmonicity, jitter, shimmer, glottal
    noise, the shape of the spectrum and four MFCCs, 17 features
    (``speechbrain.lobes.features.VocalFeatures``, which follows openSMILE). The
    functionals are the mean, standard deviation and 20th, 50th and 80th percentile of
    each. An utterance needs a window of 50 ms.

    Example
    -------
    >>> VocalFunctionals()(torch.randn(2, 8000)).shape
    torch.Size([2, 85])
    """

    output_size = 85
    # In the order of VocalFeatures.
    _features = (
        *("f0", "hnr", "jitter", "shimmer", "gne", "centroid", "spread", "skew"),
        *("kurtosis", "entropy", "flatness", "crest", "flux"),
        *("mfcc0", "mfcc1", "mfcc2", "mfcc3"),
    )
    _quantiles = (0.2, 0.5, 0.8)

    @override
    def of_utterance(self, wav: Tensor) -> Tensor:
        vocal = _vocal_features().to(wav.device)
        if len(wav) < vocal.window_samples:
            return wav.new_full((self.output_size,), torch.nan)
        with torch.no_grad():
            frames = vocal(wav[None])[0]
        std, mean = torch.std_mean(frames, dim=0, correction=0)
        levels = torch.tensor(self._quantiles, device=wav.device)
        return torch.cat([mean, std, *frames.quantile(levels, dim=0)])

    @classmethod
    def names(cls) -> list[str]:
        """Returns the names of the 85 functionals, such as ``"f0 mean"``."""
        kinds = ["mean", "std", *(f"{100 * q:.0f} %" for q in cls._quantiles)]
        return [f"{feature} {kind}" for kind in kinds for feature in cls._features]


@functools.cache
def _vocal_features() -> Any:
    from speechbrain.lobes.features import VocalFeatures

    return VocalFeatures().eval()
