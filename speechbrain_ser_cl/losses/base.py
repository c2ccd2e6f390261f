"""What the losses share: checks of the input, unit vectors, tiles of anchors."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from speechbrain_ser_cl.losses.gather import gather_rows

# Takes anchors (A, D), batch (N, D), positives and negatives (A, N).
AnchorTerms = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def check_above_zero(name: str, value: float) -> None:
    """Refuses a value that is not a finite number above 0.

    Arguments
    ---------
    name : str
        What the value is, for the message.
    value : float
        The value.

    Raises
    ------
    ValueError
        If it is 0, negative, NaN or infinite.

    Example
    -------
    >>> check_above_zero("temperature", 0)
    Traceback (most recent call last):
    ...
    ValueError: temperature must be a finite number above 0, found 0
    """
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number above 0, found {value}")


def check_embeddings(name: str, embeddings: Tensor) -> None:
    """Refuses what is not a matrix of floating-point numbers.

    Arguments
    ---------
    name : str
        What the embeddings are, for the message.
    embeddings : torch.Tensor
        Should be (N, D).

    Raises
    ------
    ValueError
        If they are not (N, D) with D of at least 1, or of an integer type.

    Example
    -------
    >>> check_embeddings("embeddings", torch.ones(3))
    Traceback (most recent call last):
    ...
    ValueError: embeddings must be (N, D) of a floating-point type, found (3,) ...
    """
    matrix = embeddings.dim() == 2 and embeddings.shape[1] > 0
    if not (matrix and embeddings.is_floating_point()):
        raise ValueError(
            f"{name} must be (N, D) of a floating-point type, found "
            f"{tuple(embeddings.shape)} of {embeddings.dtype}"
        )


def check_pair(names: str, first: Tensor, second: Tensor) -> None:
    """Refuses two sets of embeddings that cannot be compared.

    Arguments
    ---------
    names : str
        What the two are, for the message.
    first, second : torch.Tensor
        Should be (N, D) and (M, D), on one device.

    Raises
    ------
    ValueError
        If one is not a matrix of floating-point numbers, or D or the device
        differ.

    Example
    -------
    >>> check_pair("z_a and z_b", torch.ones(4, 3), torch.ones(4, 2))
    Traceback (most recent call last):
    ...
    ValueError: z_a and z_b must have the same size D, found (4, 3) and (4, 2)
    """
    check_embeddings(names, first)
    check_embeddings(names, second)
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"{names} must have the same size D, found {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )
    if first.device != second.device:
        raise ValueError(
            f"{names} must be on one device, found {first.device} and {second.device}"
        )


def check_some(names: str, *tensors: Tensor) -> None:
    """Refuses an empty batch.

    Arguments
    ---------
    names : str
        What the tensors are, for the message.
    *tensors : torch.Tensor
        Their first dimension counts.

    Raises
    ------
    ValueError
        If one has no row.

    Example
    -------
    >>> check_some("source and target", torch.ones(2, 3), torch.ones(0, 3))
    Traceback (most recent call last):
    ...
    ValueError: source and target: expected at least one row, found shapes ...
    """
    if not all(len(t) for t in tensors):
        raise ValueError(
            f"{names}: expected at least one row, found shapes "
            f"{', '.join(str(tuple(t.shape)) for t in tensors)}"
        )


def widen(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors in one type of at least float32.

    Arguments
    ---------
    *tensors : torch.Tensor
        Of any floating-point types.

    Returns
    -------
    tuple of torch.Tensor
        In float64 if one of them is float64, else in float32.

    Example
    -------
    >>> [z.dtype for z in widen(torch.ones(2).half(), torch.ones(2).bfloat16())]
    [torch.float32, torch.float32]
    """
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(t.to(dtype) for t in tensors)


