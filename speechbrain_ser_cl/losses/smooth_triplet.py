"""Smooth triplet loss over every triplet of the batch, a tile at a time."""

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from speechbrain_ser_cl.losses.base import LabelLoss, check_above_zero, pack
from speechbrain_ser_cl.registry import LOSSES

# Triplets that are held at once: 4 MB in float32.
TILE = 2**20


class _SoftplusSum(torch.autograd.Function):
    """Sum of softplus(s_an - s_ap) over all p and n, a tile of triplets at a time."""

    @staticmethod
    def forward(ctx, s: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """The sum, with its gradient kept for the way back."""
        gradient = torch.zeros_like(s)
        (p_columns, p_valid), (n_columns, n_valid) = pack(positives), pack(negatives)
        # softplus(-infinity) = 0 wherever p or n is filling.
        s_ap = s.gather(1, p_columns).masked_fill(~p_valid, torch.inf)
        s_an = s.gather(1, n_columns).masked_fill(~n_valid, -torch.inf)
        # Anchors per tile, or if one has too many triplets, positives per tile.
        width = max(1, s_an.shape[1])
        pairs = max(1, TILE // width)
        height = max(1, min(pairs, s_ap.shape[1]))
        # Every tile in the same memory: what is given back in between is not always
        # found again by the next, and memory would grow with the number of tiles.
        memory = s.new_empty(2, pairs // height * height * width)
        sums = []
        for rows in torch.arange(len(s), device=s.device).split(pairs // height):
            near, of_rows = s_an[rows, None, :], gradient[rows]
            for columns in torch.arange(s_ap.shape[1], device=s.device).split(height):
                far = s_ap[rows][:, columns, None]
                shape = len(rows), len(columns), s_an.shape[1]
                x, y = memory[:, : math.prod(shape)].view(2, *shape)
                torch.sub(near, far, out=x)
                F.softplus(x, threshold=40, out=y)
                sums.append(y.sum())
                x.sigmoid_()
                of_rows.scatter_add_(1, n_columns[rows], x.sum(dim=1))
                of_rows.scatter_add_(1, p_columns[rows][:, columns], -x.sum(dim=2))
            gradient[rows] = of_rows
        ctx.save_for_backward(gradient)
        return torch.stack(sums).sum() if sums else s.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx, outer: Tensor) -> tuple[Tensor, None, None]:
        """Scales the gradient that the forward pass has left."""
        (gradient,) = ctx.saved_tensors
        return outer * gradient, None, None


@LOSSES.register("smooth_triplet")
class SmoothTripletLoss(LabelLoss):
    r"""The triplet loss with a soft step in place of the margin.

    .. math::
        L = \frac{1}{|T|} \sum_{(a, p, n) \in T}
            \log(1 + \exp((s_{an} - s_{ap}) / \tau))

    with s the cosine, p of a's label, n of another, and T every such triplet.

    Exact. Time is that of all triplets, O(N³), memory is not: triplets are
    summed up a tile at a time, their gradient with them. That gradient cannot be
    differentiated once more.

    Without any triplet (no positives, a single label, N = 1) the loss is 0 with
    gradient 0. NaN or infinity in an embedding gives NaN.

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
    NTUA thesis, section 4.4.2.2: contrastive losses for speech emotion recognition.

    Example
    -------
    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> loss = SmoothTripletLoss(temperature=0.5)
    >>> round(loss(torch.ones(4, 2), labels).item(), 6)  # log 2
    0.693147
    """

    def __init__(
        self, temperature: float = 0.5, normalize: bool = True, gather: bool = False
    ) -> None:
        super().__init__(normalize, gather)
        check_above_zero("temperature", temperature)
        self.temperature = temperature

    def anchor_terms(
        self, anchors: Tensor, z: Tensor, positives: Tensor, negatives: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sum over the anchors' triplets, and the number of triplets.

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
        count = (positives.sum(dim=1) * negatives.sum(dim=1)).sum()
        return _SoftplusSum.apply(s, positives, negatives), count
