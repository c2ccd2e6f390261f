"""Losses between views against naive loops, analytic cases, and edge cases."""

import copy
import math
import pickle
from itertools import combinations

import pytest
import torch
from torch import nn

from speechbrain_ser_cl.losses import (
    BarlowTwinsLoss,
    CosineMarginLoss,
    InfoNCELoss,
    MoCoQueue,
    NTXentLoss,
    PairwiseViewLoss,
    SupConLoss,
    VICRegLoss,
)
from speechbrain_ser_cl.registry import LOSSES

NAN, INF = float("nan"), float("inf")
TAU = 0.3


def cosine(a, b):
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


def dot(a, b):
    return (a * b).sum()


def mean(values):
    return sum(values) / len(values)


def naive_ntxent(z_a, z_b, s=cosine):
    rows, n = [*z_a, *z_b], len(z_a)
    losses = []
    for i, anchor in enumerate(rows):
        e = [torch.exp(s(anchor, row) / TAU) for row in rows]
        others = sum(e[:i] + e[i + 1 :])
        losses.append(-torch.log(e[(i + n) % (2 * n)] / others))
    return mean(losses)


def naive_infonce(z_a, z_b, s=cosine):
    losses = []
    for i, anchor in enumerate(z_a):
        e = [torch.exp(s(anchor, row) / TAU) for row in z_b]
        losses.append(-torch.log(e[i] / sum(e)))
    return mean(losses)


def naive_barlow(z_a, z_b, offdiag=0.02):
    def standardise(column):
        variance = mean([(x - mean(column)) ** 2 for x in column])
        return [(x - mean(column)) / (variance + 1e-5) ** 0.5 for x in column]

    columns_a = [standardise(list(c)) for c in z_a.T]
    columns_b = [standardise(list(c)) for c in z_b.T]
    total = 0
    for i, a in enumerate(columns_a):
        for j, b in enumerate(columns_b):
            c = mean([x * y for x, y in zip(a, b, strict=True)])
            total = total + ((1 - c) ** 2 if i == j else offdiag * c**2)
    return total


def naive_vicreg(z_a, z_b):
    n, d = z_a.shape

    def cov(z, i, j):
        mean_i, mean_j = mean(list(z[:, i])), mean(list(z[:, j]))
        return sum((r[i] - mean_i) * (r[j] - mean_j) for r in z) / (n - 1)

    def low(z):
        return mean([(1 - (cov(z, i, i) + 1e-4).sqrt()).clamp(min=0) for i in range(d)])

    def together(z):
        pairs = [(i, j) for i in range(d) for j in range(d) if i != j]
        return sum(cov(z, i, j) ** 2 for i, j in pairs) / d

    agree = sum((a - b).square().sum() for a, b in zip(z_a, z_b, strict=True))
    return (
        25 * agree / (n * d)
        + 12.5 * (low(z_a) + low(z_b))
        + together(z_a)
        + together(z_b)
    )


def naive_margin(positives, negatives):
    half = len(positives) // 2
    total = []
    for x, other in zip(positives[:half], positives[half:], strict=True):
        above = [(cosine(x, n) - 0.4).clamp(min=0) for n in negatives]
        total.append(0.5 * (1 - cosine(x, other)) + mean(above))
    return mean(total)


