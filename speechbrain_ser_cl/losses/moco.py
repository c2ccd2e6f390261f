"""Momentum contrast: keys of earlier batches as negatives."""

import torch
from torch import Tensor, nn

from speechbrain_ser_cl.losses.base import (
    ViewLoss,
    check_above_zero,
    closed_form,
    needs_gradient,
)
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("moco")
class MoCoQueue(ViewLoss):
    r"""Identifies each query's key among the keys of earlier batches.

    .. math::
        L = \frac{1}{N} \sum_i -\log \frac{\exp(s(q_i, k_i) / \tau)}
            {\exp(s(q_i, k_i) / \tau) + \sum_{j=1}^{Q} \exp(s(q_i, k^-_j) / \tau)}

    with s the cosine and k^- the Q keys in the queue (equation 1). The keys of a batch
    then replace the oldest keys of the queue. Keys come from a second encoder, which
    :meth:`update_key_encoder` moves towards the first (equation 2). Keys get no
    gradient.

    Until the queue contains ``size`` keys, Q is their number. The first batch has no
    negatives, so its loss and gradient are 0 (the authors start with random keys). Keys
    are added in training mode only. The queue is part of ``state_dict()`` and so of
    checkpoints. A batch with NaN or infinity, whose loss is NaN, is not added
    to the queue.

    Arguments
    ---------
    size : int
        Largest number of keys in the queue, at least 1. Only the last ``size`` keys of
        a larger batch are kept.
    dim : int
        Size D of an embedding.
    momentum : float
        Weight of the old parameters in an update of the key encoder, in [0, 1].
    temperature : float
        tau, above 0.
    normalize : bool
        Whether to scale embeddings to length 1 first. False: s is the dot product.
    gather : bool
        Whether loss and queue include the rows of all processes; all queues are then
        equal. False: each process has its own queue.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    References
    ----------
    He et al. 2020, eqs. 1 and 2: "Momentum contrast for unsupervised visual
    representation learning", arXiv:1911.05722.

    Example
    -------
    >>> encoder, key_encoder = nn.Linear(3, 2), nn.Linear(3, 2)
    >>> loss = MoCoQueue(size=64, dim=2)
    >>> loss.update_key_encoder(encoder, key_encoder)
    >>> view_a, view_b = torch.randn(4, 3), torch.randn(4, 3)
    >>> loss(encoder(view_a), key_encoder(view_b)).item()  # nothing queued yet
    0.0
    >>> int(loss.filled)
    4
    """

    queue: Tensor
    filled: Tensor
    next_row: Tensor

    def __init__(
        self,
        size: int,
        dim: int,
        momentum: float = 0.999,
        temperature: float = 0.07,
        normalize: bool = True,
        gather: bool = False,
    ) -> None:
        super().__init__(normalize, gather)
        if size < 1 or dim < 1:
            raise ValueError(
                f"size and dim must be at least 1, found size={size}, dim={dim}"
            )
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], found {momentum}")
        check_above_zero("temperature", temperature)
        self.momentum = momentum
        self.temperature = temperature
        self.register_buffer("queue", torch.zeros(size, dim))
        # Number of rows with keys, and index of the next row to write.
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))
        self.register_buffer("next_row", torch.zeros((), dtype=torch.long))

    def compare(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        """Compares queries with their keys and the queue, then adds the keys.

        Arguments
        ---------
        z_a : torch.Tensor
            Prepared queries (N, D).
        z_b : torch.Tensor
            Prepared keys (N, D).

        Returns
        -------
        torch.Tensor
            The loss, a scalar of at least 0.

        Raises
        ------
        ValueError
            If D differs from the queue's.
        """
        size, dim = self.queue.shape
        if z_b.shape[1] != dim:
            raise ValueError(
                f"this queue holds embeddings of size {dim}, found {z_b.shape[1]}"
            )
        keys = z_b.detach()
        needed = needs_gradient(z_a)
        with torch.no_grad():
            queue = self.queue
            on_cpu = queue.is_cpu and not torch.compiler.is_compiling()
            if on_cpu:
                queue = queue[: int(self.filled)]
            queue = queue.to(z_a.dtype)
            scaled = z_a / self.temperature
            # In column 0 the own key, then the queue.
            s = scaled.new_empty(len(keys), 1 + len(queue))
            torch.sum(scaled * keys, dim=1, out=s[:, 0])
            left_out = scaled.new_zeros(len(queue))
            if not on_cpu:  # Reading the number of keys would wait for a GPU.
                empty = torch.arange(size, device=z_a.device) >= self.filled
                left_out.masked_fill_(empty, -torch.inf)
            torch.addmm(left_out, scaled, queue.T, out=s[:, 1:])
            s.sub_(s.amax(dim=1, keepdim=True))
            own = s[:, 0].sum()
            divisor = s.exp_().sum(dim=1, keepdim=True)
            total = divisor.log().sum() - own
            gradients = []
            if needed:
                pulled = (s[:, 1:] @ queue).addcmul_(s[:, :1] - divisor, keys)
                gradients = [pulled.div_(divisor * self.temperature)]
        loss = closed_form(total, len(keys), gradients, [z_a])
        if self.training:
            self._enqueue(keys, loss.detach().isfinite())
        return loss

    @torch.no_grad()
    def _enqueue(self, keys: Tensor, finite: Tensor) -> None:
        """Adds keys to the queue if the loss is finite."""
        size = len(self.queue)
        keys = keys[-size:].to(self.queue.dtype)
        rows = (self.next_row + torch.arange(len(keys), device=keys.device)) % size
        # No branch on `finite`, which would wait for the GPU.
        self.queue[rows] = torch.where(finite, keys, self.queue[rows])
        added = len(keys) * finite
        self.next_row.copy_((self.next_row + added) % size)
        self.filled.copy_((self.filled + added).clamp(max=size))

    @torch.no_grad()
    def update_key_encoder(self, encoder: nn.Module, key_encoder: nn.Module) -> None:
        """Moves the key encoder towards the encoder.

        Each parameter becomes momentum times itself plus (1 - momentum) times the
        encoder's, equation 2; buffers are copied. Call this after each optimiser step.
        The key encoder starts as a ``copy.deepcopy`` of the encoder.

        Arguments
        ---------
        encoder : torch.nn.Module
            Encoder that is trained.
        key_encoder : torch.nn.Module
            Second encoder with the same layers, modified in place.
        """
        for ours, theirs in zip(
            key_encoder.parameters(), encoder.parameters(), strict=True
        ):
            ours.lerp_(theirs, 1 - self.momentum)
        for kept, new in zip(key_encoder.buffers(), encoder.buffers(), strict=True):
            kept.copy_(new)
