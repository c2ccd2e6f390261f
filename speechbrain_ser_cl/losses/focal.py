"""Focal loss."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from speechbrain_ser_cl.losses.base import UNKNOWN, ClassLoss
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("focal")
class FocalLoss(ClassLoss):
    r"""Computes cross-entropy with smaller weights for well-classified utterances.

    .. math::
        L = \frac{1}{N} \sum_i -(1 - p_{i y_i})^\gamma \log p_{i y_i}

    with p the softmax of the logits. gamma = 0 is cross-entropy.

    Labels are integers (N,), as a tensor or a list. -1 is unknown and left out. Without
    known labels the loss is 0 with gradient 0. NaN or +infinity in a logit gives NaN;
    -infinity is a probability of 0.

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

    def mean_loss(self, logits: Tensor, labels: Tensor, known: Tensor | None) -> Tensor:
        """Computes the mean over known labels (None: all)."""
        log_p = logits.log_softmax(dim=1)
        # 0 where unknown
        nll = F.nll_loss(log_p, labels, reduction="none", ignore_index=UNKNOWN)
        less = torch.expm1(-nll)  # p - 1
        if self.gamma == 2:  # A power takes more operations than a product.
            weights = less * less
        else:
            if self.gamma < 1:  # The slope of the power is infinite at 0.
                less = less.clamp(max=-torch.finfo(less.dtype).tiny)
            weights = less.neg().pow(self.gamma)
        total = torch.dot(weights, nll)
        if known is None:
            return total / len(labels)
        # Rows without a label are checked for NaN and infinity, too.
        broken = log_p.detach().amax(dim=1).sum()
        return torch.add(total / known.sum().clamp_(min=1), broken, alpha=0)
