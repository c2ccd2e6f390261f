"""Removes the padding of batches.

Modules that process each frame alone, such as linear layers, get the concatenated valid
frames of all utterances, (N, D). Modules that use several frames, such as convolutions
or attention, get groups of utterances of similar length, each a small padded batch.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from speechbrain_ser_cl.nnet.lengths import steps_mask

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Cost of one more group, in frames of padding. A group needs many small operations,
# which take time on a GPU but hardly on a CPU. The number for GPUs is an estimate for
# wav2vec2-base: 750 launches of 5 µs, 2 µs per frame.
_GROUP_COST = {"cpu": 10, "cuda": 2000}
_N_LEVELS = 2**16  # of the probability of dropout on a CPU


def uncompiled(function: _Function) -> _Function:
    """Excludes a function from ``torch.compile``, because its shapes vary."""
    kept: _Function = torch.compiler.disable(function)
    return kept


def recomputed(function: Callable[..., Tensor], *arguments: object) -> Tensor:
    """Computes a function and recomputes its intermediate values in the backward pass.

    Only the arguments are stored. In the backward pass the function runs again, until
    the last tensor that a gradient needs; a linear layer or convolution at its end does
    not run again.

    Example
    -------
    >>> layer = torch.nn.Linear(4, 4)
    >>> x = torch.randn(2, 4, requires_grad=True)
    >>> torch.equal(recomputed(lambda x: layer(F.gelu(x)), x), layer(F.gelu(x)))
    True
    """
    # A compiler decides itself what is stored.
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return function(*arguments)
    value: Tensor = checkpoint(function, *arguments, use_reentrant=False)
    return value


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """Sets a fraction of the elements to 0 and scales up the others.

    On a CPU four elements share a random number, 16 bits each, and p is rounded to a
    multiple of 1 / 65536. torch draws a number per element, which takes a tenth of a
    training step.

    Arguments
    ---------
    x : torch.Tensor
        Tensor of any shape.
    p : float
        Fraction, from 0 to 1.
    training : bool
        False: x is returned unchanged.

    Returns
    -------
    torch.Tensor
        Same shape as x, with the same expected value.

    Example
    -------
    >>> sorted(set(dropout(torch.ones(100), 0.5).tolist()))
    [0.0, 2.0]
    """
    if not training or p == 0:
        return x
    level = round(p * _N_LEVELS)
    if not x.is_cpu or torch.compiler.is_compiling() or level in (0, _N_LEVELS):
        return F.dropout(x, p)
    x = x.masked_fill(_drawn(x, level), 0)
    return x.mul_(_N_LEVELS / (_N_LEVELS - level))


def _drawn(x: Tensor, level: int) -> Tensor:
    """Draws elements with probability level / 65536."""
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = bits.view(torch.int16)[: x.numel()].view(x.shape)
    return bits <= level - _N_LEVELS // 2 - 1


def masked_group_norm(x: Tensor, counts: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Normalises each channel over the valid steps only (GroupNorm, one group each).

    Arguments
    ---------
    x : torch.Tensor
        Batch (B, C, T): utterances, channels, steps.
    counts : torch.Tensor
        Number of valid steps per utterance (B,).
    norm : torch.nn.GroupNorm
        Norm with as many groups as channels.

    Returns
    -------
    torch.Tensor
        (B, C, T), in the type of x; the valid steps equal ``norm`` of these steps
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
    """A group of utterances of similar length.

    Arguments
    ---------
    rows : list of int
        Indices of the utterances in the batch.
    counts : list of int
        Number of valid steps of each.
    device : torch.device
        Device of the tensors.

    Attributes
    ----------
    n_steps : int
        Number of steps t of the longest utterance.
    size : int
        Number of valid steps of all utterances.
    mask : torch.Tensor or None
        Valid steps (n, t). None: all are valid.

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
        """Converts concatenated steps (size, …) to a batch (n, t, …) padded with 0."""
        if self.mask is not None:
            rows = x.new_zeros(self.mask.numel(), *x.shape[1:])
            x = rows.index_copy(0, self._index, x)
        return x.view(len(self.rows), self.n_steps, *x.shape[1:])

    def valid(self, x: Tensor) -> Tensor:
        """Concatenates the valid steps of a batch (n, t, …) to (size, …)."""
        x = x.flatten(0, 1)
        return x if self.mask is None else x.index_select(0, self._index)


