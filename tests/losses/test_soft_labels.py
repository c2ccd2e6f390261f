"""Losses of votes, dimensions and unbalanced classes: naive formulas and edge cases."""

import math
import pickle

import pytest
import torch
from torch.nn import functional as F

from speechbrain_ser_cl import losses
from speechbrain_ser_cl.losses import base, ordinal_triplet
from speechbrain_ser_cl.registry import LOSSES

NAN = float("nan")
# Ties in one column; two views of row 0.
VALUES = torch.tensor(
    [[1.0, 2], [1, 2], [2, 2], [3, 1], [2, 5], [4, 2], [0, 0]]
).double()
VOTES = torch.tensor(
    [[3, 0, 0], [2, 1, 0], [0, 0, 3], [0, 1, 2], [1, 1, 1], [0, 3, 0], [0, 2, 1]]
).double()


def embeddings(n=7, d=4, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return z.to(dtype).requires_grad_()


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def apart(y, i, j):
    return (y[i] - y[j]).abs().sum().item()


def naive_rank_n_contrast(z, y, tau=0.7):
    rows, terms = range(len(z)), []
    for i in rows:
        for j in rows:
            if i == j:
                continue
            far = [k for k in rows if k != i and apart(y, i, k) >= apart(y, i, j)]
            s = {k: -(z[i] - z[k]).norm() / tau for k in [*far, j]}
            terms.append(torch.log(sum(s[k].exp() for k in far)) - s[j])
    return mean(terms)


def naive_soft(kernel, tau=0.3):
    def loss(z, y):
        z, rows, terms = F.normalize(z), range(len(z)), []
        for a in rows:
            others = [k for k in rows if k != a]
            weights = [kernel(y[a].double(), y[k].double()) for k in others]
            log_p = torch.log_softmax(z[others] @ z[a] / tau, dim=0)
            terms.append(-torch.stack(weights) @ log_p / sum(weights))
        return mean(terms)

    return loss


def gaussian(a, b):
    return torch.exp(-(a - b).square().sum() / (2 * 1.5**2))


def bhattacharyya(a, b):
    return (a / a.sum() * b / b.sum()).sqrt().sum()


def jensen_shannon(a, b):
    a, b = a / a.sum(), b / b.sum()
    m = (a + b) / 2
    kl = [(p * (p / m).log2()).nan_to_num(0).sum() for p in (a, b)]
    return 1 - (sum(kl) / 2).clamp(min=0).sqrt()


def naive_ordinal_triplet(z, y, margin=0.2):
    z, rows, terms = F.normalize(z), range(len(z)), []
    for a in rows:
        for p in rows:
            for n in rows:
                gap = apart(y, a, n) - apart(y, a, p)
                if a not in (p, n) and gap > 0:
                    terms.append(z[a] @ z[n] - z[a] @ z[p] + margin * gap)
    return mean(t for t in terms if t > 0)


# name: (loss, labels, formula)
PAIRS = {
    "rank_n_contrast": (
        losses.RankNContrastLoss(0.7),
        VALUES,
        naive_rank_n_contrast,
    ),
    "contrastive_regression": (
        losses.ContrastiveRegressionLoss(0.3, bandwidth=1.5),
        VALUES,
        naive_soft(gaussian),
    ),
    "soft_supcon": (losses.SoftSupConLoss(0.3), VOTES, naive_soft(bhattacharyya)),
    "soft_supcon_js": (
        losses.SoftSupConLoss(0.3, "jensen_shannon"),
        VOTES,
        naive_soft(jensen_shannon),
    ),
    "ordinal_triplet": (
        losses.OrdinalTripletLoss(0.2),
        VALUES,
        naive_ordinal_triplet,
    ),
}


def cross_entropy(x, y):
    y = y / y.sum(1, keepdim=True)
    return mean(-(v * r.softmax(0).log()).sum() for r, v in zip(x, y, strict=True))


def kl(x, y):
    def of(r, v):
        v = v / v.sum()
        there = v > 0
        return (v[there] * (v[there] / r.softmax(0)[there]).log()).sum()

    return mean(of(r, v) for r, v in zip(x, y, strict=True))


def focal(x, y):
    p = x.softmax(1)
    return mean(-((1 - p[i, c]) ** 2) * p[i, c].log() for i, c in enumerate(y))


def balanced(x, y, counts=(50, 5, 500), beta=0.99):
    w = torch.tensor([(1 - beta) / (1 - beta**n) for n in counts]).double()
    w = w * 3 / w.sum()
    return mean(-w[c] * x[i].softmax(0)[c].log() for i, c in enumerate(y))


def adjusted(x, y, counts=(50, 5, 500), tau=1.5):
    prior = torch.tensor(counts).double() / sum(counts)
    weighted = x.exp() * prior**tau
    return mean(-(weighted[i, c] / weighted[i].sum()).log() for i, c in enumerate(y))


def binary(x, y):
    p = torch.sigmoid(x)
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def ccc(x, y):
    def of(a, b):
        cov = ((a - a.mean()) * (b - b.mean())).mean()
        spread = a.var(correction=0) + b.var(correction=0)
        return 1 - 2 * cov / (spread + (a.mean() - b.mean()) ** 2)

    return (3 * of(x[:, 0], y[:, 0]) + of(x[:, 1], y[:, 1])) / 4


CLASSES = torch.tensor([0, 2, 1, 0, 2, 2, 1])
ROWS = {
    "distribution_cross_entropy": (
        losses.DistributionCrossEntropyLoss(),
        VOTES,
        cross_entropy,
    ),
    "distribution_kl": (losses.DistributionKLLoss(), VOTES, kl),
    "focal": (losses.FocalLoss(2.0), CLASSES, focal),
    "class_balanced": (
        losses.ClassBalancedLoss([50, 5, 500], 0.99),
        CLASSES,
        balanced,
    ),
    "logit_adjusted": (
        losses.LogitAdjustedLoss([50, 5, 500], 1.5),
        CLASSES,
        adjusted,
    ),
    "binary_emotions": (
        losses.BinaryEmotionsLoss(),
        (VOTES > 0).long(),
        binary,
    ),
    "ccc": (losses.CCCLoss([3.0, 1.0]), VALUES, ccc),
}
ALL = PAIRS | ROWS
every = pytest.mark.parametrize("name", ALL)


def inputs(name, dtype=torch.float64):
    columns = {"ccc": 2}.get(name, 3 if name in ROWS else 4)
    return embeddings(7, columns, dtype), ALL[name][1]


def with_gradient(loss, z, *args):
    value = loss(z, *args)
    return value, torch.autograd.grad(value, z)[0]


@every
def test_value_and_gradient_equal_a_naive_loop(name):
    loss, _, naive = ALL[name]
    z, y = inputs(name)
    value, gradient = with_gradient(loss, z, y)
    expected = with_gradient(naive, z, y)
    # Weights and adjustments of classes are in float32.
    tolerance = 1e-6 if name in ("class_balanced", "logit_adjusted") else 1e-9
    torch.testing.assert_close(value, expected[0], rtol=tolerance, atol=0)
    torch.testing.assert_close(gradient, expected[1], rtol=tolerance, atol=1e-7)
    assert torch.autograd.gradcheck(lambda z: loss(z, y), z)
    torch.testing.assert_close(loss(z, y.tolist()), value, rtol=1e-6, atol=0)
    assert torch.equal(pickle.loads(pickle.dumps(loss))(z, y), value)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(name, dtype):
    z, y = inputs(name, dtype)
    value, gradient = with_gradient(ALL[name][0], z, y)
    assert value.dtype == torch.float32
    assert gradient.isfinite().all() and gradient.any()
    expected = ALL[name][0](z.double(), y)
    assert value.item() == pytest.approx(expected.item(), rel=1e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ALL[name][0](z, y), value)


UNKNOWN = {
    "binary_emotions": -1,
    "focal": -1,
    "class_balanced": -1,
    "logit_adjusted": -1,
}


@every
def test_unknown_labels_are_left_out(name):
    loss = ALL[name][0]
    z, y = inputs(name)
    y = y.clone() if name in UNKNOWN else y.double().clone()
    y[2] = UNKNOWN.get(name, NAN)
    value, gradient = with_gradient(loss, z, y)
    kept = torch.arange(7) != 2
    torch.testing.assert_close(value, loss(z[kept], y[kept]))
    assert not gradient[2].any()
    y[:] = UNKNOWN.get(name, NAN)
    value, gradient = with_gradient(loss, z, y)
    assert value == 0 and not gradient.any()


@every
def test_one_row_and_broken_rows(name):
    loss = ALL[name][0]
    z, y = inputs(name)
    value, gradient = with_gradient(loss, z[:1].detach().requires_grad_(), y[:1])
    assert value.isfinite() and gradient.isfinite().all()
    if name in PAIRS:
        assert value == 0 and not gradient.any()
    if name == "ccc":
        assert value == 1 and not gradient.any()
    z = z.detach()
    z[3, 1] = float("inf")
    assert loss(z, y).isnan()
    equal = torch.zeros(7, z.shape[1], requires_grad=True)
    value, gradient = with_gradient(loss, equal, y)
    assert value.isfinite() and gradient.isfinite().all()
    with pytest.raises(ValueError, match="7|shape"):
        loss(embeddings(7, z.shape[1]), y[:5])
    with pytest.raises(ValueError, match="list of numbers"):
        loss(embeddings(7, z.shape[1]), ["angry"] * 7)


@pytest.mark.parametrize("name", PAIRS)
def test_tiles_and_the_order_of_rows_change_nothing(name, monkeypatch):
    loss = PAIRS[name][0]
    z, y = inputs(name)
    value, gradient = with_gradient(loss, z, y)
    order = torch.tensor([3, 0, 5, 4, 1, 2, 6])
    torch.testing.assert_close(loss(z[order], y[order]), value)
    monkeypatch.setattr(type(loss), "tile", 2 * 7)
    monkeypatch.setattr(ordinal_triplet, "SHORT", 2)
    monkeypatch.setattr(base, "IN_CACHE", 7)
    torch.testing.assert_close(with_gradient(loss, z, y), (value, gradient))


@pytest.mark.parametrize("similarity", ["bhattacharyya", "jensen_shannon"])
def test_soft_supcon_of_one_vote_each_is_supcon(similarity):
    z, votes = embeddings(), F.one_hot(CLASSES)
    value, gradient = with_gradient(
        losses.SoftSupConLoss(0.2, similarity), z, 3 * votes
    )
    expected = with_gradient(losses.SupConLoss(0.2), z, CLASSES)
    torch.testing.assert_close((value, gradient), expected)


def test_ordinal_triplets_of_two_values_are_triplets():
    z, labels = embeddings(), CLASSES > 0
    torch.testing.assert_close(
        losses.OrdinalTripletLoss(0.2)(z, labels.double()),
        losses.TripletLoss(0.2)(z, labels),
    )


@pytest.mark.parametrize("n", [1, 7, 40])
def test_inversions_are_counted(n):
    permutations = torch.rand(3, n).argsort(dim=1)
    later = torch.ones(n, n).triu(1).bool()
    wrong = permutations[:, :, None] > permutations[:, None, :]
    assert ordinal_triplet.count_inversions(permutations) == (wrong & later).sum()


@pytest.mark.parametrize("grid", [True, False])
def test_ordinal_triplets_of_a_larger_batch_equal_all_of_them_listed(grid):
    # On a grid many triplets are exactly at the margin.
    y = torch.arange(40).double() if grid else torch.arange(40) % 7 + 0.5
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(40, generator=generator)
    z = (y[order][:, None] if grid else embeddings(40).detach()).requires_grad_()
    loss = losses.OrdinalTripletLoss(1.0, "euclidean", normalize=False)
    value, gradient = with_gradient(loss, z, y)
    far = (z[:, None] - z + torch.eye(40)[:, :, None]).norm(dim=2)
    apart = (y[:, None] - y).abs()
    x = far[:, :, None] - far[:, None] + apart[:, None] - apart[:, :, None]
    kept = (apart[:, :, None] < apart[:, None]) & (x > 0)
    kept &= ~torch.eye(40).bool()[:, :, None]
    expected = x[kept].mean()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, z)[0])


