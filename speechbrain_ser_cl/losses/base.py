"""Base classes and helpers of losses: input checks, unit vectors, tiles of anchors."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from speechbrain_ser_cl.losses.distances import (
    DISTANCES,
    Compared,
    distances,
    dot_products,
)
from speechbrain_ser_cl.losses.gather import gather_rows

UNKNOWN = -1  # Label of a row whose class is unknown.
# Number of matrix elements that fit into a processor's cache: 1 MB in float32.
IN_CACHE = 2**18


def check_above_zero(name: str, value: float) -> None:
    """Raises a ValueError unless a value is a finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number above 0, found {value}")


def check_embeddings(name: str, embeddings: Tensor) -> None:
    """Raises a ValueError unless embeddings are (N, D), D >= 1, floating-point."""
    if not isinstance(embeddings, Tensor):
        raise ValueError(
            f"{name} must be a tensor (N, D), found a {type(embeddings).__name__}"
        )
    shape = embeddings.shape
    if not (len(shape) == 2 and shape[1] > 0 and embeddings.is_floating_point()):
        raise ValueError(
            f"{name} must be (N, D) of a floating-point type, found "
            f"{tuple(shape)} of {embeddings.dtype}"
        )


def check_pair(names: str, first: Tensor, second: Tensor) -> None:
    """Raises a ValueError unless embeddings are (N, D) and (M, D) on one device."""
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


def check_not_empty(names: str, *tensors: Tensor) -> None:
    """Raises a ValueError if a tensor has no rows."""
    if 0 in [t.shape[0] for t in tensors]:
        raise ValueError(
            f"{names}: expected at least one row, found shapes "
            f"{', '.join(str(tuple(t.shape)) for t in tensors)}"
        )


