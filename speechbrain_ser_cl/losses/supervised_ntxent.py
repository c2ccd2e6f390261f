"""NT-Xent with labels: each positive against the negatives alone."""

from torch import Tensor
from torch.nn import functional as F

from speechbrain_ser_cl.losses.base import (
    LabelLoss,
    check_above_zero,
    masked_logsumexp,
    masked_mean,
    sum_where,
)
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("supervised_ntxent")
class SupervisedNTXentLoss(LabelLoss):
    r"""Each positive of an anchor has to stand out from all its negatives.

    .. math::
        L = \frac{1}{|A|} \sum_{a \in A} \frac{1}{|P(a)|} \sum_{p \in P(a)} -\log
            \frac{\exp(s_{ap} / \tau)}
                 {\exp(s_{ap} / \tau) + \sum_{n \in N(a)} \exp(s_{an} / \tau)}

    with s the cosine, P(a) the other rows of a's label, N(a) those of other
    labels. An anchor's other positives are not in the denominator, which is what
    separates it from :class:`SupConLoss`. With ``anchors`` naming the positives of
    the drawn emotion it is Xiang's contrast of the first stage.

    One log-sum-exp over the negatives per anchor, then one addition per
    positive: O(N²) time, memory linear in N above 4096 rows.

    Anchors without positives are left out of the mean; if none is left (N = 1
    too) the loss is 0 with gradient 0. With a single label there is nothing to
    stand out from: 0 by the formula. NaN or infinity in an embedding gives NaN.

    Arguments
    ---------
    temperature : float
        tau, above 0.
    normalize : bool
        Scale embeddings to length 1 first. False: s is the dot product.
    gather : bool
        Compare the rows of all processes.

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
        s = anchors @ z.T / self.temperature
        against = masked_logsumexp(s, negatives)[:, None]
        # -log(e^s / (e^s + e^against)); the threshold above which softplus(x) is
        # x is 20 by default, too low for float64.
        losses = F.softplus(against - s, threshold=40)
        return sum_where(masked_mean(losses, positives), positives.any(dim=1))
