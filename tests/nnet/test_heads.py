"""Heads compute their formulas and have the paper's sizes."""

import torch

from speechbrain_ser_cl.nnet import ClassifierHead, ProjectionHead
from speechbrain_ser_cl.registry import HEADS


def trained(head):
    """Returns the head with a changed last layer."""
    torch.nn.init.normal_(head.layers[-1].weight)
    torch.nn.init.normal_(head.layers[-1].bias)
    return head


def n_parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_projection_is_v_relu_u_h():
    head = HEADS.get("projection")(768)
    h = torch.randn(4, 768)
    u, v = head.parameters()
    torch.testing.assert_close(head(h), (h @ u.T).clamp(min=0) @ v.T)
    assert head(h).shape == (4, head.output_size)
    assert n_parameters(head) == 768 * 256 + 256 * 128


def test_classifier_is_linear_by_default():
    head = trained(HEADS.get("classifier")(768, n_classes=2))
    h = torch.randn(4, 768)
    weight, bias = head.parameters()
    torch.testing.assert_close(head(h), h @ weight.T + bias)
    assert head.output_size == 2


def test_classifier_with_a_hidden_layer():
    head = ClassifierHead(768, n_classes=4, hidden_size=256)
    assert head(torch.randn(3, 768)).shape == (3, 4)
    assert n_parameters(head) == 769 * 256 + 257 * 4


def test_classifier_of_standardised_vectors():
    head = trained(ClassifierHead(6, n_classes=2, batch_norm=True))
    h = 3 + 0.01 * torch.randn(50, 6)
    var, mean = torch.var_mean(h, dim=0, correction=0)
    weight, bias = head.parameters()  # the normalisation has no trained parameters
    expected = (h - mean) / (var + 1e-5).sqrt() @ weight.T + bias
    torch.testing.assert_close(head(h), expected, rtol=1e-3, atol=1e-3)
    for _ in range(200):
        head(h)
    # A single utterance is standardised by the training statistics.
    torch.testing.assert_close(head.eval()(h[:1]), expected[:1], rtol=0.1, atol=0.1)
    again = ClassifierHead(**head.arguments())
    again.load_state_dict(head.state_dict())
    torch.testing.assert_close(again.eval()(h), head(h))


def test_an_untrained_classifier_moves_no_encoder():
    h = torch.randn(4, 8, requires_grad=True)
    logits = ClassifierHead(8, n_classes=3, hidden_size=5)(h)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    assert not logits.any() and not h.grad.any()


def test_domain_classifier_has_a_part_of_its_own_for_each_domain():
    head = HEADS.get("domain_classifier")(6, n_classes=3)
    h = torch.randn(5, 6)
    assert not head(h, domain=1).any()
    torch.nn.init.normal_(head.weight)
    torch.nn.init.normal_(head.bias)
    for d in (0, 1):
        torch.testing.assert_close(head(h, d), h @ head.weight[d].T + head.bias[d])
    head(h, domain=1).sum().backward()
    assert not head.weight.grad[0].any() and head.weight.grad[1].all()


def test_dropout_only_in_training():
    torch.manual_seed(0)
    head = trained(ClassifierHead(8, n_classes=2, hidden_size=8, dropout=0.5))
    h = torch.randn(16, 8)
    assert not torch.equal(head(h), head(h))
    head.eval()
    assert torch.equal(head(h), head(h))


def test_gradcheck():
    h = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    for head in [ProjectionHead(6, 5, 4), trained(ClassifierHead(6, 3, hidden_size=5))]:
        assert torch.autograd.gradcheck(head.double(), (h,))