def test_rank_n_contrast_of_equal_embeddings_is_the_mean_of_logarithms():
    """For an anchor: log 1, log 2, … log(N - 1), if no label distances are equal."""
    z, y = torch.ones(5, 2, dtype=torch.float64), torch.tensor([0.0, 1, 10, 100, 1000])
    expected = math.log(math.factorial(4)) / 4
    assert losses.RankNContrastLoss()(z, y).item() == pytest.approx(expected)
    tied = losses.RankNContrastLoss()(z, torch.ones(5)).item()
    assert tied == pytest.approx(math.log(4))


def test_rank_n_contrast_of_embeddings_far_apart_is_exact():
    """Where exp(-distance) is 0 in float64."""
    z = (3000 * embeddings()).detach().requires_grad_()
    y = [1.0, 2, 2, 3, 5, 1, 4]
    d, terms = torch.cdist(z, z) / 0.7, []
    for i, j in ((i, j) for i in range(7) for j in range(7) if i != j):
        gap = abs(y[i] - y[j])
        far = [k for k in range(7) if k != i and abs(y[i] - y[k]) >= gap]
        terms.append(torch.logsumexp(-d[i, far], 0) + d[i, j])
    expected = mean(terms)
    torch.testing.assert_close(
        with_gradient(losses.RankNContrastLoss(0.7), z, y),
        (expected, torch.autograd.grad(expected, z)[0]),
    )


