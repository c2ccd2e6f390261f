"""Encoders: waveform to frames (B, T, D), or to one vector (B, D)."""

from speechbrain_ser_cl.backbones.egemaps_mlp import EGeMAPSMLP
from speechbrain_ser_cl.backbones.features import EGeMAPS, LogMel, LogSpectrogram
from speechbrain_ser_cl.backbones.mel_cnn import MelCNN
from speechbrain_ser_cl.backbones.pointwise_cnn import PointwiseCNN
from speechbrain_ser_cl.backbones.spectrogram_crnn import SpectrogramCRNN
from speechbrain_ser_cl.backbones.weighted_ssl import (
    WeightedSSL,
    write_untrained_encoder,
)

__all__ = [
    "EGeMAPS",
    "EGeMAPSMLP",
    "LogMel",
    "LogSpectrogram",
    "MelCNN",
    "PointwiseCNN",
    "SpectrogramCRNN",
    "WeightedSSL",
    "write_untrained_encoder",
]
