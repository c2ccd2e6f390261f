"""Waveform augmentation that says which pipeline each utterance got."""

from speechbrain_ser_cl.augment.pipelines import AugmentationPipelines

__all__ = ["AugmentationPipelines"]
