"""One batch out of the batches of all processes, exact for gradients too."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _GatherRows(torch.autograd.Function):
    """Rows of every process; see :func:`gather_rows` for the gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        """Collects all rows: padded to one size for the collective, then cut again."""
        rank = dist.get_rank()
        ctx.own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([p[:n] for p, n in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Gives this process' rows of the gradient, times the number of processes."""
        return gradient[ctx.own] * dist.get_world_size(), None


def gather_rows(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Collects the rows of all processes, in the order of their ranks.

    Meant for a loss that every process then computes on the same whole batch.
    The gradient with respect to a process's own rows is then complete without
    any more communication. It comes back multiplied by the number of processes,
    because DistributedDataParallel takes the *mean* over processes: the
    gradient of its parameters is that of one process with the whole batch. The
    processes may hold different numbers of rows, also none. Without a process
    group, or with one process, the tensors come back as they are.

    Arguments
    ---------
    *tensors : torch.Tensor
        Tensors (N, ...), all with the same N in one process.

    Returns
    -------
    tuple of torch.Tensor
        One tensor (sum of all N, ...) for each one given.

    Raises
    ------
    ValueError
        In every process, if the rows of two processes differ in size.

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
        if rows.dtype == torch.bool:  # Not every backend sends booleans.
            return gathered(rows.to(torch.uint8)).bool()
        together: Tensor = _GatherRows.apply(rows, sizes)  # type: ignore[no-untyped-call]
        return together

    return tuple(gathered(t) for t in tensors)
