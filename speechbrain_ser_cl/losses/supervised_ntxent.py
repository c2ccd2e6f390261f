"""NT-Xent with labels: each positive is contrasted with negatives only."""

import torch
from torch import Tensor
from torch.nn import functional as F

from speechbrain_ser_cl.losses.base import LabelLoss, Tile, exponentials_
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("supervised_ntxent")
class SupervisedNTXentLoss(LabelLoss):
    r"""Contrasts each positive of an anchor with all of its negatives.

    .. math::
        L = \frac{1}{|A|} \sum_{a \in A} \frac{1}{|P(a)|} \sum_{p \in P(a)} -\log
            \frac{\exp(s_{ap} / \tau)}
                 {\exp(s_{ap} / \tau) + \sum_{n \in N(a)} \exp(s_{an} / \tau)}

    with s the cosine, P(a) the other rows with a's label, N(a) the rows with other
    labels. Unlike in :class:`SupConLoss`, an anchor's other positives are not in the
    denominator. With the rows of the drawn emotion as ``anchors`` it equals the
    contrastive loss of Xiang's first stage.

    Time is O(N²), because the log-sum-exp over the negatives is computed once per
    anchor. Memory is linear in N.

    Anchors without positives are left out of the mean; without anchors (also for N = 1)
    the loss is 0 with gradient 0. With a single label there are no negatives: 0. NaN or
    infinity in an embedding gives NaN.

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
    NTUA thesis, section 4.4.2.3 and eq. 3.17: contrastive losses for speech emotion
    recognition.
    Xiang 2024, section 2.2: "A cross-corpus speech emotion recognition method based on
    supervised contrastive learning", arXiv:2411.19803.

    Example
    -------
    >>> import torch
    >>> loss = SupervisedNTXentLoss(temperature=0.5)
    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> z = torch.eye(2)[labels]
    >>> round(loss(z, labels).item(), 6)  # log(1 + 2 exp(-1 / 0.5))
    0.239545
    """

    def __init__(
        self, temperature: float = 0.1, normalize: bool = True, gather: bool = False
    ) -> None:
        super().__init__(normalize, gather, temperature)

    def terms(self, s: Tensor, tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        """Sums the anchors' losses and counts the anchors with positives."""
        same = tile.same()
        excluded = s.new_tensor(-torch.inf)
        gradient = torch.where(same, excluded, s)
        against, total = exponentials_(gradient)
        # -log(e^s / (e^s + e^against)) = softplus(against - s)
        behind = s.sub_(against[:, None]).neg_()
        behind = torch.where(tile.fill_own_(same, False), behind, excluded)
        number = same.sum(dim=1, keepdim=True)
        weights = 1 / number.clamp(min=1).to(s.dtype)
        # softplus(x) returns x above a threshold; its default, 20, is too low for
        # float64.
        losses = F.softplus(behind, threshold=40).sum(dim=1, keepdim=True) * weights
        missed = behind.sigmoid_().mul_(weights)
        gradient.mul_(missed.sum(dim=1, keepdim=True) / total).sub_(missed)
        return losses.sum(), torch.count_nonzero(number), gradient
