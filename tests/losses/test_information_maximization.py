"""Information maximisation and its two parts against naive loops and analytic cases."""

import math
import pickle

import pytest
import torch

from speechbrain_ser_cl.losses import (
    DiversityLoss,
    EntropyLoss,
    InformationMaximizationLoss,
)
from speechbrain_ser_cl.registry import LOSSES

ALL = [EntropyLoss, DiversityLoss, InformationMaximizationLoss]


def naive_terms(logits):
    """Computes both sums of equation 5 by loops over utterances and classes."""
    n, n_classes = logits.shape
    probabilities = []
    for row in logits:
        exponentials = [score.exp() for score in row]
        probabilities.append([e / sum(exponentials) for e in exponentials])
    entropy = -sum(p * p.log() for row in probabilities for p in row) / n
    diversity = 0
    for c in range(n_classes):
        mean = sum(row[c] for row in probabilities) / n
        diversity = diversity + mean * mean.log()
    return entropy, diversity


def random_logits(dtype=torch.float64, scale=2.0, shape=(6, 4)):
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits.to(dtype).requires_grad_()


def test_values_and_gradients_equal_naive_loops():
    logits = random_logits()
    entropy, diversity = naive_terms(logits)
    for loss_class, naive in zip(
        ALL, [entropy, diversity, entropy + diversity], strict=True
    ):
        ours = loss_class()(logits)
        torch.testing.assert_close(ours, naive, rtol=1e-10, atol=0)
        (our_grad,) = torch.autograd.grad(ours, logits)
        (naive_grad,) = torch.autograd.grad(naive, logits, retain_graph=True)
        torch.testing.assert_close(our_grad, naive_grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("loss_class", ALL)
def test_gradcheck(loss_class):
    assert torch.autograd.gradcheck(loss_class(), (random_logits(),))


def test_undecided_predictions_have_the_largest_entropy():
    logits = torch.zeros(5, 4)
    assert EntropyLoss()(logits).item() == pytest.approx(math.log(4), abs=1e-6)
    assert DiversityLoss()(logits).item() == pytest.approx(-math.log(4), abs=1e-6)
    assert InformationMaximizationLoss()(logits).item() == pytest.approx(0, abs=1e-6)


def test_confident_and_balanced_predictions_are_the_optimum():
    loss = InformationMaximizationLoss()
    balanced = 100 * torch.eye(4)
    collapsed = torch.tensor([[100.0, 0, 0, 0]] * 4)
    assert loss(balanced).item() == pytest.approx(-math.log(4), abs=1e-6)
    assert loss(collapsed).item() == pytest.approx(0, abs=1e-6)


def test_a_single_utterance_gives_zero():
    logits = random_logits(shape=(1, 3))
    assert InformationMaximizationLoss()(logits).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("loss_class", ALL)
def test_order_of_utterances_and_of_classes_does_not_matter(loss_class):
    logits = random_logits()
    expected = loss_class()(logits)
    torch.testing.assert_close(loss_class()(logits.flip(0)), expected)
    torch.testing.assert_close(loss_class()(logits.flip(1)), expected)


@pytest.mark.parametrize("loss_class", ALL)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_non_finite_logit_gives_nan(loss_class, bad):
    logits = random_logits().detach().clone()
    logits[2, 1] = bad
    if loss_class is DiversityLoss and bad == -float("inf"):
        nearly = logits.clone()
        nearly[2, 1] = -1e6
        torch.testing.assert_close(loss_class()(logits), loss_class()(nearly))
    else:
        assert loss_class()(logits).isnan()


@pytest.mark.parametrize("loss_class", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_logits_stay_finite(loss_class, dtype):
    logits = random_logits(dtype, scale=5000.0)
    loss = loss_class()(logits)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss_class", ALL)
def test_autocast_does_not_change_the_value(loss_class):
    logits = random_logits(torch.float32)
    expected = loss_class()(logits)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss_class()(logits), expected)


@pytest.mark.parametrize("loss_class", ALL)
def test_can_be_traced_for_compilation(loss_class):
    torch._dynamo.reset()
    z = random_logits(dtype=torch.float32).requires_grad_()
    value = torch.compile(loss_class(), backend="aot_eager")(z)
    expected = loss_class()(z)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        torch.autograd.grad(value, z), torch.autograd.grad(expected, z)
    )


@pytest.mark.parametrize("loss_class", ALL)
@pytest.mark.parametrize("shape", [(4,), (0, 3), (4, 1), (2, 3, 4)])
def test_wrong_shapes_are_refused(loss_class, shape):
    with pytest.raises(ValueError, match="logits of shape"):
        loss_class()(torch.zeros(shape))


def test_registered_and_picklable():
    names = ["entropy", "diversity", "information_maximization"]
    assert [LOSSES.get(name) for name in names] == ALL
    logits = random_logits()
    for loss_class in ALL:
        again = pickle.loads(pickle.dumps(loss_class()))
        assert torch.equal(again(logits), loss_class()(logits))
