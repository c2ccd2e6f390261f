"""Weighted sum of named loss terms."""

import math
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from speechbrain_ser_cl.registry import LOSSES


@LOSSES.register("multitask")
class MultitaskLoss(nn.Module):
    """Weighs named terms, adds them up, and hands each back for the log.

    total = sum over names of weight[name] * term[name]

    The paper's weights are ``{"emotion": 1.0, "augmentation": 0.1, "contrastive":
    0.5, "information_maximization": 0.5}``. A weight of 0 is an ablation: the term
    is then never needed, so ask :meth:`active` before computing it.

    Arguments
    ---------
    weights : dict of str to float
        Weight of each term, finite and at least 0; at least one above 0.

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
        """Tells whether a term counts and so has to be computed.

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
        """Adds up the terms of a batch.

        Arguments
        ---------
        terms : dict of str to torch.Tensor or None
            One scalar per active term. None says that this batch has no such
            term, as emotion cross-entropy where there are no labels. A term of
            weight 0 may be left out; if it is given it is handed back but takes
            no part in the sum, so that not even its NaN reaches the total.

        Returns
        -------
        total : torch.Tensor
            The weighted sum, a scalar.
        values : dict of str to torch.Tensor
            The terms that were given, unweighted and detached.

        Raises
        ------
        ValueError
            If a name is unknown, an active term is missing, or every active one
            is None.
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
