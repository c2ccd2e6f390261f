"""Joins the batches of all processes to one, with exact gradients."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _GatherRows(torch.autograd.Function):
    """Collects the rows of all processes; see :func:`gather_rows` for the gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        """Collects rows padded to equal numbers, which all_gather needs, then cuts."""
        rank = dist.get_rank()
        ctx.own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([p[:n] for p, n in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Returns this process' rows of the gradient, times the number of processes."""
        return gradient[ctx.own] * dist.get_world_size(), None


def gather_rows(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Collects the rows of all processes, in the order of their ranks.

    For a loss that every process computes on the same whole batch. The gradient of a
    process' own rows is then complete without more communication. It is multiplied by
    the number of processes, because DistributedDataParallel computes the *mean* over
    processes. So the gradient of its parameters is that of one process with the whole
    batch. Processes may have different numbers of rows, including none. Without a
    process group, or with one process, the tensors are returned unchanged.

    Arguments
    ---------
    *tensors : torch.Tensor
        Tensors (N, ...), with the same N within a process.

    Returns
    -------
    tuple of torch.Tensor
        One tensor (sum of all N, ...) per given tensor.

    Raises
    ------
    ValueError
        In every process, if row sizes differ between processes.

    Example
    -------
    >>> z, labels = gather_rows(torch.eye(2), torch.tensor([0, 1]))
    >>> z.shape  # one process
    torch.Size([2, 2])
    """
    if not (dist.is_available() and dist.is_initialized()):
        return tensors
    if dist.get_world_size() == 1:
        return tensors
    own = torch.tensor(
        [len(tensors[0]), *(t.shape[1:].numel() for t in tensors)],
        device=tensors[0].device,
    )
    shapes = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(shapes, own)
    sizes, *widths = torch.stack(shapes).T.tolist()
    for width in widths:
        if len(set(width)) > 1:
            raise ValueError(
                "embeddings to gather must have the same size D in every process, "
                f"found D = {width} on ranks 0 to {len(width) - 1}"
            )

    def gathered(rows: Tensor) -> Tensor:
        if rows.dtype == torch.bool:  # Some backends cannot send booleans.
            return gathered(rows.to(torch.uint8)).bool()
        together: Tensor = _GatherRows.apply(rows, sizes)  # type: ignore[no-untyped-call]
        return together

    return tuple(gathered(t) for t in tensors)
