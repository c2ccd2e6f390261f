"""Averages of an epoch and a row per epoch."""

import json

import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_ser_cl.training import History


def batch(**terms):
    return {name: torch.tensor(value) for name, value in terms.items()}


def test_a_term_is_averaged_over_the_batches_that_had_it():
    history = History()
    history.add_batch(batch(emotion=1.0, contrastive=4.0))
    history.add_batch(batch(contrastive=2.0))
    history.add_batch(batch(emotion=2.0, contrastive=3.0))
    assert history.averages() == {"emotion": 1.5, "contrastive": 3.0}


def test_an_epoch_starts_with_empty_averages():
    history = History()
    history.add_batch(batch(emotion=1.0))
    history.end_epoch(1, phase="source")
    history.add_batch(batch(contrastive=5.0))
    history.end_epoch(2, phase="target", valid={"uar": 0.5})
    history.end_epoch(3)  # no batch
    assert history.epochs == [
        {"epoch": 1, "train": {"emotion": 1.0}, "phase": "source"},
        {
            "epoch": 2,
            "train": {"contrastive": 5.0},
            "phase": "target",
            "valid": {"uar": 0.5},
        },
        {"epoch": 3, "train": {}},
    ]


def test_a_checkpoint_has_the_unfinished_epoch_to_the_last_bit(tmp_path):
    history = History()
    history.add_batch(batch(emotion=0.1, contrastive=1 / 3))
    history.end_epoch(1)
    history.add_batch(batch(emotion=0.7, contrastive=1 / 7))
    history.nonfinite_batches = 3
    history.seconds = 12.5
    Checkpointer(tmp_path, {"history": history}).save_checkpoint(end_of_epoch=False)

    resumed = History()
    resumed.add_batch(batch(emotion=99.0))  # forgotten on recovery
    Checkpointer(tmp_path, {"history": resumed}).recover_if_possible()
    for one in (history, resumed):
        one.add_batch(batch(emotion=0.3, other=1.0))
        one.end_epoch(2, valid={"uar": 0.25})
    assert resumed.epochs == history.epochs
    assert (resumed.nonfinite_batches, resumed.seconds) == (3, 12.5)


def test_rows_are_plain_json():
    history = History()
    history.add_batch(batch(emotion=0.5))
    history.end_epoch(1, valid={"uar": 0.5}, lr=1e-4)
    assert json.loads(json.dumps(history.epochs)) == history.epochs


def test_averages_are_in_double_precision():
    history = History()
    for _ in range(100_000):
        history.add_batch(batch(emotion=0.1))
    expected = float(torch.tensor(0.1))
    assert history.averages()["emotion"] == pytest.approx(expected, rel=1e-10)
