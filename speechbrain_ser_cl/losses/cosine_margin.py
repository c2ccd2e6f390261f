"""Cosine margin loss of two-stage supervised contrastive fine-tuning."""

import math

import torch
from torch import Tensor, nn

from speechbrain_ser_cl.losses.base import (
    check_pair,
    closed_form,
    full_precision,
    needs_gradient,
    scaled_rows,
    scaled_rows_backward,
    widen,
)
from speechbrain_ser_cl.losses.gather import gather_rows
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("cosine_margin")
class CosineMarginLoss(nn.Module):
    r"""Pulls pairs of positives together and pushes negatives below a cosine margin.

    .. math::
        L = \frac{1}{P} \sum_{p=1}^{P} \left[ \alpha (1 - s(x_p, x'_p))
            + \frac{1}{K} \sum_{n=1}^{K} \max(0, s(x_p, x_n) - m) \right]

    with s the cosine. The 2P positives are split into halves x and x'; row p of one is
    paired with row p of the other. This is the unnumbered equation before equation 5,
    the total loss, of the paper. The paper does not say which negatives belong to x_p;
    here it is the mean over all K.

    Labels are not needed: the rows of the drawn emotion are the positives, and rows of
    other emotions are the negatives. Without negatives (K = 0) the second part is 0;
    without positives (P = 0) the loss is 0 with gradient 0. NaN or infinity in an
    embedding gives NaN.

    Arguments
    ---------
    alpha : float
        Weight of the first part, at least 0.
    margin : float
        m, the largest cosine at which a negative has no loss, in [-1, 1].
    gather : bool
        Whether to compare the rows of all processes, see :func:`~.gather.gather_rows`.

    Raises
    ------
    ValueError
        If alpha is negative or not finite, or the margin is not in [-1, 1].

    References
    ----------
    Xiang 2024, section 2.3: "A cross-corpus speech emotion recognition method based on
    supervised contrastive learning", arXiv:2411.19803.

    Example
    -------
    >>> loss = CosineMarginLoss()
    >>> positives = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    >>> negatives = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> round(loss(positives, negatives).item(), 6)  # 0.5 * 0.4 + (0.6 + 0) / 2
    0.5
    """

    def __init__(
        self, alpha: float = 0.5, margin: float = 0.4, gather: bool = False
    ) -> None:
        super().__init__()
        if not (math.isfinite(alpha) and alpha >= 0):
            raise ValueError(f"alpha must be finite and at least 0, found {alpha}")
        if not -1 <= margin <= 1:
            raise ValueError(f"margin must be a cosine, from -1 to 1, found {margin}")
        self.alpha = alpha
        self.margin = margin
        self.gather = gather

    def forward(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """Compares the rows of the drawn emotion with each other and with the rest.

        Arguments
        ---------
        positives : torch.Tensor
            Embeddings (2P, D) of the drawn emotion, of any floating-point type.
        negatives : torch.Tensor
            Embeddings (K, D) of other emotions.

        Returns
        -------
        torch.Tensor
            The loss, a scalar of at least 0.

        Raises
        ------
        ValueError
            If shapes, types or devices do not fit together, or the number of positives
            is odd.
        """
        check_pair("positives and negatives", positives, negatives)
        with full_precision(positives):
            positives, negatives = widen(positives, negatives)
            if self.gather:
                (positives,) = gather_rows(positives)
                (negatives,) = gather_rows(negatives)
            if len(positives) % 2:
                raise ValueError(
                    "positives are split into two halves: expected an even number, "
                    f"found {len(positives)}"
                )
            return self._compare(torch.cat([positives, negatives]), len(positives) // 2)

    def _compare(self, z: Tensor, half: int) -> Tensor:
        """Computes the loss of both halves and the negatives, and its gradient."""
        needed = needs_gradient(z)
        with torch.no_grad():
            u, *lengths = scaled_rows(z)
            first, second, negatives = u.split([half, half, len(z) - 2 * half])
            of_pair = self.alpha / max(1, half)
            above = (first @ negatives.T).sub_(self.margin).clamp_(min=0)
            of_above = 1 / max(1, above.numel())
            total = (half - (first * second).sum()) * of_pair + above.sum() * of_above
            gradients = []
            if needed:
                inside = above.sign_().mul_(of_above)
                gradient = torch.empty_like(u)
                mine, other, rest = gradient.split([half, half, len(negatives)])
                torch.mul(first, -of_pair, out=other)
                torch.addmm(second, inside, negatives, beta=-of_pair, out=mine)
                torch.mm(inside.T, first, out=rest)
                gradients = [scaled_rows_backward(gradient, u, *lengths)]
        return closed_form(total, 1, gradients, [z])
