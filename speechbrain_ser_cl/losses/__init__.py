"""Losses, one file per loss. They need only PyTorch."""

from speechbrain_ser_cl.losses.barlow_twins import BarlowTwinsLoss
from speechbrain_ser_cl.losses.binary_emotions import BinaryEmotionsLoss
from speechbrain_ser_cl.losses.ccc import CCCLoss
from speechbrain_ser_cl.losses.class_counts import ClassBalancedLoss, LogitAdjustedLoss
from speechbrain_ser_cl.losses.contrastive_regression import ContrastiveRegressionLoss
from speechbrain_ser_cl.losses.contrastive_step import contrastive_step
from speechbrain_ser_cl.losses.coral import CORALLoss
from speechbrain_ser_cl.losses.cosine_margin import CosineMarginLoss
from speechbrain_ser_cl.losses.dann import DomainAdversarialLoss
from speechbrain_ser_cl.losses.distribution import (
    DistributionCrossEntropyLoss,
    DistributionKLLoss,
)
from speechbrain_ser_cl.losses.focal import FocalLoss
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
from speechbrain_ser_cl.losses.ordinal_triplet import OrdinalTripletLoss
from speechbrain_ser_cl.losses.pairwise_view import PairwiseViewLoss
from speechbrain_ser_cl.losses.rank_n_contrast import RankNContrastLoss
from speechbrain_ser_cl.losses.siamese import SiameseLoss
from speechbrain_ser_cl.losses.smooth_triplet import SmoothTripletLoss
from speechbrain_ser_cl.losses.soft_nearest_neighbor import SoftNearestNeighborLoss
from speechbrain_ser_cl.losses.soft_supcon import SoftSupConLoss
from speechbrain_ser_cl.losses.supcon import SupConLoss
from speechbrain_ser_cl.losses.supcon_in import SupConInLoss
from speechbrain_ser_cl.losses.supervised_ntxent import SupervisedNTXentLoss
from speechbrain_ser_cl.losses.triplet import TripletLoss
from speechbrain_ser_cl.losses.vicreg import VICRegLoss

__all__ = [
    "BarlowTwinsLoss",
    "BinaryEmotionsLoss",
    "CCCLoss",
    "CORALLoss",
    "ClassBalancedLoss",
    "ContrastiveRegressionLoss",
    "CosineMarginLoss",
    "DistributionCrossEntropyLoss",
    "DistributionKLLoss",
    "DiversityLoss",
    "DomainAdversarialLoss",
    "EntropyLoss",
    "FocalLoss",
    "InfoNCELoss",
    "InformationMaximizationLoss",
    "LogitAdjustedLoss",
    "MMDLoss",
    "MoCoQueue",
    "MultitaskLoss",
    "NPairLoss",
    "NTXentLoss",
    "OrdinalTripletLoss",
    "PairwiseViewLoss",
    "RankNContrastLoss",
    "SiameseLoss",
    "SmoothTripletLoss",
    "SoftNearestNeighborLoss",
    "SoftSupConLoss",
    "SupConInLoss",
    "SupConLoss",
    "SupervisedNTXentLoss",
    "TripletLoss",
    "VICRegLoss",
    "contrastive_step",
]
