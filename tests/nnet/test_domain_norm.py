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


def calibrated(counts=(40, 30)):
    norm = DomainNorm(6)
    seen = [embeddings(domain, count) for domain, count in enumerate(counts)]
    for domain, h in enumerate(seen):
        norm.calibrate(h, domain)
    return norm, seen


def test_evaluation_uses_the_statistics_of_the_domains_calibration():
    torch.manual_seed(0)
    norm, seen = calibrated()
    norm.eval()
    for domain, h in enumerate(seen):
        whole = norm(h, domain)
        var, mean = torch.var_mean(h, dim=0, correction=0)
        torch.testing.assert_close(whole, (h - mean) / (var + norm.eps).sqrt())
        # An utterance alone is normalised as in a batch.
        alone = torch.cat([norm(row[None], domain) for row in h])
        torch.testing.assert_close(alone, whole)
    # Each by its own domain: the other domain's statistics give another result.
    assert not torch.allclose(norm(seen[0], 1), norm(seen[0], 0))


def test_only_calibration_changes_the_statistics():
    torch.manual_seed(0)
    norm, seen = calibrated()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    for mode in (True, False):
        norm.train(mode)
        for domain in (0, 1):
            norm(100 + embeddings(domain), domain)
    for name, value in norm.state_dict().items():
        assert torch.equal(value, before[name])
    norm.calibrate(embeddings(1), 1)
    for name, value in norm.state_dict().items():
        assert torch.equal(value[0], before[name][0])
        assert not torch.equal(value[1], before[name][1])
    norm.calibrate(seen[1], 1)
    for name, value in norm.state_dict().items():
        assert torch.equal(value, before[name])


def test_calibration_keeps_no_graph():
    norm = DomainNorm(6)
    norm.calibrate(embeddings(0).requires_grad_(), 0)
    assert not norm.mean.requires_grad
    h = embeddings(0).requires_grad_()
    norm.eval()(h, 0).sum().backward()
    torch.testing.assert_close(h.grad, (norm.var[0] + norm.eps).rsqrt().expand_as(h))


def test_saved_and_loaded_it_continues_identically():
    torch.manual_seed(0)
    norm, _ = calibrated()
    file = io.BytesIO()
    torch.save(norm.state_dict(), file)
    file.seek(0)
    other = DomainNorm(6)
    other.load_state_dict(torch.load(file))
    for domain in (0, 1):
        h = embeddings(domain)
        assert torch.equal(other.eval()(h, domain), norm.eval()(h, domain))
        assert torch.equal(other.train()(h, domain), norm.train()(h, domain))


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


def test_one_utterance_is_an_error():
    with pytest.raises(ValueError, match="at least 2"):
        DomainNorm(6)(torch.randn(1, 6), 0)
    with pytest.raises(ValueError, match="at least 2"):
        DomainNorm(6).calibrate(torch.randn(1, 6), 0)


def test_without_batch_statistics_training_uses_those_of_the_calibration():
    torch.manual_seed(0)
    norm, seen = calibrated()
    fixed = DomainNorm(6, batch_statistics=False)
    fixed.load_state_dict(norm.state_dict())
    assert fixed.training
    mixed = torch.cat([seen[0][:5], seen[1][:7]])
    domain = torch.tensor([0] * 5 + [1] * 7)
    norm.eval()
    expected = torch.cat([norm(seen[0][:5], 0), norm(seen[1][:7], 1)])
    torch.testing.assert_close(fixed(mixed, domain), expected)
    torch.testing.assert_close(fixed(mixed[:1], 0), expected[:1])  # one alone
    assert DomainNorm(**fixed.arguments()).batch_statistics is False


def test_batch_statistics_of_several_domains_at_once_are_refused():
    with pytest.raises(ValueError, match="batch_statistics=False"):
        DomainNorm(6)(torch.randn(4, 6), torch.tensor([0, 0, 1, 1]))
