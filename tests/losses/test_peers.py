"""Losses against pytorch-metric-learning's, where definitions are equal."""

import pytest
import torch

from speechbrain_ser_cl.losses import (
    InfoNCELoss,
    NTXentLoss,
    SiameseLoss,
    SmoothTripletLoss,
    SoftNearestNeighborLoss,
    SupConLoss,
    SupervisedNTXentLoss,
    TripletLoss,
    VICRegLoss,
)

peer = pytest.importorskip("pytorch_metric_learning.losses")
distances = pytest.importorskip("pytorch_metric_learning.distances")
miners = pytest.importorskip("pytorch_metric_learning.miners")
reducers = pytest.importorskip("pytorch_metric_learning.reducers")

BALANCED = torch.arange(20) % 4
UNBALANCED = torch.tensor([0] * 9 + [1] * 6 + [2] * 4 + [3])  # 3 has no positive


def embeddings(seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(20, 8, generator=generator, dtype=torch.float64)
    return z.requires_grad_()


def check_same(ours, theirs, labels):
    z = embeddings()
    value, expected = ours(z, labels), theirs(z, labels)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(value, z),
        torch.autograd.grad(expected, z),
        rtol=1e-8,
        atol=1e-11,
    )


def test_supervised_ntxent_of_equally_large_classes():
    check_same(SupervisedNTXentLoss(0.1), peer.NTXentLoss(0.1), BALANCED)


def test_supervised_ntxent_of_unequal_classes_averages_per_anchor_first():
    """The peer computes the mean over all pairs: large classes weigh more."""
    pairs = peer.NTXentLoss(0.1, reducer=reducers.DoNothingReducer())

    def per_anchor(z, labels):
        result = pairs(z, labels)["loss"]
        anchors, losses = result["indices"][0], result["losses"]
        return torch.stack([losses[anchors == a].mean() for a in range(19)]).mean()

    check_same(SupervisedNTXentLoss(0.1), per_anchor, UNBALANCED)
    z = embeddings()
    by_pairs = peer.NTXentLoss(0.1)(z, UNBALANCED)
    assert not torch.isclose(by_pairs, SupervisedNTXentLoss(0.1)(z, UNBALANCED))


@pytest.mark.parametrize("labels", [BALANCED, UNBALANCED])
def test_supcon(labels):
    check_same(SupConLoss(0.1), peer.SupConLoss(0.1), labels)


def test_supcon_of_a_single_label_differs():
    """The peer then returns 0 silently."""
    z, labels = embeddings(), torch.zeros(20).long()
    assert peer.SupConLoss(0.1)(z, labels) == 0
    assert SupConLoss(0.1)(z, labels) > 1


def test_ntxent():
    theirs = peer.SelfSupervisedLoss(peer.NTXentLoss(0.5))
    check_same(
        lambda z, _: NTXentLoss(0.5)(z[:10], z[10:]),
        lambda z, _: theirs(z[:10], z[10:]),
        None,
    )


@pytest.mark.parametrize("symmetric", [False, True])
def test_infonce(symmetric):
    """The peer compares anchors with the other view if that is its reference."""
    # Two objects: for one object it removes the pairs of a row with itself.
    each, of_reference = torch.arange(10), torch.arange(10)
    ntxent = peer.NTXentLoss(0.5)

    def theirs(z, _):
        z_a, z_b = z.chunk(2)
        one = ntxent(z_a, each, ref_emb=z_b, ref_labels=of_reference)
        other = ntxent(z_b, each, ref_emb=z_a, ref_labels=of_reference)
        return (one + other) / 2 if symmetric else one

    ours = InfoNCELoss(0.5, symmetric=symmetric)
    check_same(lambda z, _: ours(*z.chunk(2)), theirs, None)


PEER_DISTANCE = {
    "cosine": distances.CosineSimilarity,
    "euclidean": distances.LpDistance,
}


@pytest.mark.parametrize("labels", [BALANCED, UNBALANCED])
@pytest.mark.parametrize("distance", PEER_DISTANCE)
@pytest.mark.parametrize("mining", ["all", "semihard", "hard"])
def test_triplet(labels, distance, mining):
    space = PEER_DISTANCE[distance]()
    theirs = peer.TripletMarginLoss(0.2, distance=space)
    miner = miners.TripletMarginMiner(0.2, type_of_triplets=mining, distance=space)
    check_same(
        TripletLoss(0.2, mining, distance),
        lambda z, y: theirs(z, y, miner(z, y)),
        labels,
    )


def test_smooth_triplet():
    theirs = peer.TripletMarginLoss(
        margin=0,
        smooth_loss=True,
        distance=distances.DotProductSimilarity(normalize_embeddings=False),
        reducer=reducers.MeanReducer(),
    )

    def at_temperature(z, labels):
        return theirs(torch.nn.functional.normalize(z) / 0.3**0.5, labels)

    check_same(SmoothTripletLoss(0.3), at_temperature, UNBALANCED)


def test_siamese():
    """The peer averages the pairs above zero, positive and negative ones separately."""
    theirs = peer.ContrastiveLoss(
        pos_margin=0, neg_margin=0.9, reducer=reducers.DoNothingReducer()
    )

    def over_all_pairs(z, labels):
        result = theirs(z, labels)
        both = result["pos_loss"]["losses"].sum() + result["neg_loss"]["losses"].sum()
        return both / (20 * 19)

    check_same(SiameseLoss(0.9, "euclidean"), over_all_pairs, UNBALANCED)


@pytest.mark.parametrize("normalize", [True, False])
def test_n_pairs_as_drawn_by_sohn(normalize):
    theirs = peer.NPairsLoss(
        distance=distances.DotProductSimilarity(normalize_embeddings=normalize)
    )
    check_same(
        lambda z, _: InfoNCELoss(1.0, normalize=normalize)(z[:10], z[10:]),
        theirs,
        torch.arange(10).repeat(2),
    )


def test_soft_nearest_neighbor():
    check_same(
        SoftNearestNeighborLoss(0.5), peer.NCALoss(softmax_scale=1 / 0.5), BALANCED
    )


def test_vicreg():
    check_same(
        lambda z, _: VICRegLoss()(z[:10], z[10:]),
        lambda z, _: peer.VICRegLoss()(z[:10], ref_emb=z[10:]),
        None,
    )
