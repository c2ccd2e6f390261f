"""InfoNCE between two augmented views of the same utterances."""

import torch
from torch import Tensor
from torch.nn import functional as F

from speechbrain_ser_cl.losses.base import ViewLoss, check_above_zero
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("infonce")
class InfoNCELoss(ViewLoss):
    r"""Identifies the other view of each utterance among those of the whole batch.

    .. math::
        L = \frac{1}{N} \sum_i -\log
            \frac{\exp(\cos(z_i, z'_i) / \tau)}{\sum_j \exp(\cos(z_i, z'_j) / \tau)}

    with j over the rows of the other view only: rows of an anchor's own view are not
    negatives. In the printed equation of Ahn et al. the minus logarithm is missing.

    Similarities and log-sum-exp are computed in float32 (in float64 for float64
    embeddings), also under autocast. A single pair (N = 1) has no negatives: loss and
    gradient are 0. NaN or infinity in an embedding gives NaN. A zero vector has cosine
    0 with all rows.

    Arguments
    ---------
    temperature : float
        tau, above 0. Smaller values increase the weight of hard negatives.
    symmetric : bool
        False, as in the paper: anchors come from the first view. True: mean of both
        directions.
    normalize : bool
        Whether to scale embeddings to length 1 first. False: plain dot products.
    gather : bool
        Whether to compare the utterances of all processes.

    Raises
    ------
    ValueError
        If the temperature is not a finite number above 0.

    References
    ----------
    Ahn et al. 2023, eq. 4: "Integrating contrastive learning into a multitask
    transformer model for effective domain adaptation", arXiv:2310.04703.
    Van den Oord et al. 2018, eq. 4: "Representation learning with contrastive
    predictive coding", arXiv:1807.03748; its origin.

    Example
    -------
    >>> loss = InfoNCELoss(temperature=0.1)
    >>> z = torch.eye(4)
    >>> round(loss(z, z).item(), 6)  # log(1 + 3 exp(-1 / 0.1))
    0.000136
    >>> round(loss(torch.ones(4, 2), torch.ones(4, 2)).item(), 6)  # log 4
    1.386294
    """

    def __init__(
        self,
        temperature: float = 0.1,
        symmetric: bool = False,
        normalize: bool = True,
        gather: bool = False,
    ) -> None:
        super().__init__(normalize, gather)
        check_above_zero("temperature", temperature)
        self.temperature = temperature
        self.symmetric = symmetric

    def compare(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        """Computes equation 4, for one or both directions."""
        similarity = z_a @ z_b.T / self.temperature
        own_view = torch.arange(len(z_a), device=z_a.device)
        loss = F.cross_entropy(similarity, own_view)
        if self.symmetric:
            loss = (loss + F.cross_entropy(similarity.T, own_view)) / 2
        return loss
