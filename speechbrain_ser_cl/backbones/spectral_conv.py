"""Strided convolutions of spectrograms with large kernels."""

import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def strided_conv(x: Tensor, weight: Tensor) -> Tensor:
    r"""Convolves with stride 2 in both directions, without padding or bias.

    Equals ``torch.nn.functional.conv2d(..., stride=2)`` with another order of sums:
    along the first axis the convolution is a product of Fourier transforms, so a kernel
    with K steps costs about as much as one with 2 steps. The remaining work is one
    matrix product per Fourier coefficient, also for the gradient. Because of the
    stride, even and odd steps are convolved with even and odd taps of the kernel:

    .. math::
        y_j = \sum_i w_{2i} x_{2(j + i)} + \sum_i w_{2i+1} x_{2(j + i) + 1}

    Faster on a CPU for kernels of about 10 steps or more. Computed in the type of x; in
    bfloat16 the error is a few times that of a direct convolution.

    Arguments
    ---------
    x : torch.Tensor
        (F, T, B, C): frequency, time, batch, channel.
    weight : torch.Tensor
        (O, C, K, L) as in ``torch.nn.Conv2d``, K over frequency, L over time.

    Returns
    -------
    torch.Tensor
        (F', T', B, O) with F' = (F - K) // 2 + 1 and T' = (T - L) // 2 + 1.

    Raises
    ------
    ValueError
        If the kernel is larger than x, or channels differ.

    Example
    -------
    >>> x, weight = torch.randn(33, 20, 2, 3).double(), torch.randn(5, 3, 9, 4).double()
    >>> ours = strided_conv(x, weight).permute(2, 3, 0, 1)
    >>> torch.allclose(ours, F.conv2d(x.permute(2, 3, 0, 1), weight, stride=2))
    True
    """
    kernel = weight.shape[2:]
    if weight.shape[1] != x.shape[3] or any(
        size < taps for size, taps in zip(x.shape[:2], kernel, strict=True)
    ):
        raise ValueError(
            f"x {tuple(x.shape)} (F, T, B, C) does not fit a kernel "
            f"{tuple(weight.shape)} (O, C, K, L)"
        )
    n = (x.shape[0] + 1) // 2
    spectrum = _kernel_spectrum(weight, n).to(x.dtype)
    y: Tensor = _SpectralConv.apply(x, spectrum, *kernel)  # type: ignore[no-untyped-call]
    return y


