"""Batches without their padding, against loops over the utterances."""

from functools import partial
from itertools import combinations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from speechbrain_ser_cl.backbones.packing import (
    Packing,
    dropout,
    masked_group_norm,
    recomputed,
)
from speechbrain_ser_cl.backbones.wavlm import _gated
from speechbrain_ser_cl.nnet.lengths import steps_mask

CPU = torch.device("cpu")
COUNTS = [5, 9, 1, 9, 7]
# A group per length, two groups, one group.
GROUP_COSTS = [0, 6, 1000]


def frames(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


@pytest.mark.parametrize("group_cost", GROUP_COSTS)
@pytest.mark.parametrize("counts", [COUNTS, [4, 4, 4], [3]])
def test_packing_and_unpacking_loses_nothing_but_padding(counts, group_cost):
    n_steps = max(counts) + 2
    packing = Packing(counts, n_steps, CPU, group_cost)
    x = frames(len(counts), n_steps, 3)
    packed = packing.pack(x)
    assert packed.shape == (sum(counts), 3)
    mask = steps_mask(torch.tensor(counts), n_steps).unsqueeze(-1)
    assert torch.equal(packing.unpack(packed), x * mask)


def test_without_padding_nothing_is_moved():
    x = frames(3, 4, 2)
    packing = Packing([4, 4, 4], 4, CPU)
    assert packing.unpack(packing.pack(x)).data_ptr() == x.data_ptr()
    assert [group.rows for group in packing.groups] == [[0, 1, 2]]


@pytest.mark.parametrize("group_cost", [0, 1, 3, 8, 100])
def test_no_other_groups_cost_less(group_cost):
    counts = [3, 14, 15, 9, 2, 6]

    def cost(groups):
        padded = sum(len(group) * max(group) for group in groups)
        return padded + group_cost * len(groups)

    lengths = sorted(counts)
    every = []
    for n in range(len(lengths)):
        for cuts in combinations(range(1, len(lengths)), n):
            edges = [0, *cuts, len(lengths)]
            every.append([lengths[a:b] for a, b in zip(edges, edges[1:], strict=False)])
    packing = Packing(counts, 15, CPU, group_cost)
    ours = [[counts[row] for row in group.rows] for group in packing.groups]
    assert sorted(sum(ours, [])) == lengths
    assert cost(ours) == min(map(cost, every))


@pytest.mark.parametrize("group_cost", GROUP_COSTS)
def test_a_function_of_padded_batches_sees_zeros_after_each_utterance(group_cost):
    convolution = nn.Conv1d(3, 3, 5, padding=2).double()

    def along_time(x):
        return convolution(x.transpose(1, 2)).transpose(1, 2)

    x = frames(len(COUNTS), 9, 3)
    packing = Packing(COUNTS, 9, CPU, group_cost)
    y = packing.unpack(packing.map_padded(along_time, packing.pack(x)))
    for row, out, n in zip(x, y, COUNTS, strict=True):
        torch.testing.assert_close(out[:n], along_time(row[None, :n])[0])
        assert not out[n:].any()


def naive_attention(q, k, v, gates=None, bias=None):
    """Computes softmax(q k / sqrt(d) + g b) v of one utterance (t, H, d)."""
    y = torch.empty_like(q)
    for head in range(q.shape[1]):
        scores = q[:, head] @ k[:, head].T / q.shape[2] ** 0.5
        if gates is not None:
            scores = scores + gates[:, head, None] * bias[head]
        y[:, head] = scores.softmax(dim=1) @ v[:, head]
    return y.flatten(1)


@pytest.mark.parametrize("group_cost", GROUP_COSTS)
@pytest.mark.parametrize("gated", [False, True])
def test_attention_and_its_gradient_equal_the_formula(gated, group_cost):
    packing = Packing(COUNTS, 9, CPU, group_cost)
    n, heads = sum(COUNTS), 2
    leaves = [frames(n, heads, 4, seed=i) for i in range(3)]
    leaves += [frames(n, heads, seed=3), frames(heads, 9, 9, seed=4)]
    noise = frames(n, heads * 4, seed=5)

    def run(attend):
        inputs = [leaf.clone().requires_grad_() for leaf in leaves]
        y = attend(*inputs)
        (y * noise).sum().backward()
        return [y.detach()] + [x.grad for x in inputs if x.grad is not None]

    def ours(q, k, v, gates, bias):
        if not gated:
            return packing.attention(q, k, v)
        biases = [
            partial(_gated, bias[:, : g.n_steps, : g.n_steps]) for g in packing.groups
        ]
        return packing.attention(q, k, v, 0.0, gates, biases)

    def naive(q, k, v, gates, bias):
        counts = [COUNTS[row] for group in packing.groups for row in group.rows]
        parts = []
        for part in zip(*(x.split(counts) for x in (q, k, v, gates)), strict=True):
            *qkv, gate = part
            n = len(gate)
            extra = (gate, bias[:, :n, :n]) if gated else ()
            parts.append(naive_attention(*qkv, *extra))
        return torch.cat(parts)

    results = run(ours), run(naive)
    assert len(results[0]) == (6 if gated else 4)
    for mine, expected in zip(*results, strict=True):
        torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("gated", [False, True])
def test_attention_dropout_takes_weights_out_and_its_gradient_is_of_what_was_left(
    gated,
):
    """The values are the unit matrix, so the output shows the weights."""
    steps = 64
    packing = Packing([steps], steps, CPU)
    q, k = frames(steps, 1, steps), frames(steps, 1, steps, seed=1)
    v = torch.eye(steps, dtype=torch.float64).unsqueeze(1).requires_grad_()
    extra = ()
    if gated:
        bias = partial(_gated, torch.zeros(1, steps, steps).double())
        extra = (torch.ones(steps, 1).double(), [bias])
    plain = packing.attention(q, k, v, 0.0, *extra)
    dropped = packing.attention(q, k, v, 0.25, *extra)
    kept = dropped != 0
    assert 0.7 < kept.double().mean() < 0.8
    torch.testing.assert_close(dropped[kept], plain[kept] / 0.75)
    dropped.sum().backward()
    # d(sum)/d(v_j) is the sum of the weights of v_j that were kept in this run.
    torch.testing.assert_close(
        v.grad[:, 0], dropped.detach().sum(0)[:, None].expand(-1, steps)
    )


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_masked_group_norm_counts_valid_steps_only(offset):
    torch.manual_seed(0)
    norm = nn.GroupNorm(4, 4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    counts = [30, 7, 4]
    x = (frames(3, 4, 30, dtype=torch.float32) + offset).requires_grad_()
    mask = steps_mask(torch.tensor(counts), 30).unsqueeze(1)
    noise = frames(3, 4, 30, seed=1, dtype=torch.float32) * mask
    ours = masked_group_norm(x, torch.tensor(counts), norm)
    (ours * noise).sum().backward()
    gradients = [p.grad.clone() for p in (x, norm.weight, norm.bias)]
    x.grad = None
    norm.zero_grad()
    for row, out, part, n in zip(x, ours, noise, counts, strict=True):
        alone = norm(row[None, :, :n])[0]
        torch.testing.assert_close(out[:, :n], alone, rtol=1e-4, atol=1e-4)
        (alone * part[:, :n]).sum().backward()
    for mine, p in zip(gradients, (x, norm.weight, norm.bias), strict=True):
        torch.testing.assert_close(mine, p.grad, rtol=1e-3, atol=1e-3)
    assert not x.grad.masked_select(~mask).any()


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_takes_out_that_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    x = frames(1000, 999).requires_grad_()
    y = dropout(x, p)
    kept = y != 0
    share = (~kept).double().mean().item()
    assert abs(share - p) < 5 * (p * (1 - p) / x.numel()) ** 0.5
    torch.testing.assert_close(y[kept], x[kept] / (1 - p), rtol=1e-4, atol=0)
    y.sum().backward()
    torch.testing.assert_close(x.grad, kept.double() / (1 - p), rtol=1e-4, atol=0)
    # Neighbours in rows, in columns and at distance four are independent.
    kept = kept.double() - kept.double().mean()
    for shift in [(0, 1), (0, 2), (0, 3), (0, 4), (1, 0)]:
        product = (kept * kept.roll(shift, (0, 1))).mean() / kept.var()
        assert abs(product) < 5 / x.numel() ** 0.5
    # Like torch's: equal with the same seed, different with the next.
    torch.manual_seed(0)
    assert torch.equal(dropout(x, p), y)
    assert not torch.equal(dropout(x, p), y)


@pytest.mark.parametrize("p", [0.0, 1.0, 1e-9, 1 - 1e-9])
def test_dropout_at_its_limits(p):
    x = frames(50, 3)
    torch.testing.assert_close(dropout(x, p), x if p < 0.5 else torch.zeros_like(x))
    assert dropout(x, 0.5, training=False) is x


def test_recomputed_replays_dropout_and_keeps_less():
    linear = nn.Linear(8, 8).double()
    x = frames(16, 8).requires_grad_()

    def wide(x):
        return linear(F.dropout(F.gelu(x), 0.5))

    results, kept = [], []
    for run in (wide, lambda x: recomputed(wide, x)):
        torch.manual_seed(0)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t
        ):
            y = run(x)
        kept.append(sum(sizes))
        gradients = torch.autograd.grad(y.square().sum(), [x, *linear.parameters()])
        results.append([y, *gradients])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
    assert kept[1] < kept[0] / 2
    with torch.no_grad():
        assert not recomputed(wide, x).requires_grad
