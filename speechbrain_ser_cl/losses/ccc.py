"""Concordance correlation loss for emotional dimensions."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_ser_cl.losses.base import (
    as_tensor,
    check_embeddings,
    check_some,
    closed_form,
    full_precision,
    needs_gradient,
    widen,
)
from speechbrain_ser_cl.losses.gather import gather_rows
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("ccc")
class CCCLoss(nn.Module):
    r"""One minus the concordance correlation (CCC) of predictions and labels.

    .. math::
        L = \frac{\sum_k w_k (1 - \mathrm{CCC}_k)}{\sum_k w_k}, \qquad
        \mathrm{CCC} = \frac{2 \, Cov(x, y)}
            {Var(x) + Var(y) + (\bar x - \bar y)^2}

    with variances over N, not N - 1. The value is noisy for small batches. The mean of
    several processes' values is not the value of all their rows; ``gather`` computes
    that.

    NaN labels are unknown and left out of their dimension; dimensions without known
    labels are left out of the mean. Without known labels the loss is 0 with gradient 0.
    If all predictions or all labels of a dimension are equal (also for N = 1), its CCC
    is 0. NaN or infinity in a prediction gives NaN.

    Arguments
    ---------
    weights : sequence of float, optional
        w, one per dimension, at least 0, at least one above 0. None: all equal.
    gather : bool
        Whether to compute statistics over the rows of all processes, see
        :func:`~.gather.gather_rows`.

    Raises
    ------
    ValueError
        If a weight is negative or not finite, or all are 0.

    References
    ----------
    Lin 1989: "A concordance correlation coefficient to evaluate reproducibility",
    Biometrics 45(1).

    Example
    -------
    >>> loss = CCCLoss()
    >>> labels = torch.tensor([[1.0, 5.0], [2.0, 3.0], [3.0, 1.0]])
    >>> loss(labels, labels).item()
    0.0
    >>> round(loss(labels + 1, labels).item(), 4)  # 1 - 2 v / (2 v + 1), v 2/3 and 8/3
    0.2932
    """

    def __init__(
        self, weights: Sequence[float] | None = None, gather: bool = False
    ) -> None:
        super().__init__()
        if weights is not None:
            bad = [w for w in weights if not (math.isfinite(w) and w >= 0)]
            if bad or not any(weights):
                raise ValueError(
                    "weights must be finite and at least 0, one of them above 0, found "
                    f"{list(weights)}"
                )
            weights = tuple(weights)
        self.weights = weights
        self.gather = gather

    def forward(self, predictions: Tensor, targets: Tensor | Sequence[Any]) -> Tensor:
        """Compares predictions with labels.

        Arguments
        ---------
        predictions : torch.Tensor
            (N, K), one column per dimension, or (N,); of any floating-point type.
        targets : torch.Tensor or sequence
            Labels of the same shape; NaN is unknown.

        Returns
        -------
        torch.Tensor
            The loss, a scalar in [0, 2].

        Raises
        ------
        ValueError
            If shapes, types or devices do not fit together, or the batch is empty.
        """
        if isinstance(predictions, Tensor) and predictions.dim() == 1:
            predictions = predictions[:, None]
        check_embeddings("predictions", predictions)
        targets = as_tensor("targets", targets, predictions.device)
        if targets.dim() == 1:
            targets = targets[:, None]
        if targets.shape != predictions.shape:
            raise ValueError(
                "predictions and targets must have the same shape (N, K), found "
                f"{tuple(predictions.shape)} and {tuple(targets.shape)}"
            )
        size = targets.shape[1]
        if self.weights is not None and len(self.weights) != size:
            raise ValueError(f"{len(self.weights)} weights but {size} dimensions")
        with full_precision(predictions.device):
            (x,) = widen(predictions)
            y = targets.detach().to(x.dtype)
            if self.gather:
                x, y = gather_rows(x, y)
            check_some("predictions", x)
            return self._compare(x, y)

    def _compare(self, x: Tensor, y: Tensor) -> Tensor:
        """Computes the loss of (N, K) both, and its gradient."""
        needed = needs_gradient(x)
        with torch.no_grad():
            missing, unknown = y.isnan(), None
            share: Tensor | float = 1 / len(y)
            weights = None
            if self.weights is not None:
                weights = x.new_tensor(self.weights)
            if missing.any():
                unknown, number = missing, len(y) - missing.sum(dim=0)
                share = 1 / number.clamp(min=1)
                rated = (number > 0).to(x.dtype)
                weights = rated if weights is None else rated * weights
            dx, mean_x = _centred(x, unknown, share)
            dy, mean_y = _centred(y, unknown, share)
            covariance = (dx * dy).sum(dim=0) * share
            # The same order of sums, so that the CCC of equal x and y is exactly 1.
            spread = dx.square().add_(dy.square()).sum(dim=0) * share
            gap = mean_x - mean_y
            spread.addcmul_(gap, gap).clamp_(min=torch.finfo(x.dtype).tiny)
            ccc = (2 * covariance).div_(spread)
            count: Tensor | int = len(ccc)
            total = count - ccc.sum()
            if weights is not None:
                total, divisor = (weights * (1 - ccc)).sum(), weights.sum()
                count = divisor.masked_fill_(divisor == 0, 1)
            gradients = []
            if needed:
                gradient = (dx * ccc).sub_(dy).add_(gap.mul_(ccc))
                gradient.mul_((1 if weights is None else weights) * 2 * share)
                gradient.div_(spread)
                if unknown is not None:
                    gradient.masked_fill_(unknown, 0)
                gradients = [gradient]
        return closed_form(total, count, gradients, [x])


def _centred(
    values: Tensor, unknown: Tensor | None, share: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Subtracts the mean, exactly 0 if all values are equal; returns the mean too."""
    if unknown is None:
        one = values[:1]
        values = values - one
    else:
        one = values.masked_fill(unknown, -torch.inf).amax(dim=0, keepdim=True)
        one.masked_fill_(unknown.all(dim=0), 0)
        values = (values - one).masked_fill_(unknown, 0)
    mean = values.sum(dim=0, keepdim=True) * share
    values.sub_(mean)
    if unknown is not None:
        values.masked_fill_(unknown, 0)
    return values, mean.add_(one).squeeze(0)
