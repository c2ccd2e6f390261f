"""Triplet loss over all triplets of the batch, without listing them."""

import torch
from torch import Tensor

from speechbrain_ser_cl.losses.base import LabelLoss, MarginLoss, Tile, pack
from speechbrain_ser_cl.registry import LOSSES

MINING = ("all", "semihard", "hard")


@LOSSES.register("triplet")
class TripletLoss(MarginLoss, LabelLoss):
    r"""Makes each positive nearer to the anchor than each negative, by a margin.

    .. math::
        L = \frac{1}{|T|} \sum_{(a, p, n) \in T} \max(0, d_{ap} - d_{an} + m)

    with p another row with a's label, n a row with another label, and T the triplets
    that ``mining`` selects:

    - ``"all"``: d_an < d_ap + m, all with a positive term;
    - ``"semihard"``: d_ap < d_an < d_ap + m;
    - ``"hard"``: d_an < d_ap.

    d is 1 minus the cosine (the dot product without ``normalize``), or the
    Euclidean distance.

    Exact. Time is O(N² log N), without a list of the O(N³) triplets: after sorting each
    anchor's negatives, those in triplets with one positive are a range, and the ends of
    the ranges say how often each distance counts. Memory is linear in N.

    Without triplets in T (no positives, a single label, N = 1, or all separated by the
    margin) the loss is 0 with gradient 0. Ties (d_an equal to a limit) are not in T.
    NaN or infinity in an embedding gives NaN.

    Arguments
    ---------
    margin : float
        m, above 0.
    mining : str
        ``"all"``, ``"semihard"`` or ``"hard"``. Can be changed later, for a curriculum:
        ``loss.mining = "hard"``.
    distance : str
        ``"cosine"`` or ``"euclidean"``.
    normalize : bool
        Whether to scale embeddings to length 1 first.
    gather : bool
        Whether to compare the rows of all processes.

    Raises
    ------
    ValueError
        If the margin is not a finite number above 0, or a name is unknown.

    References
    ----------
    NTUA thesis, eq. 3.15 and section 4.4.2.1: contrastive losses for speech emotion
    recognition.

    Example
    -------
    >>> labels = torch.tensor([0, 0, 1])
    >>> z = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> loss = TripletLoss(margin=0.5)  # (0, 1, 2): 0.4 - 1 + 0.5 < 0 is not in T
    >>> round(loss(z, labels).item(), 6)  # (1, 0, 2): 0.4 - 0.2 + 0.5
    0.7
    """

    def __init__(
        self,
        margin: float = 0.2,
        mining: str = "all",
        distance: str = "cosine",
        normalize: bool = True,
        gather: bool = False,
    ) -> None:
        super().__init__(margin, distance, normalize, gather)
        if mining not in MINING:
            raise ValueError(
                f"mining must be one of {', '.join(MINING)}, found {mining!r}"
            )
        self.mining = mining

    def terms(self, s: Tensor, tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        """Sums the losses of the anchors' triplets and counts them."""
        weights, count = self._weights(s, tile)
        # How often each distance is added is also the gradient.
        total = torch.linalg.vecdot(weights, s).sum()
        return total + self.margin * count.to(s.dtype), count, weights

    def _weights(self, d: Tensor, tile: Tile) -> tuple[Tensor, Tensor]:
        """Counts how often each distance is added (negative: subtracted), and |T|."""
        same = tile.same()
        values, order = d.masked_fill(same, torch.inf).sort(dim=1)
        positive_columns, valid = pack(tile.fill_own_(same, False))
        d_ap = d.gather(1, positive_columns)

        # Positive p is in triplets with the negatives at start <= place < stop.
        start = torch.zeros_like(positive_columns)
        if self.mining == "hard":
            stop = torch.searchsorted(values, d_ap)
        else:
            stop = torch.searchsorted(values, d_ap + self.margin)
            if self.mining == "semihard":
                start = torch.searchsorted(values, d_ap, right=True)
        number = (stop - start).clamp(min=0).masked_fill(~valid, 0)

        # For the negatives: the number of ranges that contain each place.
        inside = (number > 0).to(d.dtype)
        ends = d.new_zeros(len(d), values.shape[1] + 1)
        ends.scatter_add_(1, start, inside).scatter_add_(1, stop, -inside)
        covered = ends.cumsum(dim=1)[:, :-1]

        weights = torch.zeros_like(d).scatter_(1, order, covered.neg_())
        weights.scatter_add_(1, positive_columns, number.to(d.dtype))
        return weights, number.sum()
