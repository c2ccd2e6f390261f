"""Contrastive loss with positives weighted by the similarity of their labels."""

import torch
from torch import Tensor

from speechbrain_ser_cl.losses.base import (
    Tile,
    ValueLoss,
    check_above_zero,
    label_distances,
)
from speechbrain_ser_cl.losses.supcon import contrast_
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("contrastive_regression")
class ContrastiveRegressionLoss(ValueLoss):
    r"""Contrasts each anchor with all other rows, weighted by label similarity.

    .. math::
        L = \frac{1}{|A|} \sum_{a \in A} \sum_{p \neq a}
            \frac{K(y_a, y_p)}{\sum_{k \neq a} K(y_a, y_k)} \; {-\log}
            \frac{\exp(s_{ap} / \tau)}{\sum_{k \neq a} \exp(s_{ak} / \tau)},
        \qquad K(y, y') = \exp\left(-\frac{\|y - y'\|^2}{2 \sigma^2}\right)

    with s the cosine.

    Labels are numbers (N,) or (N, K). Rows with NaN are left out. Anchors whose weights
    all round to 0 (all other labels are many bandwidths away) are left out of the mean;
    without anchors (also for N = 1) the loss is 0 with gradient 0. Equal embeddings
    give log(N - 1). NaN or infinity in an embedding gives NaN. Memory is linear in N.

    Arguments
    ---------
    temperature : float
        tau, above 0.
    bandwidth : float
        sigma, above 0, in units of the labels.
    normalize : bool
        Whether to scale embeddings to length 1 first.
    gather : bool
        Whether to compare the rows of all processes.

    Raises
    ------
    ValueError
        If temperature or bandwidth is not a finite number above 0.

    References
    ----------
    Dufumier et al. 2021, eq. 2: "Contrastive learning with continuous proxy meta-data
    for 3D MRI classification", arXiv:2106.08808.
    Barbano et al. 2023: "Contrastive learning for regression in multi-site brain age
    prediction", arXiv:2211.08326.

    Example
    -------
    >>> loss = ContrastiveRegressionLoss()
    >>> round(loss(torch.ones(4, 2), [1.0, 2.0, 2.5, 4.0]).item(), 4)  # log 3
    1.0986
    """

    def __init__(
        self,
        temperature: float = 0.1,
        bandwidth: float = 1.0,
        normalize: bool = True,
        gather: bool = False,
    ) -> None:
        super().__init__(normalize, gather, temperature)
        check_above_zero("bandwidth", bandwidth)
        self.bandwidth = bandwidth

    def terms(self, s: Tensor, tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        """Sums the anchors' losses and counts the anchors with positives."""
        squares = label_distances(tile, torch.square_)
        weights = squares.mul_(-0.5 / self.bandwidth**2).exp_().to(s.dtype)
        return contrast_(s, tile, tile.fill_own_(weights, 0))
