"""Concordance correlation loss for emotional dimensions."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_ser_cl.losses.base import (
    as_tensor,
    check_embeddings,
    check_not_empty,
    closed_form,
    full_precision,
    needs_gradient,
    widen,
)
from speechbrain_ser_cl.losses.gather import gather_rows
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("ccc")
class CCCLoss(nn.Module):
    r"""Computes one minus the concordance correlation (CCC) with the labels.

    .. math::
        L = \frac{\sum_k w_k (1 - \mathrm{CCC}_k)}{\sum_k w_k}, \qquad
        \mathrm{CCC} = \frac{2 \, Cov(x, y)}
            {Var(x) + Var(y) + (\bar x - \bar y)^2}

    with x the predictions, y the labels and variances over N, not N - 1. The value is
    noisy for small batches. The mean of the values of several processes is not the
    value of all their rows together, which ``gather`` computes.

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
        with full_precision(predictions):
            (x,) = widen(predictions)
            y = targets.detach().to(x.dtype)
            if self.gather:
                x, y = gather_rows(x, y)
            check_not_empty("predictions", x)
            return self._compare(x, y)

    def _compare(self, x: Tensor, y: Tensor) -> Tensor:
        """Computes the loss of (N, K) both, and its gradient."""
        both = torch.stack([x.detach(), y])
        unknown = None
        number: Tensor | int = y.shape[0]
        origin = both[:, :1]
        weights = None if self.weights is None else x.new_tensor(self.weights)
        if math.isnan(y.sum().item()):
            unknown = y.isnan()
            number = (~unknown).sum(dim=0)
            origin = both.masked_fill(unknown, -torch.inf).amax(dim=1, keepdim=True)
            origin.masked_fill_(number == 0, 0)
            rated = (number > 0).to(x.dtype)
            weights = rated if weights is None else rated * weights
            number = number.clamp_(min=1).to(x.dtype)
        # Relative to one of the values, so that equal values equal their mean exactly.
        both = _masked_(both - origin, unknown)
        mean = both.sum(dim=1, keepdim=True).div_(number)
        dx, dy = _masked_(both.sub_(mean), unknown).unbind()
        of_x, of_y = mean.add_(origin).squeeze(1).unbind()
        gap = of_x - of_y
        # In the same order of sums as below, so that equal x and y have CCC 1.
        spread = both.square().sum(dim=0).sum(dim=0)
        spread.add_(gap.square().mul_(number)).clamp_(min=torch.finfo(x.dtype).tiny)
        ccc = (dx * dy).sum(dim=0).mul_(2).div_(spread)
        if weights is None:
            share: Tensor | float = 1 / ccc.shape[0]
            total = 1 - ccc.mean()
        else:
            share = weights / weights.sum().clamp_(min=torch.finfo(x.dtype).tiny)
            total = (share * (1 - ccc)).sum()
        gradients = []
        if needs_gradient(x):
            slope = spread.reciprocal_().mul_(2).mul_(share)
            gradient = dx.add_(gap).mul_(ccc).sub_(dy).mul_(slope)
            gradients = [_masked_(gradient, unknown)]
        return closed_form(total, 1, gradients, [x])


def _masked_(values: Tensor, unknown: Tensor | None) -> Tensor:
    """Sets unknown values to 0."""
    return values if unknown is None else values.masked_fill_(unknown, 0)
