"""Relative lengths are converted back to the counts that they were made from."""

import pytest
import torch

from speechbrain_ser_cl.nnet import length_mask, valid_counts


@pytest.mark.parametrize("n_steps", [1, 2, 3, 49, 1499, 16000, 544000])
def test_a_relative_length_gives_its_count_back(n_steps):
    counts = torch.arange(1, n_steps + 1)
    lengths = counts.float() / n_steps
    assert torch.equal(valid_counts(lengths, n_steps), counts)


def test_every_count_of_every_padded_length_up_to_300():
    for n_steps in range(1, 301):
        counts = torch.arange(1, n_steps + 1)
        mask = length_mask(counts / n_steps, n_steps)
        assert torch.equal(mask.sum(dim=1), counts)
        assert torch.equal(mask, mask.sort(dim=1, descending=True).values)


def test_even_a_length_near_zero_has_one_step():
    assert valid_counts(torch.tensor([1e-6]), 100).item() == 1
