"""Encoders: waveform to frames (B, T, D)."""

from speechbrain_ser_cl.backbones.weighted_ssl import WeightedSSL

__all__ = ["WeightedSSL"]
