"""Triplet loss with triplets ordered by label distance."""

import torch
from torch import Tensor

from speechbrain_ser_cl.losses.base import (
    MarginLoss,
    Tile,
    ValueLoss,
    label_distances,
)
from speechbrain_ser_cl.registry import LOSSES

# In permutations of at most this length all pairs of elements are compared.
SHORT = 16


@LOSSES.register("ordinal_triplet")
class OrdinalTripletLoss(MarginLoss, ValueLoss):
    r"""Makes rows with nearer labels nearer to the anchor, by a margin.

    .. math::
        L = \frac{1}{|T|} \sum_{(a, p, n) \in T}
            \max(0, d_{ap} - d_{an} + m (\delta_{an} - \delta_{ap}))

    with delta the label distance, which is the sum over the dimensions of the absolute
    differences, and T all triplets with delta_ap < delta_an and a positive term. The
    margin is proportional to the difference of the label distances. With the labels 0
    and 1 the loss equals :class:`TripletLoss`.

    Labels are numbers (N,) or (N, K). Rows with NaN are left out. Without triplets in T
    (N below 3, equal labels, or all separated by the margin) the loss is 0 with
    gradient 0. NaN or infinity in an embedding gives NaN. Exact; time is O(N² log N),
    memory linear in N.

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
        super().__init__(margin, distance, normalize, gather)

    def terms(self, s: Tensor, tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        """Sums the losses of the anchors' triplets and counts them."""
        apart = label_distances(tile, torch.abs_).to(s.dtype)
        behind = torch.sub(s, apart, alpha=self.margin)
        # The anchor itself, neither positive nor negative, is last in both orders.
        tile.fill_own_(apart, torch.inf)
        tile.fill_own_(behind, torch.inf)
        # p and n are in a triplet if p is before n in the order of label distances
        # (equal ones ordered by `behind`), and after n in the order of `behind` (equal
        # ones ordered by label distance). The gradient of a row is the number of
        # triplets in which it is p minus that in which it is n. So it is the number of
        # places that the row moves up from the second order to the first.
        values, order = behind.sort(dim=1)
        apart = apart.gather(1, order)
        _order_ties_(values, apart, order)
        moved = apart.sort(dim=1, stable=True).indices
        up = moved - torch.arange(moved.shape[1], device=moved.device)
        gradient = torch.empty_like(s).scatter_(1, order.gather(1, moved), up.to(s))
        total = torch.linalg.vecdot(tile.fill_own_(behind, 0), gradient).sum()
        return total, count_inversions(moved), gradient


def _order_ties_(values: Tensor, apart: Tensor, order: Tensor) -> None:
    """Sorts columns with equal values by ``apart``; values are sorted already."""
    while True:
        wrong = (values[:, 1:] == values[:, :-1]) & (apart[:, 1:] < apart[:, :-1])
        row, column = wrong.nonzero().T
        if row.shape[0] == 0:
            return
        # Pairs that are exchanged together must not share a column: of adjacent wrong
        # pairs only the first.
        first = ~wrong[row, column - 1] | (column == 0)
        row, column = row[first], column[first]
        for matrix in (apart, order):
            left = matrix[row, column]
            matrix[row, column] = matrix[row, column + 1]
            matrix[row, column + 1] = left


def count_inversions(permutations: Tensor) -> Tensor:
    """Counts the pairs of elements in the wrong order, over all given permutations.

    Arguments
    ---------
    permutations : torch.Tensor
        (A, N), each row the numbers 0 to N - 1 in some order.

    Returns
    -------
    torch.Tensor
        Number of pairs i < j in all rows in which element i is larger than element j.

    Example
    -------
    >>> count_inversions(torch.tensor([[2, 0, 1], [0, 1, 2]]))
    tensor(2)
    """
    number = permutations.shape[1]
    width = SHORT
    while width < number:
        width *= 2
    kept = torch.int16 if width <= 2**15 else torch.int32
    device = permutations.device
    v = torch.arange(width, dtype=kept, device=device).repeat(len(permutations), 1)
    v[:, :number] = permutations
    count = torch.zeros((), dtype=torch.long, device=device)
    while width > SHORT:
        # Counts the pairs in which a number of the upper half stands before one of the
        # lower half. Then continues within each half, in the order of its numbers.
        width //= 2
        upper = v >= width
        before = torch.arange(2 * width, 0, -1, device=device)
        count += (upper.sum(dim=0) * before).sum()
        count -= len(v) * (width * (width + 1) // 2)
        halves = v.masked_select(~upper), v.masked_select(upper) - width
        v = torch.cat(halves).view(-1, width)
    columns = v.T.contiguous()
    i, j = torch.triu_indices(width, width, 1, device=device)
    return count + torch.count_nonzero(columns[i] > columns[j])
