"""Supervised contrastive loss of Khosla et al., the mean inside the logarithm."""

from torch import Tensor

from speechbrain_ser_cl.losses.base import (
    LabelLoss,
    check_above_zero,
    masked_logsumexp,
    sum_where,
)
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("supcon_in")
class SupConInLoss(LabelLoss):
    r"""An anchor's positives together have to stand out from the whole batch.

    .. math::
        L = \frac{1}{|A|} \sum_{a \in A} -\log \left(
            \frac{1}{|P(a)|} \sum_{p \in P(a)}
            \frac{\exp(s_{ap} / \tau)}{\sum_{k \neq a} \exp(s_{ak} / \tau)}\right)

    The mean over positives stands inside the logarithm: it is L_in. Never above
    :class:`SupConLoss`; one near positive satisfies it. As there, the mean over
    the anchors is taken, those without positives are left out, and if none is
    left (N = 1 too) the loss is 0 with gradient 0; with a single label all equal
    embeddings give log(N - 1). NaN or infinity in an embedding gives NaN.

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
        found = masked_logsumexp(s, positives)
        against = masked_logsumexp(s, positives | negatives)
        number = positives.sum(dim=1).clamp(min=1).to(s.dtype)
        return sum_where(against - found + number.log(), positives.any(dim=1))
