"""Batch normalisation that does not count padding."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from typing_extensions import override


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation whose statistics leave padding out.

    Without padding it is ``torch.nn.BatchNorm1d`` or ``BatchNorm2d``. Statistics are
    of one process, not of all in distributed training.

    Arguments
    ---------
    num_features : int
        Number C of channels.
    eps : float
        Added to the variance.
    momentum : float, optional
        Share of a new batch in the running statistics. None: their plain mean over
        all batches so far.
    affine : bool
        Whether a scale and a shift are learned.

    Example
    -------
    >>> norm = MaskedBatchNorm(1, affine=False)
    >>> frames = torch.tensor([[[1.0, 3.0, 99.0]]])
    >>> norm(frames, torch.tensor([[True, True, False]]))
    tensor([[[-1.0000,  1.0000,  0.0000]]])
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalises.

        Arguments
        ---------
        x : torch.Tensor
            (B, C, T) or (B, C, F, T).
        mask : torch.Tensor, optional
            Booleans (B, T), True for valid frames. None: all are.

        Returns
        -------
        torch.Tensor
            Of the shape of x. What stands in the padding is of no meaning.

        Raises
        ------
        ValueError
            In training, if there is only one value of a channel.
        """
        if not self.training or mask is None or mask.all():
            return super().forward(x)
        valid = mask.view(len(mask), *[1] * (x.dim() - 3), -1)
        valid = valid.expand(len(x), *x.shape[2:])
        out = torch.zeros_like(x)
        out.movedim(1, -1)[valid] = super().forward(x.movedim(1, -1)[valid])
        return out

    def _check_input_dim(self, input: Tensor) -> None:
        """Accepts any number of dimensions."""


class InputNorm(MaskedBatchNorm):
    """Batch normalisation of features in units of their own, without an affine part.

    Statistics are the plain mean over all batches. They stay in float32 when the model
    is cast to half precision, which ends at 65504: the variance of Hz does not.

    Arguments
    ---------
    num_features : int
        Number C of channels.

    Example
    -------
    >>> InputNorm(2).half().running_mean.dtype
    torch.float32
    """

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features, momentum=None, affine=False)

    @override
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        assert self.running_mean is not None
        return super().forward(x.to(self.running_mean.dtype), mask)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        def without_rounding(x: Tensor) -> Tensor:
            moved = fn(x)
            return x.to(moved.device) if moved.itemsize < x.itemsize else moved

        super()._apply(without_rounding, recurse)  # type: ignore[no-untyped-call]
        return self
