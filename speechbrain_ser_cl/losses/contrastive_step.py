"""Gradient of a large contrastive batch with the memory of a small one."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn


def contrastive_step(
    encoder: nn.Module,
    batches: Sequence[Tensor | tuple[Any, ...]],
    loss: Callable[[Tensor], Tensor],
) -> Tensor:
    """Adds the gradient of a contrastive loss over several batches together.

    First, the embeddings of all batches are computed without a graph, then the loss and
    its gradient with respect to them. Then each batch is encoded again, with a graph,
    and its part of that gradient is passed on to the parameters. The gradient equals
    that of one large batch, at the cost of one more forward pass. Both passes use the
    same random numbers (dropout) and the same buffers. Gao et al., "Scaling deep
    contrastive learning batch size under memory limited setup", arXiv:2101.06983.

    Layers that compare the rows of a batch, such as batch normalisation in training
    mode, use the small batches. For autocast, call this function within its context.

    Under ``DistributedDataParallel`` only the last batch synchronises gradients. With a
    loss that gathers, they are those of the batches of all processes. If the encoder
    has buffers, each process needs the same number of batches, because each batch
    synchronises buffers.

    Arguments
    ---------
    encoder : torch.nn.Module
        Returns embeddings (N, D). Gradients are added to its parameters' ``grad``.
    batches : sequence of torch.Tensor or tuple
        Encoder input of each batch; a tuple contains several arguments.
    loss : callable
        Converts the embeddings of all batches in order (sum of all N, D) to a scalar.
        It contains the labels: ``lambda z: supcon(z, labels)``.

    Returns
    -------
    torch.Tensor
        The loss, detached.

    Raises
    ------
    ValueError
        If there is no batch.

    Example
    -------
    >>> from speechbrain_ser_cl.losses import SupConLoss
    >>> supcon, labels = SupConLoss(), torch.tensor([0, 0, 1, 1])
    >>> encoder = nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.1))
    >>> batches = torch.randn(4, 5).split(2)
    >>> value = contrastive_step(encoder, batches, lambda z: supcon(z, labels))
    >>> encoder[0].weight.grad.shape
    torch.Size([3, 5])
    """
    if not batches:
        raise ValueError("contrastive_step needs at least one batch, found none")
    devices = {p.device for p in encoder.parameters() if p.device.type == "cuda"}
    buffers = [(buffer, buffer.clone()) for buffer in encoder.buffers()]
    states, parts = [], []
    with torch.no_grad():
        for batch in batches:
            states.append(_random_state(devices))
            parts.append(_encode(encoder, batch))
        for buffer, before in buffers:
            buffer.copy_(before)
    # Autocast caches weights that it converted in the first pass, without a graph. The
    # second pass must not use them.
    torch.clear_autocast_cache()

    z = torch.cat(parts).requires_grad_()
    value = loss(z)
    torch.autograd.backward(value)
    assert z.grad is not None

    gradients = torch.split(z.grad, [len(part) for part in parts])
    for i, (batch, part) in enumerate(zip(batches, gradients, strict=True)):
        last = i == len(batches) - 1
        _set_random_state(devices, states[i])
        with nullcontext() if last else getattr(encoder, "no_sync", nullcontext)():
            torch.autograd.backward(_encode(encoder, batch), part)
    return value.detach()


def _encode(encoder: nn.Module, batch: Tensor | tuple[Any, ...]) -> Tensor:
    z: Tensor = encoder(*batch) if isinstance(batch, tuple) else encoder(batch)
    return z


def _random_state(devices: set[torch.device]) -> tuple[Any, ...]:
    return torch.get_rng_state(), {d: torch.cuda.get_rng_state(d) for d in devices}


def _set_random_state(devices: set[torch.device], state: tuple[Any, ...]) -> None:
    on_cpu, on_devices = state
    torch.set_rng_state(on_cpu)
    for device in devices:
        torch.cuda.set_rng_state(on_devices[device], device)
