"""Losses, one file per loss. They need nothing but PyTorch."""

from speechbrain_ser_cl.losses.infonce import InfoNCELoss
from speechbrain_ser_cl.losses.information_maximization import (
    DiversityLoss,
    EntropyLoss,
    InformationMaximizationLoss,
)
from speechbrain_ser_cl.losses.multitask import MultitaskLoss

__all__ = [
    "DiversityLoss",
    "EntropyLoss",
    "InfoNCELoss",
    "InformationMaximizationLoss",
    "MultitaskLoss",
]
