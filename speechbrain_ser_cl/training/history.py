"""The history of a training, which checkpoints contain."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)


@register_checkpoint_hooks
class History:
    """Averages loss terms over the batches of an epoch and keeps one row per epoch.

    A checkpoint also contains the unfinished epoch, so a resumed run reports the same
    averages as one that was not killed.

    Attributes
    ----------
    epochs : list of dict
        One row per epoch.
    nonfinite_batches : int
        Number of batches skipped because their gradient was not finite.
    seconds : float
        Duration of training and validation.
    tested : dict
        Row of the tested epoch; None before the test.

    Example
    -------
    >>> import torch
    >>> history = History()
    >>> history.add_batch({"emotion": torch.tensor(1.0)})
    >>> history.add_batch({"emotion": torch.tensor(2.0)})
    >>> history.end_epoch(1, domain="source", valid={"uar": 0.5}, lr=1e-4)
    >>> history.epochs[0]["train"]
    {'emotion': 1.5}
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, Any]] = []
        self.nonfinite_batches = 0
        self.seconds = 0.0
        self.tested: dict[str, Any] | None = None
        self._sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])

    def add_batch(self, terms: Mapping[str, Any]) -> None:
        """Adds the loss terms of a batch.

        Arguments
        ---------
        terms : mapping of str to scalar tensor
            Name to detached value.
        """
        for name, value in terms.items():
            self._sums[name][0] += float(value)
            self._sums[name][1] += 1

    def averages(self) -> dict[str, float]:
        """Computes the mean of each term over the batches of this epoch that had it."""
        return {name: total / count for name, (total, count) in self._sums.items()}

    def end_epoch(self, epoch: int, **columns: Any) -> None:
        """Ends the epoch with a row.

        Arguments
        ---------
        epoch : int
            Number of the epoch.
        **columns
            Further columns of the row.
        """
        self.epochs.append({"epoch": epoch, "train": self.averages(), **columns})
        self._sums.clear()

    @mark_as_saver
    def save(self, path: str | Path) -> None:
        """Writes the history to a file."""
        state = {
            "epochs": self.epochs,
            "nonfinite_batches": self.nonfinite_batches,
            "seconds": self.seconds,
            "sums": self._sums,
        }
        with open(path, "w", encoding="utf-8") as file:
            json.dump(state, file)

    @mark_as_loader
    def load(self, path: str | Path, end_of_epoch: bool = True) -> None:
        """Reads the history from a file and replaces the current one."""
        with open(path, encoding="utf-8") as file:
            state = json.load(file)
        self.epochs = state["epochs"]
        self.nonfinite_batches = state["nonfinite_batches"]
        self.seconds = state["seconds"]
        self._sums.clear()
        self._sums.update(state["sums"])
