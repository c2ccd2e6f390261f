"""Every label loss against naive loops, analytic cases, and edge cases."""

import math
import pickle

import pytest
import torch

from speechbrain_ser_cl.losses import (
    NPairLoss,
    SiameseLoss,
    SmoothTripletLoss,
    SoftNearestNeighborLoss,
    SupConInLoss,
    SupConLoss,
    SupervisedNTXentLoss,
    TripletLoss,
    base,
    smooth_triplet,
)
from speechbrain_ser_cl.losses.distances import distances
from speechbrain_ser_cl.registry import LOSSES

NAN, INF = float("nan"), float("inf")
TAU = 0.3


# The printed formulas, row by row: z are vectors, s a function of two rows.


def sets(labels, a):
    """Returns P(a) and N(a)."""
    rows = range(len(labels))
    positives = [p for p in rows if labels[p] == labels[a] and p != a]
    return positives, [n for n in rows if labels[n] != labels[a]]


def dot(a, b):
    return (a * b).sum()


def cosine(a, b):
    return dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())


def euclidean(a, b):
    """Computes the distance of the unit vectors."""
    return (a / dot(a, a).sqrt() - b / dot(b, b).sqrt()).square().sum().sqrt()


def mean(values):
    return sum(values) / len(values)


def per_anchor(z, labels, loss_of):
    with_positives = [a for a in range(len(z)) if sets(labels, a)[0]]
    return mean([loss_of(a, *sets(labels, a)) for a in with_positives])


def naive_ntxent(z, labels, s=cosine, tau=TAU):
    def loss_of(a, positives, negatives):
        def e(k):
            return torch.exp(s(z[a], z[k]) / tau)

        against = sum(e(n) for n in negatives)
        return mean([-torch.log(e(p) / (e(p) + against)) for p in positives])

    return per_anchor(z, labels, loss_of)


def naive_npair(z, labels):
    return naive_ntxent(z, labels, s=dot, tau=1)


def naive_supcon(z, labels):
    def loss_of(a, positives, negatives):
        def e(k):
            return torch.exp(cosine(z[a], z[k]) / TAU)

        every = sum(e(k) for k in positives + negatives)
        return mean([-torch.log(e(p) / every) for p in positives])

    return per_anchor(z, labels, loss_of)


def naive_supcon_in(z, labels):
    def loss_of(a, positives, negatives):
        def e(k):
            return torch.exp(cosine(z[a], z[k]) / TAU)

        every = sum(e(k) for k in positives + negatives)
        return -torch.log(mean([e(p) / every for p in positives]))

    return per_anchor(z, labels, loss_of)


def naive_soft_nearest_neighbor(z, labels):
    def loss_of(a, positives, negatives):
        def e(k):
            return torch.exp(-euclidean(z[a], z[k]).square() / TAU)

        near = sum(e(p) for p in positives)
        return -torch.log(near / (near + sum(e(n) for n in negatives)))

    return per_anchor(z, labels, loss_of)


def triplets(labels):
    for a in range(len(labels)):
        positives, negatives = sets(labels, a)
        for p in positives:
            for n in negatives:
                yield a, p, n


def naive_triplet(z, labels, distance, kept, margin=0.4):
    def cosine_distance(a, b):
        return 1 - cosine(a, b)

    d = {"cosine": cosine_distance, "euclidean": euclidean}[distance]
    terms = []
    for a, p, n in triplets(labels):
        near, far = d(z[a], z[p]), d(z[a], z[n])
        if kept(near, far, margin):
            terms.append(near - far + margin)
    return mean(terms)


MINED = {
    "all": lambda near, far, m: near - far + m > 0,
    "semihard": lambda near, far, m: near < far < near + m,
    "hard": lambda near, far, m: far < near,
}


def naive_smooth_triplet(z, labels, s=cosine):
    return mean(
        [
            torch.log1p(torch.exp((s(z[a], z[n]) - s(z[a], z[p])) / TAU))
            for a, p, n in triplets(labels)
        ]
    )


