"""Cross-entropy and Kullback-Leibler divergence to the votes of listeners."""

import torch
from torch import Tensor

from speechbrain_ser_cl.losses.base import LogitLoss, check_distributions
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("distribution_cross_entropy")
class DistributionCrossEntropyLoss(LogitLoss):
    r"""Computes cross-entropy with the votes of listeners as labels.

    .. math::
        L = \frac{1}{N} \sum_i \sum_c -v_{ic} \log p_{ic}

    with p the softmax of the logits and v the shares of the votes. Its gradient equals
    that of :class:`DistributionKLLoss`. With one vote per row it is the usual
    cross-entropy.

    Labels are votes or shares (N, C), at least 0, scaled to sum 1. Rows without votes,
    with NaN or with -1 are unknown and left out. Without known rows the loss is 0 with
    gradient 0. NaN or infinity in a logit gives NaN.

    References
    ----------
    Chou et al. 2024: "Embracing ambiguity and subjectivity using the all-inclusive
    aggregation rule for evaluating multi-label speech emotion recognition systems",
    IEEE SLT; soft labels of listeners.

    Example
    -------
    >>> loss = DistributionCrossEntropyLoss()
    >>> round(loss(torch.zeros(1, 4), [[2, 1, 0, 0]]).item(), 4)  # log 4
    1.3863
    """

    def checked(self, labels: Tensor, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns shares (N, C), and which rows have votes."""
        return check_distributions("labels", labels, len(logits), logits.shape[1])

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Computes the cross-entropy of each row."""
        losses: Tensor = labels.to(logits.dtype) * logits.log_softmax(dim=1)
        return -losses.sum(dim=1)


@LOSSES.register("distribution_kl")
class DistributionKLLoss(DistributionCrossEntropyLoss):
    r"""Computes the Kullback-Leibler divergence of the votes from the prediction.

    .. math::
        L = \frac{1}{N} \sum_i \sum_c v_{ic} \log \frac{v_{ic}}{p_{ic}}

    with p the softmax of the logits and v the shares of the listeners' votes. This is
    cross-entropy minus the entropy of the votes. For labels, unknown rows and edge
    cases see :class:`DistributionCrossEntropyLoss`.

    References
    ----------
    Kullback and Leibler 1951: "On information and sufficiency", Annals of
    Mathematical Statistics 22(1).

    Example
    -------
    >>> loss = DistributionKLLoss()
    >>> round(loss(torch.zeros(1, 2), [[1, 1]]).item(), 4)
    0.0
    """

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Computes the divergence of each row."""
        entropy: Tensor = -torch.special.xlogy(labels, labels).sum(dim=1)
        return super().row_losses(logits, labels) - entropy.to(logits.dtype)
