"""Augments waveforms and spectrograms."""

from speechbrain_ser_cl.augment.masking import SpectrogramMasking
from speechbrain_ser_cl.augment.pipelines import AugmentationPipelines

__all__ = ["AugmentationPipelines", "SpectrogramMasking"]
