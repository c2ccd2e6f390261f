"""InfoNCELoss against a naive loop, analytic cases, and edge cases."""

import math
import pickle

import pytest
import torch

from speechbrain_ser_cl.losses import InfoNCELoss
from speechbrain_ser_cl.registry import LOSSES


def naive_infonce(z_a, z_b, temperature):
    """Computes equation 4 by loops, without normalised matrices."""

    def cosine(a, b):
        return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())

    total = 0.0
    for i in range(len(z_a)):
        others = [torch.exp(cosine(z_a[i], z) / temperature) for z in z_b]
        total = total - torch.log(others[i] / sum(others))
    return total / len(z_a)


def views(n=6, d=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    return [v.to(dtype).requires_grad_() for v in z]


@pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
@pytest.mark.parametrize("symmetric", [False, True])
def test_value_and_gradient_equal_a_naive_loop(temperature, symmetric):
    z_a, z_b = views()
    ours = InfoNCELoss(temperature, symmetric)(z_a, z_b)
    naive = naive_infonce(z_a, z_b, temperature)
    if symmetric:
        naive = (naive + naive_infonce(z_b, z_a, temperature)) / 2
    torch.testing.assert_close(ours, naive, rtol=1e-10, atol=0)
    for our_grad, naive_grad in zip(
        torch.autograd.grad(ours, [z_a, z_b]),
        torch.autograd.grad(naive, [z_a, z_b]),
        strict=True,
    ):
        torch.testing.assert_close(our_grad, naive_grad, rtol=1e-10, atol=1e-14)


def test_gradcheck():
    z_a, z_b = views(n=4, d=3)
    assert torch.autograd.gradcheck(InfoNCELoss(0.5), (z_a, z_b))


@pytest.mark.parametrize("n", [1, 2, 8])
def test_equal_embeddings_give_log_n(n):
    z = torch.full((n, 3), 0.7)
    assert InfoNCELoss()(z, z).item() == pytest.approx(math.log(n), abs=1e-6)


def test_orthogonal_embeddings_have_the_analytic_value():
    z = 3 * torch.eye(5, dtype=torch.float64)
    expected = math.log(1 + 4 * math.exp(-1 / 0.2))
    assert InfoNCELoss(0.2)(z, z).item() == pytest.approx(expected, rel=1e-12)


def test_a_single_pair_has_loss_and_gradient_zero():
    z_a, z_b = views(n=1)
    loss = InfoNCELoss()(z_a, z_b)
    loss.backward()
    assert loss.item() == 0
    assert not z_a.grad.any()


def test_the_order_and_the_scale_of_embeddings_do_not_matter():
    z_a, z_b = views()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    loss = InfoNCELoss()
    expected = loss(z_a, z_b)
    torch.testing.assert_close(loss(z_a[order], z_b[order]), expected)
    torch.testing.assert_close(loss(7 * z_a, z_b / 3), expected)


def test_one_direction_differs_from_both():
    z_a, z_b = views()
    loss, both = InfoNCELoss(), InfoNCELoss(symmetric=True)
    assert not torch.isclose(loss(z_a, z_b), loss(z_b, z_a))
    torch.testing.assert_close(both(z_a, z_b), both(z_b, z_a))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("n", [1, 4])
def test_a_non_finite_embedding_gives_nan(bad, n):
    z_a, z_b = (z.detach().clone() for z in views(n=n))
    z_b[0, 1] = bad
    assert InfoNCELoss()(z_a, z_b).isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_finite_and_close_at_a_small_temperature(dtype):
    z_a, z_b = views(n=32, d=16, dtype=dtype)
    loss = InfoNCELoss(0.01)(z_a, z_b)
    loss.backward()
    assert loss.dtype == torch.float32
    assert z_a.grad.isfinite().all()
    expected = InfoNCELoss(0.01)(z_a.double(), z_b.double())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_large_half_precision_embeddings_do_not_overflow():
    z = torch.eye(4, dtype=torch.float16) * 60000
    assert InfoNCELoss(0.1)(z, z).item() == pytest.approx(0.000136, abs=1e-6)


def test_autocast_does_not_change_the_value():
    z_a, z_b = views(n=16, dtype=torch.float32)
    expected = InfoNCELoss(0.05)(z_a, z_b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(InfoNCELoss(0.05)(z_a, z_b), expected)


@pytest.mark.parametrize(
    ("shape_a", "shape_b", "message"),
    [
        ((4, 3), (5, 3), "two views of the same shape"),
        ((4, 3), (4, 2), "same size D"),
        ((4,), (4,), "N, D"),
        ((0, 3), (0, 3), "at least one row"),
    ],
)
def test_wrong_shapes_are_refused(shape_a, shape_b, message):
    with pytest.raises(ValueError, match=message):
        InfoNCELoss()(torch.ones(shape_a), torch.ones(shape_b))


@pytest.mark.parametrize("temperature", [0, -0.1, float("nan"), float("inf")])
def test_a_wrong_temperature_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        InfoNCELoss(temperature)


def test_registered_and_picklable():
    assert LOSSES.get("infonce") is InfoNCELoss
    z_a, z_b = views()
    loss = InfoNCELoss(0.3, symmetric=True)
    again = pickle.loads(pickle.dumps(loss))
    assert torch.equal(again(z_a, z_b), loss(z_a, z_b))
