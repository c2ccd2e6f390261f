"""DomainNorm against torch's BatchNorm1d without affine part, one per domain."""

import io

import pytest
import torch
from torch import nn

from speechbrain_ser_cl.nnet import DomainNorm

MEANS = (3.0, -2.0)
SCALES = (5.0, 0.1)


def embeddings(domain, count=16, size=6):
    return MEANS[domain] + SCALES[domain] * torch.randn(count, size)


@pytest.mark.parametrize("count", [2, 3, 16, 33])
def test_output_and_gradient_in_training_are_those_of_batch_norm(count):
    torch.manual_seed(0)
    ours = DomainNorm(6)
    torchs = [nn.BatchNorm1d(6, affine=False) for _ in range(2)]
    for domain in (0, 1, 1, 0):
        h = embeddings(domain, count).requires_grad_()
        weight = torch.randn(count, 6)
        out = ours(h, domain)
        (gradient,) = torch.autograd.grad((out * weight).sum(), h)
        expected = torchs[domain](h)
        (expected_gradient,) = torch.autograd.grad((expected * weight).sum(), h)
        torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(gradient, expected_gradient, atol=1e-4, rtol=1e-4)


def test_evaluation_uses_running_averages_of_the_domain():
    torch.manual_seed(0)
    momentum = 0.2
    norm = DomainNorm(6, momentum=momentum)
    seen = {0: [], 1: []}
    for step in range(30):
        domain = step % 3 % 2
        h = embeddings(domain)
        norm(h, domain)
        seen[domain].append(h.double())
    norm.eval()
    for domain in (0, 1):
        # A plain mean of the first five, then an exponential average.
        mean = var = torch.zeros(6, dtype=torch.float64)
        for n, h in enumerate(seen[domain], start=1):
            weight = max(momentum, 1 / n)
            mean = (1 - weight) * mean + weight * h.mean(0)
            var = (1 - weight) * var + weight * h.var(0, correction=0)
        h = embeddings(domain)
        expected = (h - mean) / (var + norm.eps).sqrt()
        torch.testing.assert_close(norm(h, domain), expected.float())


def test_evaluation_of_one_utterance_changes_nothing():
    torch.manual_seed(0)
    norm = DomainNorm(6)
    for domain in (0, 1, 0, 1):
        norm(embeddings(domain), domain)
    norm.eval()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    h = embeddings(1)
    together = norm(h, 1)
    alone = torch.cat([norm(row[None], 1) for row in h])
    torch.testing.assert_close(alone, together)
    for name, value in norm.state_dict().items():
        assert torch.equal(value, before[name])


def test_training_one_domain_leaves_the_other_alone():
    torch.manual_seed(0)
    norm = DomainNorm(6)
    norm(embeddings(0), 0)
    mean, var = norm.mean[0].clone(), norm.var[0].clone()
    for _ in range(10):
        norm(embeddings(1), 1)
    assert torch.equal(norm.mean[0], mean)
    assert torch.equal(norm.var[0], var)
    assert norm.n_batches.tolist() == [1, 10]


def test_a_domain_never_seen_is_evaluated_as_domain_0():
    torch.manual_seed(0)
    norm = DomainNorm(6)
    for _ in range(5):
        norm(embeddings(0), 0)
    norm.eval()
    h = embeddings(1)
    assert torch.equal(norm(h, 1), norm(h, 0))


def test_saved_and_loaded_it_goes_on_alike():
    torch.manual_seed(0)
    norm = DomainNorm(6)
    for step in range(7):
        norm(embeddings(step % 2), step % 2)
    file = io.BytesIO()
    torch.save(norm.state_dict(), file)
    file.seek(0)
    other = DomainNorm(6)
    other.load_state_dict(torch.load(file))
    h = embeddings(0)
    assert torch.equal(other(h, 0), norm(h, 0))
    assert torch.equal(other.eval()(h, 1), norm.eval()(h, 1))


def test_it_has_nothing_to_train():
    assert not list(DomainNorm(6).parameters())


def test_half_precision_is_normalised_in_single():
    h = torch.randn(16, 6).bfloat16()
    out = DomainNorm(6)(h, 0)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, DomainNorm(6)(h.float(), 0))


def test_a_constant_dimension_stays_finite():
    h = torch.full((4, 6), 7.0, requires_grad=True)
    out = DomainNorm(6)(h, 0)
    out.sum().backward()
    assert torch.equal(out, torch.zeros(4, 6))
    assert h.grad.isfinite().all()


def test_one_utterance_in_training_is_an_error():
    with pytest.raises(ValueError, match="at least 2"):
        DomainNorm(6)(torch.randn(1, 6), 0)


@pytest.mark.xfail(reason="DomainNorm averages what is not finite", strict=True)
def test_a_batch_that_is_not_finite_does_not_stay_in_the_averages():
    torch.manual_seed(0)
    norm = DomainNorm(6)
    norm(embeddings(0), 0)
    bad = embeddings(0)
    bad[3, 2] = torch.nan
    assert not norm(bad, 0).isfinite().all()
    norm(embeddings(0), 0)
    assert norm.eval()(embeddings(0), 0).isfinite().all()
