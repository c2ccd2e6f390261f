"""Counting epochs in rounds, and early stopping."""

import math

import pytest
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_ser_cl.training import RoundCounter


def epochs_run(counter, scores):
    """Returns the epochs of a training with these scores."""
    run = []
    for epoch in counter:
        run.append(epoch)
        counter.end_epoch(scores[epoch - 1])
    return run


@pytest.mark.parametrize(
    ("scores", "patience", "rounds"),
    [
        ([0.5, 0.6, 0.7, 0.8], 1, 4),
        ([0.5, 0.6, 0.6, 0.8], 1, 3),  # a tie is not a rise
        ([0.5, 0.4, 0.9, 0.8], 1, 2),
        ([0.5, 0.4, 0.5, 0.8], 2, 3),
        ([0.5, 0.4, 0.6, 0.6, 0.6, 0.9], 2, 5),  # a rise resets the count
        ([0.5, 0.4, 0.3, 0.2], None, 4),
        ([math.nan, math.nan, math.nan, 0.5], 2, 2),
    ],
)
def test_training_ends_after_patience_rounds_without_a_rise(scores, patience, rounds):
    counter = RoundCounter(n_rounds=len(scores), phases=1, patience=patience)
    assert epochs_run(counter, scores) == list(range(1, rounds + 1))


def test_only_the_end_of_a_round_counts():
    counter = RoundCounter(n_rounds=5, phases=3, patience=1)
    # Best in the middle of a round: not counted.
    scores = [0.9, 0.9, 0.5, 0.9, 0.9, 0.6, 0.9, 0.9, 0.6, 1.0]
    assert epochs_run(counter, scores) == list(range(1, 10))
    assert counter.best_score == 0.6
    assert counter.stopped_early


def test_without_patience_all_rounds_are_run():
    counter = RoundCounter(n_rounds=3, phases=2)
    assert epochs_run(counter, [0.0] * 10) == [1, 2, 3, 4, 5, 6]
    assert not counter.stopped_early


@pytest.mark.parametrize("phases", [1, 2])
def test_resumed_at_the_end_of_any_epoch_it_continues_identically(tmp_path, phases):
    scores = [0.5, 0.6, 0.6, 0.55, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]
    whole = RoundCounter(n_rounds=6, phases=phases, patience=2)
    run = epochs_run(whole, scores)
    for killed_after in range(1, len(run) + 1):
        counter = RoundCounter(n_rounds=6, phases=phases, patience=2)
        checkpointer = Checkpointer(tmp_path / f"{killed_after}", {"counter": counter})
        for epoch in counter:
            counter.end_epoch(scores[epoch - 1])
            checkpointer.save_and_keep_only()
            if epoch == killed_after:
                break
        resumed = RoundCounter(n_rounds=6, phases=phases, patience=2)
        checkpointer = Checkpointer(tmp_path / f"{killed_after}", {"counter": resumed})
        checkpointer.recover_if_possible()
        assert epochs_run(resumed, scores) == run[killed_after:]
        assert vars(resumed) == vars(whole)


def test_resumed_in_the_middle_of_an_epoch_it_enters_that_epoch_again(tmp_path):
    counter = RoundCounter(n_rounds=3, phases=2, patience=1)
    for epoch, score in ((1, 0.5), (2, 0.6)):
        assert next(counter) == epoch
        counter.end_epoch(score)
    assert next(counter) == 3
    Checkpointer(tmp_path, {"counter": counter}).save_checkpoint(end_of_epoch=False)
    resumed = RoundCounter(n_rounds=3, phases=2, patience=1)
    Checkpointer(tmp_path, {"counter": resumed}).recover_if_possible()
    assert next(resumed) == 3
    assert resumed.best_score == 0.6


def test_before_the_first_score_it_can_be_saved_as_well(tmp_path):
    counter = RoundCounter(n_rounds=3)
    next(counter)
    Checkpointer(tmp_path, {"counter": counter}).save_checkpoint(end_of_epoch=False)
    resumed = RoundCounter(n_rounds=3)
    Checkpointer(tmp_path, {"counter": resumed}).recover_if_possible()
    assert next(resumed) == 1
    assert resumed.best_score == -math.inf


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_rounds": 0}, "n_rounds must be at least 1, found 0"),
        ({"n_rounds": 1, "phases": 0}, "phases must be at least 1, found 0"),
        ({"n_rounds": 1, "patience": 0}, "patience must be at least 1.*found 0"),
    ],
)
def test_numbers_below_one_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        RoundCounter(**options)