class Packing:
    """Positions of the valid frames of a padded batch, sorted by utterance length.

    Arguments
    ---------
    counts : sequence of int
        Number of valid frames of each utterance, at least 1.
    n_steps : int
        Number of frames T' of the padded batch.
    device : torch.device
        Device of the tensors.
    group_cost : int, optional
        Number of padding frames that one more group must save. 0: a group per
        utterance. None: depends on the device.

    Attributes
    ----------
    counts : list of int
        Number of valid frames of each utterance.
    rows : list of int
        Indices of the utterances in the batch, in the order of their frames.
    groups : list of Group
        Groups, shortest utterances first.

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
        """Concatenates the valid frames of a batch (B, T', D) to (N, D)."""
        x = x.flatten(0, 1)
        return x if self._index is None else x.index_select(0, self._index)

    @uncompiled
    def unpack(self, x: Tensor) -> Tensor:
        """Converts frames (N, D) to a batch (B, T', D) padded with 0."""
        if self._index is not None:
            rows = x.new_zeros(self.shape[0] * self.shape[1], x.shape[1])
            x = rows.index_copy(0, self._index, x)
        return x.view(*self.shape, x.shape[1])

    def by_group(self, *tensors: Tensor | None) -> Iterator[tuple[Any, ...]]:
        """Yields each group with its part of each tensor (N, …)."""
        sizes = [group.size for group in self.groups]
        parts = [repeat(None) if x is None else x.split(sizes) for x in tensors]
        return zip(self.groups, *parts, strict=False)

    @uncompiled
    def map_padded(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Applies a function on zero-padded batches (n, t, D) to frames (N, D)."""
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

        Scores, H × t × t values per utterance, are not stored for the gradient. A CPU
        stores the weights if there is ``p`` or ``gates``.

        Arguments
        ---------
        queries, keys, values : torch.Tensor
            (N, H, D / H).
        p : float
            Dropout probability of the attention weights.
        gates : torch.Tensor, optional
            Value per query from which its bias is computed (N, H, …).
        biases : sequence of callable, optional
            With ``gates``: for each group a function from its gates, padded (n, t, H,
            …), to a bias that is added to the scores (n, H, t, t).

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
        run = _called if gates is None or queries.is_cpu else recomputed
        parts = self.by_group(queries, keys, values, gates)
        return torch.cat(
            [
                run(_attention, *part, bias, p)
                for part, bias in zip(parts, biases or repeat(None), strict=False)
            ]
        )


def _called(function: Callable[..., Tensor], *arguments: object) -> Tensor:
    """Computes a function; what :func:`recomputed` is without recomputation."""
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
    added = None
    if bias is not None and gates is not None:
        added = bias(group.padded(gates)).to(q.dtype)
    learns = torch.is_grad_enabled() and not torch.compiler.is_exporting()
    if q.is_cpu and (p > 0 or (added is not None and learns)):
        y: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
            q, k, v, added, mask, p
        )
    else:
        if added is not None:
            mask = added if mask is None else added.masked_fill(~mask, -torch.inf)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
    return group.valid(y.transpose(1, 2)).flatten(1)


class _Attention(torch.autograd.Function):
    """Computes attention by its formula, for CPUs, where torch has no fused kernel.

    For the backward pass it stores two tensors of size t × t: the weights, and which of
    them were dropped.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        added: Tensor | None,
        mask: Tensor | None,
        p: float,
    ) -> Tensor:
        """Attends (n, H, t, d), with a bias of the scores and a mask of valid keys."""
        with torch.autocast("cpu", enabled=False):
            # Products would copy them in both passes.
            q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
            scores = (q * q.shape[-1] ** -0.5) @ k.mT
            if added is not None:
                scores += added
            if mask is not None:
                scores.masked_fill_(~mask, -torch.inf)
            weights = kept = scores.softmax(-1)
            dropped = None
            ctx.factor = 1.0
            level = round(p * _N_LEVELS)  # as in dropout
            if level > 0:
                dropped = _drawn(weights, level)
                kept = weights.masked_fill(dropped, 0)
                ctx.factor = _N_LEVELS / (_N_LEVELS - level) if level < _N_LEVELS else 0
            ctx.save_for_backward(q, k, v, weights, dropped)
            ctx.gated = added is not None
            attended: Tensor = kept @ v
            return attended.mul_(ctx.factor) if level > 0 else attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradients of q, k, v and of the bias."""
        q, k, v, weights, dropped = ctx.saved_tensors
        outer = outer * ctx.factor
        kept, of_weights = weights, outer @ v.mT
        if dropped is not None:
            kept = weights.masked_fill(dropped, 0)
            of_weights.masked_fill_(dropped, 0)
        of_v = kept.mT @ outer
        of_scores = torch.ops.aten._softmax_backward_data(
            of_weights, weights, -1, weights.dtype
        )
        scale = q.shape[-1] ** -0.5
        of_q, of_k = (of_scores @ k) * scale, of_scores.mT @ (q * scale)
        return of_q, of_k, of_v, of_scores if ctx.gated else None, None, None


def _cheapest_groups(counts: list[int], group_cost: int) -> list[tuple[int, int]]:
    """Divides sorted counts into runs, so that padding plus cost of groups is least."""
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
