"""Information maximisation: confident and varied predictions."""

import math

import torch
from torch import Tensor, nn

from speechbrain_ser_cl.losses.base import closed_form, needs_gradient, widen
from speechbrain_ser_cl.registry import LOSSES


class _PredictionLoss(nn.Module):
    """Base class of losses of predictions without labels."""

    def forward(self, logits: Tensor) -> Tensor:
        """Computes the loss.

        Arguments
        ---------
        logits : torch.Tensor
            Scores before the softmax (N, C), of any floating-point type.

        Returns
        -------
        torch.Tensor
            The loss, a scalar.

        Raises
        ------
        ValueError
            If the logits are not (N, C) with N >= 1 and C >= 2.
        """
        if logits.dim() != 2 or logits.shape[0] < 1 or logits.shape[1] < 2:
            raise ValueError(
                "expected logits of shape (N, C) with N of at least 1 and C of at "
                f"least 2, found {tuple(logits.shape)}"
            )
        (x,) = widen(logits)
        return self.compute(x)

    def compute(self, logits: Tensor) -> Tensor:
        """Computes the loss of checked logits in float32 or float64."""
        raise NotImplementedError


@LOSSES.register("entropy")
class EntropyLoss(_PredictionLoss):
    r"""Computes the mean entropy of the predictions; small if they are confident.

    .. math::
        L = -\frac{1}{N} \sum_n \sum_c p_{nc} \log p_{nc}

    with p the softmax of the logits. Used alone, its optimum is one class for all rows.

    Between 0 and log C. Computed in float32 (float64 for float64 logits). NaN or
    infinity in a logit gives NaN.

    References
    ----------
    Ahn et al. 2023, eq. 5, first half: "Integrating contrastive learning into a
    multitask transformer model for effective domain adaptation", arXiv:2310.04703.

    Example
    -------
    >>> round(EntropyLoss()(torch.zeros(3, 4)).item(), 6)  # log 4
    1.386294
    """

    def compute(self, logits: Tensor) -> Tensor:
        """Computes the first half of equation 5."""
        log_p = logits.log_softmax(dim=1)
        return -(log_p.exp() * log_p).sum(dim=1).mean()


@LOSSES.register("diversity")
class DiversityLoss(_PredictionLoss):
    r"""Computes minus the entropy of the mean prediction; small if it is even.

    .. math::
        L = \sum_c \hat p_c \log \hat p_c,
        \qquad \hat p_c = \frac{1}{N} \sum_n p_{nc}

    with p the softmax of the logits.

    Between -log C and 0. Computed in float32 (float64 for float64 logits). NaN or
    +infinity in a logit gives NaN; -infinity is a probability of 0.

    References
    ----------
    Ahn et al. 2023, eq. 5, second half: "Integrating contrastive learning into a
    multitask transformer model for effective domain adaptation", arXiv:2310.04703.

    Example
    -------
    >>> logits = torch.tensor([[50.0, 0.0], [0.0, 50.0]])
    >>> round(DiversityLoss()(logits).item(), 6)  # -log 2
    -0.693147
    """

    def compute(self, logits: Tensor) -> Tensor:
        """Computes the second half of equation 5."""
        log_p = logits.log_softmax(dim=1)
        log_mean_p = log_p.logsumexp(dim=0) - math.log(len(log_p))
        return (log_mean_p.exp() * log_mean_p).sum()


@LOSSES.register("information_maximization")
class InformationMaximizationLoss(_PredictionLoss):
    r"""Makes each prediction confident and the predictions of the batch varied.

    .. math::
        L = -\frac{1}{N} \sum_n \sum_c p_{nc} \log p_{nc}
            + \sum_c \hat p_c \log \hat p_c,
        \qquad \hat p_c = \frac{1}{N} \sum_n p_{nc}

    This is :class:`EntropyLoss` plus :class:`DiversityLoss`, or minus the mutual
    information between input and predicted class. Labels are not used.

    Between -log C and 0; for N = 1 the two parts cancel to 0. Computed in float32
    (float64 for float64 logits). NaN or infinity in a logit gives NaN.

    References
    ----------
    Ahn et al. 2023, eq. 5: "Integrating contrastive learning into a multitask
    transformer model for effective domain adaptation", arXiv:2310.04703.

    Example
    -------
    >>> loss = InformationMaximizationLoss()
    >>> logits = torch.tensor([[50.0, 0.0], [0.0, 50.0]])
    >>> round(loss(logits).item(), 6)  # confident and balanced: -log 2
    -0.693147
    """

    def compute(self, logits: Tensor) -> Tensor:
        """Computes equation 5, and its gradient."""
        needed = needs_gradient(logits)
        with torch.no_grad():
            log_p = logits.log_softmax(dim=1)
            # Both halves together: the sum over c of p (log mean p - log p).
            difference = log_p.logsumexp(dim=0).sub_(math.log(len(log_p))).sub(log_p)
            p = log_p.exp_()
            weighted = p * difference
            sums = weighted.sum(dim=1, keepdim=True)
            gradients = []
            if needed:
                gradients = [weighted.addcmul_(p, sums, value=-1)]
        return closed_form(sums.sum(), len(p), gradients, [logits])
