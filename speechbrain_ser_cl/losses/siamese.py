"""Siamese margin loss over all pairs of the batch."""

import torch
from torch import Tensor

from speechbrain_ser_cl.losses.base import LabelLoss, MarginLoss, Tile
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("siamese")
class SiameseLoss(MarginLoss, LabelLoss):
    r"""Pulls rows with equal labels together and pushes others a margin apart.

    .. math::
        L = \frac{1}{|A| (|A| - 1)} \sum_{i} \sum_{j \neq i}
            y_{ij} d_{ij} + (1 - y_{ij}) \max(0, m - d_{ij})

    with y_ij = 1 for equal labels, else 0. d is 1 minus the cosine (the dot product
    without ``normalize``), or the Euclidean distance. As in the thesis, distances are
    not squared.

    All pairs count, also those of anchors without positives. A single label gives the
    mean distance. N = 1 has no pair: the loss is 0 with gradient 0. NaN or infinity in
    an embedding gives NaN. Memory is linear in N.

    Arguments
    ---------
    margin : float
        m, above 0.
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
    NTUA thesis, eq. 3.14: contrastive losses for speech emotion recognition.

    Example
    -------
    >>> import torch
    >>> labels = torch.tensor([0, 0, 1])
    >>> z = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> loss = SiameseLoss(margin=0.5)  # pairs: 0.4, 0.5 - 1 < 0, 0.5 - 0.2
    >>> round(loss(z, labels).item(), 6)
    0.233333
    """

    def __init__(
        self,
        margin: float = 0.5,
        distance: str = "cosine",
        normalize: bool = True,
        gather: bool = False,
    ) -> None:
        super().__init__(margin, distance, normalize, gather)

    def terms(self, s: Tensor, tile: Tile) -> tuple[Tensor, int, Tensor]:
        """Sums the losses of the anchors' pairs and counts them."""
        positives = tile.same()
        pushed = (s < self.margin).masked_fill_(positives, False)
        gradient = positives.to(s.dtype).masked_fill_(pushed, -1)
        total = torch.linalg.vecdot(tile.fill_own_(gradient, 0), s).sum()
        total = total + self.margin * pushed.sum(dtype=s.dtype)
        return total, s.numel() - len(s), gradient
