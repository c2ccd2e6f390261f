"""Rank-N-Contrast: embeddings ordered by their labels."""

import torch
from torch import Tensor

from speechbrain_ser_cl.losses.base import Tile, ValueLoss, label_distances
from speechbrain_ser_cl.losses.distances import Compared, distances
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("rank_n_contrast")
class RankNContrastLoss(ValueLoss):
    r"""Orders embeddings so that distances to an anchor follow label distances.

    .. math::
        L = \frac{1}{N (N - 1)} \sum_i \sum_{j \neq i} -\log
            \frac{\exp(s_{ij} / \tau)}{\sum_{k \in S_{ij}} \exp(s_{ik} / \tau)},
        \qquad S_{ij} = \{k \neq i: |y_i - y_k| \geq |y_i - y_j|\}

    with s minus the Euclidean distance of the embeddings and \|y\| the sum over the
    dimensions of the labels. Two views of an utterance are two rows with the same
    label. As in the authors' code, embeddings are not scaled to length 1 by default.

    Exact. Time is O(N² log N): each anchor's other rows are sorted by label distance,
    farthest first, so that each denominator is a value of one cumulative log-sum-exp.
    Equal label distances share a denominator. Memory is linear in N.

    Labels are numbers (N,) or (N, K). Rows with NaN are left out. N = 1 has no pair:
    the loss is 0 with gradient 0. Equal embeddings with different label distances give
    the mean of log 1 to log(N - 1). NaN or infinity in an embedding gives NaN.

    Arguments
    ---------
    temperature : float
        tau, above 0, in units of a distance.
    normalize : bool
        Whether to scale embeddings to length 1 first.
    gather : bool
        Whether to compare the rows of all processes.

    Raises
    ------
    ValueError
        If the temperature is not a finite number above 0.

    References
    ----------
    Zha et al. 2023, eqs. 1 and 2: "Rank-N-Contrast: learning continuous
    representations for regression", arXiv:2210.01189.

    Example
    -------
    >>> loss = RankNContrastLoss(temperature=1.0)
    >>> z = torch.tensor([[0.0], [1.0], [3.0]])
    >>> round(loss(z, [1.0, 2.0, 5.0]).item(), 4)
    0.1256
    """

    degree = 1

    def __init__(
        self, temperature: float = 2.0, normalize: bool = False, gather: bool = False
    ) -> None:
        super().__init__(normalize, gather, temperature)

    def compare(self, anchors: Tensor, z: Tensor, tile: Tile) -> Compared:
        """Computes Euclidean distances."""
        return distances(anchors, z, "euclidean", tile.fill_own_)

    def terms(self, s: Tensor, tile: Tile) -> tuple[Tensor, int, Tensor]:
        """Sums the losses of the anchors' pairs and counts them."""
        # Minus the label distance, farthest first; the anchor itself is last.
        nearness = label_distances(tile, torch.abs_).neg_()
        nearness, order = tile.fill_own_(nearness, torch.inf).sort(dim=1)
        nearness, order = nearness[:, :-1], order[:, :-1]
        if not order.numel():
            return s.new_zeros(()), 0, torch.zeros_like(s)
        tied = nearness[:, 1:] == nearness[:, :-1]
        ordered = s.gather(1, order).double().div_(-self.temperature)
        # Equal label distances share the value at their last position, which is the
        # smallest from there on. From here on the order is nearest first.
        against = _logcumsumexp(ordered)
        against[:, :-1].masked_fill_(tied, torch.inf)
        against = against.flip(1).cummin(dim=1).values
        total = (against.sum() - ordered.sum()).to(s.dtype)
        # s_k is in the denominators of all j that are not farther than k.
        inside = _logcumsumexp(against.neg_()).flip(1)
        inside[:, 1:].masked_fill_(tied, torch.inf)
        share = inside.cummin(dim=1).values.add_(ordered).exp_().sub_(1)
        share = share.div_(-self.temperature).to(s.dtype)
        return total, order.numel(), torch.zeros_like(s).scatter_(1, order, share)


def _logcumsumexp(x: Tensor) -> Tensor:
    """Computes the running log-sum-exp of rows in float64."""
    largest, least = x.amax(dim=1, keepdim=True), x.amin(dim=1, keepdim=True)
    # A sum of exponentials is faster, but none of them may underflow.
    if (largest - least < 600).all():
        return (x - largest).exp_().cumsum(dim=1).log_().add_(largest)
    return x.logcumsumexp(dim=1)
