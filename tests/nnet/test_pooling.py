"""Poolings against loops over unpadded utterances."""

import pickle

import numpy as np
import pytest
import torch

from speechbrain_ser_cl.nnet import (
    MeanPooling,
    SelfAttentionPooling,
    StatisticsPooling,
)
from speechbrain_ser_cl.registry import POOLINGS

COUNTS = [7, 4, 1]
LENGTHS = torch.tensor(COUNTS) / max(COUNTS)
NAMES = ["mean", "statistics", "self_attention"]


def frames(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 7, 5, generator=generator, dtype=torch.float64).to(dtype)


def reference(name, pooling, utterance):
    """Computes the formula in numpy on one utterance (T, D) without padding."""
    h = utterance.numpy()
    if name == "mean":
        return h.mean(axis=0)
    if name == "statistics":
        return np.concatenate([h.mean(axis=0), np.maximum(h.std(axis=0), 1e-5)])
    scores = h @ pooling.attention.weight.detach().numpy()[0]
    weights = np.exp(scores) / np.exp(scores).sum()
    return weights @ h


@pytest.fixture(params=NAMES)
def named_pooling(request):
    torch.manual_seed(0)
    return request.param, POOLINGS.get(request.param)(input_size=5).double()


def test_values_equal_the_formula_on_each_utterance(named_pooling):
    name, pooling = named_pooling
    x = frames()
    pooled = pooling(x, LENGTHS)
    assert pooled.shape == (3, pooling.output_size)
    for row, utterance, count in zip(pooled, x, COUNTS, strict=True):
        expected = reference(name, pooling, utterance[:count])
        np.testing.assert_allclose(row.detach().numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("padding", [0.0, 1e30, float("nan"), float("inf")])
def test_what_stands_in_the_padding_has_no_effect(named_pooling, padding):
    _, pooling = named_pooling
    x = frames()
    expected = pooling(x, LENGTHS)
    for utterance, count in zip(x, COUNTS, strict=True):
        utterance[count:] = padding
    x.requires_grad_()
    pooled = pooling(x, LENGTHS)
    assert torch.equal(pooled, expected)
    pooled.sum().backward()
    assert x.grad.isfinite().all()
    assert not x.grad[2, 1:].any()
    assert all(p.grad.isfinite().all() for p in pooling.parameters())


def test_no_lengths_means_no_padding(named_pooling):
    _, pooling = named_pooling
    assert torch.equal(pooling(frames()), pooling(frames(), torch.ones(3)))


def test_gradcheck(named_pooling):
    _, pooling = named_pooling
    x = frames()[:2].requires_grad_()  # a deviation of one frame has no gradient
    assert torch.autograd.gradcheck(lambda h: pooling(h, LENGTHS[:2]), (x,))


def test_one_frame_and_equal_frames_have_finite_gradients(named_pooling):
    _, pooling = named_pooling
    x = torch.ones(2, 4, 5, dtype=torch.float64, requires_grad=True)
    pooling(x, torch.tensor([1.0, 0.25])).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_neither_overflows_nor_drifts(named_pooling, dtype):
    name, _ = named_pooling
    pooling = POOLINGS.get(name)(input_size=2).to(dtype)
    x = torch.full((1, 1500, 2), 100.0, dtype=dtype)
    pooled = pooling(x)
    assert pooled.dtype == dtype
    torch.testing.assert_close(pooled[0, :2].float(), torch.tensor([100.0, 100.0]))


def test_wrong_shapes_are_refused(named_pooling):
    _, pooling = named_pooling
    with pytest.raises(ValueError, match=r"\(3, 5\)"):
        pooling(torch.ones(3, 5))
    with pytest.raises(ValueError, match=r"\(2,\)"):
        pooling(torch.ones(3, 4, 5), torch.ones(2))


def test_sizes_names_and_pickle(named_pooling):
    name, pooling = named_pooling
    again = pickle.loads(pickle.dumps(pooling))
    assert torch.equal(again(frames()), pooling(frames()))
    assert pooling.output_size == (10 if name == "statistics" else 5)


def test_pooling_without_weights_needs_no_size():
    assert MeanPooling()(frames()).shape == (3, 5)
    assert StatisticsPooling()(frames()).shape == (3, 10)
    assert SelfAttentionPooling(5).output_size == 5
