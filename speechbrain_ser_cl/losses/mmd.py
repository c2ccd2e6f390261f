"""Maximum mean discrepancy between two domains."""

from collections.abc import Sequence

import torch
from torch import Tensor

from speechbrain_ser_cl.losses.base import (
    IN_CACHE,
    DomainLoss,
    check_above_zero,
    closed_form,
    needs_gradient,
)
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("mmd")
class MMDLoss(DomainLoss):
    r"""Compares the distributions of source and target embeddings by kernels.

    .. math::
        L = \frac{1}{N^2} \sum_{ij} k(s_i, s_j) + \frac{1}{M^2} \sum_{ij} k(t_i, t_j)
            - \frac{2}{N M} \sum_{ij} k(s_i, t_j),
        \qquad k(x, y) = \frac{1}{K} \sum_{r=1}^{K}
            \exp\left(-\frac{\|x - y\|^2}{b_r \bar d}\right)

    This is the squared, biased estimate (at least 0) of Gretton et al. with the mean of
    several Gaussian kernels, as in Long et al. The scale d is the mean squared distance
    between two different rows of both batches together; it has no gradient.

    Equal domains give 0; one row each (N = M = 1) is allowed. If all rows of both
    domains are equal, the loss is 0 with gradient 0. NaN or infinity in an embedding
    gives NaN. Labels are not used.

    Arguments
    ---------
    kernels : sequence of float
        Widths b of the kernels in units of d, each above 0.

    Raises
    ------
    ValueError
        If there is no kernel, or a width is not a finite number above 0.

    References
    ----------
    Gretton et al. 2012, eq. 5: "A kernel two-sample test", JMLR 13.
    Long et al. 2015: "Learning transferable features with deep adaptation networks",
    arXiv:1502.02791; the several kernels.

    Example
    -------
    >>> source, target = torch.zeros(3, 2), torch.ones(3, 2)
    >>> loss = MMDLoss(kernels=[1.0])  # d = 2 * 9 / 15, 2 - 2 exp(-2 / d)
    >>> round(loss(source, target).item(), 6)
    1.622249
    """

    def __init__(self, kernels: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0)) -> None:
        super().__init__()
        if not kernels:
            raise ValueError("kernels: expected at least one width, found none")
        for width in kernels:
            check_above_zero("kernels: a width", width)
        self.kernels = tuple(kernels)

    def compare(self, source: Tensor, target: Tensor) -> Tensor:
        """Computes equation 5 of Gretton et al., and its gradient."""
        both = torch.cat([source, target])
        needed = needs_gradient(both)
        with torch.no_grad():
            total, gradient = self._with_gradient(both, len(source), needed)
        return closed_form(total, 1, [gradient] if needed else [], [both])

    def _with_gradient(
        self, both: Tensor, n_source: int, needed: bool
    ) -> tuple[Tensor, Tensor]:
        """Computes the loss and its gradient, some rows at a time."""
        number = len(both)
        z = both - both[0]  # exactly 0 if all rows are equal
        z -= z.mean(dim=0)
        scale = z.square().sum().mul_(2 / (number - 1))
        scale = scale.masked_fill_(scale == 0, 1).sqrt_()
        z /= scale  # so that the mean squared distance is 1
        # One sum instead of three, with 1 / N for the source and -1 / M for the target.
        sign = z.new_full((number, 1), 1 / n_source)
        sign[n_source:] = -1 / (number - n_source)
        lengths = z.square().sum(dim=1, keepdim=True)
        signed = torch.cat([sign, sign * z], dim=1)
        total, gradient = z.new_zeros(()), torch.empty_like(z)
        few = max(1, IN_CACHE // (4 * number))  # four matrices at once
        for first in range(0, number, few):
            part = slice(first, first + few)
            squared = torch.addmm(lengths.T, z[part], z.T, alpha=-2)
            squared = squared.add_(lengths[part]).clamp_(min=0)
            kernel, slope = torch.zeros_like(squared), torch.zeros_like(squared)
            for width in self.kernels:
                one = (squared * (-1 / width)).exp_()
                kernel += one
                slope.sub_(one, alpha=1 / width)
            total += sign[part].T.mm(kernel.mm(sign)).squeeze()
            if needed:
                pulled = slope.mm(signed)
                along = torch.addcmul(-pulled[:, 1:], pulled[:, :1], z[part])
                gradient[part] = along.mul_(sign[part])
        count = len(self.kernels)
        return total.div_(count), gradient.mul_(4 / (count * scale))
