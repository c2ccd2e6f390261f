"""Batches without their padding.

What treats every frame by itself, such as a linear layer, is given the valid frames of
all utterances one after the other, (N, D). What looks along time, such as a convolution
or attention, is given groups of utterances of like length, each a small padded batch.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from speechbrain_ser_cl.nnet.lengths import steps_mask

_Function = TypeVar("_Function", bound=Callable[..., Any])

# What one more group costs, in frames of padding that cost as much: a group is many
# small operations, which a GPU waits for and a CPU does not. The number for GPUs is an
# estimate for wav2vec2-base: 750 launches of 5 µs, 2 µs for a frame.
_GROUP_COST = {"cpu": 10, "cuda": 2000}


def uncompiled(function: _Function) -> _Function:
    """Lets ``torch.compile`` run a function as it is, whose shapes differ each time."""
    kept: _Function = torch.compiler.disable(function)
    return kept


def recomputed(function: Callable[..., Tensor], *arguments: object) -> Tensor:
    """Computes a function; what its gradient needs is computed again, not kept.

    Only the arguments are kept. In the backward pass the function runs again, up to
    where the last tensor that a gradient needs is there: a linear layer or convolution
    at its end does not run again.

    Example
    -------
    >>> layer = torch.nn.Linear(4, 4)
    >>> x = torch.randn(2, 4, requires_grad=True)
    >>> torch.equal(recomputed(lambda x: layer(F.gelu(x)), x), layer(F.gelu(x)))
    True
    """
    # A compiler decides on its own what it keeps.
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return function(*arguments)
    value: Tensor = checkpoint(function, *arguments, use_reentrant=False)
    return value


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """Sets a share of the elements to 0 and scales up the others.

    On a CPU four elements share a random number, 16 bits each, where torch draws one
    for each: that takes as long as a tenth of a training step. There p is rounded to a
    multiple of 1 / 65536.

    Arguments
    ---------
    x : torch.Tensor
        Of any shape.
    p : float
        Share, from 0 to 1.
    training : bool
        False: x as it is.

    Returns
    -------
    torch.Tensor
        Of the shape of x; its mean is the mean of x.

    Example
    -------
    >>> sorted(set(dropout(torch.ones(100), 0.5).tolist()))
    [0.0, 2.0]
    """
    if not training or p == 0:
        return x
    n_levels = 2**16
    level = round(p * n_levels)
    if not x.is_cpu or torch.compiler.is_compiling() or level in (0, n_levels):
        return F.dropout(x, p)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = bits.view(torch.int16)[: x.numel()].view(x.shape)
    x = x.masked_fill(bits < level - n_levels // 2, 0)
    return x.mul_(n_levels / (n_levels - level))


def masked_group_norm(x: Tensor, counts: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Normalises each channel over the valid steps only (GroupNorm, a group each).

    Arguments
    ---------
    x : torch.Tensor
        Batch, channels, steps (B, C, T).
    counts : torch.Tensor
        Valid steps of each (B,).
    norm : torch.nn.GroupNorm
        With as many groups as channels.

    Returns
    -------
    torch.Tensor
        (B, C, T), of the type of x, in the valid steps what ``norm`` gives of these
        alone.

    Example
    -------
    >>> x, norm = torch.randn(2, 3, 8), nn.GroupNorm(3, 3)
    >>> y = masked_group_norm(x, torch.tensor([8, 5]), norm)
    >>> torch.allclose(y[1:, :, :5], norm(x[1:, :, :5]), atol=1e-5)
    True
    """
    dtype, x = x.dtype, x.float()
    padding = ~steps_mask(counts, x.shape[2]).unsqueeze(1)
    n = counts[:, None, None]
    mean = x.masked_fill(padding, 0).sum(2, keepdim=True) / n
    squares = (x - mean).square().masked_fill(padding, 0)
    variance = squares.sum(2, keepdim=True) / n
    scale = norm.weight[:, None] * (variance + norm.eps).rsqrt()
    return torch.addcmul(norm.bias[:, None] - mean * scale, x, scale).to(dtype)


