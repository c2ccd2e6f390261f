"""Losses with gather=True on several gloo processes, against one with all rows.

Run as a script this file is one of the processes.
"""

import os
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn

from speechbrain_ser_cl.losses import (
    BarlowTwinsLoss,
    CCCLoss,
    CosineMarginLoss,
    InfoNCELoss,
    MoCoQueue,
    NPairLoss,
    NTXentLoss,
    PairwiseViewLoss,
    RankNContrastLoss,
    SiameseLoss,
    SmoothTripletLoss,
    SoftNearestNeighborLoss,
    SoftSupConLoss,
    SupConInLoss,
    SupConLoss,
    SupervisedNTXentLoss,
    TripletLoss,
    VICRegLoss,
    contrastive_step,
)
from speechbrain_ser_cl.losses.gather import gather_rows
from tests.processes import Process

# Rows per rank: different numbers, one rank without rows. The sum is even, for
# CosineMarginLoss.
SIZES = [5, 0, 7]

LABEL_LOSSES = [
    SupervisedNTXentLoss,
    NPairLoss,
    SupConLoss,
    SupConInLoss,
    TripletLoss,
    SmoothTripletLoss,
    SiameseLoss,
    SoftNearestNeighborLoss,
]
VIEW_LOSSES = [InfoNCELoss, NTXentLoss, BarlowTwinsLoss, VICRegLoss, CosineMarginLoss]


def label_case(kind):
    return lambda a, b, labels, gather: kind(gather=gather)(a, labels)


def view_case(kind):
    return lambda a, b, labels, gather: kind(gather=gather)(a, b)


def with_anchors(a, b, labels, gather):
    return SupervisedNTXentLoss(gather=gather)(a, labels, labels == 1)


def named_views(a, b, labels, gather):
    return PairwiseViewLoss(gather=gather)({"a": a, "b": b})


def after_a_queued_batch(a, b, labels, gather):
    loss = MoCoQueue(16, 3, gather=gather)
    loss(a, b.flip(1))
    return loss(a, b)


CASES = {
    **{kind.__name__: label_case(kind) for kind in LABEL_LOSSES},
    **{kind.__name__: view_case(kind) for kind in VIEW_LOSSES},
    "anchors": with_anchors,
    "RankNContrastLoss": lambda a, b, labels, gather: RankNContrastLoss(gather=gather)(
        a, labels.double()
    ),
    "SoftSupConLoss": lambda a, b, labels, gather: SoftSupConLoss(gather=gather)(
        a, torch.nn.functional.one_hot(labels, 3) + 0.5
    ),
    "CCCLoss": lambda a, b, labels, gather: CCCLoss(gather=gather)(a, b.detach()),
    "unknown labels": lambda a, b, labels, gather: SupConLoss(gather=gather)(
        a, labels - 1
    ),
    "PairwiseViewLoss": named_views,
    "MoCoQueue": after_a_queued_batch,
}


def encoder():
    torch.manual_seed(1)
    return nn.Linear(6, 3, dtype=torch.float64)


def one_process(rank, file):
    dist.init_process_group("gloo", f"file://{file}", rank=rank, world_size=len(SIZES))
    torch.manual_seed(0)
    x_a, x_b = torch.randn(2, sum(SIZES), 6, dtype=torch.float64)
    labels = torch.randint(0, 3, (sum(SIZES),))
    own = slice(sum(SIZES[:rank]), sum(SIZES[: rank + 1]))

    def close(name, ours, theirs):
        torch.testing.assert_close(
            ours, theirs, rtol=1e-6, atol=1e-12, msg=lambda m: f"{name}: {m}"
        )

    for name, loss in CASES.items():
        alone = encoder()
        expected = loss(alone(x_a), alone(x_b), labels, gather=False)
        expected.backward()

        together = nn.parallel.DistributedDataParallel(encoder())
        z_a, z_b = together(torch.cat([x_a[own], x_b[own]])).chunk(2)
        value = loss(z_a, z_b, labels[own], gather=True)
        value.backward()

        close(name, value, expected)
        close(name, together.module.weight.grad, alone.weight.grad)

    alone = encoder()
    SupConLoss()(alone(x_a), labels).backward()
    together = nn.parallel.DistributedDataParallel(encoder())
    supcon = SupConLoss(gather=True)
    contrastive_step(together, x_a[own].split(2), lambda z: supcon(z, labels[own]))
    close("contrastive_step", together.module.weight.grad, alone.weight.grad)
    try:
        gather_rows(torch.ones(2, 3 + rank))
    except ValueError as error:
        assert "same size D in every process" in str(error)
    else:
        raise AssertionError("different sizes were gathered")
    del together
    dist.barrier()
    dist.destroy_process_group()


def test_gradient_of_all_processes_is_that_of_one_with_the_whole_batch(tmp_path):
    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("this PyTorch has no gloo")
    processes = [
        Process([__file__, rank, tmp_path / "store"]) for rank in range(len(SIZES))
    ]
    outputs = [process.communicate()[1] for process in processes]
    failed = [o for p, o in zip(processes, outputs, strict=True) if p.returncode]
    assert not failed, failed[0]


def test_one_process_needs_no_group():
    z, labels = torch.eye(3), torch.tensor([0, 0, 1])
    assert gather_rows(z) == (z,)
    expected = SupConLoss()(z, labels)
    assert torch.equal(SupConLoss(gather=True)(z, labels), expected)


if __name__ == "__main__":
    torch.set_num_threads(1)
    one_process(int(sys.argv[1]), sys.argv[2])
    # Every check has passed; gloo's threads sometimes abort the interpreter at its end.
    os._exit(0)
