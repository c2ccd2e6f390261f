"""Layers between an encoder and a loss: masked pooling and heads."""

from speechbrain_ser_cl.nnet.domain_norm import DomainNorm
from speechbrain_ser_cl.nnet.heads import (
    ClassifierHead,
    DomainClassifierHead,
    ProjectionHead,
)
from speechbrain_ser_cl.nnet.lengths import length_mask, valid_counts
from speechbrain_ser_cl.nnet.pooling import (
    MeanPooling,
    SelfAttentionPooling,
    StatisticsPooling,
)

__all__ = [
    "ClassifierHead",
    "DomainClassifierHead",
    "DomainNorm",
    "MeanPooling",
    "ProjectionHead",
    "SelfAttentionPooling",
    "StatisticsPooling",
    "length_mask",
    "valid_counts",
]
