"""Supervised contrastive loss of Khosla et al., the mean outside the logarithm."""

from torch import Tensor

from speechbrain_ser_cl.losses.base import (
    LabelLoss,
    check_above_zero,
    masked_logsumexp,
    masked_mean,
    sum_where,
)
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("supcon")
class SupConLoss(LabelLoss):
    r"""Each positive of an anchor has to stand out from the whole batch.

    .. math::
        L = \frac{1}{|A|} \sum_{a \in A} \frac{1}{|P(a)|} \sum_{p \in P(a)} -\log
            \frac{\exp(s_{ap} / \tau)}{\sum_{k \neq a} \exp(s_{ak} / \tau)}

    with s the cosine and P(a) the other rows of a's label. The mean over
    positives stands outside the logarithm: it is L_out. Paper and thesis print a sum
    over the anchors; this is the mean, as in the authors' code. That code also
    multiplies by tau over a base temperature of 0.07: ``base_temperature=0.07`` does
    the same.

    For several views give them as rows with the same label; A then is all rows.
    Memory is linear in N above 4096 rows.

    Anchors without positives are left out of the mean (the authors' code counts
    them as 0, which makes the loss smaller the more there are); if none is left
    (N = 1 too) the loss is 0 with gradient 0. With a single label the other rows
    are the denominator all the same: log(N - 1) if all are equal. NaN or
    infinity in an embedding gives NaN.

    Arguments
    ---------
    temperature : float
        tau, above 0.
    base_temperature : float or None
        Multiply the loss by tau over this. None: leave it.
    normalize : bool
        Scale embeddings to length 1 first. False: s is the dot product.
    gather : bool
        Compare the rows of all processes.

    Raises
    ------
    ValueError
        If a temperature is not a finite number above 0.

    References
    ----------
    Khosla et al. 2020, eq. 2: "Supervised contrastive learning", arXiv:2004.11362.
    NTUA thesis, sections 3.1.4.2 and 4.4.2.3: contrastive losses for speech emotion
    recognition.

    Example
    -------
    >>> import torch
    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> z = torch.eye(2)[labels]
    >>> round(SupConLoss(temperature=0.5)(z, labels).item(), 6)
    0.239545
    >>> round(SupConLoss()(torch.ones(4, 2), labels).item(), 4)  # log 3
    1.0986
    """

    def __init__(
        self,
        temperature: float = 0.1,
        base_temperature: float | None = None,
        normalize: bool = True,
        gather: bool = False,
    ) -> None:
        super().__init__(normalize, gather)
        check_above_zero("temperature", temperature)
        if base_temperature is not None:
            check_above_zero("base_temperature", base_temperature)
        self.temperature = temperature
        self.base_temperature = base_temperature

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
        against = masked_logsumexp(s, positives | negatives)
        losses = against - masked_mean(s, positives)
        total, count = sum_where(losses, positives.any(dim=1))
        if self.base_temperature is not None:
            total = total * (self.temperature / self.base_temperature)
        return total, count
