"""Supervised contrastive loss with the votes of several listeners as labels."""

import torch
from torch import Tensor

from speechbrain_ser_cl.losses.base import PairLoss, Tile, check_distributions
from speechbrain_ser_cl.losses.supcon import contrast_
from speechbrain_ser_cl.registry import LOSSES

SIMILARITIES = ("bhattacharyya", "jensen_shannon")


@LOSSES.register("soft_supcon")
class SoftSupConLoss(PairLoss):
    r"""Contrasts each anchor with all other rows, weighted by the similarity of votes.

    .. math::
        L = \frac{1}{|A|} \sum_{a \in A} \sum_{p \neq a}
            \frac{K(v_a, v_p)}{\sum_{k \neq a} K(v_a, v_k)} \; {-\log}
            \frac{\exp(s_{ap} / \tau)}{\sum_{k \neq a} \exp(s_{ak} / \tau)}

    with s the cosine, v the shares of the votes, and K one of

    - ``"bhattacharyya"``: the sum over classes of sqrt(v_c v'_c);
    - ``"jensen_shannon"``: 1 minus the Jensen-Shannon distance, which is the root of
      the divergence with logarithms to base 2.

    Both are 1 for equal votes and 0 for votes without a common class. With one vote per
    row the loss equals :class:`SupConLoss`.

    Labels are votes or shares (N, C), at least 0. Rows without votes, with NaN or with
    -1 are unknown and left out. Anchors that share no class with another row are left
    out of the mean; without anchors (also for N = 1) the loss is 0 with gradient 0. NaN
    or infinity in an embedding gives NaN. Memory is linear in N.

    Arguments
    ---------
    temperature : float
        tau, above 0.
    similarity : str
        ``"bhattacharyya"`` or ``"jensen_shannon"``.
    normalize : bool
        Whether to scale embeddings to length 1 first.
    gather : bool
        Whether to compare the rows of all processes.

    Raises
    ------
    ValueError
        If the temperature is not a finite number above 0, or ``similarity`` is unknown.

    References
    ----------
    Khosla et al. 2020, eq. 2: "Supervised contrastive learning", arXiv:2004.11362.
    Dufumier et al. 2021, eq. 2: "Contrastive learning with continuous proxy meta-data
    for 3D MRI classification", arXiv:2106.08808; the weights.

    Example
    -------
    >>> votes = [[3, 0, 0], [2, 1, 0], [0, 0, 3], [0, 1, 2]]
    >>> round(SoftSupConLoss()(torch.ones(4, 2), votes).item(), 4)  # log 3
    1.0986
    """

    def __init__(
        self,
        temperature: float = 0.1,
        similarity: str = "bhattacharyya",
        normalize: bool = True,
        gather: bool = False,
    ) -> None:
        super().__init__(normalize, gather, temperature)
        if similarity not in SIMILARITIES:
            raise ValueError(
                f"similarity must be one of {', '.join(SIMILARITIES)}, found "
                f"{similarity!r}"
            )
        self.similarity = similarity

    def checked(self, labels: Tensor, number: int) -> tuple[Tensor, Tensor | None]:
        """Returns shares (N, C) or their roots, and which rows have votes."""
        shares, known = check_distributions("labels", labels, number)
        return shares.sqrt() if self.similarity == "bhattacharyya" else shares, known

    def terms(self, s: Tensor, tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        """Sums the anchors' losses and counts the anchors with positives."""
        if self.similarity == "bhattacharyya":
            weights = tile.anchor_labels @ tile.labels.T
        else:
            weights = _jensen_shannon(tile.anchor_labels, tile.labels)
        return contrast_(s, tile, tile.fill_own_(weights.to(s.dtype), 0))


def _jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Computes 1 minus the distances between the rows of (A, C) and (N, C): (A, N)."""

    def information(shares: Tensor) -> Tensor:
        terms: Tensor = torch.special.xlogy(shares, shares)
        return terms

    both = -(information(p).sum(dim=1)[:, None] + information(q).sum(dim=1)) / 2
    # One class at a time, without an array (A, N, C).
    for of_p, of_q in zip(p.T, q.T, strict=True):
        both += information((of_p[:, None] + of_q) / 2)
    return 1 - (both.neg_() / torch.log(both.new_tensor(2.0))).clamp_(0, 1).sqrt_()
