"""Focal loss."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from speechbrain_ser_cl.losses.base import (
    UNKNOWN,
    ClassLoss,
    closed_form,
    log_softmax_backward,
    needs_gradient,
)
from speechbrain_ser_cl.registry import LOSSES

_TINY = torch.finfo(torch.float32).tiny
_nll_loss_backward = torch.ops.aten.nll_loss_backward.default


@LOSSES.register("focal")
class FocalLoss(ClassLoss):
    r"""Computes cross-entropy with smaller weights for well-classified utterances.

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

    def mean_loss(self, logits: Tensor, labels: Tensor, known: Tensor | None) -> Tensor:
        """Computes the mean over known labels (None: all), and its gradient."""
        count = len(labels) if known is None else known.sum().clamp_(min=1)
        log_p = logits.detach().log_softmax(dim=1)
        # 0 where unknown
        nll = F.nll_loss(log_p, labels, reduction="none", ignore_index=UNKNOWN)
        less = (-nll).expm1_().clamp_(max=-_TINY)  # p - 1
        weights = less.neg().pow_(self.gamma).mul_(1 / count)
        total = torch.dot(weights, nll)
        gradients = []
        if needs_gradient(logits):
            # p log(p) / (1 - p)
            share = torch.addcdiv(nll, nll, less)
            slope = weights.addcmul_(weights, share, value=-self.gamma)
            of_log_p = _nll_loss_backward(slope, log_p, labels, None, 0, UNKNOWN, total)
            gradients = [log_softmax_backward(of_log_p, log_p, 1, log_p.dtype)]
        return closed_form(total, 1, gradients, [logits])
