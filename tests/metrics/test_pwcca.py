"""PWCCA against scikit-learn's CCA, and its properties."""

import warnings

import numpy as np
import pytest
from sklearn.cross_decomposition import CCA

from speechbrain_ser_cl.metrics import canonical_correlations, pwcca


def pair(n=400, d_x=5, d_y=4, seed=0):
    """Makes two related representations."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 3))
    x = common @ rng.normal(size=(3, d_x)) + rng.normal(size=(n, d_x))
    y = common @ rng.normal(size=(3, d_y)) + rng.normal(size=(n, d_y))
    return x + 3, y - 2


def orthogonal(d, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


@pytest.mark.parametrize(("d_x", "d_y"), [(5, 4), (3, 6), (4, 4)])
def test_agrees_with_scikit_learns_cca(d_x, d_y):
    x, y = pair(d_x=d_x, d_y=d_y)
    k = min(d_x, d_y)
    scores_x, scores_y = CCA(k, max_iter=10_000, tol=1e-12).fit(x, y).transform(x, y)
    expected = [np.corrcoef(scores_x[:, i], scores_y[:, i])[0, 1] for i in range(k)]
    np.testing.assert_allclose(canonical_correlations(x, y), expected, atol=1e-5)

    # The definition: weights from the variates of x, each of length 1.
    weights = []
    for i in range(k):
        h = scores_x[:, i] / np.linalg.norm(scores_x[:, i])
        columns = (x - x.mean(axis=0)).T
        weights.append(sum(abs(sum(h * column)) for column in columns))
    expected = sum(w * rho for w, rho in zip(weights, expected, strict=True))
    assert pwcca(x, y) == pytest.approx(expected / sum(weights), abs=1e-5)


def test_of_itself_it_is_1():
    x, _ = pair()
    assert pwcca(x, x) == pytest.approx(1, abs=1e-12)
    assert pwcca(x, 3 * x @ orthogonal(5)) == pytest.approx(1, abs=1e-12)
    assert pwcca(x @ orthogonal(5), x) == pytest.approx(1, abs=1e-12)


def test_orthogonal_maps_and_scaling_change_nothing():
    x, y = pair()
    value, rho = pwcca(x, y), canonical_correlations(x, y)
    assert 0.2 < value < 0.9
    for scale in (1e-6, 1e6):
        assert pwcca(scale * x + 1, y) == pytest.approx(value)
        assert pwcca(x, scale * y + 1) == pytest.approx(value)
    assert pwcca(x, y @ orthogonal(4)) == pytest.approx(value)
    assert pwcca(x, y @ np.random.default_rng(1).normal(size=(4, 4))) == pytest.approx(
        value
    )
    assert pwcca(x[:, [3, 1, 4, 0, 2]] * [1, -1, 1, -1, 1], y) == pytest.approx(value)
    np.testing.assert_allclose(
        canonical_correlations(7 * x @ orthogonal(5), y @ orthogonal(4)), rho
    )


def test_weights_are_those_of_x():
    """x is mostly shared with y, or mostly not."""
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=(2, 1000, 1))
    y = np.hstack([shared, rng.normal(size=(1000, 1))])
    mostly_shared = pwcca(np.hstack([10 * shared, own]), y)
    mostly_own = pwcca(np.hstack([shared, 10 * own]), y)
    assert mostly_shared > 0.9
    assert mostly_own < 0.2


@pytest.mark.parametrize("seed", range(5))
def test_bounds(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, 7)) * 10.0 ** rng.integers(-6, 6, 7)
    y = rng.normal(size=(60, 3)) + 1e3
    rho = canonical_correlations(x, y)
    assert len(rho) == 3
    assert (np.diff(rho) <= 0).all()
    assert rho.min() >= 0
    assert rho.max() <= 1
    assert rho.min() <= pwcca(x, y) <= rho.max()


def test_independent_representations_have_the_correlations_of_chance():
    rng = np.random.default_rng(0)
    n, d_x, d_y = 4000, 30, 20
    x, y = rng.normal(size=(n, d_x)), rng.normal(size=(n, d_y))
    total = np.square(canonical_correlations(x, y)).sum()
    assert total == pytest.approx(d_x * d_y / (n - 1), rel=0.1)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_dependent_columns_do_no_harm(dtype):
    """Repeated, summed and constant columns do not increase the rank."""
    x, y = pair()
    dependent = np.hstack([x, x[:, :2], x.sum(axis=1, keepdims=True), 0 * x[:, :1] + 5])
    assert dependent.shape[1] == 9
    found = canonical_correlations(dependent.astype(dtype), y)
    tolerance = {np.float64: 1e-10, np.float32: 1e-5, np.float16: 0.02}[dtype]
    np.testing.assert_allclose(found, canonical_correlations(x, y), atol=tolerance)
    assert pwcca(dependent.astype(dtype), dependent) == pytest.approx(1, abs=tolerance)


def test_rounding_errors_of_single_precision_are_no_dimension():
    """A product computed in float32 has full rank only by rounding errors."""
    rng = np.random.default_rng(0)
    low = rng.normal(size=(500, 3)).astype(np.float32)
    x = low @ rng.normal(size=(3, 20)).astype(np.float32) + np.float32(10)
    assert len(canonical_correlations(x, rng.normal(size=(500, 10)))) == 3


def test_fewer_utterances_than_dimensions():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 40)), rng.normal(size=(10, 30))
    with pytest.warns(UserWarning, match="rank 9 and 9: 9 of the canonical corr"):
        rho = canonical_correlations(x, y)
    np.testing.assert_allclose(rho, np.ones(9))
    with pytest.warns(UserWarning, match="take more utterances"):
        assert pwcca(x, y) == pytest.approx(1)


def test_as_many_ones_as_the_warning_says():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(21, 14)), rng.normal(size=(21, 8))
    with pytest.warns(UserWarning, match="rank 14 and 8: 2 of the canonical corr"):
        rho = canonical_correlations(x, y)
    assert (rho > 1 - 1e-9).sum() == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        canonical_correlations(x[:, :12], y)


def test_errors():
    x, y = pair()
    with pytest.raises(ValueError, match="x is the same for all utterances"):
        pwcca(np.full((400, 3), 0.1), y)
    with pytest.raises(ValueError, match="y is the same for all utterances"):
        pwcca(x, np.zeros((400, 3)))
    with pytest.raises(ValueError, match=r"found shapes \(400, 5\) and \(399, 4\)"):
        pwcca(x, y[1:])
    with pytest.raises(ValueError, match="y holds values that are not finite"):
        pwcca(x, y + np.nan)
