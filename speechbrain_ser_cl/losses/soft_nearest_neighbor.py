"""Soft nearest neighbour loss."""

from torch import Tensor

from speechbrain_ser_cl.losses.base import LabelLoss, Tile
from speechbrain_ser_cl.losses.distances import Compared, dot_products
from speechbrain_ser_cl.losses.supcon_in import contrast_jointly_
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("soft_nearest_neighbor")
class SoftNearestNeighborLoss(LabelLoss):
    r"""Makes it likely that a randomly drawn near neighbour has the same label.

    .. math::
        L = \frac{1}{|A|} \sum_{a \in A} -\log
            \frac{\sum_{p \in P(a)} \exp(-\|z_a - z_p\|^2 / T)}
                 {\sum_{k \neq a} \exp(-\|z_a - z_k\|^2 / T)}

    with P(a) the other rows with a's label. Frosst et al. do not scale to length 1.

    Anchors without positives are left out of the mean; without anchors (also for N = 1)
    the loss is 0 with gradient 0. With a single label every neighbour is correct: 0.
    NaN or infinity in an embedding gives NaN. Memory is linear in N.

    Arguments
    ---------
    temperature : float
        T, above 0, in units of a squared distance.
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
    Frosst et al. 2019, eq. 1: "Analyzing and improving representations with the soft
    nearest neighbor loss", arXiv:1902.01889.
    NTUA thesis, section 3.1.4.2: contrastive losses for speech emotion recognition.

    Example
    -------
    >>> import torch
    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> loss = SoftNearestNeighborLoss(temperature=1.0)
    >>> round(loss(torch.ones(4, 2), labels).item(), 6)  # log 3
    1.098612
    """

    def __init__(
        self, temperature: float = 1.0, normalize: bool = True, gather: bool = False
    ) -> None:
        super().__init__(normalize, gather, temperature)

    def compare(self, anchors: Tensor, z: Tensor, tile: Tile) -> Compared:
        """Computes -d² / T plus a constant per anchor."""
        # Without the common mean the products are smaller and so more precise.
        centred = z - z.mean(dim=0)
        a = centred if anchors is z else centred[tile.rows]
        half = self.temperature / 2
        products, of_products = dot_products(a, centred, half)

        def pull_back(gradient: Tensor) -> tuple[Tensor, ...]:
            *others, of_z = of_products(gradient)
            sums = gradient.sum(dim=0).div_(half)[:, None]
            return *others, of_z.addcmul_(sums, centred, value=-1)

        squares = centred.square().sum(dim=1).div_(self.temperature)
        return products.sub_(squares), pull_back

    def terms(self, s: Tensor, tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        """Sums the anchors' losses and counts the anchors with positives."""
        positives = tile.positives()
        losses, gradient = contrast_jointly_(s, tile, positives)
        return losses.sum(), positives.any(dim=1).sum(), gradient