def naive_siamese(z, labels, d, margin=0.7):
    pairs = [(i, j) for i in range(len(z)) for j in range(len(z)) if i != j]
    return mean(
        [
            d(z[i], z[j])
            if labels[i] == labels[j]
            else (margin - d(z[i], z[j])).clamp(min=0)
            for i, j in pairs
        ]
    )


# name: (loss, the formula)
CASES = {
    "supervised_ntxent": (SupervisedNTXentLoss(TAU), naive_ntxent),
    "ntxent_dot": (
        SupervisedNTXentLoss(TAU, normalize=False),
        lambda z, y: naive_ntxent(z, y, s=dot),
    ),
    "npair": (NPairLoss(), naive_npair),
    "supcon": (SupConLoss(TAU), naive_supcon),
    "supcon_base": (
        SupConLoss(TAU, base_temperature=0.07),
        lambda z, y: TAU / 0.07 * naive_supcon(z, y),
    ),
    "supcon_in": (SupConInLoss(TAU), naive_supcon_in),
    "soft_nearest_neighbor": (
        SoftNearestNeighborLoss(TAU),
        naive_soft_nearest_neighbor,
    ),
    "smooth_triplet": (SmoothTripletLoss(TAU), naive_smooth_triplet),
    "smooth_triplet_dot": (
        SmoothTripletLoss(TAU, normalize=False),
        lambda z, y: naive_smooth_triplet(z, y, s=dot),
    ),
    "siamese": (
        SiameseLoss(0.7),
        lambda z, y: naive_siamese(z, y, lambda a, b: 1 - cosine(a, b)),
    ),
    "siamese_euclidean": (
        SiameseLoss(0.7, distance="euclidean"),
        lambda z, y: naive_siamese(z, y, euclidean),
    ),
} | {
    f"triplet_{mining}_{distance}": (
        TripletLoss(0.4, mining, distance),
        lambda z, y, d=distance, m=mining: naive_triplet(z, y, d, MINED[m]),
    )
    for mining in MINED
    for distance in ("cosine", "euclidean")
}
LOSS = {name: loss for name, (loss, _) in CASES.items()}
every_loss = pytest.mark.parametrize("name", LOSS)

# Unbalanced; label 7 has one row, so its anchor has no positive.
LABELS = torch.tensor([3, 0, 3, 0, 0, 7, 1, 3, 1])


def embeddings(n=9, d=5, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return z.to(dtype).requires_grad_()


def value_and_gradient(loss, z, *args):
    value = loss(z, *args)
    return value, torch.autograd.grad(value, z)[0]


@every_loss
def test_value_and_gradient_equal_a_naive_loop(name):
    loss, naive = CASES[name]
    z = embeddings()
    value, gradient = value_and_gradient(loss, z, LABELS)
    expected = naive(z, LABELS.tolist())
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
    (expected,) = torch.autograd.grad(expected, z)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-13)


@every_loss
def test_gradcheck(name):
    z = embeddings(n=6, d=3)
    assert torch.autograd.gradcheck(lambda z: LOSS[name](z, LABELS[:6]), z)


@every_loss
def test_only_anchors_have_losses(name):
    loss, z = LOSS[name], embeddings()
    everyone = torch.ones(9, dtype=torch.bool)
    torch.testing.assert_close(loss(z, LABELS, everyone), loss(z, LABELS))
    # Some losses weight an anchor's terms by its number of pairs: compare halves of one
    # class, whose anchors all have equally many.
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    z = embeddings(8)
    anchors = torch.arange(8) % 2 == 0
    if name.startswith("triplet"):
        return  # a mean over triplets, whose number differs between anchors
    both = (loss(z, labels, anchors) + loss(z, labels, ~anchors)) / 2
    torch.testing.assert_close(both, loss(z, labels))


