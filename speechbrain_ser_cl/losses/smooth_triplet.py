"""Smooth triplet loss over all triplets of the batch."""

import math

import torch
from torch import Tensor

from speechbrain_ser_cl.losses.base import LabelLoss, Tile, pack
from speechbrain_ser_cl.registry import LOSSES

# Number of triplets in memory at once: 4 MB in float32.
TILE = 2**20


@LOSSES.register("smooth_triplet")
class SmoothTripletLoss(LabelLoss):
    r"""Computes a triplet loss with a smooth step instead of a margin.

    .. math::
        L = \frac{1}{|T|} \sum_{(a, p, n) \in T}
            \log(1 + \exp((s_{an} - s_{ap}) / \tau))

    with s the cosine, p another row with a's label, n a row with another label, and T
    all such triplets.

    Exact. Time is O(N³); memory is less, because triplets and their gradients are
    summed tile by tile.

    Without triplets (no positives, a single label, N = 1) the loss is 0 with gradient
    0. NaN or infinity in an embedding gives NaN.

    Arguments
    ---------
    temperature : float
        tau, above 0.
    normalize : bool
        Whether to scale embeddings to length 1 first. False: s is the dot product.
    gather : bool
        Whether to compare the rows of all processes.

    Raises
    ------
    ValueError
        If the temperature is not a finite number above 0.

    References
    ----------
    NTUA thesis, section 4.4.2.2: contrastive losses for speech emotion recognition.

    Example
    -------
    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> loss = SmoothTripletLoss(temperature=0.5)
    >>> round(loss(torch.ones(4, 2), labels).item(), 6)  # log 2
    0.693147
    """

    def __init__(
        self, temperature: float = 0.5, normalize: bool = True, gather: bool = False
    ) -> None:
        super().__init__(normalize, gather, temperature)

    def terms(self, s: Tensor, tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        """Sums the losses of the anchors' triplets and counts them."""
        same = tile.same()
        n_columns, n_valid = pack(~same)
        p_columns, p_valid = pack(tile.fill_own_(same, False))
        gradient = torch.zeros_like(s)
        # softplus(-infinity) = 0 for unused places of p or n.
        s_ap = s.gather(1, p_columns).masked_fill(~p_valid, torch.inf)
        s_an = s.gather(1, n_columns).masked_fill(~n_valid, -torch.inf)
        # Anchors per tile, or positives per tile if one anchor has too many triplets.
        width = max(1, s_an.shape[1])
        pairs = max(1, TILE // width)
        height = max(1, min(pairs, s_ap.shape[1]))
        step = pairs // height
        # All tiles use the same memory. If each allocated its own, the memory in use
        # could grow with their number.
        memory = s.new_empty(2, min(step, max(1, len(s))) * height * width)
        total = s.new_zeros(())
        for first in range(0, len(s), step):
            rows = slice(first, first + step)
            near, of_rows = s_an[rows, None, :], gradient[rows]
            for column in range(0, s_ap.shape[1], height):
                columns = slice(column, column + height)
                far = s_ap[rows, columns, None]
                shape = len(near), far.shape[1], s_an.shape[1]
                x, y = memory[:, : math.prod(shape)].view(2, *shape)
                torch.sub(near, far, out=x)
                torch.ops.aten.softplus.out(x, 1, 40, out=y)
                total += y.sum()
                x.sigmoid_()
                of_rows.scatter_add_(1, n_columns[rows], x.sum(dim=1))
                of_rows.scatter_add_(1, p_columns[rows, columns], -x.sum(dim=2))
        return total, (p_valid.sum(dim=1) * n_valid.sum(dim=1)).sum(), gradient
