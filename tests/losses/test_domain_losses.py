"""CORAL, MMD and domain-adversarial loss."""

import copy
import math
import pickle

import numpy
import pytest
import torch
from torch.nn import functional as F

from speechbrain_ser_cl.losses import CORALLoss, DomainAdversarialLoss, MMDLoss
from speechbrain_ser_cl.registry import LOSSES

NAN, INF = float("nan"), float("inf")


def domains(n=6, m=4, d=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    source = torch.randn(n, d, generator=generator, dtype=torch.float64)
    target = 2 + torch.randn(m, d, generator=generator, dtype=torch.float64)
    return [z.to(dtype).requires_grad_() for z in (source, target)]


def adversarial(dtype=torch.float32, step=10):
    torch.manual_seed(0)
    loss = DomainAdversarialLoss(3, steps=100, hidden_size=8).to(dtype).eval()
    loss.step += step
    return loss


EVERY = {"coral": CORALLoss(), "mmd": MMDLoss(), "dann": adversarial()}
every_loss = pytest.mark.parametrize("name", EVERY)


def naive_mmd(source, target, kernels):
    rows = [*source, *target]
    distances = [(a - b).square().sum() for a in rows for b in rows if a is not b]
    scale = (sum(distances) / len(distances)).detach()

    def k(x, y):
        d = (x - y).square().sum() / scale
        return sum(torch.exp(-d / b) for b in kernels) / len(kernels)

    def average(xs, ys):
        return sum(k(x, y) for x in xs for y in ys) / (len(xs) * len(ys))

    within = average(source, source) + average(target, target)
    return within - 2 * average(source, target)


def test_mmd_value_and_gradient_equal_a_naive_loop():
    z = domains()
    value = MMDLoss((0.3, 1.5))(*z)
    expected = naive_mmd(*z, (0.3, 1.5))
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(value, z),
        torch.autograd.grad(expected, z),
        rtol=1e-10,
        atol=1e-13,
    )


def test_coral_value_equals_numpy_and_gradient_the_closed_form():
    source, target = domains()
    value = CORALLoss()(source, target)
    c_s, c_t = (numpy.cov(z.detach().numpy().T) for z in (source, target))
    expected = ((c_s - c_t) ** 2).sum() / (4 * 9)
    assert value.item() == pytest.approx(expected, rel=1e-12)
    (gradient,) = torch.autograd.grad(value, source)
    centred = (source - source.mean(dim=0)).detach()
    closed = centred @ torch.from_numpy(c_s - c_t) / (9 * 5)  # equation 4 of the paper
    torch.testing.assert_close(gradient, closed, rtol=1e-10, atol=1e-14)


def test_gradcheck_of_coral():
    assert torch.autograd.gradcheck(CORALLoss(), domains())


def test_equal_domains_give_zero():
    source, _ = domains()
    assert CORALLoss()(source, source.clone()).item() == 0
    assert CORALLoss()(source, source + 5).item() == pytest.approx(0, abs=1e-15)
    assert MMDLoss()(source, source.clone()).item() == pytest.approx(0, abs=1e-15)


def test_mmd_of_rows_all_equal_is_zero_with_a_graph():
    z = torch.ones(3, 2, requires_grad=True)
    value = MMDLoss()(z, torch.ones(2, 2))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-7)
    assert not z.grad.any()


def test_the_value_and_own_gradient_of_the_adversary_are_those_of_cross_entropy():
    loss, (source, target) = adversarial(torch.float64), domains()
    value = loss(source, target)
    logits = loss.classifier(torch.cat([source, target])).squeeze(1)
    ones, zeros = torch.ones(6).double(), torch.zeros(4).double()
    expected = F.binary_cross_entropy_with_logits(logits[:6], ones) / 2
    expected += F.binary_cross_entropy_with_logits(logits[6:], zeros) / 2
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    parameters = list(loss.classifier.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(value, parameters, retain_graph=True),
        torch.autograd.grad(expected, parameters, retain_graph=True),
    )
    for ours, plain in zip(
        torch.autograd.grad(value, [source, target]),
        torch.autograd.grad(expected, [source, target]),
        strict=True,
    ):
        factor = 2 / (1 + math.exp(-10 * 0.1)) - 1
        torch.testing.assert_close(ours, -factor * plain)


