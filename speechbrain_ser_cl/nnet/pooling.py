"""Masked pooling over time: frames to one vector per utterance."""

from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_ser_cl.nnet.lengths import length_mask
from speechbrain_ser_cl.registry import POOLINGS


def _valid_frames(x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns frames in at least float32, 0 in the padding, and their mask (B, T, 1)"""
    if x.dim() != 3 or (lengths is not None and lengths.shape != x.shape[:1]):
        found = None if lengths is None else tuple(lengths.shape)
        raise ValueError(
            "pooling expects frames (B, T, D) and relative lengths (B,), found "
            f"{tuple(x.shape)} and {found}"
        )
    if lengths is None:
        lengths = torch.ones(len(x), device=x.device)
    mask = length_mask(lengths, x.shape[1]).unsqueeze(-1)
    # masked_fill instead of a product, because NaN times 0 is NaN, in the gradient too.
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return x.masked_fill(~mask, 0), mask


@POOLINGS.register("mean")
class MeanPooling(nn.Module):
    """Computes the mean of the valid frames.

    Arguments
    ---------
    input_size : int, optional
        Size D of a frame, needed only for ``output_size``.

    Attributes
    ----------
    output_size : int or None
        Size of the pooled vector, ``input_size``.

    Example
    -------
    >>> frames = torch.tensor([[[1.0], [3.0], [99.0]]])
    >>> MeanPooling()(frames, torch.tensor([2 / 3]))
    tensor([[2.]])
    """

    def __init__(self, input_size: int | None = None) -> None:
        super().__init__()
        self.output_size = input_size

    def arguments(self) -> dict[str, Any]:
        """Returns keyword arguments that build a module like this one."""
        return {"input_size": self.output_size}

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pools a batch.

        Arguments
        ---------
        x : torch.Tensor
            Frames (B, T, D).
        lengths : torch.Tensor, optional
            Relative lengths in frames (B,), in (0, 1]. None: no padding.

        Returns
        -------
        torch.Tensor
            One vector per utterance (B, D), of the type of x.

        Raises
        ------
        ValueError
            If a shape is wrong.
        """
        frames, mask = _valid_frames(x, lengths)
        return (frames.sum(dim=1) / mask.sum(dim=1)).to(x.dtype)


@POOLINGS.register("statistics")
class StatisticsPooling(nn.Module):
    """Computes mean and standard deviation of the valid frames, concatenated.

    The sum of squares is divided by the number of frames, so that a single frame is
    allowed. The standard deviation is at least 1e-5: at 0 its gradient is infinite.
    Snyder et al., "X-vectors", ICASSP 2018.

    Arguments
    ---------
    input_size : int, optional
        Size D of a frame, needed only for ``output_size``.

    Attributes
    ----------
    output_size : int or None
        Size of the pooled vector, 2 ``input_size``.

    Example
    -------
    >>> frames = torch.tensor([[[1.0], [3.0], [99.0]]])
    >>> StatisticsPooling()(frames, torch.tensor([2 / 3]))
    tensor([[2., 1.]])
    """

    def __init__(self, input_size: int | None = None) -> None:
        super().__init__()
        self.input_size = input_size
        self.output_size = None if input_size is None else 2 * input_size

    def arguments(self) -> dict[str, Any]:
        """Returns keyword arguments that build a module like this one."""
        return {"input_size": self.input_size}

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pools a batch; see :meth:`MeanPooling.forward`."""
        frames, mask = _valid_frames(x, lengths)
        n = mask.sum(dim=1)
        mean = frames.sum(dim=1) / n
        deviation = (frames - mean.unsqueeze(1)).masked_fill(~mask, 0)
        variance = deviation.square().sum(dim=1) / n
        std = variance.clamp(min=1e-10).sqrt()
        return torch.cat([mean, std], dim=1).to(x.dtype)


@POOLINGS.register("self_attention")
class SelfAttentionPooling(nn.Module):
    r"""Computes a weighted mean of the valid frames with learned weights.

    .. math::
        C = \mathrm{softmax}(W_c H^T) H

    with the T x D frames H and a learned row W_c of D numbers; the softmax is over the
    valid frames. Equation 3 of Safari et al., "Self-attention encoding and pooling for
    speaker recognition", Interspeech 2020.

    Arguments
    ---------
    input_size : int
        Size D of a frame.

    Attributes
    ----------
    output_size : int
        Size of the pooled vector, ``input_size``.

    Example
    -------
    >>> pooling = SelfAttentionPooling(8)
    >>> pooling(torch.randn(2, 5, 8), torch.tensor([1.0, 0.6])).shape
    torch.Size([2, 8])
    """

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.attention = nn.Linear(input_size, 1, bias=False)
        self.output_size = input_size

    def arguments(self) -> dict[str, Any]:
        """Returns keyword arguments that build a module like this one."""
        return {"input_size": self.output_size}

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pools a batch; see :meth:`MeanPooling.forward`."""
        frames, mask = _valid_frames(x, lengths)
        scores = frames @ self.attention.weight.to(frames.dtype).T
        weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=1)
        return (weights * frames).sum(dim=1).to(x.dtype)
