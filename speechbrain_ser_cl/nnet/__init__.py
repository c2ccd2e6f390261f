"""Layers between an encoder and a loss: masked pooling and heads."""

from speechbrain_ser_cl.nnet.classifier import (
    EmotionClassifier,
    HeadSum,
    UtteranceEncoder,
)
from speechbrain_ser_cl.nnet.domain_norm import DomainNorm
from speechbrain_ser_cl.nnet.heads import (
    ClassifierHead,
    DomainClassifierHead,
    ProjectionHead,
)
from speechbrain_ser_cl.nnet.lengths import length_mask, steps_mask, valid_counts
from speechbrain_ser_cl.nnet.pooling import (
    MeanPooling,
    SelfAttentionPooling,
    StatisticsPooling,
)

__all__ = [
    "ClassifierHead",
    "DomainClassifierHead",
    "DomainNorm",
    "EmotionClassifier",
    "HeadSum",
    "MeanPooling",
    "ProjectionHead",
    "SelfAttentionPooling",
    "StatisticsPooling",
    "UtteranceEncoder",
    "length_mask",
    "steps_mask",
    "valid_counts",
]
