"""NT-Xent of SimCLR between two augmented views."""

import torch
from torch import Tensor

from speechbrain_ser_cl.losses.base import ViewLoss
from speechbrain_ser_cl.losses.supcon import SupConLoss
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("ntxent")
class NTXentLoss(ViewLoss):
    r"""Identifies the other view of each utterance among all other rows of both views.

    .. math::
        L = \frac{1}{2N} \sum_{i=1}^{2N} -\log
            \frac{\exp(s_{i, j(i)} / \tau)}
                 {\sum_{k \neq i} \exp(s_{ik} / \tau)}

    over the 2N rows of both views, with s the cosine and j(i) the other view of the
    same utterance. Unlike in :class:`InfoNCELoss`, rows of an anchor's own view are
    negatives too. Equals :class:`SupConLoss` with each utterance as its own label.

    A single pair (N = 1) has no negatives: the loss is 0 with gradient 0. Equal
    embeddings give log(2N - 1). NaN or infinity in an embedding gives NaN.
    Memory is linear in N.

    Arguments
    ---------
    temperature : float
        tau, above 0.
    normalize : bool
        Whether to scale embeddings to length 1 first. False: s is the dot product.
    gather : bool
        Whether to compare the utterances of all processes.

    Raises
    ------
    ValueError
        If the temperature is not a finite number above 0.

    References
    ----------
    Chen et al. 2020, eq. 1: "A simple framework for contrastive learning of visual
    representations", arXiv:2002.05709.
    NTUA thesis, section 3.1.4.1: contrastive losses for speech emotion recognition.

    Example
    -------
    >>> loss = NTXentLoss(temperature=0.5)
    >>> z = torch.ones(4, 2)
    >>> round(loss(z, z).item(), 6)  # log 7
    1.94591
    """

    def __init__(
        self, temperature: float = 0.5, normalize: bool = True, gather: bool = False
    ) -> None:
        super().__init__(normalize=False, gather=gather)
        self.supcon = SupConLoss(temperature, normalize=normalize)

    def compare(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        """Compares each row with its other view, among all other rows."""
        utterance = torch.arange(len(z_a), device=z_a.device)
        loss: Tensor = self.supcon(torch.cat([z_a, z_b]), utterance.repeat(2))
        return loss
