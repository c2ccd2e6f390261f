"""Weighted sum of named loss terms."""

import math
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("multitask")
class MultitaskLoss(nn.Module):
    """Computes a weighted sum of named terms, and returns each term for the log.

    total = sum over names of weight[name] * term[name]

    The paper's weights are ``{"emotion": 1.0, "augmentation": 0.1, "contrastive": 0.5,
    "information_maximization": 0.5}``. A term with weight 0 need not be computed, see
    :meth:`active`.

    Arguments
    ---------
    weights : dict of str to float
        Weight of each term, finite, at least 0; at least one above 0.

    Raises
    ------
    ValueError
        If a weight is negative or not finite, or none is above 0.

    References
    ----------
    Ahn et al. 2023, section 3.5: "Integrating contrastive learning into a multitask
    transformer model for effective domain adaptation", arXiv:2310.04703.

    Example
    -------
    >>> import torch
    >>> loss = MultitaskLoss({"emotion": 1.0, "contrastive": 0.5, "augmentation": 0.0})
    >>> loss.active("contrastive"), loss.active("augmentation")
    (True, False)
    >>> terms = {"emotion": torch.tensor(2.0), "contrastive": torch.tensor(3.0)}
    >>> total, values = loss(terms)
    >>> total.item(), values["contrastive"].item()
    (3.5, 3.0)
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        bad = {k: w for k, w in weights.items() if not (math.isfinite(w) and w >= 0)}
        if bad:
            raise ValueError(f"weights must be finite and at least 0, found {bad}")
        if not any(weights.values()):
            raise ValueError(f"at least one weight must be above 0, found {weights}")
        self.weights = dict(weights)

    def active(self, name: str) -> bool:
        """Returns whether a term has a weight above 0, so that it must be computed.

        Arguments
        ---------
        name : str
            Name of a term.

        Returns
        -------
        bool
            True if its weight is above 0.

        Raises
        ------
        ValueError
            If there is no such term.
        """
        self._check_known([name])
        return self.weights[name] > 0

    def forward(
        self, terms: Mapping[str, Tensor | None]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the weighted sum for a batch.

        Arguments
        ---------
        terms : dict of str to torch.Tensor or None
            One scalar per active term. None: this batch has no such term, for example
            no emotion labels. A term with weight 0 may be left out; if given, it is
            returned but not added, so that its NaN does not affect the total.

        Returns
        -------
        total : torch.Tensor
            Weighted sum, a scalar.
        values : dict of str to torch.Tensor
            The given terms, unweighted and detached.

        Raises
        ------
        ValueError
            If a name is unknown, an active term is missing, or all active terms are
            None.
        """
        self._check_known(terms)
        active = [name for name in self.weights if self.active(name)]
        missing = [name for name in active if name not in terms]
        if missing:
            raise ValueError(
                f"terms without a value: {missing}. Give each active term, with "
                "None where a batch has no such term, or set its weight to 0"
            )
        values = {k: v for k, v in terms.items() if v is not None}
        weighted = [self.weights[k] * values[k] for k in active if k in values]
        if not weighted:
            raise ValueError(f"no active term among {active} has a value")
        total = sum(weighted[1:], start=weighted[0])
        return total, {k: v.detach() for k, v in values.items()}

    def _check_known(self, names: Iterable[str]) -> None:
        unknown = [name for name in names if name not in self.weights]
        if unknown:
            raise ValueError(
                f"unknown loss terms {unknown}; the weights name {list(self.weights)}"
            )
