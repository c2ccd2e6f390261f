"""Supervised contrastive loss, with the mean outside the logarithm."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from speechbrain_ser_cl.losses.base import LabelLoss, Tile, check_above_zero
from speechbrain_ser_cl.registry import LOSSES

# Called with the gradient of log_p, log_p, dim, dtype for log_p = x.log_softmax(dim);
# returns the gradient of x.
_log_softmax_backward: Callable[..., Tensor] = torch._log_softmax_backward_data


@LOSSES.register("supcon")
class SupConLoss(LabelLoss):
    r"""Contrasts each positive of an anchor with all other rows of the batch.

    .. math::
        L = \frac{1}{|A|} \sum_{a \in A} \frac{1}{|P(a)|} \sum_{p \in P(a)} -\log
            \frac{\exp(s_{ap} / \tau)}{\sum_{k \neq a} \exp(s_{ak} / \tau)}

    with s the cosine and P(a) the other rows with a's label. The mean over positives is
    outside the logarithm: L_out. Paper and thesis print a sum over the anchors; this is
    the mean, as in the authors' code. That code also multiplies the loss by tau / 0.07;
    ``base_temperature=0.07`` does the same.

    Several views of an utterance are rows with the same label; A is then all rows.
    Memory is linear in N.

    Anchors without positives are left out of the mean (the authors' code counts them as
    0, which decreases the loss). Without anchors (also for N = 1) the loss is 0 with
    gradient 0. With a single label the denominator is still over all other rows: equal
    embeddings give log(N - 1). NaN or infinity in an embedding gives NaN.

    Arguments
    ---------
    temperature : float
        tau, above 0.
    base_temperature : float or None
        If given, the loss is multiplied by tau over this value.
    normalize : bool
        Whether to scale embeddings to length 1 first. False: s is the dot product.
    gather : bool
        Whether to compare the rows of all processes.

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
        super().__init__(normalize, gather, temperature)
        if base_temperature is not None:
            check_above_zero("base_temperature", base_temperature)
        self.base_temperature = base_temperature

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | Sequence[Any],
        anchors: Tensor | None = None,
    ) -> Tensor:
        """Computes the loss of a batch, see :meth:`~.base.PairLoss.forward`."""
        loss = super().forward(embeddings, labels, anchors)
        if self.base_temperature is None:
            return loss
        return loss * (self.temperature / self.base_temperature)

    def terms(self, s: Tensor, tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        """Sums the anchors' losses and counts the anchors with positives."""
        return contrast_(s, tile, tile.positives().to(s.dtype))


def contrast_(s: Tensor, tile: Tile, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the contrastive losses of some anchors, with weighted positives.

    Arguments
    ---------
    s : torch.Tensor
        Similarities over the temperature (A, N), overwritten.
    tile : Tile
        The anchors.
    weights : torch.Tensor
        (A, N), at least 0, 0 between an anchor and itself; overwritten.

    Returns
    -------
    total, count, gradient : torch.Tensor
        As in :meth:`~.base.PairLoss.terms`; anchors whose weights are all 0 do not
        count.

    Example
    -------
    >>> import torch
    >>> tile = Tile(torch.tensor([0]), torch.arange(3))
    >>> contrast_(torch.zeros(1, 3), tile, torch.tensor([[0.0, 1, 0]]))[0]  # log 2
    tensor(0.6931)
    """
    sums = weights.sum(dim=1, keepdim=True)
    count = torch.count_nonzero(sums)
    weights.div_(torch.threshold_(sums, 0, 1).neg_())
    # Has the effect of -infinity, but 0 times it is 0 instead of NaN.
    log_p = tile.fill_own_(s, torch.finfo(s.dtype).min / 2).log_softmax(dim=1)
    total = torch.linalg.vecdot(weights, log_p).sum()
    return total, count, _log_softmax_backward(weights, log_p, 1, s.dtype)
