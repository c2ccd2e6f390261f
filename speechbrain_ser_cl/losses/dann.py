"""Domain-adversarial training: a domain classifier behind a gradient reversal."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechbrain_ser_cl.losses.base import DomainLoss, check_above_zero, widen
from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("dann")
class DomainAdversarialLoss(DomainLoss):
    r"""Trains a domain classifier, and the encoder against it by a reversed gradient.

    .. math::
        L = \frac{1}{2} \left[ \frac{1}{N} \sum_i -\log \sigma(g(s_i))
            + \frac{1}{M} \sum_j -\log (1 - \sigma(g(t_j))) \right]

    with g a classifier with one hidden layer. It is part of this loss: give its
    parameters to the optimiser. The gradient of the embeddings is multiplied by
    -lambda, where lambda grows during training:

    .. math::
        \lambda = \frac{2}{1 + \exp(-\gamma \min(1, step / steps))} - 1

    Each call in training mode is a step. The count is part of ``state_dict()``, so that
    a resumed training continues with it.

    The value is log 2 if the classifier cannot separate the domains. A domain may have
    a single row. NaN or infinity in an embedding gives NaN. Labels are not used.

    Arguments
    ---------
    input_size : int
        Size D of an embedding.
    steps : int
        Number of calls in the whole training, after which lambda is constant.
    hidden_size : int
        Number of units of the hidden layer.
    gamma : float
        Speed of the growth of lambda, above 0.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    References
    ----------
    Ganin et al. 2016, section 5.2: "Domain-adversarial training of neural networks",
    arXiv:1505.07818.

    Example
    -------
    >>> loss = DomainAdversarialLoss(input_size=4, steps=100)
    >>> loss.reversal().item()  # no step done yet
    0.0
    >>> value = loss(torch.randn(8, 4), torch.randn(6, 4))
    >>> round(loss.reversal().item(), 6)  # 1 of 100
    0.049958
    """

    step: Tensor

    def __init__(
        self,
        input_size: int,
        steps: int,
        hidden_size: int = 256,
        gamma: float = 10.0,
    ) -> None:
        super().__init__()
        for name, value in (
            ("input_size", input_size),
            ("steps", steps),
            ("hidden_size", hidden_size),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, found {value}")
        check_above_zero("gamma", gamma)
        self.steps = steps
        self.gamma = gamma
        self.classifier = nn.Sequential(
            nn.Linear(input_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, 1)
        )
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def reversal(self) -> Tensor:
        """Returns the current lambda, the factor of the reversed gradient.

        Returns
        -------
        torch.Tensor
            A scalar in [0, 1).
        """
        return torch.as_tensor(self._reversal(), device=self.step.device)

    def _reversal(self) -> float | Tensor:
        """Returns the current lambda, on a CPU as a number."""
        half = self.gamma / 2
        per_step = half / self.steps
        # tanh(x) = 2 / (1 + exp(-2 x)) - 1
        if self.step.is_cpu:
            return math.tanh(min(self.step.item() * per_step, half))
        # Reading the step would wait for a GPU.
        return (self.step * per_step).clamp_(max=half).tanh_()

    # Compiled, the backward pass would compute lambda again, when the step is counted.
    _uncompiled_reversal: Callable[..., Tensor] = torch.compiler.disable(reversal)

    def compare(self, source: Tensor, target: Tensor) -> Tensor:
        """Computes the classifier's loss, and counts the step in training mode."""
        first, _, last = self.classifier
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        both = torch.cat([source, target]).to(first.weight.dtype)
        # Interpolates from the embeddings to themselves: the values stay (infinity
        # becomes NaN), and the gradient is multiplied by the weight.
        compiling = torch.compiler.is_compiling()
        weight = -(self._uncompiled_reversal() if compiling else self._reversal())
        if isinstance(weight, Tensor):
            weight = weight.to(both.dtype)
        both = torch.lerp(both.detach(), both, weight)
        # For a small batch, calling the modules would take most of the time.
        hidden = F.linear(both, first.weight, first.bias).relu_()
        (logits,) = widen(F.linear(hidden, last.weight, last.bias))
        n, m = source.shape[0], target.shape[0]
        domain = torch.zeros_like(logits)
        domain[:n] = 1
        shares = None
        if n != m:
            shares = torch.full_like(logits, (n + m) / (2 * m))
            shares[:n] = (n + m) / (2 * n)
        loss = F.binary_cross_entropy_with_logits(logits, domain, shares)
        if self.training:
            self.step.add_(1)
        return loss