def unit(z: Tensor) -> Tensor:
    """Rows of length 1.

    Unlike ``torch.nn.functional.normalize``, whose gradient at a zero vector is
    multiplied by 1e12, a zero vector stays 0 and hands its gradient on as it is.
    Squares of very large or small numbers do not overflow or vanish.

    Arguments
    ---------
    z : torch.Tensor
        Embeddings (N, D).

    Returns
    -------
    torch.Tensor
        The same over their Euclidean length, (N, D).

    Example
    -------
    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    # The largest number of each row becomes 1. It cancels out: no gradient.
    largest = z.detach().abs().amax(dim=1, keepdim=True)
    z = z / largest.masked_fill(largest < torch.finfo(z.dtype).tiny, 1)
    length = torch.linalg.vector_norm(z, dim=1, keepdim=True)
    return z / length.masked_fill(length == 0, 1)


def zero_or_nan(z: Tensor) -> Tensor:
    """0 with a graph; NaN if the embeddings hold NaN or infinity.

    Added to a loss it keeps ``backward()`` possible where no pair took part, and
    keeps masks from hiding a broken embedding.

    Arguments
    ---------
    z : torch.Tensor
        Embeddings of any shape.

    Returns
    -------
    torch.Tensor
        A scalar.

    Example
    -------
    >>> zero_or_nan(torch.ones(2, 2)), zero_or_nan(torch.tensor([1.0, torch.inf]))
    (tensor(0.), tensor(nan))
    """
    return (0 * z).sum()


def masked_logsumexp(values: Tensor, mask: Tensor) -> Tensor:
    """Log-sum-exp along rows over the entries that a mask names.

    Arguments
    ---------
    values : torch.Tensor
        A matrix (A, N).
    mask : torch.Tensor
        Booleans (A, N).

    Returns
    -------
    torch.Tensor
        (A,). A row without any entry gives a huge negative number and no
        gradient; -infinity would give a gradient of NaN.

    Example
    -------
    >>> mask = torch.tensor([[True, True, False]])
    >>> masked_logsumexp(torch.zeros(1, 3), mask)  # log 2
    tensor([0.6931])
    """
    lowest = torch.finfo(values.dtype).min
    sums = values.masked_fill(~mask, lowest).logsumexp(dim=1)
    return sums.masked_fill(~mask.any(dim=1), lowest)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean along rows over the entries that a mask names.

    Arguments
    ---------
    values : torch.Tensor
        A matrix (A, N).
    mask : torch.Tensor
        Booleans (A, N).

    Returns
    -------
    torch.Tensor
        (A,), 0 in a row without any entry.

    Example
    -------
    >>> mask = torch.tensor([[True, True, False], [False, False, False]])
    >>> masked_mean(torch.tensor([[1.0, 2.0, 9.0], [1.0, 2.0, 9.0]]), mask)
    tensor([1.5000, 0.0000])
    """
    sums = values.masked_fill(~mask, 0).sum(dim=1)
    return sums / mask.sum(dim=1).clamp(min=1)


