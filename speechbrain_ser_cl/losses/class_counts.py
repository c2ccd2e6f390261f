"""Cross-entropy losses for classes of unequal size."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from speechbrain_ser_cl.losses.base import ClassLoss
from speechbrain_ser_cl.registry import LOSSES


class _CountsLoss(ClassLoss):
    """Base class of losses that need the number of utterances of each class."""

    of_class: Tensor

    def __init__(self, class_counts: Sequence[int]) -> None:
        super().__init__()
        if not class_counts or any(count < 1 for count in class_counts):
            raise ValueError(
                "class_counts must be the number of training utterances of each "
                f"class, each at least 1, found {list(class_counts)}"
            )

    def checked(self, labels: Tensor, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns classes (N,), and which are known (None: all)."""
        if logits.shape[1] != len(self.of_class):
            raise ValueError(
                f"class_counts has {len(self.of_class)} classes, the logits have "
                f"{logits.shape[1]}"
            )
        return super().checked(labels, logits)


@LOSSES.register("class_balanced")
class ClassBalancedLoss(_CountsLoss):
    r"""Computes cross-entropy with larger weights for rare classes.

    .. math::
        L = \frac{1}{N} \sum_i -w_{y_i} \log p_{i y_i}, \qquad
        w_c \propto \frac{1 - \beta}{1 - \beta^{n_c}}, \quad \sum_c w_c = C

    with p the softmax of the logits and n_c the number of training utterances of class
    c. The weights are inverse to the effective number of utterances. beta = 0 gives
    equal weights; beta near 1 gives weights nearly proportional to 1 / n_c.

    Labels are integers (N,), as a tensor or a list. -1 is unknown and left out. Without
    known labels the loss is 0 with gradient 0. NaN or infinity in a logit gives NaN.

    Arguments
    ---------
    class_counts : sequence of int
        n, each at least 1.
    beta : float
        In [0, 1).

    Raises
    ------
    ValueError
        If a count or beta is out of its range.

    References
    ----------
    Cui et al. 2019, section 3.2: "Class-balanced loss based on effective number of
    samples", arXiv:1901.05555.

    Example
    -------
    >>> loss = ClassBalancedLoss([100, 300], beta=0.9999)
    >>> loss.of_class  # nearly 3 to 1
    tensor([1.4963, 0.5037])
    """

    def __init__(self, class_counts: Sequence[int], beta: float = 0.9999) -> None:
        super().__init__(class_counts)
        if not 0 <= beta < 1:
            raise ValueError(f"beta must be in [0, 1), found {beta}")
        counts = torch.tensor(class_counts, dtype=torch.float64)
        weights = (1 - beta) / (1 - beta**counts)
        weights = weights * len(counts) / weights.sum()
        self.register_buffer("of_class", weights.float(), persistent=False)

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss of each row."""
        losses = F.cross_entropy(logits, labels, reduction="none")
        return self.of_class.to(logits.dtype)[labels] * losses


@LOSSES.register("logit_adjusted")
class LogitAdjustedLoss(_CountsLoss):
    r"""Computes cross-entropy of the logits plus the log-frequencies of the classes.

    .. math::
        L = \frac{1}{N} \sum_i -\log
            \frac{\exp(x_{i y_i} + \tau \log \pi_{y_i})}
                 {\sum_c \exp(x_{ic} + \tau \log \pi_c)}

    with x the logits and pi the classes' shares of the training utterances. Prediction
    uses the logits x alone, which then fit equal class frequencies, as unweighted
    average recall needs.

    Labels are integers (N,), as a tensor or a list. -1 is unknown and left out. Without
    known labels the loss is 0 with gradient 0. NaN or infinity in a logit gives NaN.

    Arguments
    ---------
    class_counts : sequence of int
        Number of training utterances of each class, at least 1.
    tau : float
        At least 0; 0 gives cross-entropy.

    Raises
    ------
    ValueError
        If a count or tau is out of its range.

    References
    ----------
    Menon et al. 2021, eq. 10: "Long-tail learning via logit adjustment",
    arXiv:2007.07314.

    Example
    -------
    >>> loss = LogitAdjustedLoss([100, 300])
    >>> round(loss(torch.zeros(1, 2), [0]).item(), 4)  # log 4
    1.3863
    """

    def __init__(self, class_counts: Sequence[int], tau: float = 1.0) -> None:
        super().__init__(class_counts)
        if not (math.isfinite(tau) and tau >= 0):
            raise ValueError(f"tau must be finite and at least 0, found {tau}")
        counts = torch.tensor(class_counts, dtype=torch.float64)
        added = tau * (counts / counts.sum()).log()
        self.register_buffer("of_class", added.float(), persistent=False)

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss of each row."""
        adjusted = logits + self.of_class.to(logits.dtype)
        return F.cross_entropy(adjusted, labels, reduction="none")
