"""VICReg: variance, invariance, covariance."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from speechbrain_ser_cl.losses.base import ViewLoss
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("vicreg")
class VICRegLoss(ViewLoss):
    r"""Makes views equal, each dimension varied, and dimensions uncorrelated.

    .. math::
        L = \lambda \frac{1}{N D} \sum_i \|z_i - z'_i\|^2
            + \frac{\mu}{2} [v(Z) + v(Z')] + \nu [c(Z) + c(Z')]

    .. math::
        v(Z) = \frac{1}{D} \sum_d \max(0, 1 - \sqrt{Var(z_{\cdot d}) + 10^{-4}}),
        \qquad c(Z) = \frac{1}{D} \sum_{d \neq e} Cov(Z)_{de}^2

    with unbiased variance and covariance. Two divisions, by D in the first part and by
    2 in the second, are not in equation 6. They are in the authors' code, to which the
    weights 25, 25, 1 belong. Embeddings are not scaled to length 1.

    NaN or infinity in an embedding gives NaN. Labels are not used.

    Arguments
    ---------
    invariance, variance, covariance : float
        lambda, mu and nu, finite and at least 0.
    gather : bool
        Whether to compute statistics over the utterances of all processes.

    Raises
    ------
    ValueError
        If a weight is negative or not finite.

    References
    ----------
    Bardes et al. 2022, eqs. 1 to 6: "VICReg: variance-invariance-covariance
    regularization for self-supervised learning", arXiv:2105.04906.

    Example
    -------
    >>> loss = VICRegLoss()
    >>> z = torch.zeros(4, 3)  # collapsed: 25 / 2 * 2 * (1 - 0.01)
    >>> round(loss(z, z).item(), 6)
    24.75
    """

    def __init__(
        self,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        gather: bool = False,
    ) -> None:
        super().__init__(normalize=False, gather=gather)
        weights = {
            "invariance": invariance,
            "variance": variance,
            "covariance": covariance,
        }
        bad = {k: w for k, w in weights.items() if not (math.isfinite(w) and w >= 0)}
        if bad:
            raise ValueError(f"weights must be finite and at least 0, found {bad}")
        self.invariance = invariance
        self.variance = variance
        self.covariance = covariance

    def compare(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        """Computes the weighted sum of the three parts."""
        if len(z_a) < 2:
            raise ValueError("VICRegLoss needs at least two utterances, found 1")
        loss = self.invariance * F.mse_loss(z_a, z_b)
        for z in (z_a, z_b):
            variance, mean = torch.var_mean(z, dim=0)
            low = (1 - (variance + 1e-4).sqrt()).clamp(min=0).mean()
            covariance = (z - mean).T @ (z - mean) / (len(z) - 1)
            offdiag = (covariance - covariance.diagonal().diag()).square().sum()
            loss = loss + self.variance / 2 * low
            loss = loss + self.covariance * offdiag / z.shape[1]
        return loss
