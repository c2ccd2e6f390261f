"""Batch normalisation that ignores padding."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from typing_extensions import override


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation whose statistics ignore padding.

    Without padding it equals ``torch.nn.BatchNorm1d``, which has the same arguments, or
    ``BatchNorm2d``. In distributed training each process computes its own statistics.

    Example
    -------
    >>> norm = MaskedBatchNorm(1, affine=False)
    >>> frames = torch.tensor([[[1.0, 3.0, 99.0]]])
    >>> norm(frames, torch.tensor([[True, True, False]]))
    tensor([[[-1.0000,  1.0000,  0.0000]]])
    """

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalises features.

        Arguments
        ---------
        x : torch.Tensor
            (B, C, T) or (B, C, F, T).
        mask : torch.Tensor, optional
            Booleans (B, T), True for valid frames. None: all are valid.

        Returns
        -------
        torch.Tensor
            Same shape as x. Values in the padding are meaningless.

        Raises
        ------
        ValueError
            In training, if a channel has only one value.
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
    """Batch normalisation of input features, without an affine part.

    Running statistics are means over all batches. They stay in float32 when the model
    is converted to half precision, because the largest number of float16, 65504, is too
    small for the variance of frequencies in Hz.

    Arguments
    ---------
    num_features : int
        Number of channels C.

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
