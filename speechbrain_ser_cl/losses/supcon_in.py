"""Supervised contrastive loss, with the mean inside the logarithm."""

import torch
from torch import Tensor

from speechbrain_ser_cl.losses.base import LabelLoss, Tile, exponentials_
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("supcon_in")
class SupConInLoss(LabelLoss):
    r"""Contrasts an anchor's positives together with all other rows of the batch.

    .. math::
        L = \frac{1}{|A|} \sum_{a \in A} -\log \left(
            \frac{1}{|P(a)|} \sum_{p \in P(a)}
            \frac{\exp(s_{ap} / \tau)}{\sum_{k \neq a} \exp(s_{ak} / \tau)}\right)

    The mean over positives is inside the logarithm: L_in. It is never larger than
    :class:`SupConLoss`; one near positive is enough for a small loss.

    As in :class:`SupConLoss`, the loss is the mean over anchors, anchors without
    positives are left out, and without anchors (also for N = 1) the loss is 0 with
    gradient 0. Equal embeddings with a single label give log(N - 1). NaN or infinity in
    an embedding gives NaN.

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
    Khosla et al. 2020, eq. 3: "Supervised contrastive learning", arXiv:2004.11362.
    NTUA thesis, section 3.1.4.2: contrastive losses for speech emotion recognition.

    Example
    -------
    >>> import torch
    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> round(SupConInLoss()(torch.ones(4, 2), labels).item(), 4)  # log 3
    1.0986
    """

    def __init__(
        self, temperature: float = 0.1, normalize: bool = True, gather: bool = False
    ) -> None:
        super().__init__(normalize, gather, temperature)

    def terms(self, s: Tensor, tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        """Sums the anchors' losses and counts the anchors with positives."""
        positives = tile.positives()
        number = positives.sum(dim=1)
        losses, gradient = contrast_jointly_(s, tile, positives)
        losses = losses + number.clamp(min=1).to(s.dtype).log()
        return losses.where(number > 0, 0).sum(), (number > 0).sum(), gradient


def contrast_jointly_(
    s: Tensor, tile: Tile, positives: Tensor
) -> tuple[Tensor, Tensor]:
    """Computes the contrastive losses of some anchors, with joint positives.

    Arguments
    ---------
    s : torch.Tensor
        Similarities over the temperature (A, N), overwritten.
    tile : Tile
        The anchors.
    positives : torch.Tensor
        Booleans (A, N).

    Returns
    -------
    losses : torch.Tensor
        Log-sum-exp over all other rows minus that over the positives (A,); 0 for
        anchors without positives.
    gradient : torch.Tensor
        Gradient of their sum (A, N).

    Example
    -------
    >>> import torch
    >>> tile = Tile(torch.tensor([0]), torch.tensor([0, 0, 1]))
    >>> contrast_jointly_(torch.zeros(1, 3), tile, tile.positives())[0]  # log 2
    tensor([0.6931])
    """
    share = s.masked_fill(~positives, -torch.inf)
    found, of_share = exponentials_(share)
    against, total = exponentials_(tile.fill_own_(s, -torch.inf))
    counts = found > -torch.inf
    gradient = s.mul_(counts[:, None] / total).sub_(share.div_(of_share))
    return (against - found).where(counts, 0), gradient