def test_the_special_cases_are_cross_entropy():
    x = embeddings(7, 3)
    expected = F.cross_entropy(x, CLASSES)
    one_hot = F.one_hot(CLASSES)
    for loss, labels in (
        (losses.FocalLoss(0), CLASSES),
        (losses.ClassBalancedLoss([4, 4, 4]), CLASSES),
        (losses.LogitAdjustedLoss([1, 20, 300], tau=0), CLASSES),
        (losses.DistributionCrossEntropyLoss(), one_hot),
        (losses.DistributionKLLoss(), one_hot),
    ):
        torch.testing.assert_close(loss(x, labels), expected)
    votes = VOTES.double()
    (a,) = torch.autograd.grad(losses.DistributionKLLoss()(x, votes), x)
    (b,) = torch.autograd.grad(losses.DistributionCrossEntropyLoss()(x, votes), x)
    torch.testing.assert_close(a, b)
    certain = torch.tensor([[1000.0, 0, 0]], requires_grad=True)
    value, gradient = with_gradient(losses.FocalLoss(2.0), certain, [0])
    assert value == 0 and gradient.isfinite().all()


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 3.5])
def test_focal_loss_of_any_gamma(gamma):
    loss, x = losses.FocalLoss(gamma), embeddings(7, 3)
    p = x.softmax(1)[range(7), CLASSES]
    torch.testing.assert_close(loss(x, CLASSES), (-((1 - p) ** gamma) * p.log()).mean())
    assert torch.autograd.gradcheck(lambda x: loss(x, CLASSES), x)
    assert torch.autograd.gradgradcheck(lambda x: loss(x, CLASSES), x)
    certain = torch.tensor([[1000.0, 0, 0], [0, -torch.inf, 0]], requires_grad=True)
    value, gradient = with_gradient(loss, certain, [0, 2])
    # Probability 1 in the first row, and 0.5 in the second, where one class has 0.
    assert value.item() == pytest.approx(0.5**gamma * math.log(2) / 2, rel=1e-6)
    assert gradient.isfinite().all() and not gradient[0].any()


