"""Binary cross-entropy for several emotions per utterance."""

import torch
from torch import Tensor
from torch.nn import functional as F

from speechbrain_ser_cl.losses.base import UNKNOWN, LogitLoss
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("binary_emotions")
class BinaryEmotionsLoss(LogitLoss):
    r"""Computes the binary cross-entropy of each emotion, independent of the others.

    .. math::
        L = \frac{1}{|K|} \sum_{(i, c) \in K}
            -y_{ic} \log \sigma(x_{ic}) - (1 - y_{ic}) \log(1 - \sigma(x_{ic}))

    with x the logits and K the known labels. Labels (N, C) are in [0, 1]; -1 or NaN is
    unknown and left out. Without known labels the loss is 0 with gradient 0. NaN or
    infinity in a logit gives NaN.

    References
    ----------
    Chou et al. 2024: "Embracing ambiguity and subjectivity using the all-inclusive
    aggregation rule for evaluating multi-label speech emotion recognition systems",
    IEEE SLT.

    Example
    -------
    >>> loss = BinaryEmotionsLoss()
    >>> round(loss(torch.zeros(2, 3), [[1, 0, 1], [-1, 1, 0]]).item(), 4)  # log 2
    0.6931
    """

    def checked(self, labels: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Returns numbers (N, C), and which are known."""
        if labels.shape != logits.shape:
            raise ValueError(
                "labels must have the shape of the logits (N, C), found "
                f"{tuple(labels.shape)} and {tuple(logits.shape)}"
            )
        labels = labels.to(torch.promote_types(labels.dtype, torch.float32))
        known = ~(labels.isnan() | (labels == UNKNOWN))
        within = (labels >= 0) & (labels <= 1)
        if not within[known].all():
            raise ValueError(
                "labels must be in [0, 1], or -1 or NaN where unknown, found "
                f"{labels[known & ~within][0].item():g}"
            )
        return labels, known

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss of each label."""
        return F.binary_cross_entropy_with_logits(
            logits, labels.to(logits.dtype), reduction="none"
        )
