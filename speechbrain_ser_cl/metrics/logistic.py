"""Fits logistic regressions on the same vectors together.

In cross-validation the regressions of all folds have the same vectors and differ in the
weights of utterances, so that a step of all of them is one product of matrices.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve

Floats = NDArray[np.floating[Any]]

# Score of a class without weighted utterances: the softmax of it is 0.
_NEVER = -1e4
# Typical p (1 - p) of a fitted regression, for the approximate Hessian.
_CURVATURE = 0.02
_MOST_STEPS = 2000
_MOST_HALVINGS = 30


def fit_logistic(
    vectors: Floats,
    labels: ArrayLike,
    strengths: Sequence[float],
    weights: ArrayLike,
    tolerance: float,
) -> Iterator[tuple[Floats, Floats]]:
    r"""Fits B multinomial logistic regressions that share vectors and classes.

    Each minimises the objective of scikit-learn's ``LogisticRegression``, with weights
    w of utterances that sum to S:

    .. math::
        \frac{1}{S} \sum_i w_i \log \frac{\sum_k \exp s_{ik}}{\exp s_{i y_i}}
        + \frac{1}{2 C S} \lVert W \rVert^2, \quad s_i = W x_i + b

    For two classes C is halved, which gives the scores of the binary regression. The
    method is nonlinear conjugate gradients (Polak and Ribière), preconditioned by an
    approximate Hessian; the step length is Newton's, halved until the objective does
    not rise.

    Arguments
    ---------
    vectors : numpy.ndarray
        (N, D), best standardised; the fit has their precision.
    labels : array_like of int
        N classes 0 to K - 1.
    strengths : sequence of float
        Values of C. Each fit starts from the previous solution.
    weights : array_like of float
        (B, N). Utterances of weight 0 are left out. A class with only those has weights
        0 and a bias so low that it is never predicted.
    tolerance : float
        Stopping criterion: largest component of the gradient.

    Yields
    ------
    weights : numpy.ndarray
        (B, K, D).
    bias : numpy.ndarray
        (B, K).

    Example
    -------
    >>> x = np.array([[0.0], [1.0], [4.0], [5.0]])
    >>> ((W, b),) = fit_logistic(x, [0, 0, 1, 1], [1.0], np.ones((1, 4)), 1e-6)
    >>> W.shape, (x @ W[0].T + b[0]).argmax(axis=1).tolist()
    ((1, 2, 1), [0, 0, 1, 1])
    """
    labels = np.asarray(labels)
    x, back = rotated(vectors)
    x = with_intercept(x)
    shares = np.array(weights, float)
    sums = shares.sum(axis=1)
    classes = labels == np.arange(labels.max() + 1)[:, None]  # (K, N)
    there = shares @ classes.T > 0  # (B, K)
    factor = np.where(there.sum(axis=1) == 2, 0.5, 1.0) * sums
    shares /= sums[:, None]
    options = classes.astype(x.dtype), shares.astype(x.dtype)
    # Products with the vectors take the time: single precision first.
    rough = [] if x.dtype == np.float32 else [_Regressions(x.astype("f4"), *options)]
    stages = [*rough, _Regressions(x, *options)]
    solution = np.zeros((*there.shape, x.shape[1]), x.dtype)
    solution[..., -1][~there] = _NEVER
    for C in strengths:
        decay = np.multiply.outer(1 / (C * factor), np.ones(x.shape[1]))
        decay[:, -1] = 0  # of the intercept
        decay = decay[:, None].astype(x.dtype)
        for stage in stages:
            solution, converged = stage.minimise(solution, decay, tolerance)
        if not converged:
            from sklearn.exceptions import ConvergenceWarning

            warnings.warn(
                f"a logistic regression has not converged in {_MOST_STEPS} steps; "
                "standardise the vectors, or choose a smaller C",
                ConvergenceWarning,
                stacklevel=3,
            )
        found = solution[..., :-1]
        yield found if back is None else found @ back, solution[..., -1]


class _Regressions:
    """B objectives of (K, D + 1) variables; the last column of ``x`` is 1.

    Products with ``x`` have its precision, all else that of the classes.
    """

    def __init__(self, x: Floats, classes: Floats, shares: Floats) -> None:
        self._x, self._classes, self._shares = x, classes, shares

    def minimise(
        self, solution: Floats, decay: Floats, tolerance: float
    ) -> tuple[Floats, bool]:
        """Returns the solutions (B, K, D + 1) from a start; whether it converged."""
        scores = self._scores(solution)
        p, value = self._softmax(scores, solution, decay)
        precision = np.finfo(p.dtype).eps
        left = np.ones(len(p), bool)
        solve = old = None
        for _ in range(_MOST_STEPS):
            gradient = self._gradient(p) + decay * solution
            left &= abs(gradient).max(axis=(1, 2)) > tolerance
            if not left.any():
                return solution, True
            solve = solve or self._preconditioner(decay.mean(axis=(0, 1)))
            step = solve(gradient)
            slope, direction = _dot(step, gradient), -step
            if old is not None:
                old_gradient, old_slope, old_direction = old
                ratio = (slope - _dot(step, old_gradient)) / old_slope
                direction += ratio.clip(min=0)[:, None, None] * old_direction
            old = gradient, slope, direction
            change = self._scores(direction)
            moments = (p * change).sum(axis=1), (p * change**2).sum(axis=1)
            bend = (self._shares * (moments[1] - moments[0] ** 2)).sum(axis=1)
            bend += _dot(direction, decay * direction)
            length = np.where(left, -_dot(gradient, direction) / bend, 0)
            length = length[:, None, None].astype(p.dtype)
            for _ in range(_MOST_HALVINGS):
                trial, new_scores = (
                    solution + length * direction,
                    scores + length * change,
                )
                p, new_value = self._softmax(new_scores, trial, decay)
                worse = new_value > value + 10 * precision * value
                if not worse.any():
                    break
                length[worse] /= 2
            left &= value - new_value > precision / 10 * value
            solution, scores, value = trial, new_scores, new_value
        return solution, False

    @cached_property
    def _squares(self) -> Floats:
        means = self._shares.mean(axis=0).astype(self._x.dtype)
        root = self._x * np.sqrt(means)[:, None]
        return np.asarray(_CURVATURE * (root.T @ root))

    def _preconditioner(self, decay: Floats) -> Callable[[Floats], Floats]:
        """Returns a function that solves with the approximate Hessian."""
        hessian = self._squares.copy()
        diagonal = hessian.flat[:: len(hessian) + 1]
        rounding = len(hessian) * np.finfo(hessian.dtype).eps * diagonal
        hessian.flat[:: len(hessian) + 1] += decay + rounding
        # Of this symmetric matrix LAPACK factorises the lower half fastest.
        factor = cho_factor(hessian.T, True, overwrite_a=True, check_finite=False)

        def solve(gradient: Floats) -> Floats:
            rows = gradient.reshape(-1, gradient.shape[-1]).astype(hessian.dtype)
            solved = cho_solve(factor, rows.T, overwrite_b=True, check_finite=False)
            return np.asarray(solved.T.reshape(gradient.shape), gradient.dtype)

        return solve

    def _scores(self, solution: Floats) -> Floats:
        """Computes the scores (B, K, N)."""
        rows = self._rows(solution)
        # In float32 faster than rows @ x.T.
        scores = np.ascontiguousarray((self._x @ rows.T).T, solution.dtype)
        return scores.reshape(*solution.shape[:2], -1)

    def _gradient(self, p: Floats) -> Floats:
        """Computes the gradient of the loss (B, K, D + 1)."""
        rows = self._rows((p - self._classes) * self._shares[:, None])
        return (rows @ self._x).reshape(*p.shape[:2], -1).astype(p.dtype, copy=False)

    def _rows(self, some: Floats) -> Floats:
        """Converts (B, K, M) to one matrix in the precision of the vectors."""
        return some.reshape(-1, some.shape[-1]).astype(self._x.dtype, copy=False)

    def _softmax(
        self, scores: Floats, solution: Floats, decay: Floats
    ) -> tuple[Floats, Floats]:
        """Computes probabilities (B, K, N) and the objectives (B,)."""
        top = scores.max(axis=1)
        p = np.exp(scores - top[:, None])
        total = p.sum(axis=1)
        p /= total[:, None]
        loss = np.log(total) + top - (scores * self._classes).sum(axis=1)
        value = (self._shares * loss).sum(axis=1, dtype=float)
        return p, value + _dot(solution, decay * solution) / 2


def _dot(a: Floats, b: Floats) -> Floats:
    return np.asarray((a * b).sum(axis=(1, 2)))


def with_intercept(x: Floats) -> Floats:
    """Adds a last column of ones."""
    return np.concatenate([x, np.ones((len(x), 1), x.dtype)], axis=1)


def rotated(vectors: Floats) -> tuple[Floats, Floats | None]:
    """Rotates vectors to at most N dimensions, which keeps inner products.

    Arguments
    ---------
    vectors : numpy.ndarray
        (N, D).

    Returns
    -------
    x : numpy.ndarray
        (N, at most N); the vectors themselves if D is not above N.
    back : numpy.ndarray or None
        ``x @ back`` is ``vectors``. None where nothing was rotated.

    Example
    -------
    >>> x, back = rotated(np.array([[3.0, 0.0, 4.0]]))
    >>> x.shape, (x @ back).round(6).tolist()
    ((1, 1), [[3.0, 0.0, 4.0]])
    """
    if vectors.shape[1] <= len(vectors):
        return vectors, None
    values, axes = np.linalg.eigh((vectors @ vectors.T).astype(np.float64))
    kept = values > values[-1] * len(values) * np.finfo(vectors.dtype).eps
    scale = np.sqrt(values[kept])
    back = ((axes[:, kept] / scale).T @ vectors).astype(vectors.dtype)
    return (axes[:, kept] * scale).astype(vectors.dtype), back