def test_the_reversal_grows_by_steps_of_training_and_is_saved():
    loss = DomainAdversarialLoss(3, steps=2, gamma=10)
    z = domains(dtype=torch.float32)
    grown = []
    for _ in range(4):
        grown.append(loss.reversal().item())
        loss(*z)
    end = math.tanh(5)
    assert grown == pytest.approx([0, math.tanh(2.5), end, end])
    loss.eval()(*z)
    assert loss.step == 4
    again = DomainAdversarialLoss(3, steps=8)
    again.load_state_dict(loss.state_dict())
    assert again.reversal().item() == pytest.approx(math.tanh(2.5))


@every_loss
def test_one_row_per_domain(name):
    z = domains(1, 1, dtype=torch.float32)
    if name == "coral":
        with pytest.raises(ValueError, match="1 of the source and 1 of the target"):
            EVERY[name](*z)
    else:
        value = EVERY[name](*z)
        assert value > 0
        assert all(g.isfinite().all() for g in torch.autograd.grad(value, z))


@every_loss
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("domain", [0, 1])
def test_a_non_finite_embedding_gives_nan(name, bad, domain):
    z = [v.detach() for v in domains(dtype=torch.float32)]
    z[domain][0, 1] = bad
    assert EVERY[name](*z).isnan()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_finite_and_close(name, dtype):
    z = domains(16, 12, dtype=dtype)
    value = EVERY[name](*z)
    assert value.dtype == torch.float32
    assert all(g.isfinite().all() for g in torch.autograd.grad(value, z))
    wide = EVERY[name](*(v.double() for v in z))
    assert value.item() == pytest.approx(wide.item(), rel=1e-3)


@every_loss
def test_order_autocast_pickle_and_compilation(name):
    source, target = domains(dtype=torch.float32)
    expected = EVERY[name](source, target)
    torch.testing.assert_close(EVERY[name](source.flip(0), target.flip(0)), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(EVERY[name](source, target), expected)
    again = pickle.loads(pickle.dumps(EVERY[name]))
    assert torch.equal(again(source, target), expected)
    torch._dynamo.reset()
    both = [source.requires_grad_(), target.requires_grad_()]
    results = []
    # A copy, since a loss may count its steps.
    for run in (again, torch.compile(copy.deepcopy(again), backend="aot_eager")):
        value = run(*both)
        results.append([value, *torch.autograd.grad(value, both)])
    torch.testing.assert_close(*results)
    torch.testing.assert_close(results[0][0], expected)


@every_loss
@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (torch.ones(4), torch.ones(4), "N, D"),
        (torch.ones(4, 3).long(), torch.ones(4, 3).long(), "floating-point"),
        (torch.ones(4, 3), torch.ones(4, 2), "same size D"),
        (torch.ones(4, 3), torch.ones(0, 3), "at least (one row|two rows)"),
        (torch.ones(4, 3), torch.ones(4, 3, device="meta"), "one device"),
    ],
)
def test_bad_input_is_refused(name, source, target, message):
    with pytest.raises(ValueError, match=message):
        EVERY[name](source, target)


@pytest.mark.parametrize(
    ("loss", "arguments", "message"),
    [
        (MMDLoss, {"kernels": []}, "at least one width"),
        (MMDLoss, {"kernels": [1.0, 0.0]}, "width"),
        (DomainAdversarialLoss, {"input_size": 0, "steps": 1}, "input_size"),
        (DomainAdversarialLoss, {"input_size": 2, "steps": 0}, "steps"),
        (DomainAdversarialLoss, {"input_size": 2, "steps": 1, "gamma": NAN}, "gamma"),
    ],
)
def test_wrong_arguments_are_refused(loss, arguments, message):
    with pytest.raises(ValueError, match=message):
        loss(**arguments)


def test_registered():
    for name, loss in EVERY.items():
        assert LOSSES.get(name) is type(loss)
