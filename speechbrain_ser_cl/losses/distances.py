"""Distances between embeddings, for the losses that let one choose."""

import torch
from torch import Tensor

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


def distances(a: Tensor, b: Tensor, distance: str) -> Tensor:
    """Distances between the rows of two matrices.

    Arguments
    ---------
    a, b : torch.Tensor
        Embeddings (A, D) and (B, D).
    distance : str
        ``"cosine"``: 1 minus the dot product, so that the rows should have
        length 1. ``"euclidean"``: of the differences themselves, so that equal
        rows are at distance 0 exactly, with gradient 0.

    Returns
    -------
    torch.Tensor
        (A, B).

    Example
    -------
    >>> distances(torch.eye(2), torch.eye(2), "cosine")
    tensor([[0., 1.],
            [1., 0.]])
    """
    if distance == "cosine":
        return 1 - a @ b.T
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances between the rows of two matrices.

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
