"""CORAL: distance between the covariances of two domains."""

import torch
from torch import Tensor

from speechbrain_ser_cl.losses.base import DomainLoss, closed_form, needs_gradient
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("coral")
class CORALLoss(DomainLoss):
    r"""Computes the distance between the covariances of source and target embeddings.

    .. math::
        L = \frac{1}{4 D^2} \| C_S - C_T \|_F^2

    with C the unbiased covariance of a domain's batch.

    The means of the domains have no influence. NaN or infinity in an embedding gives
    NaN. Labels are not used.

    References
    ----------
    Sun and Saenko 2016, eqs. 1 to 3: "Deep CORAL: correlation alignment for deep
    domain adaptation", arXiv:1607.01719.

    Example
    -------
    >>> source = torch.tensor([[1.0], [-1.0]])  # variance 2
    >>> target = torch.tensor([[2.0], [-2.0]])  # variance 8
    >>> CORALLoss()(source, target).item()  # 36 / 4
    9.0
    """

    def compare(self, source: Tensor, target: Tensor) -> Tensor:
        """Computes equation 1, and its gradient."""
        if len(source) < 2 or len(target) < 2:
            raise ValueError(
                "a covariance needs at least two rows, found "
                f"{len(source)} of the source and {len(target)} of the target"
            )
        both = source, target
        needed = needs_gradient(*both)
        with torch.no_grad():
            centred = [z - z.mean(dim=0) for z in both]
            first, second = (z.T @ z / (len(z) - 1) for z in centred)
            difference = first.sub_(second).div_(2 * source.shape[1])
            flat = difference.flatten()
            total = torch.dot(flat, flat)
            gradients = []
            if needed:
                # The columns of the gradient have mean 0, as those of z have.
                difference.mul_(2 / source.shape[1])
                gradients = [
                    (z @ difference).mul_(sign / (len(z) - 1))
                    for z, sign in zip(centred, (1, -1), strict=True)
                ]
        return closed_form(total, 1, gradients, both)
