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
    widen,
    zero_or_nan,
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
        with torch.autocast(predictions.device.type, enabled=False):
            (x,) = widen(predictions)
            y = targets.detach().to(x.dtype)
            if self.gather:
                x, y = gather_rows(x, y)
            check_some("predictions", x)
            broken = zero_or_nan(x)
            known = ~y.isnan()
            number = known.sum(dim=0)
            x, y = (t.masked_fill(~known, 0) for t in (x, y))
            share = known / number.clamp(min=1).to(x.dtype)
            mean_x, mean_y = ((t * share).sum(dim=0) for t in (x, y))
            x, y = _centred(x, mean_x, known), _centred(y, mean_y, known)
            covariance = (x * y * share).sum(dim=0)
            spread = ((x.square() + y.square()) * share).sum(dim=0)
            spread = spread + (mean_x - mean_y).square()
            ccc = 2 * covariance / spread.masked_fill(spread == 0, 1)
            weights = x.new_tensor(self.weights or [1.0] * size) * (number > 0)
            total = weights.sum()
            losses = (weights * (1 - ccc)).sum() / total.masked_fill(total == 0, 1)
            return losses + broken


def _centred(values: Tensor, mean: Tensor, known: Tensor) -> Tensor:
    """Subtracts the mean; exactly 0 if all values are equal, with the gradient kept."""
    highest = values.masked_fill(~known, -torch.inf).amax(dim=0)
    flat = highest == values.masked_fill(~known, torch.inf).amin(dim=0)
    values = values - mean
    return values - values.detach() * flat
