"""Distances between embeddings, and their gradients."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# A matrix (A, B), and a function that converts its gradient to those of (A, D) and
# (B, D), or to one gradient, if these two are the same tensor.
Compared = tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]

DISTANCES = ("cosine", "euclidean")


def dot_products(a: Tensor, b: Tensor, temperature: Tensor | float = 1.0) -> Compared:
    """Computes dot products between the rows of two matrices, over a temperature.

    Arguments
    ---------
    a, b : torch.Tensor
        Embeddings (A, D) and (B, D); may be one tensor.
    temperature : torch.Tensor or float
        By which the products are divided.

    Returns
    -------
    matrix : torch.Tensor
        (A, B).
    pull_back : callable
        Converts a gradient of the matrix to those of a and b, or to one, if both are
        the same tensor.

    Example
    -------
    >>> s, pull_back = dot_products(torch.eye(2), 3 * torch.eye(2))
    >>> pull_back(torch.ones(2, 2))[0]
    tensor([[3., 3.],
            [3., 3.]])
    """
    scaled = a / temperature

    def pull_back(gradient: Tensor) -> tuple[Tensor, ...]:
        if a is b:
            return ((gradient + gradient.T) @ scaled,)
        return (gradient @ b).div_(temperature), gradient.T @ scaled

    return scaled @ b.T, pull_back


def distances(
    a: Tensor, b: Tensor, distance: str, fill_own_: Callable[..., Any] | None = None
) -> Compared:
    """Computes distances between the rows of two matrices.

    Euclidean distances come from a matrix product, which is several times faster than
    differences. Distances as small as rounding errors are computed again from the
    difference, so that equal rows have distance exactly 0, with gradient 0.

    Arguments
    ---------
    a, b : torch.Tensor
        Embeddings (A, D) and (B, D); may be one tensor.
    distance : str
        ``"cosine"``: 1 minus the dot product, so rows should have length 1. Or
        ``"euclidean"``.
    fill_own_ : callable, optional
        Sets the entries between a row and itself in a matrix (A, B) to a value.

    Returns
    -------
    matrix : torch.Tensor
        (A, B).
    pull_back : callable
        Converts a gradient of the matrix to those of a and b, or to one, if both are
        the same tensor.

    Example
    -------
    >>> distances(torch.eye(2), torch.eye(2), "cosine")[0]
    tensor([[0., 1.],
            [1., 0.]])
    """
    if distance == "cosine":
        s, of_products = dot_products(a, b, -1.0)
        return s.add_(1), of_products
    one = a is b
    # Without the common mean the products are smaller and so more precise.
    centre = b.mean(dim=0)
    b = b - centre
    a = b if one else a - centre
    squares = b.square().sum(dim=1)
    lengths = (squares if one else a.square().sum(dim=1))[:, None] + squares
    d = torch.addmm(lengths, a, b.T, alpha=-2)
    # False for NaN.
    small = d < lengths.mul_(torch.finfo(d.dtype).eps ** 0.5)
    d.clamp_(min=0).sqrt_()
    if fill_own_ is not None:
        fill_own_(small, False)
        fill_own_(d, 0)
    row, column = small.nonzero().T
    few = max(1, d.numel() // a.shape[1])  # pairs whose differences fit into memory
    if len(row):
        for i, j in zip(torch.split(row, few), torch.split(column, few), strict=True):
            d[i, j] = torch.linalg.vector_norm(a[i] - b[j], dim=1)
        different = d[row, column] > 0
        row, column = row[different], column[different]

    def pull_back(gradient: Tensor) -> tuple[Tensor, ...]:
        if one:
            gradient = gradient + gradient.T
        weights = (gradient / d).masked_fill_(d == 0, 0)
        if len(row):
            near = weights[row, column]
            weights[row, column] = 0
        of_b = torch.addcmul(-(weights.T @ a), weights.sum(dim=0)[:, None], b)
        pulled: tuple[Tensor, ...] = (of_b,)
        if not one:
            of_a = torch.addcmul(-(weights @ b), weights.sum(dim=1, keepdim=True), a)
            pulled = (of_a, of_b)
        for first in range(0, len(row), few):
            part = slice(first, first + few)
            i, j = row[part], column[part]
            along = near[part, None] * (a[i] - b[j])
            of_b.index_add_(0, j, along, alpha=-1)
            if not one:
                of_a.index_add_(0, i, along)
        return pulled

    return d, pull_back