def sum_where(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and number of the values that a mask names.

    Arguments
    ---------
    values : torch.Tensor
        Numbers.
    mask : torch.Tensor
        Booleans of the same shape.

    Returns
    -------
    total, count : torch.Tensor
        Two scalars.

    Example
    -------
    >>> sum_where(torch.tensor([1.0, 2.0]), torch.tensor([False, True]))
    (tensor(2.), tensor(1))
    """
    return values.masked_fill(~mask, 0).sum(), mask.sum()


def pack(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The columns that each row of a mask names, moved to the left.

    Arguments
    ---------
    mask : torch.Tensor
        Booleans (A, N).

    Returns
    -------
    columns : torch.Tensor
        (A, K), K the most that a row names; 0 where a row names fewer.
    valid : torch.Tensor
        Booleans (A, K): False where a row names fewer.

    Example
    -------
    >>> pack(torch.tensor([[True, False, True], [False, True, False]]))
    (tensor([[0, 2],
            [1, 0]]), tensor([[ True,  True],
            [ True, False]]))
    """
    counts = mask.sum(dim=1, keepdim=True)
    widest = int(counts.max()) if len(counts) else 0
    valid = torch.arange(widest, device=mask.device) < counts
    columns = torch.zeros(valid.shape, dtype=torch.long, device=mask.device)
    columns[valid] = mask.nonzero()[:, 1]
    return columns, valid


class _SumOfTiles(torch.autograd.Function):
    """Sum over tiles of anchors; the gradient is added up on the way, tile by tile."""

    @staticmethod
    def forward(ctx, of_tile, tiles, z: Tensor, *parameters: Tensor):
        """Total and count of all tiles."""
        z = z.detach().requires_grad_()
        gradients = [torch.zeros_like(t) for t in (z, *parameters)]
        totals, counts = [], []
        for rows in tiles:
            with torch.enable_grad():
                total, count = of_tile(z, rows)
            parts = torch.autograd.grad(total, (z, *parameters), allow_unused=True)
            for gradient, part in zip(gradients, parts, strict=True):
                if part is not None:
                    gradient += part
            totals.append(total.detach())
            counts.append(count)
        ctx.save_for_backward(*gradients)
        count = torch.stack(counts).sum()
        ctx.mark_non_differentiable(count)
        return torch.stack(totals).sum(), count

    @staticmethod
    @once_differentiable
    def backward(ctx, outer: Tensor, _):
        """Scales the gradients that the forward pass has left."""
        return None, None, *(outer * gradient for gradient in ctx.saved_tensors)


def sum_over_anchors(
    terms: AnchorTerms,
    z: Tensor,
    labels: Tensor,
    anchors: Tensor | None = None,
    tile: int = 2**24,
    parameters: Iterable[Tensor] = (),
) -> tuple[Tensor, Tensor]:
    """Adds up what each anchor gives, a tile of anchors at a time.

    A batch that needs more than one tile has its gradient computed along with the
    sum, so that memory is that of one tile, linear in N. That gradient cannot be
    differentiated again.

    Arguments
    ---------
    terms : callable
        Takes anchors (A, D), the batch (N, D) and two boolean masks (A, N): an
        anchor's positives (its label, not itself) and negatives (other labels).
        Gives a sum over these anchors and how much it counts, two scalars.
    z : torch.Tensor
        The batch (N, D).
    labels : torch.Tensor
        Its labels (N,).
    anchors : torch.Tensor or None
        Booleans (N,): which rows are anchors. None: all.
    tile : int
        The most elements of a matrix between anchors and batch, if the batch is
        no longer than that.
    parameters : iterable of torch.Tensor
        What else ``terms`` computes with and is learned, such as a temperature.

    Returns
    -------
    total, count : torch.Tensor
        The sums over all anchors.

    Example
    -------
    >>> def pairs(anchors, z, positives, negatives):
    ...     return (anchors @ z.T * positives).sum(), positives.sum()
    >>> sum_over_anchors(pairs, torch.ones(4, 2), torch.tensor([0, 0, 0, 1]))
    (tensor(12.), tensor(6))
    """
    columns = torch.arange(len(z), device=z.device)
    rows = columns if anchors is None else anchors.nonzero().squeeze(1)

    def of_tile(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        same = labels[rows, None] == labels
        other = rows[:, None] != columns
        return terms(z.index_select(0, rows), z, same & other, ~same)

    tiles = rows.split(max(1, tile // len(z)))
    if len(tiles) == 1:
        return of_tile(z, rows)
    learned = [t for t in parameters if t.requires_grad]
    if torch.is_grad_enabled() and (z.requires_grad or learned):
        return _SumOfTiles.apply(of_tile, tiles, z, *learned)
    totals, counts = zip(*(of_tile(z, part) for part in tiles), strict=True)
    return torch.stack(totals).sum(), torch.stack(counts).sum()


class LabelLoss(nn.Module):
    """Base of the losses that compare embeddings by their labels.

    A subclass has a method ``anchor_terms``, see :func:`sum_over_anchors`; its
    loss is the total over the count. A subclass whose ``anchor_terms`` holds
    many matrices (A, N) may set a smaller ``tile``, the elements of one of them:
    2**24 is 64 MB in float32, and all of N = 4096 at once.

    Arguments
    ---------
    normalize : bool
        Scale embeddings to length 1 first, so that dot products are cosines.
    gather : bool
        Compare across all processes, see :func:`~.gather.gather_rows`.

    Example
    -------
    >>> class Nearness(LabelLoss):
    ...     def anchor_terms(self, anchors, z, positives, negatives):
    ...         return sum_where(1 - anchors @ z.T, positives)
    >>> loss = Nearness()
    >>> loss(torch.eye(3), torch.tensor([0, 0, 1])).item()
    1.0
    """

    tile = 2**24

    def __init__(self, normalize: bool = True, gather: bool = False) -> None:
        super().__init__()
        self.normalize = normalize
        self.gather = gather

    def forward(
        self, embeddings: Tensor, labels: Tensor, anchors: Tensor | None = None
    ) -> Tensor:
        """Computes the loss of a batch.

        Arguments
        ---------
        embeddings : torch.Tensor
            (N, D), of any floating-point type.
        labels : torch.Tensor
            Integers (N,) or (N, 1). Several views of one utterance are rows with
            the same label.
        anchors : torch.Tensor or None
            Booleans (N,): the rows that look for their positives. The others are
            still positives and negatives. None: every row is an anchor.

        Returns
        -------
        torch.Tensor
            The loss, a scalar in float32 (float64 for float64 embeddings). 0
            that can be differentiated where nothing can be compared; NaN if an
            embedding holds NaN or infinity.

        Raises
        ------
        ValueError
            If shapes, types or devices do not fit, or the batch is empty.
        """
        check_embeddings("embeddings", embeddings)
        if labels.is_floating_point() or labels.is_complex():
            raise ValueError(f"labels must be integers, found {labels.dtype}")
        labels = labels.long()
        rows = [labels.squeeze(1) if labels.shape[1:] == (1,) else labels]
        if anchors is not None:
            if anchors.dtype != torch.bool:
                raise ValueError(f"anchors must be booleans, found {anchors.dtype}")
            rows.append(anchors)
        for name, row in zip(("labels", "anchors"), rows, strict=False):
            if row.shape != embeddings.shape[:1]:
                raise ValueError(
                    f"{name} must be one for each of the {len(embeddings)} "
                    f"embeddings, found shape {tuple(row.shape)}"
                )
            if row.device != embeddings.device:
                raise ValueError(
                    f"{name} and embeddings must be on one device, found "
                    f"{row.device} and {embeddings.device}"
                )
        with torch.autocast(embeddings.device.type, enabled=False):
            (z,) = widen(embeddings)
            if self.normalize:
                z = unit(z)
            if self.gather:
                z, *rows = gather_rows(z, *rows)
            check_some("embeddings", z)
            total, count = sum_over_anchors(
                self.anchor_terms,
                z,
                *rows,
                tile=self.tile,
                parameters=self.parameters(),
            )
            return total / count.clamp(min=1) + zero_or_nan(z)

    def anchor_terms(
        self, anchors: Tensor, z: Tensor, positives: Tensor, negatives: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What some of the anchors add to the loss; each subclass has its own.

        Arguments
        ---------
        anchors : torch.Tensor
            Embeddings of some anchors (A, D).
        z : torch.Tensor
            The batch (N, D).
        positives, negatives : torch.Tensor
            Booleans (A, N).

        Returns
        -------
        total, count : torch.Tensor
            Two scalars: a sum, and by how much it is to be divided.
        """
        raise NotImplementedError


class ViewLoss(nn.Module):
    """Base of the losses between two views of the same utterances.

    A subclass has a method ``compare(z_a, z_b)`` that gives the loss.

    Arguments
    ---------
    normalize : bool
        Scale embeddings to length 1 first, so that dot products are cosines.
    gather : bool
        Compare across all processes, see :func:`~.gather.gather_rows`.

    Example
    -------
    >>> class Apart(ViewLoss):
    ...     def compare(self, z_a, z_b):
    ...         return 1 - (z_a * z_b).sum(dim=1).mean()
    >>> loss = Apart()
    >>> loss(torch.eye(3), 2 * torch.eye(3)).item()
    0.0
    """

    def __init__(self, normalize: bool = True, gather: bool = False) -> None:
        super().__init__()
        self.normalize = normalize
        self.gather = gather

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        """Compares the two views.

        Arguments
        ---------
        z_a, z_b : torch.Tensor
            Embeddings of the two views (N, D), of any floating-point types. Row
            i of both comes from the same utterance.

        Returns
        -------
        torch.Tensor
            The loss, a scalar in float32 (float64 if a view is float64); NaN if
            an embedding holds NaN or infinity.

        Raises
        ------
        ValueError
            If the shapes differ or are not (N, D), the batch is empty, a type is
            not floating-point, or the devices differ.
        """
        check_pair("z_a and z_b", z_a, z_b)
        if len(z_a) != len(z_b):
            raise ValueError(
                f"{type(self).__name__} expects two views of the same shape (N, D), "
                f"found {tuple(z_a.shape)} and {tuple(z_b.shape)}"
            )
        with torch.autocast(z_a.device.type, enabled=False):
            views = widen(z_a, z_b)
            if self.normalize:
                views = [unit(z) for z in views]
            if self.gather:
                views = gather_rows(*views)
            check_some("z_a and z_b", *views)
            return self.compare(*views)

    def compare(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        """The loss of prepared views; each subclass has its own.

        Arguments
        ---------
        z_a, z_b : torch.Tensor
            Embeddings (N, D) in float32 or float64, gathered and normalised.

        Returns
        -------
        torch.Tensor
            A scalar.
        """
        raise NotImplementedError
