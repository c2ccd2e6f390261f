"""Triplet loss with triplets ordered by label distance."""

import torch
from torch import Tensor

from speechbrain_ser_cl.losses.base import (
    Tile,
    ValueLoss,
    check_above_zero,
    label_distances,
)
from speechbrain_ser_cl.losses.distances import Compared, check_distance, distances
from speechbrain_ser_cl.registry import LOSSES

# Number of triplets held at once: 4 MB in float32.
TILE = 2**20


@LOSSES.register("ordinal_triplet")
class OrdinalTripletLoss(ValueLoss):
    r"""Pulls rows with nearer labels closer to the anchor than other rows.

    .. math::
        L = \frac{1}{|T|} \sum_{(a, p, n) \in T}
            \max(0, d_{ap} - d_{an} + m (\delta_{an} - \delta_{ap}))

    with delta the sum over the label's dimensions of absolute differences, and T all
    triplets with delta_ap < delta_an and a positive term. The margin is proportional to
    the difference of the label distances. With the labels 0 and 1 it equals
    :class:`TripletLoss`.

    Labels are numbers (N,) or (N, K). Rows with NaN are left out. Without triplets in T
    (N below 3, equal labels, correct order) the loss is 0 with gradient 0. NaN or
    infinity in an embedding gives NaN. Exact; time is O(N³), memory linear in N.

    Arguments
    ---------
    margin : float
        m, above 0, in embedding distance per label distance.
    distance : str
        ``"cosine"`` or ``"euclidean"``.
    normalize : bool
        Whether to scale embeddings to length 1 first.
    gather : bool
        Whether to compare the rows of all processes.

    Raises
    ------
    ValueError
        If the margin is not a finite number above 0, or the distance unknown.

    References
    ----------
    Kim et al. 2019, section 4: "Deep metric learning beyond binary supervision",
    arXiv:1904.09626; triplets in the order of continuous labels.

    Example
    -------
    >>> z = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> loss = OrdinalTripletLoss(margin=0.5)  # 0.4 - 1 + 0.5 * 2, 0.4 - 0.2 + 0.5 * 1
    >>> round(loss(z, [1.0, 2.0, 4.0]).item(), 6)
    0.55
    """

    def __init__(
        self,
        margin: float = 0.1,
        distance: str = "cosine",
        normalize: bool = True,
        gather: bool = False,
    ) -> None:
        super().__init__(normalize, gather)
        check_above_zero("margin", margin)
        check_distance(distance)
        self.margin = margin
        self.distance = distance

    def compare(self, anchors: Tensor, z: Tensor, tile: Tile) -> Compared:
        """Computes the distances."""
        return distances(anchors, z, self.distance, tile.fill_own_)

    def terms(self, s: Tensor, tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        """Sums the losses of the anchors' triplets and counts them."""
        apart = label_distances(tile, torch.abs_).to(s.dtype)
        behind = s.sub_(apart, alpha=self.margin)
        # An anchor is neither positive nor negative of itself.
        tile.fill_own_(apart, torch.nan)
        gradient = torch.zeros_like(s)
        total, count = s.new_zeros(()), s.new_zeros(())
        height = max(1, min(s.shape[1], TILE // s.shape[1]))
        step = max(1, TILE // (height * s.shape[1]))
        for first in range(0, len(s), step):
            rows = slice(first, first + step)
            for column in range(0, s.shape[1], height):
                part = rows, slice(column, column + height)
                x = behind[part][:, :, None] - behind[rows, None, :]
                kept = apart[part][:, :, None] < apart[rows, None, :]
                kept &= x > 0
                total += x.masked_fill_(~kept, 0).sum()
                of_n, of_p = kept.sum(dim=1), kept.sum(dim=2)
                count += of_p.sum()
                gradient[rows] -= of_n
                gradient[part] += of_p
        return total, count, gradient
