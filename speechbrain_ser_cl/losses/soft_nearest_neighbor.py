"""Soft nearest neighbour loss."""

from torch import Tensor

from speechbrain_ser_cl.losses.base import (
    LabelLoss,
    check_above_zero,
    masked_logsumexp,
    sum_where,
)
from speechbrain_ser_cl.losses.distances import squared_distances
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("soft_nearest_neighbor")
class SoftNearestNeighborLoss(LabelLoss):
    r"""A neighbour drawn at random, near ones sooner, should have the same label.

    .. math::
        L = \frac{1}{|A|} \sum_{a \in A} -\log
            \frac{\sum_{p \in P(a)} \exp(-\|z_a - z_p\|^2 / T)}
                 {\sum_{k \neq a} \exp(-\|z_a - z_k\|^2 / T)}

    with P(a) the other rows of a's label. Frosst et al. do not scale to length 1.

    Anchors without positives are left out of the mean; if none is left (N = 1
    too) the loss is 0 with gradient 0. With a single label every neighbour is
    right: 0. NaN or infinity in an embedding gives NaN. Memory is linear in N
    above 4096 rows.

    Arguments
    ---------
    temperature : float
        T, above 0, in units of a squared distance.
    normalize : bool
        Scale embeddings to length 1 first.
    gather : bool
        Compare the rows of all processes.

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
        super().__init__(normalize, gather)
        check_above_zero("temperature", temperature)
        self.temperature = temperature

    def anchor_terms(
        self, anchors: Tensor, z: Tensor, positives: Tensor, negatives: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sum of the anchors' losses, and how many have positives.

        Arguments
        ---------
        anchors : torch.Tensor
            Embeddings of some anchors (A, D).
        z : torch.Tensor
            The batch (N, D).
        positives, negatives : torch.Tensor
            Booleans (A, N).

        Returns
        -------
        total, count : torch.Tensor
            Two scalars.
        """
        s = -squared_distances(anchors, z) / self.temperature
        found = masked_logsumexp(s, positives)
        against = masked_logsumexp(s, positives | negatives)
        return sum_where(against - found, positives.any(dim=1))