class Group:
    """Utterances of like length.

    Arguments
    ---------
    rows : list of int
        Where they are in the batch.
    counts : list of int
        Valid steps of each.
    device : torch.device
        Of the tensors.

    Attributes
    ----------
    n_steps : int
        Steps t of the longest.
    size : int
        Valid steps of all.
    mask : torch.Tensor or None
        Valid steps (n, t); None: all are.

    Example
    -------
    >>> group = Group([0, 1], [2, 1], torch.device("cpu"))
    >>> padded = group.padded(torch.tensor([[1.0], [2.0], [3.0]]))
    >>> padded.squeeze(-1)
    tensor([[1., 2.],
            [3., 0.]])
    >>> group.valid(padded).squeeze(-1)
    tensor([1., 2., 3.])
    """

    def __init__(
        self, rows: list[int], counts: list[int], device: torch.device
    ) -> None:
        self.rows = rows
        self.n_steps = max(counts)
        self.size = sum(counts)
        self.mask = None
        if min(counts) < self.n_steps:
            mask = steps_mask(torch.tensor(counts), self.n_steps)
            self._index = mask.flatten().nonzero().squeeze(1).to(device)
            self.mask = mask.to(device)

    def padded(self, x: Tensor) -> Tensor:
        """Steps one after the other (size, …) as a batch (n, t, …), padding is 0."""
        if self.mask is not None:
            rows = x.new_zeros(self.mask.numel(), *x.shape[1:])
            x = rows.index_copy(0, self._index, x)
        return x.view(len(self.rows), self.n_steps, *x.shape[1:])

    def valid(self, x: Tensor) -> Tensor:
        """Joins the valid steps of a batch (n, t, …) to one sequence (size, …)."""
        x = x.flatten(0, 1)
        return x if self.mask is None else x.index_select(0, self._index)