def widen(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Converts tensors to float64 if one of them is float64, else to float32."""
    dtype = torch.float32
    if {t.dtype for t in tensors} == {dtype}:
        return tensors
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(t.to(dtype) for t in tensors)


def as_tensor(
    name: str, values: Tensor | Sequence[Any], device: torch.device
) -> Tensor:
    """Converts a list or array of numbers to a tensor on this device.

    Raises a ValueError if the values are not numbers, are ragged, or are a tensor on
    another device.
    """
    if not isinstance(values, Tensor):
        try:
            return torch.as_tensor(values, device=device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{name} must be a tensor or a list of numbers, found a "
                f"{type(values).__name__}: {error}"
            ) from error
    if values.device != device:
        raise ValueError(
            f"{name} and embeddings must be on one device, found {values.device} and "
            f"{device}"
        )
    return values


def check_one_each(
    name: str, values: Tensor, number: int, of: str = "embeddings"
) -> Tensor:
    """Returns values (N,) from (N,) or (N, 1); raises a ValueError for other shapes."""
    rows = values.squeeze(1) if values.shape[1:] == (1,) else values
    if rows.shape != (number,):
        raise ValueError(
            f"{name} must be one for each of the {number} {of}, found shape "
            f"{tuple(values.shape)}"
        )
    return rows


def check_classes(labels: Tensor, number: int, of: str = "embeddings") -> Tensor:
    """Returns labels (N,) in int64; raises a ValueError for another type or shape.

    Arguments
    ---------
    labels : torch.Tensor
        Integers or booleans (N,) or (N, 1).
    number : int
        Number of rows N.
    of : str
        Name of the rows, for the message.
    """
    if labels.dtype == torch.long and labels.shape == (number,):
        return labels
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels must be integers, found {labels.dtype}")
    return check_one_each("labels", labels, number, of).long()


_NO_CHANGE = nullcontext()


def full_precision(z: Tensor) -> AbstractContextManager[None]:
    """Returns a context without autocast on a tensor's device."""
    # A device's type takes as long as a small operation.
    kind = "cpu" if z.is_cpu else z.device.type
    if torch.is_autocast_enabled(kind):
        off: AbstractContextManager[None] = torch.autocast(kind, enabled=False)
        return off
    return _NO_CHANGE


def closed_form(
    total: Tensor,
    count: Tensor | int,
    gradients: Sequence[Tensor],
    inputs: Sequence[Tensor],
) -> Tensor:
    """Returns total / count, a scalar, with gradients that were computed before.

    NaN if an input contains NaN or infinity. A backward pass with
    ``create_graph=True``, for second derivatives, raises an error.

    Arguments
    ---------
    total : torch.Tensor
        A scalar.
    count : torch.Tensor or int
        Divisor, a scalar.
    gradients : sequence of torch.Tensor
        Gradient of the total with respect to each input; empty if none is needed.
    inputs : sequence of torch.Tensor
        Tensors from which the total was computed.

    Example
    -------
    >>> x = torch.ones(2, requires_grad=True)
    >>> closed_form(torch.tensor(6.0), 2, [torch.tensor([2.0, 4.0])], [x]).backward()
    >>> x.grad
    tensor([1., 2.])
    """
    if isinstance(count, Tensor) or count != 1:
        total = total / count
        gradients = [gradient / count for gradient in gradients]
    if gradients:
        value: Tensor = _ClosedForm.apply(  # type: ignore[no-untyped-call]
            total, *inputs, *gradients
        )
        return value
    for z in inputs:
        total = total + zero_or_nan(z)
    return total


class _ClosedForm(torch.autograd.Function):
    """Stores the gradients of a value; see :func:`closed_form`."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *both: Tensor) -> Tensor:
        """Returns the value; ``both`` are the inputs, then a gradient for each."""
        half = len(both) // 2
        ctx.save_for_backward(*both[half:])
        for z in both[:half]:
            value = torch.add(value, z.sum(), alpha=0)
        return value

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        """Multiplies the stored gradients by the gradient of the value."""
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(
                "this loss has no second derivatives: call backward() or "
                "autograd.grad() without create_graph=True"
            )
        both = ctx.saved_tensors
        # Reading a factor that is on a GPU would wait for it.
        plain = outer.is_cpu and not torch.compiler.is_compiling() and outer.item() == 1
        if not plain:
            both = [gradient.mul(outer) for gradient in both]
        return (None, *both, *([None] * len(both)))


def needs_gradient(*inputs: Tensor) -> bool:
    """Returns whether an input needs a gradient."""
    return torch.is_grad_enabled() and True in [z.requires_grad for z in inputs]


def scaled_rows(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns rows of length 1, and the two divisors of each row."""
    # Divides by the largest value first, because squares could overflow.
    largest = z.abs().amax(dim=1, keepdim=True)
    largest = torch.threshold_(largest, torch.finfo(z.dtype).tiny, 1)
    z = z / largest
    # At least 1, except for rows of zeros.
    length = torch.linalg.vector_norm(z, dim=1, keepdim=True).clamp_(min=1)
    # Not in place: compiled, what a Function returns would have a gradient of 0.
    return z / length, length, largest


def scaled_rows_backward(
    outer: Tensor, rows: Tensor, length: Tensor, largest: Tensor
) -> Tensor:
    """Converts the gradient of the rows of :func:`scaled_rows` to that of its input."""
    along = (outer * rows).sum(dim=1, keepdim=True)
    gradient: Tensor = torch.addcmul(outer, rows, along, value=-1)
    # Two divisions, because the product of both divisors could overflow.
    return gradient.div_(length).div_(largest)


class _Unit(torch.autograd.Function):
    """Scales rows to length 1; see :func:`unit`."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        """Divides rows by their length."""
        scaled = scaled_rows(z)
        ctx.save_for_backward(*scaled)
        return scaled[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> Tensor:
        """Projects the gradient orthogonally to each row; divides by the row's norm."""
        return scaled_rows_backward(outer, *ctx.saved_tensors)


def unit(z: Tensor) -> Tensor:
    """Scales the rows of a matrix to length 1.

    A zero vector stays 0, and its gradient is passed on unchanged;
    ``torch.nn.functional.normalize`` multiplies that gradient by 1e12. Squares of very
    large or small numbers do not overflow or underflow.

    Example
    -------
    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    unit_rows: Tensor = _Unit.apply(z)  # type: ignore[no-untyped-call]
    return unit_rows


def zero_or_nan(z: Tensor) -> Tensor:
    """Returns 0 with a graph, or NaN if the embeddings contain NaN or infinity.

    Added to a loss, it makes ``backward()`` possible if no pair took part, and it makes
    NaN visible that masks would hide.
    """
    return z.mul(0).sum()


def exponentials_(s: Tensor) -> tuple[Tensor, Tensor]:
    """Computes exponentials in place, relative to the largest value of each row.

    Arguments
    ---------
    s : torch.Tensor
        Matrix (A, N), overwritten; -infinity for excluded entries.

    Returns
    -------
    logsumexp : torch.Tensor
        Log-sum-exp of each row (A,); -infinity if all entries are excluded.
    total : torch.Tensor
        Divisor that makes a row of ``s`` a softmax, (A, 1), above 0.

    Example
    -------
    >>> s = torch.tensor([[0.0, 0.0, -torch.inf]])
    >>> logsumexp, total = exponentials_(s)
    >>> logsumexp, s / total  # log 2
    (tensor([0.6931]), tensor([[0.5000, 0.5000, 0.0000]]))
    """
    # Finite, even if all entries of a row are excluded.
    largest = s.amax(dim=1, keepdim=True).clamp_(min=torch.finfo(s.dtype).min)
    total = s.sub_(largest).exp_().sum(dim=1, keepdim=True)
    logsumexp = total.log().add_(largest).squeeze(1)
    return logsumexp, total.clamp_(min=torch.finfo(s.dtype).tiny)


def pack(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Lists the columns that are True in each row of a mask, left-aligned.

    Arguments
    ---------
    mask : torch.Tensor
        Booleans (A, N).

    Returns
    -------
    columns : torch.Tensor
        (A, K), K: largest number of columns in a row; 0 in unused places.
    valid : torch.Tensor
        Booleans (A, K): False in unused places.

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


class Tile:
    """Some anchors of a batch, which are compared with all of its rows.

    Arguments
    ---------
    rows : torch.Tensor or slice
        Indices of the anchors in the batch (A,).
    labels : torch.Tensor
        Labels of the batch (N, ...).

    Example
    -------
    >>> Tile(torch.tensor([1]), torch.tensor([0, 0, 1])).positives()
    tensor([[ True, False, False]])
    """

    def __init__(self, rows: Tensor | slice, labels: Tensor) -> None:
        self.rows = rows
        self.labels = labels
        self.anchor_labels = labels[rows]

    def fill_own_(self, matrix: Tensor, value: float) -> Tensor:
        """Sets the entries between an anchor and itself in a matrix (A, N)."""
        if isinstance(self.rows, slice):
            matrix.diagonal(self.rows.start).fill_(value)
        else:
            matrix[torch.arange(len(matrix), device=matrix.device), self.rows] = value
        return matrix

    def same(self) -> Tensor:
        """Returns booleans (A, N): rows with the anchor's label, including itself."""
        return self.anchor_labels[:, None] == self.labels

    def positives(self) -> Tensor:
        """Returns booleans (A, N): other rows with the anchor's label."""
        return self.fill_own_(self.same(), False)


class PairLoss(nn.Module):
    """Base class of losses that compare each embedding of a batch with all others.

    The loss is a sum over anchors divided by a count. :meth:`terms` of a subclass
    returns what some anchors add to both, and the gradient with respect to the
    similarities. Forward and backward are therefore one pass over tiles of anchors: no
    matrix of all pairs is stored, and memory is linear in N. The gradient cannot be
    differentiated again.

    Arguments
    ---------
    normalize : bool
        Whether to scale embeddings to length 1 first, so that dot products are cosines.
    gather : bool
        Whether to compare across all processes, see :func:`~.gather.gather_rows`.
    temperature : float
        Divisor of the dot products, above 0. A subclass may replace it by a scalar
        ``torch.nn.Parameter`` to learn it.

    Raises
    ------
    ValueError
        If the temperature is not a finite number above 0.

    Example
    -------
    >>> class Nearness(LabelLoss):
    ...     def terms(self, s, tile):
    ...         positives = tile.positives().to(s.dtype)
    ...         return ((1 - s) * positives).sum(), positives.sum(), -positives
    >>> loss = Nearness()
    >>> loss(torch.eye(3), torch.tensor([0, 0, 1])).item()
    1.0
    """

    # Largest number of elements of a matrix (anchors, batch); at least one row is
    # computed. None: depends on the device.
    tile: int | None = None
    # Embeddings times c have similarities times c ** degree.
    degree = 2
    temperature: float | Tensor

    def __init__(
        self, normalize: bool = True, gather: bool = False, temperature: float = 1.0
    ) -> None:
        super().__init__()
        check_above_zero("temperature", temperature)
        self.normalize = normalize
        self.gather = gather
        self.temperature = temperature

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | Sequence[Any],
        anchors: Tensor | None = None,
    ) -> Tensor:
        """Computes the loss of a batch.

        Arguments
        ---------
        embeddings : torch.Tensor
            (N, D), of any floating-point type.
        labels : torch.Tensor or sequence
            One label per row, as described above. Rows with an unknown label are left
            out.
        anchors : torch.Tensor or None
            Booleans (N,): rows that are anchors. Other rows are only positives and
            negatives. None: every row is an anchor.

        Returns
        -------
        torch.Tensor
            The loss, a scalar in float32 (float64 for float64 embeddings). 0 with
            gradient 0 if nothing can be compared; NaN if an embedding contains NaN or
            infinity.

        Raises
        ------
        ValueError
            If shapes, types or devices do not fit together, or the batch is empty.
        """
        check_embeddings("embeddings", embeddings)
        device = embeddings.device
        labels = as_tensor("labels", labels, device)
        labels, known = self.checked(labels, embeddings.shape[0])
        rows = [labels]
        if anchors is not None:
            anchors = as_tensor("anchors", anchors, device)
            if anchors.dtype != torch.bool:
                raise ValueError(f"anchors must be booleans, found {anchors.dtype}")
            if anchors.shape != (len(embeddings),):
                raise ValueError(
                    f"anchors must be one for each of the {len(embeddings)} "
                    f"embeddings, found shape {tuple(anchors.shape)}"
                )
            rows.append(anchors)
        with full_precision(embeddings):
            (z,) = widen(embeddings)
            broken = None
            if known is not None:
                broken = zero_or_nan(z)
                z, *rows = (t[known] for t in (z, *rows))
            if self.gather:
                z, *rows = gather_rows(z, *rows)
            if broken is None:
                check_not_empty("embeddings", z)
            elif not len(z):
                return broken
            loss = self._over_tiles(z, *rows)
            return loss if broken is None else loss + broken

    def _over_tiles(
        self, z: Tensor, labels: Tensor, anchors: Tensor | None = None
    ) -> Tensor:
        """Computes loss and gradient in one pass over tiles of anchors."""
        inputs = [z]
        if isinstance(self.temperature, Tensor):
            inputs.append(self.temperature)
        needed = needs_gradient(*inputs)
        with torch.set_grad_enabled(False):
            u, *lengths = scaled_rows(z) if self.normalize else (z,)
            places = None if anchors is None else anchors.nonzero().squeeze(1)
            number = z.shape[0]
            most = self.tile or (2**20 if z.is_cpu else 2**26)
            # At least 128 anchors, because the gradient of all rows is added per tile.
            step = max(1 if self.tile else 128, most // number)
            if places is None and step >= number:
                tile = Tile(slice(0, number), labels)
                s, pull_back = self.compare(u, u, tile)
                total, count, gradient = self._terms_in_cache(s, tile)
                gradients = list(pull_back(gradient)) if needed else []
            else:
                total, count = z.new_zeros(()), 0
                gradients = [torch.zeros_like(z)] if needed else []
                for start in range(0, number if places is None else len(places), step):
                    part = slice(start, start + step)
                    rows = part if places is None else places[part]
                    tile = Tile(rows, labels)
                    s, pull_back = self.compare(u[rows], u, tile)
                    of_tile, counted, gradient = self._terms_in_cache(s, tile)
                    total += of_tile
                    count = counted + count
                    if needed:
                        of_anchors, of_all = pull_back(gradient)
                        gradients[0] += of_all
                        gradients[0][rows] += of_anchors
            count = count.clamp(min=1) if isinstance(count, Tensor) else max(1, count)
            if len(inputs) > 1 and needed:
                # Similarities have this degree in z and degree -1 in the temperature.
                along = (gradients[0] * u).sum()
                gradients.append(along / (-self.degree * inputs[1]))
            if lengths and needed:
                gradients[0] = scaled_rows_backward(gradients[0], u, *lengths)
        return closed_form(total, count, gradients, inputs)

    def _terms_in_cache(
        self, s: Tensor, tile: Tile
    ) -> tuple[Tensor, Tensor | int, Tensor]:
        """Computes :meth:`terms` of a few anchors at a time."""
        # A matrix product is fast for many anchors. The operations after it are twice
        # as fast on a few rows that fit into a processor's second-level cache.
        step = max(1, IN_CACHE // s.shape[1]) if s.is_cpu else s.shape[0]
        if step >= s.shape[0]:
            return self.terms(s, tile)
        gradient = torch.empty_like(s)
        total = s.new_zeros(())
        count: Tensor | int = 0
        for start in range(0, s.shape[0], step):
            part = slice(start, min(start + step, s.shape[0]))
            rows = tile.rows
            if isinstance(rows, slice):
                rows = slice(rows.start + part.start, rows.start + part.stop)
            else:
                rows = rows[part]
            of_part, counted, gradient[part] = self.terms(
                s[part], Tile(rows, tile.labels)
            )
            total += of_part
            count = counted + count
        return total, count, gradient

    def checked(self, labels: Tensor, number: int) -> tuple[Tensor, Tensor | None]:
        """Converts labels to the type that :meth:`terms` needs; finds unknown ones.

        Arguments
        ---------
        labels : torch.Tensor
            Labels given by the caller.
        number : int
            Expected number.

        Returns
        -------
        labels, known : torch.Tensor
            (N, ...), and booleans (N,); None: all.

        Raises
        ------
        ValueError
            If type or shape is wrong.
        """
        raise NotImplementedError

    def compare(self, anchors: Tensor, z: Tensor, tile: Tile) -> Compared:
        """Compares some anchors with the batch, by default dot products / temperature.

        Arguments
        ---------
        anchors, z : torch.Tensor
            (A, D) and (N, D); the same tensor if all rows are anchors.
        tile : Tile
            The anchors' indices, and labels.

        Returns
        -------
        matrix : torch.Tensor
            (A, N).
        pull_back : callable
            Converts a gradient of the matrix to those of anchors and z, or to one, if
            both are the same tensor.
        """
        return dot_products(anchors, z, self.temperature)

    def terms(self, s: Tensor, tile: Tile) -> tuple[Tensor, Tensor | int, Tensor]:
        """Computes what some of the anchors add to the loss.

        Arguments
        ---------
        s : torch.Tensor
            Result of ``compare`` (A, N); may be overwritten.
        tile : Tile
            The anchors, and the labels.

        Returns
        -------
        total, count : torch.Tensor
            Two scalars: a sum, and its divisor (may be an int).
        gradient : torch.Tensor
            Gradient of the total with respect to ``s``, (A, N).
        """
        raise NotImplementedError


class LabelLoss(PairLoss):
    """Base class of losses that compare embeddings by their classes.

    Labels are integers (N,) or (N, 1), as a tensor or a list. Several views of an
    utterance are rows with the same label. Label -1 is unknown.
    """

    def checked(self, labels: Tensor, number: int) -> tuple[Tensor, Tensor | None]:
        """Returns integers, see :func:`check_classes`, and which are known."""
        labels = check_classes(labels, number)
        if number == 0 or labels.min().item() > UNKNOWN:
            return labels, None
        return labels, labels != UNKNOWN


class ValueLoss(PairLoss):
    """Base class of losses that compare embeddings by numeric labels.

    Labels are numbers (N,) or (N, K), such as arousal and valence. Rows with NaN are
    unknown.
    """

    def checked(self, labels: Tensor, number: int) -> tuple[Tensor, Tensor | None]:
        """Returns numbers (N, K), and which rows have no NaN."""
        of_rows = labels.dim() in (1, 2) and labels.shape[0] == number
        if not of_rows or 0 in labels.shape[1:]:
            raise ValueError(
                f"labels must be numbers, (N,) or (N, K), for each of the {number} "
                f"embeddings, found shape {tuple(labels.shape)}"
            )
        labels = (labels if labels.is_floating_point() else labels.float()).detach()
        (labels,) = widen(labels[:, None] if labels.dim() == 1 else labels)
        if not math.isnan(labels.sum().item()):
            return labels, None
        return labels, ~labels.isnan().any(dim=1)


class MarginLoss(PairLoss):
    """Base class of losses of distances and a margin; inherited before a label type.

    Arguments
    ---------
    margin : float
        Above 0.
    distance : str
        ``"cosine"``: 1 minus the cosine (the dot product without ``normalize``). Or
        ``"euclidean"``.
    normalize, gather : bool
        As for :class:`PairLoss`.

    Raises
    ------
    ValueError
        If the margin is not a finite number above 0, or the distance unknown.
    """

    def __init__(
        self, margin: float, distance: str, normalize: bool, gather: bool
    ) -> None:
        super().__init__(normalize, gather)
        check_above_zero("margin", margin)
        if distance not in DISTANCES:
            raise ValueError(
                f"distance must be one of {', '.join(DISTANCES)}, found {distance!r}"
            )
        self.margin = margin
        self.distance = distance

    def compare(self, anchors: Tensor, z: Tensor, tile: Tile) -> Compared:
        """Computes the distances."""
        return distances(anchors, z, self.distance, tile.fill_own_)


def label_distances(tile: Tile, of: Callable[[Tensor], Tensor]) -> Tensor:
    """Sums a function of the differences of labels over their dimensions.

    Arguments
    ---------
    tile : Tile
        Anchors, and labels (N, K).
    of : callable
        ``torch.abs_`` or ``torch.square_``.

    Returns
    -------
    torch.Tensor
        (A, N).

    Example
    -------
    >>> tile = Tile(slice(1), torch.tensor([[1.0, 1], [3, 4]]))
    >>> label_distances(tile, torch.abs_)
    tensor([[0., 5.]])
    """
    # One dimension at a time, without an array (A, N, K). torch.cdist would compute
    # squares from products, which loses digits.
    first, *others = zip(tile.anchor_labels.T, tile.labels.T, strict=True)
    total = of(first[0][:, None] - first[1])
    for of_anchors, of_rows in others:
        total += of(of_anchors[:, None] - of_rows)
    return total


class ViewLoss(nn.Module):
    """Base class of losses between two views of the same utterances.

    A subclass has a method ``compare(z_a, z_b)`` that returns the loss.

    Arguments
    ---------
    normalize : bool
        Whether to scale embeddings to length 1 first, so that dot products are cosines.
    gather : bool
        Whether to compare across all processes, see :func:`~.gather.gather_rows`.

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
            Embeddings of the two views (N, D), of any floating-point types. Row i of
            each view belongs to utterance i.

        Returns
        -------
        torch.Tensor
            The loss, a scalar in float32 (float64 if a view is float64); NaN if an
            embedding contains NaN or infinity.

        Raises
        ------
        ValueError
            If the shapes differ or are not (N, D), the batch is empty, a type is not
            floating-point, or the devices differ.
        """
        check_pair("z_a and z_b", z_a, z_b)
        if len(z_a) != len(z_b):
            raise ValueError(
                f"{type(self).__name__} expects two views of the same shape (N, D), "
                f"found {tuple(z_a.shape)} and {tuple(z_b.shape)}"
            )
        with full_precision(z_a):
            views = widen(z_a, z_b)
            if self.normalize:
                views = tuple(unit(z) for z in views)
            if self.gather:
                views = gather_rows(*views)
            check_not_empty("z_a and z_b", *views)
            return self.compare(*views)

    def compare(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        """Computes the loss of prepared views.

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


class DomainLoss(nn.Module):
    """Base class of losses between the embeddings of two domains.

    A subclass has a method ``compare(source, target)`` that returns the loss.
    """

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Compares the two domains.

        Arguments
        ---------
        source, target : torch.Tensor
            Embeddings (N, D) and (M, D), of any floating-point types.

        Returns
        -------
        torch.Tensor
            The loss, a scalar of at least 0.

        Raises
        ------
        ValueError
            If shapes, types or devices do not fit together, or a domain has too few
            rows.
        """
        check_pair("source and target", source, target)
        check_not_empty("source and target", source, target)
        with full_precision(source):
            return self.compare(*widen(source, target))

    def compare(self, source: Tensor, target: Tensor) -> Tensor:
        """Computes the loss of embeddings (N, D) and (M, D) in float32 or float64."""
        raise NotImplementedError


def check_distributions(
    name: str, votes: Tensor, number: int, classes: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Converts votes to shares; raises an error for invalid votes.

    Arguments
    ---------
    name : str
        Name of the votes, for the message.
    votes : torch.Tensor
        Expected shape (N, C), at least 0. Unknown: NaN, -1 or no vote.
    number : int
        Number of rows N.
    classes : int or None
        Number of classes C. None: any.

    Returns
    -------
    shares, known : torch.Tensor
        (N, C), rows sum to 1, and booleans (N,); None: all.

    Raises
    ------
    ValueError
        If shape or values are wrong.

    Example
    -------
    >>> check_distributions("votes", torch.tensor([[3, 1], [0, 0]]), 2)
    (tensor([[0.7500, 0.2500],
            [0.0000, 0.0000]]), tensor([ True, False]))
    """
    matrix = votes.dim() == 2 and len(votes) == number
    if not matrix or votes.shape[1] != (classes or votes.shape[1]):
        raise ValueError(
            f"{name} must be votes (N, C) with N = {number}"
            + (f" and C = {classes}" if classes else "")
            + f", found shape {tuple(votes.shape)}"
        )
    votes = votes.detach().to(torch.promote_types(votes.dtype, torch.float32))
    sums = votes.sum(dim=1, keepdim=True)
    if number and votes.amin().item() >= 0:  # False for NaN
        low, high = [total.item() for total in sums.aminmax()]
        if low > 0 and high < torch.inf:
            return votes.div(sums), None
    right = (votes >= 0).logical_and_(votes < torch.inf)
    unknown = (votes.isnan() | (votes == UNKNOWN)).any(dim=1)
    if not (right | unknown[:, None]).all():
        raise ValueError(f"{name} must be at least 0 and finite, found another value")
    votes = votes.masked_fill(unknown[:, None], 0)
    sums = votes.sum(dim=1, keepdim=True)
    none = sums == 0
    return votes / sums.masked_fill_(none, 1), ~none.squeeze(1)


class LogitLoss(nn.Module):
    """Base class of losses of a classifier's logits, averaged over known labels.

    A subclass has methods ``checked(labels, logits)``, which returns labels and which
    of them are known, and ``row_losses(logits, labels)``.

    Example
    -------
    >>> from speechbrain_ser_cl.losses import FocalLoss
    >>> round(FocalLoss(0)(torch.zeros(2, 4), [3, -1]).item(), 4)  # log 4
    1.3863
    """

    def forward(self, logits: Tensor, labels: Tensor | Sequence[Any]) -> Tensor:
        """Computes the loss of a batch.

        Arguments
        ---------
        logits : torch.Tensor
            (N, C), of any floating-point type.
        labels : torch.Tensor or sequence
            Labels, as described above.

        Returns
        -------
        torch.Tensor
            The loss, a scalar in float32 (float64 for float64 logits).

        Raises
        ------
        ValueError
            If shapes, types, values or devices do not fit together, or the batch is
            empty.
        """
        check_embeddings("logits", logits)
        check_not_empty("logits", logits)
        labels = as_tensor("labels", labels, logits.device)
        labels, known = self.checked(labels, logits)
        with full_precision(logits):
            (x,) = widen(logits)
            return self.mean_loss(x, labels, known)

    def mean_loss(self, logits: Tensor, labels: Tensor, known: Tensor | None) -> Tensor:
        """Computes the mean of ``row_losses`` over known labels (None: all)."""
        broken = zero_or_nan(logits.detach())
        if known is None:
            return self.row_losses(logits, labels).mean() + broken
        mask = known if known.dim() == labels.dim() else known[:, None]
        losses = self.row_losses(logits, labels.masked_fill(~mask, 0))
        total = losses.masked_fill(~known, 0).sum()
        return total / known.sum().clamp(min=1) + broken

    def checked(self, labels: Tensor, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Converts labels for ``row_losses``; returns which are known (None: all)."""
        raise NotImplementedError

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss of each label, in the shape of ``checked``'s ``known``."""
        raise NotImplementedError


class ClassLoss(LogitLoss):
    """Base class of losses of a classifier's logits with classes (N,) as labels."""

    def checked(self, labels: Tensor, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns classes (N,), and which are known (None: all)."""
        labels = check_classes(labels, len(logits), "logits")
        low, high = [label.item() for label in labels.aminmax()]
        if low < UNKNOWN or high >= logits.shape[1]:
            raise ValueError(
                f"labels must be classes from 0 to {logits.shape[1] - 1}, or "
                f"{UNKNOWN} where unknown, found {low} to {high}"
            )
        return labels, None if low > UNKNOWN else labels != UNKNOWN