@every_loss
@pytest.mark.parametrize("anchors", [None, torch.arange(24) % 7 > 0])
def test_tiles_change_nothing(name, anchors, monkeypatch):
    loss, z = LOSS[name], embeddings(24)
    labels = torch.arange(24) % 4
    expected = value_and_gradient(loss, z, labels, anchors)
    monkeypatch.setattr(type(loss), "tile", 5 * 24)
    monkeypatch.setattr(base, "IN_CACHE", 2 * 24)
    monkeypatch.setattr(smooth_triplet, "TILE", 40)
    value, gradient = value_and_gradient(loss, z, labels, anchors)
    torch.testing.assert_close(value, expected[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, expected[1], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("per_tile", [4, 2**20])
def test_a_learned_temperature_has_its_gradient(per_tile, monkeypatch):
    class Learned(SupConLoss):
        def __init__(self):
            super().__init__(1.0)
            self.temperature = torch.nn.Parameter(
                torch.tensor(0.5, dtype=torch.float64)
            )

    monkeypatch.setattr(Learned, "tile", per_tile)
    loss, z = Learned(), embeddings()
    loss(z, LABELS).backward()
    step = 1e-6
    above, below = (SupConLoss(0.5 + s)(z, LABELS) for s in (step, -step))
    torch.testing.assert_close(
        loss.temperature.grad, (above - below) / (2 * step), rtol=1e-6, atol=0
    )


def test_tiles_without_gradient(monkeypatch):
    loss, z = SupConLoss(), embeddings()
    expected = loss(z, LABELS)
    monkeypatch.setattr(SupConLoss, "tile", 2 * len(z))
    with torch.no_grad():
        value = loss(z, LABELS)
    assert not value.requires_grad
    torch.testing.assert_close(value, expected)


@every_loss
def test_no_matrix_of_the_batch_is_kept(name):
    kept = []
    z, labels = embeddings(100, 2), torch.arange(100) % 4

    def remember(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        LOSS[name](z, labels)
    assert sum(kept) < 100 * 100


@every_loss
def test_the_order_of_rows_and_the_names_of_labels_do_not_matter(name):
    loss, z = LOSS[name], embeddings()
    order = torch.tensor([3, 0, 5, 8, 1, 4, 2, 7, 6])
    renamed = torch.tensor([50, -2, 0, 9, 0, 0, 0, 2])[LABELS]
    expected = loss(z, LABELS)
    torch.testing.assert_close(loss(z, renamed), expected)
    torch.testing.assert_close(loss(z[order], LABELS[order]), expected)


@every_loss
def test_rows_with_an_unknown_label_are_left_out(name):
    z, unknown = embeddings(), torch.tensor([0, 1, 0, 0, 0, 0, 0, 1, 0]).bool()
    labels = LABELS.masked_fill(unknown, -1)
    value, gradient = value_and_gradient(LOSS[name], z, labels)
    torch.testing.assert_close(value, LOSS[name](z[~unknown], LABELS[~unknown]))
    assert not gradient[unknown].any() and gradient.isfinite().all()
    value, gradient = value_and_gradient(LOSS[name], z, torch.full((9,), -1))
    assert value == 0 and not gradient.any()


@every_loss
def test_labels_may_be_a_list(name):
    z = embeddings()
    assert torch.equal(LOSS[name](z, LABELS.tolist()), LOSS[name](z, LABELS))
    with pytest.raises(ValueError, match="labels must be a tensor or a list of num"):
        LOSS[name](z, ["angry"] * 9)
    with pytest.raises(ValueError, match=r"embeddings must be a tensor .* found a li"):
        LOSS[name](z.tolist(), LABELS)


def test_near_rows_have_exact_euclidean_distances():
    """A matrix product alone would have rounding errors of about 1e-4."""
    a = 1 + torch.tensor([[0.0, 0.0], [0.0, 1e-6], [0.0, 0.0], [3.0, 4.0]])
    d, pull_back = distances(a, a.clone(), "euclidean")
    torch.testing.assert_close(d, torch.cdist(a.double(), a.double()).float())
    assert torch.equal(d == 0, torch.cdist(a, a) == 0) and d[0, 2] == 0
    gradient = torch.tensor([[0.0, 1, 1, 0], [0] * 4, [0] * 4, [0] * 4])
    of_a, of_b = pull_back(gradient)
    torch.testing.assert_close(of_a[0], torch.tensor([0.0, -1.0]))
    (of_both,) = distances(a, a, "euclidean")[1](gradient)
    torch.testing.assert_close(of_both, of_a + of_b)


@every_loss
def test_labels_of_one_column_and_of_any_integer_or_boolean_type(name):
    loss, z = LOSS[name], embeddings()
    expected = loss(z, LABELS)
    for dtype in (torch.int64, torch.int32, torch.uint8):
        assert torch.equal(loss(z, LABELS.to(dtype)[:, None]), expected)
    assert torch.equal(loss(z, LABELS > 0), loss(z, (LABELS > 0).long()))


NO_PAIRS = {"n is 1": torch.tensor([4]), "no positives": torch.arange(5)}


@every_loss
@pytest.mark.parametrize("labels", NO_PAIRS.values(), ids=NO_PAIRS.keys())
def test_without_positives_the_loss_is_a_zero_with_a_graph(name, labels):
    z = embeddings(len(labels))
    value, gradient = value_and_gradient(LOSS[name], z, labels)
    if name.startswith("siamese") and len(labels) > 1:
        assert value > 0  # the negatives are pairs too
        return
    assert value.item() == 0
    assert torch.equal(gradient, torch.zeros_like(z))


@every_loss
def test_no_anchor_gives_a_zero_with_a_graph(name):
    z = embeddings()
    nobody = torch.zeros(9, dtype=torch.bool)
    value, gradient = value_and_gradient(LOSS[name], z, LABELS, nobody)
    assert value.item() == 0
    assert not gradient.any()


@every_loss
def test_a_single_label_has_the_value_of_the_formula(name):
    z = embeddings(6)
    value, gradient = value_and_gradient(LOSS[name], z, torch.ones(6).long())
    assert value.isfinite() and gradient.isfinite().all()
    if name.startswith(("supcon", "siamese")):
        expected = CASES[name][1](z, [1] * 6)
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
        assert value > 0
    else:  # no negatives
        assert value.item() == pytest.approx(0, abs=1e-12)
        assert gradient.abs().max() < 1e-12


@every_loss
def test_duplicates_have_finite_gradients(name):
    z = embeddings().detach()[[0, 0, 0, 0, 1, 1, 1, 1]].requires_grad_()
    value, gradient = value_and_gradient(
        LOSS[name], z, torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])
    )
    assert value.isfinite() and gradient.isfinite().all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_zero_vectors_have_finite_gradients(name, dtype):
    z = embeddings(dtype=dtype).detach()
    z[[1, 2]] = 0
    value, gradient = value_and_gradient(LOSS[name], z.requires_grad_(), LABELS)
    assert value.isfinite() and gradient.isfinite().all()
    assert gradient.abs().max() < 1000


@every_loss
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("labels", [LABELS, torch.zeros(1).long(), torch.arange(3)])
def test_a_non_finite_embedding_gives_nan(name, bad, labels):
    z = embeddings(len(labels)).detach()
    z[-1, 1] = bad
    assert LOSS[name](z, labels).isnan()


HALF = {
    "supervised_ntxent": SupervisedNTXentLoss(0.01),
    "npair": NPairLoss(),
    "supcon": SupConLoss(0.01),
    "supcon_in": SupConInLoss(0.01),
    "soft_nearest_neighbor": SoftNearestNeighborLoss(0.01),
    "smooth_triplet": SmoothTripletLoss(0.01),
    "siamese": SiameseLoss(0.5),
    "triplet": TripletLoss(0.01),
}


@pytest.mark.parametrize("name", HALF)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_finite_and_close_at_a_small_temperature(name, dtype):
    loss, z = HALF[name], embeddings(32, 16, dtype)
    labels = torch.arange(32) % 4
    value, gradient = value_and_gradient(loss, z, labels)
    assert value.dtype == torch.float32
    assert gradient.isfinite().all() and gradient.any()
    assert value.item() == pytest.approx(loss(z.double(), labels).item(), rel=1e-3)


@every_loss
def test_autocast_does_not_change_the_value(name):
    z = embeddings(dtype=torch.float32)
    expected = LOSS[name](z, LABELS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(LOSS[name](z, LABELS), expected)


@pytest.mark.parametrize("scale", [1e-30, 1e25])
@pytest.mark.parametrize("name", [n for n in LOSS if LOSS[n].normalize])
def test_the_scale_of_embeddings_does_not_matter(name, scale):
    z = embeddings(dtype=torch.float32)
    expected = LOSS[name](z, LABELS)
    torch.testing.assert_close(LOSS[name](scale * z, LABELS), expected)


@every_loss
def test_pickled_or_without_a_gradient_the_value_is_the_same(name):
    z = embeddings()
    expected = LOSS[name](z, LABELS).detach()
    assert torch.equal(LOSS[name](z.detach(), LABELS), expected)
    assert torch.equal(pickle.loads(pickle.dumps(LOSS[name]))(z, LABELS), expected)


BAD_INPUT = {
    "no numbers": (torch.ones(4, 0), torch.ones(4).long(), "N, D"),
    "vector": (torch.ones(4), torch.ones(4).long(), "N, D"),
    "integers": (torch.ones(4, 2).long(), torch.ones(4).long(), "floating-point"),
    "too few labels": (torch.ones(4, 2), torch.ones(3).long(), "4 embeddings"),
    "two columns": (torch.ones(4, 2), torch.ones(4, 2).long(), "4 embeddings"),
    "one label": (torch.ones(4, 2), torch.tensor(1), "4 embeddings"),
    "float labels": (torch.ones(4, 2), torch.ones(4), "integers"),
    "empty": (torch.ones(0, 2), torch.ones(0).long(), "at least one row"),
    "device": (
        torch.ones(4, 2),
        torch.ones(4, device="meta").long(),
        "labels and embeddings must be on one device, found meta and cpu",
    ),
}


@every_loss
@pytest.mark.parametrize(
    ("z", "labels", "message"), BAD_INPUT.values(), ids=BAD_INPUT.keys()
)
def test_bad_input_is_refused(name, z, labels, message):
    with pytest.raises(ValueError, match=message):
        LOSS[name](z, labels)


@pytest.mark.parametrize(
    "anchors", [torch.ones(8).bool(), torch.ones(9).long(), torch.ones(9, 1).bool()]
)
def test_bad_anchors_are_refused(anchors):
    with pytest.raises(ValueError, match="anchors must be"):
        SupervisedNTXentLoss()(embeddings(), LABELS, anchors)


@pytest.mark.parametrize("value", [0, -0.1, NAN, INF])
@pytest.mark.parametrize("name", [name for name in CASES if name != "npair"])
def test_a_wrong_temperature_or_margin_is_refused(name, value):
    word = "margin" if name.startswith(("triplet", "siamese")) else "temperature"
    with pytest.raises(ValueError, match=f"^{word} must be a finite number above 0"):
        type(LOSS[name])(value)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="all, semihard, hard, found 'semi'"):
        TripletLoss(mining="semi")
    with pytest.raises(ValueError, match="cosine, euclidean, found 'l2'"):
        TripletLoss(distance="l2")
    with pytest.raises(ValueError, match="cosine, euclidean, found 'l2'"):
        SiameseLoss(distance="l2")
    with pytest.raises(ValueError, match="base_temperature"):
        SupConLoss(base_temperature=0)


def test_second_derivatives_are_refused():
    z = embeddings()
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(SupConLoss()(z, LABELS), z, create_graph=True)


def test_registered():
    for name in HALF:
        assert LOSSES.get(name) is type(HALF[name])


# Analytic cases.

BALANCED = torch.arange(12) % 3  # P = 3 positives, N = 8 negatives

ANALYTIC = {  # loss: (all equal, one-hot by class)
    SupervisedNTXentLoss(0.5): (math.log(9), math.log(1 + 8 * math.exp(-2))),
    NPairLoss(): (math.log(9), math.log(1 + 8 * math.exp(-9))),
    SupConLoss(0.5): (math.log(11), math.log(3 + 8 * math.exp(-2))),
    SupConInLoss(0.5): (math.log(11), math.log(3 + 8 * math.exp(-2))),
    SoftNearestNeighborLoss(0.5): (
        math.log(11 / 3),
        math.log(1 + 8 / 3 * math.exp(-4)),
    ),
    SmoothTripletLoss(0.5): (math.log(2), math.log(1 + math.exp(-2))),
    TripletLoss(0.2): (0.2, 0),
    TripletLoss(1.0): (1, 0),
    TripletLoss(1.5): (1.5, 0.5),
    TripletLoss(1.5, "semihard"): (0, 0.5),
    TripletLoss(1.5, "hard"): (0, 0),
    TripletLoss(1.5, distance="euclidean"): (1.5, 1.5 - math.sqrt(2)),
    SiameseLoss(0.5): (0.5 * 8 / 11, 0),
    SiameseLoss(1.5): (1.5 * 8 / 11, 0.5 * 8 / 11),
}


@pytest.mark.parametrize("loss", ANALYTIC, ids=lambda loss: type(loss).__name__)
def test_analytic_cases(loss):
    equal, clustered = ANALYTIC[loss]
    ones = torch.ones(12, 4, dtype=torch.float64)
    assert loss(ones, BALANCED).item() == pytest.approx(equal, abs=1e-12)
    one_hot = 3 * torch.eye(3, dtype=torch.float64)[BALANCED]
    assert loss(one_hot, BALANCED).item() == pytest.approx(clustered, abs=1e-12)


@pytest.mark.parametrize("loss", [SupervisedNTXentLoss(0.5), SupConLoss(0.5)])
def test_orthogonal_embeddings_have_the_loss_of_chance(loss):
    z = torch.eye(12, dtype=torch.float64)
    equal, _ = ANALYTIC[next(k for k in ANALYTIC if type(k) is type(loss))]
    assert loss(z, BALANCED).item() == pytest.approx(equal, abs=1e-12)


def test_the_inner_mean_is_never_above_the_outer_one():
    z = embeddings()
    assert SupConInLoss(TAU)(z, LABELS) < SupConLoss(TAU)(z, LABELS)


# Appendix A of the thesis: the gradient with respect to the anchor only, with constant
# partners.


def anchor_and_partners():
    z = base.unit(embeddings(6).detach())
    return z[0].clone().requires_grad_(), z[1:]


def gradient_of_anchor(loss, labels, partners=5):
    z_a, others = anchor_and_partners()
    others = others[:partners]
    anchors = torch.arange(partners + 1) == 0
    value = loss(torch.cat([z_a[None], others]), torch.tensor(labels), anchors)
    return torch.autograd.grad(value, z_a)[0], z_a.detach(), others


def test_gradient_of_the_triplet_loss_is_that_of_appendix_a():
    gradient, z_a, (z_p, z_n) = gradient_of_anchor(
        TripletLoss(2.0, normalize=False), [0, 0, 1], 2
    )
    assert z_a @ z_p - z_a @ z_n < 2.0
    torch.testing.assert_close(gradient, z_n - z_p)


def test_gradient_of_the_smooth_triplet_loss_is_that_of_appendix_a():
    gradient, z_a, (z_p, z_n) = gradient_of_anchor(
        SmoothTripletLoss(TAU, normalize=False), [0, 0, 1], 2
    )
    e_p, e_n = (torch.exp(z_a @ z / TAU) for z in (z_p, z_n))
    total = e_p + e_n
    expected = -((1 - e_p / total) * z_p - e_n / total * z_n) / TAU
    torch.testing.assert_close(gradient, expected)


def test_gradient_of_ntxent_is_that_of_appendix_a():
    gradient, z_a, (z_p, *negatives) = gradient_of_anchor(
        SupervisedNTXentLoss(TAU, normalize=False), [0, 0, 1, 1, 2, 3]
    )
    e_p = torch.exp(z_a @ z_p / TAU)
    e_n = [torch.exp(z_a @ z / TAU) for z in negatives]
    total = e_p + sum(e_n)
    pushed = sum(e / total * z for e, z in zip(e_n, negatives, strict=True))
    expected = -((1 - e_p / total) * z_p - pushed) / TAU
    torch.testing.assert_close(gradient, expected)


def test_gradient_of_supcon_is_that_of_its_formula():
    gradient, z_a, others = gradient_of_anchor(
        SupConLoss(TAU, normalize=False), [0, 0, 1, 0, 2, 1]
    )
    share = torch.softmax(others @ z_a / TAU, dim=0)
    positives = torch.tensor([0.5, 0, 0.5, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(gradient, (share - positives) @ others / TAU)


@pytest.mark.parametrize(
    ("mining", "expected"),
    [
        # Row 4 equals row 0 with another label: distances are 0 or 1.
        ("all", (6 * 1 + 4 * 2) / 10),
        ("semihard", 0),
        ("hard", 2),
    ],
)
def test_triplets_at_the_limits_are_left_out(mining, expected):
    """d_an = d_ap + m is not a triplet, d_an = d_ap neither hard nor semi-hard."""
    z = torch.eye(2)[[0, 0, 1, 1, 0]]
    labels = torch.tensor([0, 0, 1, 1, 1])
    assert TripletLoss(1.0, mining)(z, labels).item() == pytest.approx(expected)


@pytest.mark.parametrize("mining", MINED)
def test_mining_may_change_during_a_training(mining):
    loss, z = TripletLoss(0.2, "semihard"), embeddings()
    loss.mining = mining
    assert torch.equal(loss(z, LABELS), TripletLoss(0.2, mining)(z, LABELS))


@pytest.mark.parametrize("mining", MINED)
def test_triplets_of_a_larger_batch_equal_all_of_them_listed(mining):
    generator = torch.Generator().manual_seed(0)
    z = base.unit(torch.randn(60, 8, generator=generator, dtype=torch.float64))
    labels = torch.randint(0, 5, (60,), generator=generator)
    s = z @ z.T
    same = labels[:, None] == labels
    near, far = (1 - s)[:, :, None], (1 - s)[:, None, :]
    valid = (same & ~torch.eye(60).bool())[:, :, None] & ~same[:, None, :]
    kept = {
        "all": far < near + 0.2,
        "semihard": (far > near) & (far < near + 0.2),
        "hard": far < near,
    }[mining]
    expected = (near - far + 0.2)[valid & kept].mean()
    torch.testing.assert_close(TripletLoss(0.2, mining)(z, labels), expected)


def check_compiled(name, backend):
    torch._dynamo.reset()
    loss, z = HALF[name], embeddings(dtype=torch.float32)
    compiled = torch.compile(loss, backend=backend)
    value, gradient = value_and_gradient(compiled, z, LABELS)
    expected = value_and_gradient(loss, z, LABELS)
    torch.testing.assert_close(value, expected[0])
    torch.testing.assert_close(gradient, expected[1])


@pytest.mark.parametrize("name", HALF)
def test_can_be_traced_for_compilation(name):
    check_compiled(name, "aot_eager")


def test_compiles(inductor):
    check_compiled("supcon", inductor)
