"""Counts epochs in rounds and stops when the score stops rising."""

import math
from pathlib import Path

import yaml
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.epoch_loop import EpochCounter


@register_checkpoint_hooks
class RoundCounter(EpochCounter):
    """Counts epochs; a round is one epoch of each phase (source, then target).

    Training ends after ``n_rounds``, or earlier if the score has not risen above its
    best value for ``patience`` rounds in a row. A tie is not a rise (in SpeechBrain's
    ``EpochCounterWithStopper`` it is).

    Arguments
    ---------
    n_rounds : int
        Largest number of rounds, at least 1.
    phases : int
        Number of epochs per round, at least 1.
    patience : int, optional
        Number of rounds without a rise after which training ends, at least 1. 1 is the
        rule of Ahn et al. 2023, section 4.2. None: no early stopping.

    Raises
    ------
    ValueError
        If a number is below 1.

    Example
    -------
    >>> counter = RoundCounter(n_rounds=10, phases=2, patience=1)
    >>> for epoch in counter:
    ...     counter.end_epoch(score=0.5)
    >>> epoch
    4
    """

    def __init__(self, n_rounds: int, phases: int = 2, patience: int | None = None):
        for name, value in (("n_rounds", n_rounds), ("phases", phases)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, found {value}.")
        if patience is not None and patience < 1:
            raise ValueError(
                f"patience must be at least 1 round or null (never stop early), "
                f"found {patience}."
            )
        super().__init__(n_rounds * phases)
        self.phases = phases
        self.patience = patience
        self.best_score = -math.inf
        self.rounds_without_rise = 0

    def end_epoch(self, score: float) -> None:
        """Stores the validation score at the end of an epoch.

        Arguments
        ---------
        score : float
            Higher is better. Only the last epoch of a round counts.
        """
        if self.current % self.phases:
            return
        if score > self.best_score:
            self.best_score = score
            self.rounds_without_rise = 0
        else:
            self.rounds_without_rise += 1

    @property
    def stopped_early(self) -> bool:
        """Whether the patience is exhausted."""
        return self.patience is not None and self.rounds_without_rise >= self.patience

    def __next__(self) -> int:
        if self.stopped_early:
            raise StopIteration
        return int(super().__next__())

    @mark_as_saver
    def _save(self, path: str | Path) -> None:
        state = {
            "current": self.current,
            "best_score": float(self.best_score),
            "rounds_without_rise": self.rounds_without_rise,
        }
        with open(path, "w", encoding="utf-8") as file:
            yaml.safe_dump(state, file)

    @mark_as_loader
    def _recover(self, path: str | Path, end_of_epoch: bool = True) -> None:
        with open(path, encoding="utf-8") as file:
            state = yaml.safe_load(file)
        self.current = state["current"] if end_of_epoch else state["current"] - 1
        self.best_score = state["best_score"]
        self.rounds_without_rise = state["rounds_without_rise"]
