"""N-pair loss."""

from speechbrain_ser_cl.losses.supervised_ntxent import SupervisedNTXentLoss
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("npair")
class NPairLoss(SupervisedNTXentLoss):
    r"""Contrasts each positive with all negatives, by plain dot products.

    .. math::
        L = \frac{1}{|A|} \sum_{a \in A} \frac{1}{|P(a)|} \sum_{p \in P(a)} -\log
            \frac{\exp(z_a \cdot z_p)}
                 {\exp(z_a \cdot z_p) + \sum_{n \in N(a)} \exp(z_a \cdot z_n)}

    with P(a) the other rows with a's label and N(a) the rows with other labels. The
    means are those of the text below the thesis' equation. This is
    :class:`SupervisedNTXentLoss` without a temperature and, by default, without scaling
    to length 1. See there for anchors without positives, a single label, N = 1, NaN and
    infinity.

    Sohn draws two rows per class and uses only the second row of each other class as a
    negative. That is ``InfoNCELoss(temperature=1.0, normalize=False)`` between all
    first and all second rows.

    Arguments
    ---------
    normalize : bool
        Whether to scale embeddings to length 1 first.
    gather : bool
        Whether to compare the rows of all processes.

    References
    ----------
    NTUA thesis, eq. 3.16: contrastive losses for speech emotion recognition.
    Sohn 2016: "Improved deep metric learning with multi-class N-pair loss objective",
    NIPS.

    Example
    -------
    >>> import torch
    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> z = 2 * torch.eye(2)[labels]
    >>> round(NPairLoss()(z, labels).item(), 6)  # log(1 + 2 exp(-4))
    0.035976
    """

    def __init__(self, normalize: bool = False, gather: bool = False) -> None:
        super().__init__(temperature=1.0, normalize=normalize, gather=gather)
