"""Distances between embeddings, and their gradients."""

from collections.abc import Callable

import torch
from torch import Tensor

# A matrix (A, B) and what turns its gradient into those of (A, D) and (B, D).
Compared = tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]

DISTANCES = ("cosine", "euclidean")


def check_distance(distance: str) -> None:
    """Refuses a name that is no distance.

    Arguments
    ---------
    distance : str
        Should be ``"cosine"`` or ``"euclidean"``.

    Raises
    ------
    ValueError
        If it is another.

    Example
    -------
    >>> check_distance("l2")
    Traceback (most recent call last):
    ...
    ValueError: distance must be one of cosine, euclidean, found 'l2'
    """
    if distance not in DISTANCES:
        raise ValueError(
            f"distance must be one of {', '.join(DISTANCES)}, found {distance!r}"
        )


def dot_products(a: Tensor, b: Tensor) -> Compared:
    """Computes dot products between the rows of two matrices.

    Arguments
    ---------
    a, b : torch.Tensor
        Embeddings (A, D) and (B, D).

    Returns
    -------
    matrix : torch.Tensor
        (A, B).
    pull_back : callable
        Takes a gradient of the matrix; gives those of a and b.

    Example
    -------
    >>> s, pull_back = dot_products(torch.eye(2), 3 * torch.eye(2))
    >>> pull_back(torch.ones(2, 2))[0]
    tensor([[3., 3.],
            [3., 3.]])
    """
    return a @ b.T, lambda gradient: (gradient @ b, gradient.T @ a)


def distances(a: Tensor, b: Tensor, distance: str) -> Compared:
    """Distances between the rows of two matrices.

    Euclidean ones come from a matrix product, several times as fast as from
    differences. Where so small a distance remains that it is made of rounding errors,
    it is computed anew from the difference, so that equal rows are at distance 0
    exactly, with gradient 0.

    Arguments
    ---------
    a, b : torch.Tensor
        Embeddings (A, D) and (B, D).
    distance : str
        ``"cosine"``: 1 minus the dot product, so that the rows should have
        length 1. ``"euclidean"``.

    Returns
    -------
    matrix : torch.Tensor
        (A, B).
    pull_back : callable
        Takes a gradient of the matrix; gives those of a and b.

    Example
    -------
    >>> distances(torch.eye(2), torch.eye(2), "cosine")[0]
    tensor([[0., 1.],
            [1., 0.]])
    """
    if distance == "cosine":
        return (a @ b.T).neg_().add_(1), lambda g: (-(g @ b), -(g.T @ a))
    # What all rows share would only cost digits.
    centre = b.mean(dim=0)
    a, b = a - centre, b - centre
    lengths = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)
    d = torch.addmm(lengths, a, b.T, alpha=-2)
    # Not less or equal: NaN is not small.
    row, column = (d < lengths.mul_(torch.finfo(d.dtype).eps ** 0.5)).nonzero().T
    few = max(1, d.numel() // a.shape[1])
    d.clamp_(min=0).sqrt_()
    for i, j in zip(torch.split(row, few), torch.split(column, few), strict=True):
        d[i, j] = torch.linalg.vector_norm(a[i] - b[j], dim=1)
    apart = d[row, column] > 0
    row, column = row[apart], column[apart]

    def pull_back(gradient: Tensor) -> tuple[Tensor, Tensor]:
        weights = (gradient / d).masked_fill_(d == 0, 0)
        if len(row):
            near = weights[row, column]
            weights[row, column] = 0
        of_a = torch.addcmul(-(weights @ b), weights.sum(dim=1, keepdim=True), a)
        of_b = torch.addcmul(-(weights.T @ a), weights.sum(dim=0)[:, None], b)
        for first in range(0, len(row), few):
            part = slice(first, first + few)
            i, j = row[part], column[part]
            along = near[part, None] * (a[i] - b[j])
            of_a.index_add_(0, i, along)
            of_b.index_add_(0, j, along, alpha=-1)
        return of_a, of_b

    return d, pull_back


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Computes squared Euclidean distances between the rows of two matrices.

    By one matrix product, several times as fast as the square of
    :func:`distances`. Equal rows are at a distance of rounding errors, which is
    no matter where no root is taken.

    Arguments
    ---------
    a, b : torch.Tensor
        Embeddings (A, D) and (B, D).

    Returns
    -------
    torch.Tensor
        (A, B), at least 0.

    Example
    -------
    >>> squared_distances(torch.eye(2), torch.eye(2))
    tensor([[0., 2.],
            [2., 0.]])
    """
    # What all rows share would only cost digits.
    centre = b.detach().mean(dim=0)
    a, b = a - centre, b - centre
    lengths = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)
    return torch.addmm(lengths, a, b.T, alpha=-2).clamp(min=0)