class AsViews(nn.Module):
    """A loss of named views, called with three views made from two."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, z_a, z_b):
        return self.loss({"a": z_a, "b": z_b, "c": z_a * z_b})


def pairwise(naive):
    def of_three(z_a, z_b):
        pairs = combinations([z_a, z_b, z_a * z_b], 2)
        return mean([(naive(u, v) + naive(v, u)) / 2 for u, v in pairs])

    return of_three


CASES = {
    "ntxent": (NTXentLoss(TAU), naive_ntxent),
    "ntxent_dot": (
        NTXentLoss(TAU, normalize=False),
        lambda a, b: naive_ntxent(a, b, dot),
    ),
    "infonce": (InfoNCELoss(TAU), naive_infonce),
    "infonce_symmetric": (
        InfoNCELoss(TAU, symmetric=True),
        lambda a, b: (naive_infonce(a, b) + naive_infonce(b, a)) / 2,
    ),
    "infonce_dot": (
        InfoNCELoss(TAU, normalize=False),
        lambda a, b: naive_infonce(a, b, dot),
    ),
    "pairwise_both": (AsViews(PairwiseViewLoss(TAU)), pairwise(naive_ntxent)),
    "pairwise_cross": (
        AsViews(PairwiseViewLoss(TAU, negatives="cross_view")),
        pairwise(naive_infonce),
    ),
    "barlow_twins": (BarlowTwinsLoss(0.02), naive_barlow),
    "vicreg": (VICRegLoss(), naive_vicreg),
    "cosine_margin": (CosineMarginLoss(), naive_margin),
}
LOSS = {name: loss for name, (loss, _) in CASES.items()}
every_loss = pytest.mark.parametrize("name", LOSS)
CONTRASTIVE = [n for n in LOSS if n.startswith(("ntxent", "infonce", "pairwise"))]


def views(n=6, d=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    return [v.to(dtype).requires_grad_() for v in z]


@every_loss
def test_value_and_gradient_equal_a_naive_loop(name):
    loss, naive = CASES[name]
    z = views()
    value, expected = loss(*z), naive(*z)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(value, z),
        torch.autograd.grad(expected, z),
        rtol=1e-10,
        atol=1e-12,
    )


@every_loss
def test_gradcheck(name):
    assert torch.autograd.gradcheck(LOSS[name], views(4, 3))


@every_loss
def test_the_order_of_utterances_does_not_matter(name):
    z_a, z_b = views()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    if name == "cosine_margin":  # row 0 is paired with row 3
        order = torch.tensor([1, 2, 0, 4, 5, 3])
    expected = LOSS[name](z_a, z_b)
    torch.testing.assert_close(LOSS[name](z_a[order], z_b[order]), expected)


@every_loss
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("view", [0, 1])
def test_a_non_finite_embedding_gives_nan(name, bad, view):
    z = [v.detach().clone() for v in views()]
    z[view][0, 1] = bad
    assert LOSS[name](*z).isnan()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_duplicates_and_zero_vectors_have_finite_gradients(name, dtype):
    z = [v.detach()[[0, 0, 1, 0, 0, 1]].requires_grad_() for v in views(dtype=dtype)]
    with torch.no_grad():
        z[0][[2, 5]] = 0
    value = LOSS[name](*z)
    assert value.isfinite()
    for gradient in torch.autograd.grad(value, z):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_a_single_pair_has_loss_and_gradient_zero(name):
    z = views(n=1)
    value = LOSS[name](*z)
    assert value.item() == pytest.approx(0, abs=1e-15)
    for gradient in torch.autograd.grad(value, z):
        assert gradient.abs().max() < 1e-15
    assert LOSS[name](z[0], torch.full_like(z[1], NAN)).isnan()


@pytest.mark.parametrize("name", ["barlow_twins", "vicreg"])
def test_statistics_of_a_single_pair_are_refused(name):
    with pytest.raises(ValueError, match="at least two utterances"):
        LOSS[name](*views(n=1))


HALF = {
    "infonce": InfoNCELoss(0.01),
    "ntxent": NTXentLoss(0.01),
    "pairwise_both": AsViews(PairwiseViewLoss(0.01)),
    "pairwise_cross": AsViews(PairwiseViewLoss(0.01, "cross_view")),
    "barlow_twins": BarlowTwinsLoss(),
    "vicreg": VICRegLoss(),
    "cosine_margin": CosineMarginLoss(),
}


@pytest.mark.parametrize("name", HALF)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_finite_and_close_at_a_small_temperature(name, dtype):
    loss, z = HALF[name], views(32, 16, dtype)
    value = loss(*z)
    assert value.dtype == torch.float32
    assert all(g.isfinite().all() for g in torch.autograd.grad(value, z))
    assert value.item() == pytest.approx(loss(*(v.double() for v in z)).item(), 1e-4)


@every_loss
def test_autocast_does_not_change_the_value(name):
    z = views(dtype=torch.float32)
    expected = LOSS[name](*z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(LOSS[name](*z), expected)


@every_loss
def test_views_of_two_types_are_compared_in_the_wider_one(name):
    z_a, z_b = views()
    half = z_b.bfloat16()
    assert torch.equal(LOSS[name](z_a, half), LOSS[name](z_a, half.double()))


@every_loss
def test_picklable(name):
    again = pickle.loads(pickle.dumps(LOSS[name]))
    assert torch.equal(again(*views()), LOSS[name](*views()))


# The pairs of pairwise_both are those of ntxent.
@pytest.mark.parametrize("name", [n for n in HALF if n != "pairwise_both"])
def test_can_be_traced_for_compilation(name):
    torch._dynamo.reset()
    z = [v.requires_grad_() for v in views(dtype=torch.float32)]
    value = torch.compile(LOSS[name], backend="aot_eager")(*z)
    expected = LOSS[name](*z)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        torch.autograd.grad(value, z), torch.autograd.grad(expected, z)
    )


@every_loss
@pytest.mark.parametrize(
    ("z_a", "z_b", "message"),
    [
        (torch.ones(4), torch.ones(4), "N, D"),
        (torch.ones(4, 2).long(), torch.ones(4, 2).long(), "floating-point"),
        (torch.ones(4, 2), torch.ones(4, 3), "same size D"),
        (torch.ones(4, 2), torch.ones(4, 2, device="meta"), "one device"),
    ],
)
def test_bad_input_is_refused(name, z_a, z_b, message):
    loss = LOSS[name]
    if isinstance(loss, AsViews):
        with pytest.raises(ValueError, match=f"views a and b: .*{message}"):
            loss.loss({"a": z_a, "b": z_b})
    else:
        with pytest.raises(ValueError, match=message):
            loss(z_a, z_b)


@pytest.mark.parametrize("name", ["infonce", "ntxent", "barlow_twins", "vicreg"])
@pytest.mark.parametrize(
    ("n", "m", "message"),
    [(4, 3, "two views of the same shape"), (0, 0, "at least one row")],
)
def test_views_of_different_or_no_length_are_refused(name, n, m, message):
    with pytest.raises(ValueError, match=message):
        LOSS[name](torch.ones(n, 2), torch.ones(m, 2))


@pytest.mark.parametrize("value", [0, -0.1, NAN, INF])
@pytest.mark.parametrize("loss", [InfoNCELoss, NTXentLoss, PairwiseViewLoss])
def test_a_wrong_temperature_is_refused(loss, value):
    with pytest.raises(ValueError, match="temperature"):
        loss(value)


@pytest.mark.parametrize(
    ("loss", "arguments", "message"),
    [
        (BarlowTwinsLoss, {"lambda_offdiag": -1}, "lambda_offdiag"),
        (VICRegLoss, {"variance": NAN}, "variance"),
        (CosineMarginLoss, {"alpha": -1}, "alpha"),
        (CosineMarginLoss, {"margin": 1.5}, "margin"),
        (PairwiseViewLoss, {"negatives": "both"}, "both_views or cross_view"),
        (MoCoQueue, {"size": 0, "dim": 2}, "size"),
        (MoCoQueue, {"size": 4, "dim": 2, "momentum": 2}, "momentum"),
        (MoCoQueue, {"size": 4, "dim": 2, "temperature": 0}, "temperature"),
    ],
)
def test_wrong_arguments_are_refused(loss, arguments, message):
    with pytest.raises(ValueError, match=message):
        loss(**arguments)


def test_registered():
    for name, loss in {
        "infonce": InfoNCELoss,
        "ntxent": NTXentLoss,
        "pairwise_view": PairwiseViewLoss,
        "barlow_twins": BarlowTwinsLoss,
        "vicreg": VICRegLoss,
        "cosine_margin": CosineMarginLoss,
        "moco": MoCoQueue,
    }.items():
        assert LOSSES.get(name) is loss


# Analytic cases, and properties of single losses.


@pytest.mark.parametrize("n", [1, 2, 8])
def test_equal_embeddings_give_the_log_of_the_number_of_others(n):
    z = torch.full((n, 3), 0.7)
    assert InfoNCELoss()(z, z).item() == pytest.approx(math.log(n), abs=1e-6)
    both = PairwiseViewLoss()({"a": z, "b": z, "c": z})
    cross = PairwiseViewLoss(negatives="cross_view")({"a": z, "b": z, "c": z})
    others = math.log(2 * n - 1)
    assert NTXentLoss()(z, z).item() == pytest.approx(others, rel=1e-6, abs=1e-6)
    assert both.item() == pytest.approx(others, rel=1e-6, abs=1e-6)
    assert cross.item() == pytest.approx(math.log(n), rel=1e-6, abs=1e-6)


def test_orthogonal_utterances():
    z = 2 * torch.eye(5, dtype=torch.float64)
    expected = math.log(1 + 8 * math.exp(-1 / 0.5))
    assert NTXentLoss(0.5)(z, z).item() == pytest.approx(expected, rel=1e-12)
    expected = math.log(1 + 4 * math.exp(-1 / 0.2))
    assert InfoNCELoss(0.2)(z, z).item() == pytest.approx(expected, rel=1e-12)


def test_infonce_depends_on_the_direction_but_not_on_the_scale():
    z_a, z_b = views()
    loss, both = InfoNCELoss(), InfoNCELoss(symmetric=True)
    torch.testing.assert_close(loss(7 * z_a, z_b / 3), loss(z_a, z_b))
    assert not torch.isclose(loss(z_a, z_b), loss(z_b, z_a))
    torch.testing.assert_close(both(z_a, z_b), both(z_b, z_a))


def test_large_half_precision_embeddings_do_not_overflow():
    z = torch.eye(4, dtype=torch.float16) * 60000
    assert InfoNCELoss(0.1)(z, z).item() == pytest.approx(0.000136, abs=1e-6)


def test_tiles_change_nothing(monkeypatch):
    z = views(24)
    expected = NTXentLoss(TAU)(*z)
    gradient = torch.autograd.grad(expected, z)
    monkeypatch.setattr(SupConLoss, "tile", 7 * 48)
    value = NTXentLoss(TAU)(*z)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, z), gradient)


def test_fewer_than_two_views_are_refused():
    with pytest.raises(ValueError, match=r"at least two views, found \['a'\]"):
        PairwiseViewLoss()({"a": torch.ones(3, 2)})


def test_barlow_twins_of_equal_and_of_constant_views():
    z = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert BarlowTwinsLoss()(z, z).item() == pytest.approx(0, abs=1e-6)
    assert BarlowTwinsLoss()(z, -z).item() == pytest.approx(8, rel=1e-4)
    constant = torch.ones(4, 2, requires_grad=True)
    value = BarlowTwinsLoss()(constant, z)
    value.backward()
    assert value.item() == 2
    assert constant.grad.isfinite().all()


def test_vicreg_of_varied_equal_views_is_zero():
    z = 2 * torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert VICRegLoss()(z, z).item() == 0
    assert VICRegLoss()(z, z + 1).item() == pytest.approx(25)


def test_cosine_margin_of_equal_and_of_separated_embeddings():
    z = torch.ones(4, 3, dtype=torch.float64)
    assert CosineMarginLoss()(z, z[:3]).item() == pytest.approx(1 - 0.4)
    axes = torch.eye(3, dtype=torch.float64)
    assert CosineMarginLoss()(axes[[0, 0]], axes[1:]).item() == 0
    assert CosineMarginLoss()(axes[:2], axes[2:]).item() == pytest.approx(0.5)


def test_cosine_margin_without_one_side():
    z = views()[0]
    nothing = torch.ones(0, 4)
    alone = CosineMarginLoss(alpha=1)(z, nothing)
    expected = mean([1 - cosine(a, b) for a, b in zip(z[:3], z[3:], strict=True)])
    torch.testing.assert_close(alone, expected)
    value = CosineMarginLoss()(nothing, z)
    value.backward()
    assert value.item() == 0
    assert not z.grad.any()


def test_cosine_margin_of_an_odd_number_is_refused():
    with pytest.raises(ValueError, match="even number, found 3"):
        CosineMarginLoss()(torch.ones(3, 2), torch.ones(2, 2))


# The queue.


def test_moco_equals_a_naive_loop_over_the_queue():
    loss = MoCoQueue(size=8, dim=4, temperature=TAU).double()
    (old, old_keys), (z, keys) = views(), [v.detach() for v in views()]
    loss(old, old_keys)
    keys = keys.flip(0)
    z = z.requires_grad_()
    value = loss(z, keys)
    losses = []
    for q, k in zip(z, keys, strict=True):
        own = torch.exp(cosine(q, k) / TAU)
        others = sum(torch.exp(cosine(q, row) / TAU) for row in old_keys.detach())
        losses.append(-torch.log(own / (own + others)))
    torch.testing.assert_close(value, mean(losses), rtol=1e-10, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(value, z),
        torch.autograd.grad(mean(losses), z),
        rtol=1e-10,
        atol=1e-13,
    )


def queued(dtype=torch.float32, **options):
    """Makes a queue with six keys, in evaluation mode, and views."""
    loss = MoCoQueue(size=8, dim=4, temperature=TAU, **options).to(dtype)
    z_a, z_b = views(dtype=dtype)
    loss(z_a, z_b.detach())
    return loss.eval(), z_a, z_b.detach().flip(0)


def test_moco_gradcheck():
    loss, z, keys = queued(torch.float64)
    assert torch.autograd.gradcheck(lambda z: loss(z, keys), z)


def test_moco_of_equal_and_of_orthogonal_embeddings():
    loss = MoCoQueue(size=8, dim=4, temperature=0.5)
    ones = torch.ones(3, 4)
    loss(ones, ones)
    assert loss(ones, ones).item() == pytest.approx(math.log(4), rel=1e-6)
    loss = MoCoQueue(size=8, dim=4, temperature=0.5)
    axes = torch.eye(4)
    loss(axes[:3], axes[:3])
    value = loss(axes[3:], axes[3:]).item()
    assert value == pytest.approx(math.log(1 + 3 * math.exp(-2)), rel=1e-6)


def test_moco_order_duplicates_autocast_and_compilation():
    loss, z, keys = queued()
    expected = loss(z, keys)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(loss(z[order], keys[order]), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(z, keys), expected)
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="aot_eager")
    torch.testing.assert_close(compiled(z, keys), expected)
    same = keys[[0] * 6].requires_grad_()
    (gradient,) = torch.autograd.grad(loss(same, same.detach()), same)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("view", [0, 1])
@pytest.mark.parametrize("filled", [True, False])
def test_moco_of_a_non_finite_embedding_gives_nan(bad, view, filled):
    loss, *z = queued()
    if not filled:
        loss.filled.zero_()
    z = [v.detach().clone() for v in z]
    z[view][2, 1] = bad
    assert loss(*z).isnan()


def test_moco_gives_keys_no_gradient_and_begins_with_zero():
    queries, keys = views()
    value = MoCoQueue(size=8, dim=4)(queries, keys)
    value.backward()
    assert value.item() == 0
    assert not queries.grad.any()
    assert keys.grad is None


def test_moco_keeps_the_latest_keys():
    loss = MoCoQueue(size=5, dim=1, normalize=False)
    for batch in ([1, 2], [3, 4], [5, 6]):
        keys = torch.tensor(batch)[:, None].float()
        loss(keys, keys)
    assert sorted(loss.queue[:, 0].tolist()) == [2, 3, 4, 5, 6]
    assert loss.filled == 5
    many = torch.arange(10.0, 18)[:, None]
    loss(many, many)
    assert sorted(loss.queue[:, 0].tolist()) == [13, 14, 15, 16, 17]


def test_moco_queues_nothing_in_evaluation_and_nothing_broken():
    loss = MoCoQueue(size=8, dim=4)
    z, keys = (v.detach() for v in views(dtype=torch.float32))
    loss.eval()(z, keys)
    assert loss.filled == 0
    z[2, 1] = NAN
    assert loss.train()(z, keys).isnan()
    assert loss.filled == 0
    assert not loss.queue.any()


def test_moco_goes_on_from_a_checkpoint():
    loss, again = MoCoQueue(size=7, dim=4), MoCoQueue(size=7, dim=4)
    z, keys = views(dtype=torch.float32)
    loss(z, keys)
    again.load_state_dict(loss.state_dict())
    for _ in range(2):
        assert torch.equal(again(z, keys), loss(z, keys))
    assert torch.equal(pickle.loads(pickle.dumps(loss))(z, keys), loss(z, keys))


@pytest.mark.parametrize(
    ("z_a", "z_b", "message"),
    [
        (torch.ones(2, 3), torch.ones(2, 3), "size 4, found 3"),
        (torch.ones(2, 4), torch.ones(3, 4), "two views of the same shape"),
        (torch.ones(0, 4), torch.ones(0, 4), "at least one row"),
        (torch.ones(2, 4).long(), torch.ones(2, 4).long(), "floating-point"),
        (torch.ones(2, 4), torch.ones(2, 4, device="meta"), "one device"),
    ],
)
def test_moco_refuses_bad_input(z_a, z_b, message):
    with pytest.raises(ValueError, match=message):
        MoCoQueue(size=7, dim=4)(z_a, z_b)


def test_moco_key_encoder_follows():
    encoder = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    key_encoder = copy.deepcopy(encoder)
    before = key_encoder[0].weight.clone()
    with torch.no_grad():
        encoder[0].weight += 1
        encoder[1].running_mean += 3
    MoCoQueue(size=4, dim=2, momentum=0.9).update_key_encoder(encoder, key_encoder)
    torch.testing.assert_close(key_encoder[0].weight, before + 0.1)
    assert key_encoder[1].running_mean.tolist() == [3, 3]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_moco_in_half_precision(dtype):
    loss = MoCoQueue(size=64, dim=16, temperature=0.01)
    z, keys = views(32, 16, dtype)
    loss(z, keys)
    value = loss(z, keys)
    value.backward()
    assert value.isfinite()
    assert z.grad.isfinite().all()
