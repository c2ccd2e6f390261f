"""Losses, one file per loss. They need nothing but PyTorch."""

from speechbrain_ser_cl.losses.barlow_twins import BarlowTwinsLoss
from speechbrain_ser_cl.losses.contrastive_step import contrastive_step
from speechbrain_ser_cl.losses.coral import CORALLoss
from speechbrain_ser_cl.losses.cosine_margin import CosineMarginLoss
from speechbrain_ser_cl.losses.dann import DomainAdversarialLoss
from speechbrain_ser_cl.losses.infonce import InfoNCELoss
from speechbrain_ser_cl.losses.information_maximization import (
    DiversityLoss,
    EntropyLoss,
    InformationMaximizationLoss,
)
from speechbrain_ser_cl.losses.mmd import MMDLoss
from speechbrain_ser_cl.losses.moco import MoCoQueue
from speechbrain_ser_cl.losses.multitask import MultitaskLoss
from speechbrain_ser_cl.losses.npair import NPairLoss
from speechbrain_ser_cl.losses.ntxent import NTXentLoss
from speechbrain_ser_cl.losses.pairwise_view import PairwiseViewLoss
from speechbrain_ser_cl.losses.siamese import SiameseLoss
from speechbrain_ser_cl.losses.smooth_triplet import SmoothTripletLoss
from speechbrain_ser_cl.losses.soft_nearest_neighbor import SoftNearestNeighborLoss
from speechbrain_ser_cl.losses.supcon import SupConLoss
from speechbrain_ser_cl.losses.supcon_in import SupConInLoss
from speechbrain_ser_cl.losses.supervised_ntxent import SupervisedNTXentLoss
from speechbrain_ser_cl.losses.triplet import TripletLoss
from speechbrain_ser_cl.losses.vicreg import VICRegLoss

__all__ = [
    "BarlowTwinsLoss",
    "CORALLoss",
    "CosineMarginLoss",
    "DiversityLoss",
    "DomainAdversarialLoss",
    "EntropyLoss",
    "InfoNCELoss",
    "InformationMaximizationLoss",
    "MMDLoss",
    "MoCoQueue",
    "MultitaskLoss",
    "NPairLoss",
    "NTXentLoss",
    "PairwiseViewLoss",
    "SiameseLoss",
    "SmoothTripletLoss",
    "SoftNearestNeighborLoss",
    "SupConInLoss",
    "SupConLoss",
    "SupervisedNTXentLoss",
    "TripletLoss",
    "VICRegLoss",
    "contrastive_step",
]
