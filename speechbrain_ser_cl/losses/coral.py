"""CORAL: distance between the covariances of two domains."""

import torch
from torch import Tensor, nn

from speechbrain_ser_cl.losses.base import (
    check_pair,
    closed_form,
    needs_gradient,
    widen,
)
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("coral")
class CORALLoss(nn.Module):
    r"""Distance between the covariances of source and target embeddings.

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
            If shapes, types or devices do not fit together, or a domain has fewer than
            two rows.
        """
        check_pair("source and target", source, target)
        if len(source) < 2 or len(target) < 2:
            raise ValueError(
                "a covariance needs at least two rows, found "
                f"{len(source)} of the source and {len(target)} of the target"
            )
        with torch.autocast(source.device.type, enabled=False):
            both = widen(source, target)
            needed = needs_gradient(*both)
            with torch.no_grad():
                centred = [z - z.mean(dim=0) for z in both]
                first, second = (z.T @ z / (len(z) - 1) for z in centred)
                difference = first.sub_(second).div_(2 * source.shape[1])
                flat = difference.flatten()
                total = torch.dot(flat, flat)
                gradients = []
                if needed:
                    # Its columns have mean 0, as those of z have.
                    difference.mul_(2 / source.shape[1])
                    gradients = [
                        (z @ difference).mul_(sign / (len(z) - 1))
                        for z, sign in zip(centred, (1, -1), strict=True)
                    ]
            return closed_form(total, 1, gradients, both)
