"""Maximum mean discrepancy between two domains."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from speechbrain_ser_cl.losses.base import (
    check_above_zero,
    check_pair,
    check_some,
    widen,
)
from speechbrain_ser_cl.losses.distances import squared_distances
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("mmd")
class MMDLoss(nn.Module):
    r"""Distance between the distributions of source and target embeddings, by kernels.

    .. math::
        L = \frac{1}{N^2} \sum_{ij} k(s_i, s_j) + \frac{1}{M^2} \sum_{ij} k(t_i, t_j)
            - \frac{2}{N M} \sum_{ij} k(s_i, t_j),
        \qquad k(x, y) = \frac{1}{K} \sum_{r=1}^{K}
            \exp\left(-\frac{\|x - y\|^2}{b_r \bar d}\right)

    the squared, biased estimate (at least 0) of Gretton et al. with a mean of several
    Gaussian kernels as in Long et al. The scale d is the mean squared distance between
    two different rows of both batches together; it has no gradient.

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

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Compares the two domains.

        Arguments
        ---------
        source, target : torch.Tensor
            Embeddings (N, D) and (M, D), of any floating-point types.

        Returns
        -------
        torch.Tensor
            The loss, a scalar of at least 0.

        Raises
        ------
        ValueError
            If shapes, types or devices do not fit together, or a domain is empty.
        """
        check_pair("source and target", source, target)
        check_some("source and target", source, target)
        with torch.autocast(source.device.type, enabled=False):
            both = torch.cat(widen(source, target))
            squared = squared_distances(both, both)
            number = len(both)
            scale = squared.detach().sum() / (number * (number - 1))
            squared = squared / scale.masked_fill(scale == 0, 1).neg_()
            kernel = sum(torch.exp(squared / b) for b in self.kernels)
            # +1/N for the source, -1/M for the target: all three sums in one.
            sign = both.new_full((number,), 1 / len(source))
            sign[len(source) :] = -1 / len(target)
            return sign @ kernel @ sign / len(self.kernels)
