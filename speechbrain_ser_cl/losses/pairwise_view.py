"""Pairwise-CL: a contrastive loss between each pair of several views."""

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor, nn

from speechbrain_ser_cl.losses.infonce import InfoNCELoss
from speechbrain_ser_cl.losses.ntxent import NTXentLoss
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("pairwise_view")
class PairwiseViewLoss(nn.Module):
    r"""Identifies each utterance's other views, for all pairs of views.

    .. math::
        L = \binom{V}{2}^{-1} \sum_{u < v} \frac{1}{2N} \sum_{i=1}^{N}
            \left[ \ell(z^u_i, z^v_i) + \ell(z^v_i, z^u_i) \right],
        \qquad \ell(a, b) = -\log
            \frac{\exp(s(a, b) / \tau)}{\sum_k \exp(s(a, k) / \tau)}

    with s the cosine. Equation 1 is missing in our copy of the paper, so the range of k
    is an option:

    - ``"both_views"``: all rows of both views except the anchor, 2N - 1, as in SimCLR
      (:class:`NTXentLoss`);
    - ``"cross_view"``: the N rows of the other view, as in Contrastive Multiview
      Coding, arXiv:1906.05849 (:class:`InfoNCELoss`, symmetric).

    A single utterance (N = 1) has no negatives: the loss is 0 with gradient 0. NaN or
    infinity in an embedding gives NaN.

    Arguments
    ---------
    temperature : float
        tau, above 0. The paper's best value of 0.1, 0.25, 0.5 and 1 is 0.5.
    negatives : str
        ``"both_views"`` or ``"cross_view"``.
    normalize : bool
        Whether to scale embeddings to length 1 first. False: s is the dot product.
    gather : bool
        Whether to compare the utterances of all processes.

    Raises
    ------
    ValueError
        If the temperature is not a finite number above 0, or ``negatives`` is unknown.

    References
    ----------
    Khaertdinov et al. 2024, eqs. 1 to 3: "Exploring self-supervised multi-view
    contrastive learning for speech emotion recognition with limited annotations",
    arXiv:2406.07900.

    Example
    -------
    >>> loss = PairwiseViewLoss(temperature=0.5)
    >>> z = torch.ones(4, 2)
    >>> round(loss({"w2v2": z, "mel": z, "egemaps": z}).item(), 6)  # log 7
    1.94591
    """

    def __init__(
        self,
        temperature: float = 0.5,
        negatives: str = "both_views",
        normalize: bool = True,
        gather: bool = False,
    ) -> None:
        super().__init__()
        self.pair: NTXentLoss | InfoNCELoss
        if negatives == "both_views":
            self.pair = NTXentLoss(temperature, normalize=normalize, gather=gather)
        elif negatives == "cross_view":
            self.pair = InfoNCELoss(
                temperature, symmetric=True, normalize=normalize, gather=gather
            )
        else:
            raise ValueError(
                f"negatives must be both_views or cross_view, found {negatives!r}"
            )

    def forward(self, views: Mapping[str, Tensor]) -> Tensor:
        """Compares each pair of views.

        Arguments
        ---------
        views : dict of str to torch.Tensor
            Name of each of two or more views to its embeddings (N, D), with the same
            utterance in row i of all.

        Returns
        -------
        torch.Tensor
            The loss, a scalar of at least 0.

        Raises
        ------
        ValueError
            If there are fewer than two views, or their shapes differ.
        """
        if len(views) < 2:
            raise ValueError(f"expected at least two views, found {list(views)}")
        losses = []
        for (name_a, z_a), (name_b, z_b) in combinations(views.items(), 2):
            try:
                losses.append(self.pair(z_a, z_b))
            except ValueError as error:
                raise ValueError(f"views {name_a} and {name_b}: {error}") from error
        return torch.stack(losses).mean()
