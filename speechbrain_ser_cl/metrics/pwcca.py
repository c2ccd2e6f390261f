"""Similarity of two representations of the same utterances, up to a linear map."""

import warnings

import numpy as np
from numpy.typing import ArrayLike

# Rounding errors of sums of products, in units of the machine precision.
_ROUNDING = 10


def canonical_correlations(x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Computes canonical correlations of two representations, largest first.

    The singular values of U_x^T U_y, where the columns of U_x and U_y are orthonormal
    bases of the spans of the centred columns of x and y (Björck and Golub 1973).
    Singular values at the level of rounding errors are dropped, so linearly dependent
    columns and fewer utterances than dimensions are allowed.

    Arguments
    ---------
    x, y : array_like of float
        Representations of the same N utterances, (N, D_x) and (N, D_y).

    Returns
    -------
    correlations : numpy.ndarray
        As many as the smaller rank, in [0, 1].

    Raises
    ------
    ValueError
        If shapes do not fit together, a value is not finite, or a representation is
        equal for all utterances.

    Warns
    -----
    UserWarning
        If the ranks add up to more than N - 1; some correlations are then 1 for any
        data.

    Example
    -------
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [2.0, 1.0]])
    >>> canonical_correlations(x, x @ [[1.0], [2.0]]).round(6)
    array([1.])
    """
    return _canonical(*_checked(x, y))[0]


def pwcca(x: ArrayLike, y: ArrayLike) -> float:
    r"""Computes projection-weighted canonical correlation analysis.

    .. math::
        \rho = \frac{\sum_i \alpha_i \rho_i}{\sum_i \alpha_i}, \qquad
        \alpha_i = \sum_j |\langle h_i, x_j \rangle|

    with canonical correlations rho_i, canonical variates h_i of x and centred columns
    x_j of x: correlations are weighted by the part of x that they explain. Morcos,
    Raghu and Bengio, "Insights on representational similarity in neural networks with
    canonical correlation", NeurIPS 2018, section 2.

    Not symmetric, because the weights are those of x. Invertible affine maps of y
    change nothing. Those of x do not change the correlations; the weights are unchanged
    for scaling, shifts, and order and sign of columns.

    Arguments
    ---------
    x, y : array_like of float
        Representations of the same N utterances, (N, D_x) and (N, D_y). Use many more
        utterances than dimensions: the squared correlations of independent random
        representations add up to about D_x D_y / (N - 1).

    Returns
    -------
    similarity : float
        In [0, 1].

    Raises
    ------
    ValueError
        As in :func:`canonical_correlations`, which also warns.

    Example
    -------
    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> round(pwcca(x, 2 * x[:, ::-1] + 1), 6)
    1.0
    """
    x, y = _checked(x, y)
    correlations, variates = _canonical(x, y)
    weights = np.abs(variates.T @ _centred(x)).sum(axis=1)
    return float(np.average(correlations, weights=weights))


def _canonical(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes canonical correlations and the canonical variates of x as columns."""
    basis_x, basis_y = _basis(x, "x"), _basis(y, "y")
    rank_x, rank_y, n = basis_x.shape[1], basis_y.shape[1], len(x)
    if rank_x + rank_y > n - 1:
        forced = min(rank_x, rank_y, rank_x + rank_y - n + 1)
        warnings.warn(
            f"{n} utterances for representations of rank {rank_x} and {rank_y}: "
            f"{forced} of the canonical correlations are 1 whatever the data; take "
            "more utterances or fewer dimensions",
            stacklevel=3,
        )
    u, correlations, _ = np.linalg.svd(basis_x.T @ basis_y, full_matrices=False)
    return correlations.clip(0, 1), basis_x @ u


def _basis(x: np.ndarray, name: str) -> np.ndarray:
    """Computes an orthonormal basis (N, rank) of the centred columns' span."""
    rounding = _ROUNDING * np.finfo(x.dtype).eps * np.abs(x).max(axis=0)
    centred = _centred(x)
    deviation = centred.std(axis=0)
    real = deviation > 2 * rounding
    if not real.any():
        raise ValueError(f"{name} is the same for all utterances")
    # Scales columns to equal size, so that none is mistaken for a rounding error of
    # another.
    u, singular, _ = np.linalg.svd(
        centred[:, real] / deviation[real], full_matrices=False
    )
    # Largest singular value of independent errors of that size.
    relative = (rounding[real] / deviation[real]).max()
    limit = relative * (np.sqrt(len(x)) + np.sqrt(real.sum()))
    return u[:, singular > limit]


def _centred(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return np.asarray(x - x.mean(axis=0))


def _checked(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = (_floating(values) for values in (x, y))
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 2:
        raise ValueError(
            "expected representations (N, D_x) and (N, D_y) of the same utterances, N "
            f"at least 2; found shapes {x.shape} and {y.shape}"
        )
    for name, values in (("x", x), ("y", y)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds values that are not finite")
    return x, y


def _floating(values: ArrayLike) -> np.ndarray:
    values = np.asarray(values)
    return values if values.dtype.kind == "f" else values.astype(np.float64)
