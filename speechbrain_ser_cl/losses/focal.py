"""Focal loss."""

import math

import torch
from torch import Tensor

from speechbrain_ser_cl.losses.base import ClassLoss
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("focal")
class FocalLoss(ClassLoss):
    r"""Cross-entropy with smaller weights for well-classified utterances.

    .. math::
        L = \frac{1}{N} \sum_i -(1 - p_{i y_i})^\gamma \log p_{i y_i}

    with p the softmax of the logits. gamma = 0 is cross-entropy.

    Labels are integers (N,), as a tensor or a list. -1 is unknown and left out. Without
    known labels the loss is 0 with gradient 0. NaN or infinity in a logit gives NaN.

    Arguments
    ---------
    gamma : float
        At least 0.

    Raises
    ------
    ValueError
        If gamma is negative or not finite.

    References
    ----------
    Lin et al. 2017, eq. 4: "Focal loss for dense object detection", arXiv:1708.02002.

    Example
    -------
    >>> loss = FocalLoss(gamma=2.0)
    >>> round(loss(torch.zeros(1, 2), [0]).item(), 4)  # 0.5² log 2
    0.1733
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        if not (math.isfinite(gamma) and gamma >= 0):
            raise ValueError(f"gamma must be finite and at least 0, found {gamma}")
        self.gamma = gamma

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss of each row."""
        log_p = logits.log_softmax(dim=1)
        of_label = log_p.gather(1, labels[:, None]).squeeze(1)
        if self.gamma == 0:
            return -of_label
        # log(1 - p) from the other classes, because 1 - p has no precision near p = 1.
        others = log_p.scatter(1, labels[:, None], -torch.inf)
        if others.shape[1] == 1:
            return -of_label * 0
        return -(self.gamma * others.logsumexp(dim=1)).exp() * of_label