def test_ccc_of_constants_is_zero_and_of_part_of_a_column():
    loss, y = losses.CCCLoss(), VALUES.clone()
    x = torch.full_like(y, 2.0).requires_grad_()
    value, gradient = with_gradient(loss, x, y)
    assert value == 1 and gradient.isfinite().all() and gradient.any()
    assert loss(y, y) == pytest.approx(0, abs=1e-12)
    assert loss(torch.ones(3), torch.ones(3)) == 1
    y[:, 1] = NAN
    x = embeddings(7, 2)
    torch.testing.assert_close(loss(x, y), loss(x[:, 0], y[:, 0]))


def test_classes_dimensions_and_contrast_are_summed():
    x, z, d = embeddings(7, 3), embeddings(), embeddings(7, 2, seed=4)
    terms = {
        "emotion": losses.FocalLoss()(x, CLASSES),
        "dimensions": losses.CCCLoss()(d, VALUES),
        "contrast": losses.RankNContrastLoss()(z, VALUES),
    }
    weights = {"emotion": 1.0, "dimensions": 0.5, "contrast": 0.1}
    total, values = losses.MultitaskLoss(weights)(terms)
    expected = sum(weights[k] * terms[k] for k in terms)
    torch.testing.assert_close(total, expected)
    assert set(values) == set(weights)
    total.backward()
    assert all(t.grad.isfinite().all() and t.grad.any() for t in (x, z, d))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.RankNContrastLoss(0), "temperature"),
        (lambda: losses.ContrastiveRegressionLoss(bandwidth=-1), "bandwidth"),
        (lambda: losses.SoftSupConLoss(similarity="cosine"), "bhattacharyya, jens"),
        (lambda: losses.OrdinalTripletLoss(margin=0), "margin"),
        (lambda: losses.FocalLoss(-1), "gamma"),
        (lambda: losses.ClassBalancedLoss([0, 3]), "class_counts"),
        (lambda: losses.ClassBalancedLoss([1, 3], beta=1), "beta"),
        (lambda: losses.LogitAdjustedLoss([1, 3], tau=NAN), "tau"),
        (lambda: losses.CCCLoss([0.0, 0.0]), "weights"),
        (lambda: losses.CCCLoss([1.0])(VALUES, VALUES), "1 weights but 2"),
        (lambda: losses.FocalLoss()(embeddings(2, 3), [0, 3]), "0 to 2, or -1"),
        (lambda: losses.FocalLoss()(embeddings(2, 3), [0, -2]), "found -2 to 0"),
        (lambda: losses.LogitAdjustedLoss([1, 2])(embeddings(1, 3), [0]), "2 classes"),
        (lambda: losses.BinaryEmotionsLoss()(embeddings(1, 2), [[0, 2]]), "found 2"),
        (lambda: losses.SoftSupConLoss()(embeddings(1, 2), [[-3, 2]]), "at least 0"),
        (
            lambda: losses.DistributionKLLoss()(embeddings(1, 2), [[3, 2, 1]]),
            "C = 2, found shape \\(1, 3\\)",
        ),
    ],
)
def test_what_is_wrong_is_reported(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_registered():
    for name, (loss, _, _) in ALL.items():
        assert LOSSES.get(name.removesuffix("_js")) is type(loss)