class Packing:
    """Where the valid frames of a padded batch are, sorted by the utterances' length.

    Arguments
    ---------
    counts : sequence of int
        Valid frames of each utterance, at least 1.
    n_steps : int
        Frames T' of the padded batch.
    device : torch.device
        Of the tensors.
    group_cost : int, optional
        A group more is worth this many frames of padding less: 0 makes a group of each
        utterance. None: by the device.

    Attributes
    ----------
    counts : list of int
        Valid frames of each utterance.
    rows : list of int
        The utterances' places in the batch, in the order in which their frames are.
    groups : list of Group
        Shortest first.

    Example
    -------
    >>> packing = Packing([3, 1, 3], 4, torch.device("cpu"), group_cost=1)
    >>> [group.rows for group in packing.groups]
    [[1], [0, 2]]
    >>> x = packing.pack(torch.randn(3, 4, 8))
    >>> x.shape
    torch.Size([7, 8])
    >>> packing.unpack(x).shape
    torch.Size([3, 4, 8])
    """

    def __init__(
        self,
        counts: Sequence[int],
        n_steps: int,
        device: torch.device,
        group_cost: int | None = None,
    ) -> None:
        if group_cost is None:
            group_cost = _GROUP_COST.get(device.type, _GROUP_COST["cuda"])
        self.shape = (len(counts), n_steps)
        self.counts = list(counts)
        self.rows = order = sorted(range(len(counts)), key=counts.__getitem__)
        in_order = [counts[row] for row in order]
        self.groups = [
            Group(order[start:stop], in_order[start:stop], device)
            for start, stop in _cheapest_groups(in_order, group_cost)
        ]
        self._index = None
        if min(counts) < n_steps:
            index = [torch.arange(counts[row]) + row * n_steps for row in order]
            self._index = torch.cat(index).to(device)

    def pack(self, x: Tensor) -> Tensor:
        """Joins the valid frames of a batch (B, T', D) to one sequence (N, D)."""
        x = x.flatten(0, 1)
        return x if self._index is None else x.index_select(0, self._index)

    @uncompiled
    def unpack(self, x: Tensor) -> Tensor:
        """Frames (N, D) as a batch (B, T', D), padding is 0."""
        if self._index is not None:
            rows = x.new_zeros(self.shape[0] * self.shape[1], x.shape[1])
            x = rows.index_copy(0, self._index, x)
        return x.view(*self.shape, x.shape[1])

    def by_group(self, *tensors: Tensor | None) -> Iterator[tuple[Any, ...]]:
        """Yields each group, with its part of each tensor (N, …)."""
        sizes = [group.size for group in self.groups]
        parts = [repeat(None) if x is None else x.split(sizes) for x in tensors]
        return zip(self.groups, *parts, strict=False)

    @uncompiled
    def map_padded(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Applies a function of batches (n, t, D), with zeros as padding, to (N, D)."""
        return torch.cat(
            [group.valid(function(group.padded(x))) for group, x in self.by_group(x)]
        )

    @uncompiled
    def attention(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        p: float = 0.0,
        gates: Tensor | None = None,
        biases: Sequence[Callable[[Tensor], Tensor]] | None = None,
    ) -> Tensor:
        """Computes softmax self-attention of each utterance, by fused kernels.

        Scores that a kernel would keep for its gradient, which are of size H × t × t
        for each utterance, are computed again in the backward pass.

        Arguments
        ---------
        queries, keys, values : torch.Tensor
            (N, H, D / H).
        p : float
            Share of the attention weights that are set to 0.
        gates : torch.Tensor, optional
            What each query brings along for what is added to its scores (N, H, …).
        biases : sequence of callable, optional
            With ``gates``: for each group a function of its gates, padded (n, t, H, …),
            to what is added to the scores (n, H, t, t).

        Returns
        -------
        torch.Tensor
            (N, D).

        Example
        -------
        >>> packing = Packing([3, 1], 3, torch.device("cpu"))
        >>> x = torch.randn(4, 2, 8)
        >>> packing.attention(x, x, x).shape
        torch.Size([4, 16])
        """
        keeps_scores = gates is not None or (p > 0 and queries.is_cpu)
        run = recomputed if keeps_scores else _called
        parts = self.by_group(queries, keys, values, gates)
        return torch.cat(
            [
                run(_attention, *part, bias, p)
                for part, bias in zip(parts, biases or repeat(None), strict=False)
            ]
        )


def _called(function: Callable[..., Tensor], *arguments: object) -> Tensor:
    return function(*arguments)


def _attention(
    group: Group,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    gates: Tensor | None,
    bias: Callable[[Tensor], Tensor] | None,
    p: float,
) -> Tensor:
    q, k, v = (group.padded(x).transpose(1, 2) for x in (queries, keys, values))
    mask = None if group.mask is None else group.mask[:, None, None, :]
    if bias is not None and gates is not None:
        scores = bias(group.padded(gates))
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        mask = scores.to(q.dtype)
    if p > 0 and q.is_cpu:
        y = _attention_with_dropout(q, k, v, mask, p)
    else:
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
    return group.valid(y.transpose(1, 2)).flatten(1)


def _attention_with_dropout(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float
) -> Tensor:
    """Computes attention by its formula: torch has no CPU kernel with dropout."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -torch.inf)
    elif mask is not None:
        scores = scores + mask
    return dropout(scores.softmax(-1), p).to(v.dtype) @ v


def _cheapest_groups(counts: list[int], group_cost: int) -> list[tuple[int, int]]:
    """Cuts ascending counts into runs with the least padding plus cost of groups."""
    cost, starts = [0], []
    for stop, longest in enumerate(counts, start=1):
        best = min(
            (cost[start] + group_cost + (stop - start) * longest, start)
            for start in range(stop)
        )
        cost.append(best[0])
        starts.append(best[1])
    groups: list[tuple[int, int]] = []
    stop = len(counts)
    while stop > 0:
        groups.insert(0, (starts[stop - 1], stop))
        stop = starts[stop - 1]
    return groups
