"""contrastive_step against one large batch."""

import pytest
import torch
from torch import nn

from speechbrain_ser_cl.losses import NTXentLoss, SupConLoss, contrastive_step

LABELS = torch.arange(12) % 3
SUPCON = SupConLoss()


def encoder(dropout=0.0):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(5, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 4)
    )
    return model.double()


def inputs():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(12, 5, generator=generator, dtype=torch.float64)


def gradients(model):
    return [p.grad for p in model.parameters()]


@pytest.mark.parametrize("sizes", [[12], [4, 4, 4], [1, 9, 2]])
def test_value_and_gradient_are_those_of_one_large_batch(sizes):
    model, direct = encoder(), encoder()
    value = contrastive_step(model, inputs().split(sizes), lambda z: SUPCON(z, LABELS))
    expected = SUPCON(direct(inputs()), LABELS)
    expected.backward()
    torch.testing.assert_close(value, expected.detach())
    assert not value.requires_grad
    torch.testing.assert_close(gradients(model), gradients(direct))


def test_both_passes_draw_the_same_dropout():
    model, direct = encoder(0.5), encoder(0.5)
    batches = inputs().split(4)
    torch.manual_seed(7)
    value = contrastive_step(model, batches, lambda z: SUPCON(z, LABELS))
    after = torch.rand(3)
    torch.manual_seed(7)
    expected = SUPCON(torch.cat([direct(b) for b in batches]), LABELS)
    assert torch.equal(torch.rand(3), after)
    expected.backward()
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradients(model), gradients(direct))


def test_batch_statistics_are_counted_once():
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)).double()
    contrastive_step(model, inputs().split(4), lambda z: SUPCON(z, LABELS))
    assert model[1].num_batches_tracked == 3


def test_gradients_are_added():
    model, twice = encoder(), encoder()

    def step(m):
        contrastive_step(m, inputs().split(4), lambda z: SUPCON(z, LABELS))

    step(model)
    step(twice)
    step(twice)
    doubled = [2 * g for g in gradients(model)]
    torch.testing.assert_close(gradients(twice), doubled)


def test_two_views_and_several_arguments():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = encoder()

        def forward(self, x, scale):
            return self.inner(x * scale)

    ntxent, model, direct = NTXentLoss(), Scaled(), Scaled()
    scale = torch.linspace(0.5, 2, 12, dtype=torch.float64)[:, None]
    batches = list(zip(inputs().split(4), scale.split(4), strict=True))
    contrastive_step(model, batches, lambda z: ntxent(*z.chunk(2)))
    ntxent(*direct(inputs(), scale).chunk(2)).backward()
    torch.testing.assert_close(gradients(model), gradients(direct))


def test_parameters_of_the_loss_get_gradients():
    scale = nn.Parameter(torch.tensor(2.0))
    contrastive_step(encoder(), inputs().split(4), lambda z: (scale * z).sum())
    assert scale.grad is not None


def test_within_autocast():
    model, direct, x = encoder().float(), encoder().float(), inputs().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        contrastive_step(model, x.split(4), lambda z: SUPCON(z, LABELS))
        loss = SUPCON(direct(x), LABELS)
    loss.backward()
    torch.testing.assert_close(gradients(model), gradients(direct), rtol=0.1, atol=0.05)


def most_numbers_kept(function):
    """Returns the most numbers stored for a backward pass at any time."""
    now = most = 0

    class Kept:
        def __init__(self, tensor):
            nonlocal now, most
            self.tensor = tensor
            now += tensor.numel()
            most = max(most, now)

        def __del__(self):
            nonlocal now
            now -= self.tensor.numel()

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        function()
    return most


def test_activations_of_one_small_batch_are_held_at_a_time():
    model = nn.Sequential(*[nn.Linear(64, 64), nn.Tanh()] * 10)
    x = torch.randn(128, 64)
    weights = 10 * 64 * 64

    def in_batches_of(n):
        contrastive_step(model, x.split(n), lambda z: z.sum())

    whole = most_numbers_kept(lambda: model(x).sum().backward()) - weights
    small = most_numbers_kept(lambda: in_batches_of(8)) - weights
    assert small < whole / 10


def test_no_batch_is_refused():
    with pytest.raises(ValueError, match="at least one batch"):
        contrastive_step(encoder(), [], lambda z: z.sum())
