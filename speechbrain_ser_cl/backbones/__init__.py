"""Encoders: waveforms to frames (B, T, D), or to one vector (B, D)."""

from speechbrain_ser_cl.backbones.concatenated_layers import ConcatenatedLayers
from speechbrain_ser_cl.backbones.ecapa import ECAPAEncoder
from speechbrain_ser_cl.backbones.features import (
    EGeMAPS,
    LogMel,
    LogSpectrogram,
    VocalFunctionals,
)
from speechbrain_ser_cl.backbones.functionals_mlp import (
    EGeMAPSMLP,
    FunctionalsMLP,
    VocalMLP,
)
from speechbrain_ser_cl.backbones.mel_cnn import MelCNN
from speechbrain_ser_cl.backbones.pointwise_cnn import AllLayers, PointwiseCNN
from speechbrain_ser_cl.backbones.spectrogram_crnn import SpectrogramCRNN
from speechbrain_ser_cl.backbones.weighted_ssl import (
    WeightedSSL,
    write_untrained_encoder,
)

__all__ = [
    "AllLayers",
    "ConcatenatedLayers",
    "ECAPAEncoder",
    "EGeMAPS",
    "EGeMAPSMLP",
    "FunctionalsMLP",
    "LogMel",
    "LogSpectrogram",
    "MelCNN",
    "PointwiseCNN",
    "SpectrogramCRNN",
    "VocalFunctionals",
    "VocalMLP",
    "WeightedSSL",
    "write_untrained_encoder",
]