@functools.lru_cache(maxsize=16)
def _transforms(
    n: int, n_out: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Builds the matrices (2K, n) of a real Fourier transform and its inverse."""
    turns = torch.arange(n // 2 + 1, dtype=torch.float64)[:, None] / n
    angles = 2 * math.pi * turns * torch.arange(n, dtype=torch.float64)
    forward = torch.cat([angles.cos(), -angles.sin()]) / math.sqrt(n)
    # The other half of the coefficients are the conjugates of these.
    twice = torch.where((turns == 0) | (turns == 0.5), 1.0, 2.0)
    inverse = torch.cat([twice * angles.cos(), -twice * angles.sin()]) / math.sqrt(n)
    inverse = inverse.T[:n_out].contiguous()
    return forward.to(device, dtype), inverse.to(device, dtype)


def _kernel_spectrum(weight: Tensor, n: int) -> Tensor:
    """Transforms the kernel to matrices (coefficients, inputs, 2 O).

    Inputs are in the order of :func:`_windows`: tap pair in time, parity in frequency,
    real or imaginary, parity in time, channel. Outputs are real, then imaginary parts
    of the product with the conjugate of the kernel's transform.
    """
    o, c, k, length = weight.shape
    weight = F.pad(weight, (0, length % 2, 0, k % 2))
    weight = weight.view(o, c, (k + 1) // 2, 2, (length + 1) // 2, 2)
    turns = torch.arange(n // 2 + 1, dtype=torch.float64)[:, None] / n
    angles = 2 * math.pi * turns * torch.arange(weight.shape[2], dtype=torch.float64)
    real, imaginary = (
        torch.einsum("kp,ocpfqt->kqftco", wave.to(weight), weight)
        for wave in (angles.cos(), -angles.sin())
    )
    of_real = torch.cat([real, -imaginary], dim=-1)
    of_imaginary = torch.cat([imaginary, real], dim=-1)
    return torch.stack([of_real, of_imaginary], dim=3).flatten(1, 5)


def _windows(x: Tensor, pairs: int, rows: int, step: int) -> Tensor:
    """Returns rows (time x batch, D), each with those of the next pairs of steps."""
    width = x.shape[1]
    strides = (width, step * width, 1)
    windows = x.as_strided((rows, pairs, width), strides, x.storage_offset())
    return windows.reshape(rows, pairs * width)


class _SpectralConv(torch.autograd.Function):
    """Computes transform, matrix product per coefficient, and inverse transform."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, k: int, length: int) -> Tensor:
        """Applies matrices (coefficients, inputs, 2 O) to (F, T, B, C)."""
        f, t, b, c = x.shape
        n, half_t = (f + 1) // 2, (t + 1) // 2
        f_out, t_out = (f - k) // 2 + 1, (t - length) // 2 + 1
        pairs, o = (length + 1) // 2, kernel.shape[2] // 2
        forward, inverse = _transforms(n, f_out, x.dtype, x.device)
        x = F.pad(x, (0, 0, 0, 0, 0, t % 2, 0, f % 2))
        # Parity in frequency first; parity in time becomes a part of the channels.
        x = x.view(n, 2, half_t, 2, b, c).permute(1, 0, 2, 4, 3, 5)
        x = forward @ x.reshape(2, n, -1)
        x = x.view(2, 2, -1, half_t, b, 2 * c).permute(2, 3, 4, 0, 1, 5)
        x = x.reshape(-1, half_t * b, 8 * c)
        products = x.new_empty(2, len(x), t_out * b, o)
        for i, (own, matrix) in enumerate(zip(x, kernel, strict=True)):
            product = _windows(own, pairs, t_out * b, b) @ matrix
            products[0, i], products[1, i] = product[:, :o], product[:, o:]
        ctx.save_for_backward(x, kernel)
        ctx.sizes = f, t, b, c, k, length
        y = inverse @ products.view(2 * len(x), -1)
        return y.view(f_out, t_out, b, o)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        """Computes the gradients: the same steps, transposed, in reverse order."""
        x, kernel = ctx.saved_tensors
        f, t, b, c, k, length = ctx.sizes
        n, half_t = (f + 1) // 2, (t + 1) // 2
        f_out, t_out = (f - k) // 2 + 1, (t - length) // 2 + 1
        pairs, o = (length + 1) // 2, kernel.shape[2] // 2
        forward, inverse = _transforms(n, f_out, x.dtype, x.device)
        outer = inverse.T @ outer.to(x.dtype).reshape(f_out, -1)
        outer = outer.view(2, len(x), t_out * b, o)
        of_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        of_kernel = torch.empty_like(kernel)
        for i, own in enumerate(x):
            product = torch.cat([outer[0, i], outer[1, i]], dim=1)
            windows = _windows(own, pairs, t_out * b, b)
            torch.mm(windows.T, product, out=of_kernel[i])
            if of_x is not None:
                of_windows = (product @ kernel[i].T).view(t_out * b, pairs, -1)
                for pair in range(pairs):
                    rows = slice(pair * b, (pair + t_out) * b)
                    of_x[i, rows] += of_windows[:, pair]
        if of_x is not None:
            of_x = of_x.view(-1, half_t, b, 2, 2, 2 * c).permute(3, 4, 0, 1, 2, 5)
            of_x = forward.T @ of_x.reshape(2, 2 * len(x), -1)
            of_x = of_x.view(2, n, half_t, b, 2, c).permute(1, 0, 2, 4, 3, 5)
            of_x = of_x.reshape(2 * n, 2 * half_t, b, c)[:f, :t]
        return of_x, of_kernel, None, None
