"""Barlow Twins loss."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from speechbrain_ser_cl.losses.base import ViewLoss, closed_form, needs_gradient
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("barlow_twins")
class BarlowTwinsLoss(ViewLoss):
    r"""Makes each dimension equal in both views and uncorrelated with other dimensions.

    .. math::
        L = \sum_i (1 - C_{ii})^2 + \lambda \sum_i \sum_{j \neq i} C_{ij}^2,
        \qquad C = \frac{1}{N} \hat Z_a^T \hat Z_b

    where each dimension of the two views is standardised over the batch, (z - mean) /
    sqrt(var + 1e-5) with the biased variance; 1e-5 is the value of the batch
    normalisation in the authors' code. Embeddings are not scaled to length 1.

    A constant dimension has correlation 0 and costs 1. NaN or infinity in an embedding
    gives NaN. Labels are not used.

    Arguments
    ---------
    lambda_offdiag : float
        lambda, finite, at least 0.
    gather : bool
        Whether to compute statistics over the utterances of all processes.

    Raises
    ------
    ValueError
        If lambda is negative or not finite.

    References
    ----------
    Zbontar et al. 2021, eqs. 1 and 2: "Barlow Twins: self-supervised learning via
    redundancy reduction", arXiv:2103.03230.

    Example
    -------
    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> loss = BarlowTwinsLoss(lambda_offdiag=0.5)
    >>> round(loss(z, z).item(), 4)
    0.0
    >>> round(loss(z, z[:, :1].expand(4, 2)).item(), 4)  # (1 - 0)² + 0.5 * 1²
    1.5
    """

    def __init__(self, lambda_offdiag: float = 0.005, gather: bool = False) -> None:
        super().__init__(normalize=False, gather=gather)
        if not (math.isfinite(lambda_offdiag) and lambda_offdiag >= 0):
            raise ValueError(
                f"lambda_offdiag must be finite and at least 0, found {lambda_offdiag}"
            )
        self.lambda_offdiag = lambda_offdiag

    def compare(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        """Computes equation 1 on the cross-correlation of the batch."""
        if len(z_a) < 2:
            raise ValueError("BarlowTwinsLoss needs at least two utterances, found 1")
        # In training mode batch_norm standardises by the statistics of the batch.
        a, b = (F.batch_norm(z, None, None, training=True) for z in (z_a, z_b))
        products = a.T @ b
        needed = needs_gradient(products)
        with torch.no_grad():
            errors = products / len(a)
            diagonal = errors.diagonal().sub_(1)
            slope = self.lambda_offdiag * errors
            slope.diagonal().copy_(diagonal)
            total = torch.dot(slope.flatten(), errors.flatten())
            gradients = []
            if needed:
                gradients = [slope.mul_(2 / len(a))]
        return closed_form(total, 1, gradients, [products])
